from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from stclip.evaluation.pictures import (
    PERSON_COLOURS,
    STRONGEST,
    TOKEN_COLOUR,
    VERDICT_COLOURS,
    WEAKEST,
    ScoredPerson,
    draw_cell,
    draw_detections,
    draw_interest_tokens,
    mark_persons,
    opacity,
)

GREY = (100, 100, 100)
# A frame of 40 x 20 whose crop has four patches, of 10 x 10 each.
PATCHES = np.array([[10, 0, 20, 10], [20, 0, 30, 10], [10, 10, 20, 20], [20, 10, 30, 20]])
BOX = (1, 1, 6, 6)


def frame(width: int = 40, height: int = 20) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def mixed(alpha: int) -> list[int]:
    return [
        round((t * alpha + g * (255 - alpha)) / 255)
        for t, g in zip(TOKEN_COLOUR, GREY, strict=True)
    ]


def person(name: str = "walk", score: float = 0.5, box: Sequence[float] = BOX) -> ScoredPerson:
    return ScoredPerson(box, 0.9, [(name, score)])


def test_opacity_falls_evenly() -> None:
    assert [opacity(rank, 3) for rank in range(3)] == [
        STRONGEST,
        round((STRONGEST + WEAKEST) / 2),
        WEAKEST,
    ]
    assert opacity(0, 1) == STRONGEST


def test_tokens_lie_on_their_patches() -> None:
    """Token 4 is patch 3, at x 20 to 30 and y 10 to 20; the class token, 0, is nowhere."""
    cell = np.asarray(
        draw_cell(frame(160, 80), (4, 4), BOX, np.array([4, 0, 1]), PATCHES, (0, 0, 255))
    )
    # Inside the patches, away from the lines of the crop and the box.
    first, third = cell[42:78, 82:118].astype(int), cell[2:38, 42:78].astype(int)
    assert np.abs(first - mixed(STRONGEST)).max() <= 1
    assert np.abs(third - mixed(WEAKEST)).max() <= 1
    assert (cell[2:38, 82:118] == GREY).all()  # patch 1
    assert (cell[42:78, 42:78] == GREY).all()  # patch 2
    assert (cell[30:, :38] == GREY).all()  # outside of the crop
    assert (cell[30:, 122:] == GREY).all()


def test_the_box_and_the_crop_have_lines() -> None:
    cell = np.asarray(draw_cell(frame(160, 80), (4, 4), BOX, np.array([0]), PATCHES, (0, 0, 255)))
    assert (cell[4, 4:24] == (0, 0, 255)).all()  # the box is 4 to 24
    assert (cell[4:24, 23] == (0, 0, 255)).all()
    assert (cell[12, 12] == GREY).all()
    assert (cell[:, 40] == 255).all()  # the crop is 40 to 120
    assert (cell[:, 119] == 255).all()
    assert (cell[:, 122:] == GREY).all()


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_a_grid_has_a_row_for_each_person_and_a_column_for_each_layer(
    size: tuple[int, int],
) -> None:
    tokens = np.array([[[4], [1]], [[0], [3]], [[2], [2]]])  # 3 layers, 2 persons, 1 token
    whole = draw_interest_tokens(
        frame(*size), [person(), person()], tokens, PATCHES, "", layers=[1, 2, 3], width=40
    )
    fewer = draw_interest_tokens(
        frame(*size), [person(), person()], tokens, PATCHES, "", layers=[2, 3], width=40
    )
    assert whole.height == fewer.height
    assert whole.width - fewer.width == 48  # a cell and the gap
    one = draw_interest_tokens(
        frame(*size), [person()], tokens[:, :1], PATCHES, "", layers=[1, 2, 3], width=40
    )
    assert whole.height - one.height >= 40 * size[1] // size[0]


def test_the_cells_of_a_grid_are_those_of_the_layer_and_person() -> None:
    tokens = np.array([[[4], [1]], [[0], [3]]])
    grid = np.asarray(
        draw_interest_tokens(
            frame(), [person(), person()], tokens, PATCHES, "", layers=[1, 2], width=160
        )
    )
    expected = mixed(STRONGEST)
    painted = np.abs(grid.astype(int) - expected).max(axis=2) <= 1
    rows, columns = np.nonzero(painted)
    # Layer 2's only token of person 1 is the class token, so three patches are painted.
    middle = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
    quarters = [
        painted[: middle[0], : middle[1]].sum(),
        painted[: middle[0], middle[1] :].sum(),
        painted[middle[0] :, : middle[1]].sum(),
        painted[middle[0] :, middle[1] :].sum(),
    ]
    assert [count > 1000 for count in quarters] == [True, False, True, True]


def test_detections_are_boxes_with_a_list_beside_the_frame() -> None:
    persons = [person(box=(4, 8, 14, 18)), person("a much longer name of a class", 0.25)]
    picture = draw_detections(frame(), persons, "title", width=400)
    assert picture.width > 400
    pixels = np.asarray(picture)
    above = pixels.shape[0] - 200  # the title; the frame is 400 x 200 beneath it
    # Ten times larger: the left side of the first box is at x 40, from y 80 to 180.
    assert (pixels[above + 100 : above + 180, 40] == PERSON_COLOURS[0]).all()
    assert (pixels[above + 190, 60] == GREY).all()


def test_a_frame_without_persons_can_be_drawn() -> None:
    picture = draw_detections(frame(), [], "", width=100)
    assert picture.height > 50


@pytest.mark.parametrize("verdict", [True, False, None])
def test_verdicts_are_drawn_enlarged(verdict: bool | None) -> None:
    plain = Image.new("RGB", (60, 50), (255, 255, 255))
    marked = mark_persons(plain, [((20, 20, 40, 45), "A", verdict)], scale=2)
    assert marked.size == (120, 100)
    assert marked.getpixel((80, 70)) == VERDICT_COLOURS[verdict]  # the right edge
    assert marked.getpixel((60, 70)) == (255, 255, 255)  # inside
    assert marked.getpixel((41, 26)) == VERDICT_COLOURS[verdict]  # the tag stands above the corner
    assert marked.getpixel((10, 10)) == (255, 255, 255)


def test_boxes_beyond_the_frame() -> None:
    marked = mark_persons(
        frame(16, 12), [((-5, -5, 500, 500), "A", True), ((20, 20, 1, 1), "B", None)]
    )
    assert marked.size == (32, 24)
