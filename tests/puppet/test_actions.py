import random

import pytest

from stclip.data.jhmdb import CLASSES
from stclip.puppet.draw.actions import ACTIONS, EXTRA_ACTIONS
from stclip.puppet.draw.chance import Chance
from stclip.puppet.draw.figure import pose
from stclip.puppet.draw.motion import Curve, Motion, ramp
from stclip.puppet.draw.pen import flight
from stclip.puppet.draw.person import Person, plan_person
from stclip.puppet.draw.props import RELEASE

EVERY = {**ACTIONS, **EXTRA_ACTIONS}


def plan(name: str, seed: int = 0, frames: int = 21, apart: bool = False) -> Person:
    return plan_person(Chance(random.Random(seed)), EVERY[name], frames, "benchmark", apart)


def only_motion(name: str) -> Motion:
    (motion,) = ACTIONS[name].motions
    return motion


def test_the_actions_are_jhmdbs_and_the_others_are_not() -> None:
    assert tuple(ACTIONS) == CLASSES
    assert not set(ACTIONS) & set(EXTRA_ACTIONS)
    assert all(name == action.name for name, action in EVERY.items())


def test_standing_up_is_sitting_down_backwards() -> None:
    sit, stand = only_motion("sit"), only_motion("stand")
    down, up = Curve(sit.keys, cyclic=False), Curve(stand.keys, cyclic=False)
    for part in range(21):
        assert down(part / 20) == pytest.approx(up(1 - part / 20))
    assert sit.behind is stand.behind


def test_running_is_faster_than_walking_with_longer_steps() -> None:
    walks, runs = ACTIONS["walk"].motions, ACTIONS["run"].motions
    assert all(motion.cycle is not None for motion in (*walks, *runs))
    slowest_run = max(motion.cycle[1] for motion in runs if motion.cycle)
    assert slowest_run < min(motion.cycle[0] for motion in walks if motion.cycle)
    assert min(m.stride for m in runs) > max(m.stride for m in walks)


@pytest.mark.parametrize("name", EVERY)
def test_keys_are_in_order_and_within_a_cycle(name: str) -> None:
    for motion in EVERY[name].motions:
        times = [time for time, _ in motion.keys]
        assert times == sorted(set(times))
        assert times[0] >= 0
        assert times[-1] < 1 if motion.cycle else times[-1] <= 1


def test_a_curve_goes_through_its_keys_and_not_beyond() -> None:
    keys = ((0.0, pose(lean=0)), (0.3, pose(lean=40)), (0.4, pose(lean=45)), (0.9, pose(lean=10)))
    curve = Curve(keys, cyclic=False)
    assert [curve(time).lean for time, _ in keys] == pytest.approx([0, 40, 45, 10])
    assert curve(-1) == keys[0][1]
    assert curve(2) == keys[-1][1]
    leans = [curve(step / 200).lean for step in range(201)]
    assert max(leans) <= 45
    assert min(leans) >= 0
    assert leans[:81] == sorted(leans[:81])


def test_a_cycle_closes_without_a_jump() -> None:
    curve = Curve(((0.0, pose(lean=0)), (0.5, pose(lean=20))), cyclic=True)
    assert [curve(t).lean for t in (0, 0.25, 0.5, 0.75, 1, 2.25)] == pytest.approx(
        [0, 10, 20, 10, 0, 10]
    )


def test_ramp_and_flight() -> None:
    assert [ramp(t, 0.2, 0.6) for t in (0, 0.2, 0.3, 0.6, 1)] == pytest.approx([0, 0, 0.25, 1, 1])
    assert flight((0, 0), (4, 2), 1, 0.5) == (2, 2)
    assert flight((0, 0), (4, 2), 1, 1.0) == (4, 2)


def test_a_shot_ball_leaves_from_where_the_hands_are() -> None:
    person = plan("shoot_ball")
    touch = ACTIONS["shoot_ball"].motions[0].touch
    assert touch is not None
    assert touch[0] == RELEASE
    assert person.use.touch == touch[1](person.at(RELEASE).joints)


@pytest.mark.parametrize("name", ["catch", "throw", "kick_ball", "shoot_ball", "push"])
def test_apart_puts_the_prop_farther_away(name: str) -> None:
    usual = [plan(name, seed).use.distance for seed in range(12)]
    apart = [plan(name, seed, apart=True).use.distance for seed in range(12)]
    assert sum(apart) / 12 > sum(usual) / 12 + 0.1


def test_nobody_brushes_a_bald_head() -> None:
    hair = {plan("brush_hair", seed).hair for seed in range(40)}
    assert "no" not in hair
    assert "no" in {plan("wave", seed).hair for seed in range(40)}


@pytest.mark.parametrize("name", EVERY)
def test_no_joint_is_below_the_ground(name: str) -> None:
    for seed in range(4):
        person = plan(name, seed)
        for frame in range(person.frames):
            assert min(y for _, y in person.now(frame).joints[:15]) > -0.001
