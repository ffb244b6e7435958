import random
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from stclip.data.tubes import read_tube_json
from stclip.errors import UserError
from stclip.puppet.draw.film import ENLARGED, FPS, draw_film, plan_film
from stclip.puppet.draw.scene import HEIGHT, WIDTH

ACTIONS = ["walk", "pullup", "sit", "golf"]


def test_people_do_one_thing_after_the_other_and_stay_who_they_are() -> None:
    frames = 40 * FPS
    film = plan_film(random.Random(1), ACTIONS, 3, frames)
    assert len(film.acts) == 3
    for acts in film.acts:
        assert (acts[0].start, acts[-1].end) == (0, frames)
        assert {act.person.action for act in acts[:4]} == set(ACTIONS)
        for first, second in pairwise(acts):
            assert first.end == second.start
            assert first.person.action != second.person.action
        assert len({id(act.person.outfit) for act in acts}) == 1
        assert len({id(act.person.build) for act in acts}) == 1
        assert len({act.person.size for act in acts}) == 1
    for frame in range(0, frames, 7):
        picture, boxes = film.draw(frame)
        assert picture.size == (WIDTH, HEIGHT)
        for x1, y1, x2, y2 in boxes:
            assert 0 <= x1 < x2 < WIDTH
            assert 0 <= y1 < y2 < HEIGHT
    again = plan_film(random.Random(1), ACTIONS, 3, frames)
    assert (np.asarray(film.draw(99)[0]) == np.asarray(again.draw(99)[0])).all()


@pytest.mark.slow
def test_a_film_and_its_truth(tmp_path: Path) -> None:
    path = tmp_path / "new" / "film.mp4"
    truth = read_tube_json(draw_film(path, ACTIONS, people=2, seconds=5))
    frames = [frame.to_ndarray(format="rgb24") for frame in av.open(str(path)).decode(video=0)]
    assert len(frames) == truth.lengths["film"] == 5 * FPS
    assert frames[0].shape == (ENLARGED * HEIGHT, ENLARGED * WIDTH, 3)
    tubes = truth.tubes["film"]
    assert [tube.label for tube in tubes if tube.label not in ACTIONS] == []
    assert sum(len(tube.frames) for tube in tubes) == 2 * 5 * FPS
    # A person moves within the true box, so the picture changes there.
    change = np.abs(frames[0].astype(int) - frames[4]).sum(axis=2) > 60
    inside = np.zeros_like(change)
    for tube in tubes:
        for x1, y1, x2, y2 in tube.boxes[:5].astype(int):
            inside[y1:y2, x1:x2] = True
    assert change[inside].mean() > 3 * change[~inside].mean()
    with pytest.raises(UserError, match="exists already"):
        draw_film(path, ACTIONS)


@pytest.mark.parametrize(
    ("name", "actions", "options", "words"),
    [
        ("film.avi", ACTIONS, {}, r"ends in \.mp4"),
        ("film.mp4", ["fly"], {}, "no such action: fly"),
        ("film.mp4", [], {}, "no actions"),
        ("film.mp4", ACTIONS, {"people": 9}, "--people 9: 1 to 5"),
        ("film.mp4", ACTIONS, {"seconds": 1}, "--seconds 1: 4 to 3600"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, name: str, actions: list[str], options: dict[str, int], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        draw_film(tmp_path / name, actions, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
