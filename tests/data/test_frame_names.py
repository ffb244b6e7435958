from pathlib import Path

import pytest

from stclip.data.frames import FrameNames
from stclip.errors import UserError


def names_of(*files: str) -> FrameNames:
    return FrameNames(Path("v"), files)


def test_regular_names_are_not_kept() -> None:
    names = names_of(*(f"x/-5KQ_1_{number:06d}.jpg" for number in range(1, 200)))
    assert (len(names), names.first, names.last) == (199, 1, 199)
    assert names[7] == "x/-5KQ_1_000007.jpg"
    assert names._others == {}
    assert (7 in names, 0 in names, 200 in names) == (True, False, False)
    assert (names.missing(199), names.missing(201)) == ([], [200, 201])


def test_irregular_names_and_gaps() -> None:
    files = ["1.png", "02.png", "a_3.JPG", "0005.png", "notes.txt", ".hidden_6.png"]
    names = names_of(*files)
    assert [names[number] for number in (1, 2, 3, 5)] == files[:4]
    assert (len(names), names.last, names.missing(6)) == (4, 5, [4, 6])
    assert 4 not in names


def test_more_digits_than_the_first() -> None:
    names = names_of(*(f"img_{number:02d}.png" for number in (9, 10, 99, 100, 101)))
    assert names[101] == "img_101.png"
    assert names._others == {}


def test_no_frames() -> None:
    names = names_of("readme.txt")
    assert (len(names), names.first, names.last, names.missing(2)) == (0, 0, 0, [1, 2])


def test_one_number_twice_and_frame_0() -> None:
    with pytest.raises(UserError, match=r"v: 1\.png and 01\.png are both frame 1; keep one"):
        names_of("1.png", "01.png")
    with pytest.raises(UserError, match=r"v: 0\.png: frames count from 1"):
        names_of("0.png")
