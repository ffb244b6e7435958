import random
from collections import Counter

import pytest

from stclip.data.jhmdb import DRAWN
from stclip.data.jhmdb_ground_truth import CLASSES
from stclip.puppet.draw.settings import SETTINGS, choose_actions, choose_frames, plan_clips

DRAWS = 4000


def drawn(setting):
    rng = random.Random(1)
    return [choose_actions(rng, SETTINGS[setting], "walk") for _ in range(DRAWS)]


def test_datasets_name_the_commands_that_draw_them():
    commands = {
        setting.folder: f"stclip puppet draw --setting {name}" for name, setting in SETTINGS.items()
    }
    assert commands == DRAWN


def test_clips_have_names_and_random_numbers_of_their_own():
    plans = plan_clips("standard", 3, 2, seed=0)
    assert [p.part for p in plans] == ["train"] * 63 + ["test"] * 42
    assert [p.action for p in plans[::3]][:21] == list(CLASSES)
    assert len({p.name for p in plans}) == len(plans)
    assert plans[0].name == "brush_hair_0001"
    assert plans[-1].name == "wave_5002"
    streams = [p.random(purpose).random() for p in plans for purpose in ("", "detections")]
    for setting, seed in (("crowd", 0), ("standard", 1)):
        streams.append(plan_clips(setting, 3, 2, seed)[0].random().random())
    assert len(set(streams)) == len(streams)
    fewer = plan_clips("standard", 1, 1, seed=0)
    assert set(fewer) < set(plans)


def test_a_generator_is_the_one_of_the_words():
    plan = plan_clips("crowd", 1, 0, seed=7)[1]
    assert plan.random().random() == random.Random("7/crowd/train/catch/1").random()
    assert plan.random("x").random() == random.Random("7/crowd/train/catch/1/x").random()


def test_lengths():
    rng = random.Random(0)
    lengths = [choose_frames(rng) for _ in range(DRAWS)]
    assert min(lengths) == 15
    assert max(lengths) == 40
    assert sum(lengths) / DRAWS == pytest.approx(25.3, abs=0.5)


def test_standard_clips_have_mostly_others_who_do_something_else():
    clips = drawn("standard")
    assert all(actions[0] == "walk" for actions in clips)
    shares = Counter(len(actions) for actions in clips)
    assert [shares[n] / DRAWS for n in (1, 2, 3)] == pytest.approx([0.1, 0.45, 0.45], abs=0.03)
    others = Counter(action for actions in clips for action in actions[1:])
    assert others.pop("walk") / (sum(others.values())) == pytest.approx(0.15 / 0.85, abs=0.03)
    assert set(others) == set(CLASSES) - {"walk"}


def test_nobody_in_a_crowd_does_the_same():
    clips = drawn("crowd")
    assert {len(actions) for actions in clips} == {4, 5}
    assert all(len(set(actions)) == len(actions) for actions in clips)


def test_context_clips_have_few_people():
    clips = drawn("context")
    assert {len(actions) for actions in clips} == {1, 2}
    assert all("walk" not in actions[1:] for actions in clips)
