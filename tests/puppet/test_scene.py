import hashlib
import random
from dataclasses import replace

import numpy as np
import pytest

from stclip.puppet.draw.actions import ACTIONS, EXTRA_ACTIONS
from stclip.puppet.draw.backdrop import PLACES
from stclip.puppet.draw.colours import CLOTHES
from stclip.puppet.draw.scene import HEIGHT, MOST_PEOPLE, WIDTH, Scene, plan_scene

NAMES = [*ACTIONS, *EXTRA_ACTIONS]


def some_actions(first: int, count: int) -> list[str]:
    return [NAMES[(first + 7 * other) % len(NAMES)] for other in range(count)]


def pixels(scene: Scene, frame: int) -> np.ndarray:
    return np.asarray(scene.draw(frame)[0])


def test_equal_states_give_equal_pixels_and_others_do_not() -> None:
    actions = ["golf", "walk", "sit"]
    a, b, c = (plan_scene(random.Random(seed), actions, 15) for seed in (1, 1, 2))
    for frame in (0, 7, 14, 3):  # in any order
        assert (pixels(a, frame) == pixels(b, frame)).all()
        assert a.draw(frame)[1] == b.draw(frame)[1]
    assert (pixels(a, 0) != pixels(c, 0)).any()


def test_pixels_are_the_same_on_every_machine() -> None:
    whole = hashlib.sha256()
    for index, name in enumerate(NAMES):
        look = ("benchmark", "pretrain")[index % 2]
        actions = [name, *some_actions(index + 1, index % 3)]
        scene = plan_scene(random.Random(index), actions, 20, look, apart=index % 4 == 0)
        for frame in (0, 9, 19):
            picture, boxes = scene.draw(frame)
            whole.update(picture.tobytes() + repr(boxes).encode())
    assert whole.hexdigest() == "c5c0886050308e3159f7e6a99a5f0a84c67e23f390b1a0fd86dc8b08a7227e74"


@pytest.mark.parametrize("count", range(1, MOST_PEOPLE + 1))
@pytest.mark.parametrize("look", ["benchmark", "pretrain"])
def test_every_action_draws_with_any_number_of_others(count: int, look: str) -> None:
    for index in range(len(NAMES)):
        actions = some_actions(index, count)
        scene = plan_scene(random.Random(index), actions, 15, look)
        assert scene.actions == tuple(actions)
        picture, boxes = scene.draw(index % 15)
        assert (picture.size, picture.mode) == ((WIDTH, HEIGHT), "RGB")
        assert len(boxes) == count
        for x1, y1, x2, y2 in boxes:
            assert 0 <= x1 < x2 <= WIDTH - 1
            assert 0 <= y1 < y2 <= HEIGHT - 1


@pytest.mark.parametrize("name", NAMES)
def test_the_box_is_that_of_the_body_without_props(name: str) -> None:
    scene = plan_scene(random.Random(f"box/{name}"), [name], 15)
    (person,) = scene.people
    person.motion = replace(person.motion, behind=None, held=None, before=None)
    empty = replace(scene, people=[])
    for frame in (0, 5, 10, 14):
        picture, ((x1, y1, x2, y2),) = scene.draw(frame)
        changed = (np.asarray(picture) != pixels(empty, frame)).any(axis=2)
        ys, xs = np.nonzero(changed)
        assert x1 <= xs.min() <= x1 + 2
        assert y1 <= ys.min() <= y1 + 2
        assert x2 - 2 <= xs.max() <= x2
        assert y2 - 2 <= ys.max() <= y2


@pytest.mark.parametrize("name", NAMES)
def test_it_moves(name: str) -> None:
    scene = plan_scene(random.Random(f"moves/{name}"), [name], 24)
    scene.shifts[:] = [(0.0, 0.0)] * 24  # the camera does not
    frames = {scene.draw(frame)[0].tobytes() for frame in range(24)}
    assert len(frames) >= (2 if name in ("salute", "read_book") else 8)


def test_the_looks_differ() -> None:
    a, b = (
        plan_scene(random.Random(0), ["walk", "jump"], 15, look)
        for look in ("benchmark", "pretrain")
    )
    assert (pixels(a, 0) != pixels(b, 0)).any()
    assert not set(CLOTHES["benchmark"].values()) & set(CLOTHES["pretrain"].values())
    assert set(CLOTHES["benchmark"]) == set(CLOTHES["pretrain"])


def test_people_are_seen_and_seldom_hide_one_another() -> None:
    crowded, pairs, low = 0, 0, []
    for seed in range(60):
        count = 2 + seed % 4
        scene = plan_scene(random.Random(seed), some_actions(seed, count), 20)
        boxes = scene.draw(seed % 20)[1]
        for index, a in enumerate(boxes):
            for b in boxes[:index]:
                pairs += 1
                crowded += overlap(a, b) > 0.3
        for person, (x1, y1, x2, y2) in zip(scene.people, boxes, strict=True):
            low.append((x2 - x1) * (y2 - y1) / person.size**2)
    assert crowded / pairs < 0.05
    assert min(low) > 0.1  # in squares of a figure height; somebody upright has a fifth


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_the_main_person_is_not_always_in_the_middle_or_the_largest() -> None:
    middles, largest = [], []
    for seed in range(40):
        scene = plan_scene(random.Random(seed), ["wave", "clap", "walk"], 15)
        boxes = scene.draw(0)[1]
        middles.append((boxes[0][0] + boxes[0][2]) / 2)
        largest.append(scene.people[0].size == max(person.size for person in scene.people))
    assert min(middles) < 45
    assert max(middles) > 115
    assert 0.1 < sum(largest) / 40 < 0.6


def test_words_for_captions() -> None:
    places = set()
    for seed in range(30):
        scene = plan_scene(random.Random(seed), ["run", "pick"], 15)
        places.add(scene.place)
        for person in scene.people:
            assert {person.shirt, person.trousers} <= set(CLOTHES["benchmark"])
            assert person.facing in (1, -1)
    assert places == set(PLACES)


def test_calls_that_make_no_sense_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ValueError, match="no such action: fly; there are brush_hair"):
        plan_scene(rng, ["walk", "fly"], 15)
    with pytest.raises(ValueError, match="0 actions; a scene has 1 to 5 people"):
        plan_scene(rng, [], 15)
    with pytest.raises(ValueError, match="no such look: 'noir'"):
        plan_scene(rng, ["walk"], 15, look="noir")
    with pytest.raises(ValueError, match="1 frames"):
        plan_scene(rng, ["walk"], 1)
    with pytest.raises(IndexError, match="frame 15"):
        plan_scene(rng, ["walk"], 15).draw(15)
