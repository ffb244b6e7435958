"""visualize.py on the small dataset in the reference's format."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stclip.errors import UserError
from tests.helpers import load_command

ITS = ("MODEL.INTEREST_TOKENS.ENABLED", "True", "MODEL.INTEREST_TOKENS.TOP_K", "5")


def visualize(config: Path, *arguments: str) -> list[str]:
    """The names of the pictures that there are afterwards."""
    out = config.parent / "pictures"
    main = load_command("visualize").main
    assert main(["--config-file", str(config), "--out", str(out), *arguments]) == 0
    return sorted(path.name for path in out.iterdir())


def test_tokens_of_several_keyframes(case_config: Path) -> None:
    names = visualize(case_config, "--count", "3", "--width", "100", *ITS)
    assert len(names) == 3
    assert all(name.endswith("_tokens.png") for name in names)
    for name in names:
        with Image.open(case_config.parent / "pictures" / name) as picture:
            assert picture.format == "PNG"
            assert picture.width > 3 * 100  # three layers


@pytest.mark.slow
def test_layers_make_the_picture_narrower(case_config: Path) -> None:
    (name,) = visualize(case_config, "--width", "100", *ITS)
    path = case_config.parent / "pictures" / name
    wide = Image.open(path).width
    visualize(case_config, "--width", "100", "--layers", "1,3", "--overwrite", *ITS)
    assert wide - Image.open(path).width == 108
    with pytest.raises(UserError, match="--layers: numbers from 1 to 3 expected, found 4"):
        visualize(case_config, "--layers", "4", "--overwrite", *ITS)


def test_detections_of_one_frame(case_config: Path) -> None:
    arguments = ("--what", "detections", "--video", "foxtrot_stand_s1", "--frame", "3")
    names = visualize(case_config, *arguments)
    assert names == ["stand_foxtrot_stand_s1_00003_detections.png"]
    pixels = np.asarray(Image.open(case_config.parent / "pictures" / names[0]))
    assert pixels.std() > 0
    with pytest.raises(UserError, match=f"{names[0]}: exists already; .*--overwrite"):
        visualize(case_config, *arguments)


def test_a_baseline_has_detections_only(case_config: Path) -> None:
    pairs = ("MODEL.NAME", "crop")
    assert len(visualize(case_config, "--what", "detections", *pairs)) == 1
    with pytest.raises(UserError, match=r"MODEL\.NAME: stclip expected"):
        visualize(case_config, *pairs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "add MODEL.INTEREST_TOKENS.ENABLED True"),
        ((*ITS[:2], "MODEL.INTEREST_TOKENS.TOP_K", "0"), "takes every token"),
        (("--video", "foxtrot_stand_s2", *ITS), "did you mean 'foxtrot_stand_s1'"),
        (("--frame", "3", *ITS), "--frame: needs --video"),
        (("--video", "foxtrot_stand_s1", "--frame", "99", *ITS), "frame 99 .* those that are: 1, "),
        (("--keyframe", "99", *ITS), "--keyframe: a number from 1 to "),
        (("--count", "0", *ITS), "--count: a number above 0 expected, found 0"),
        (("--top", "0", *ITS), "--top: a number above 0"),
        (("--width", "-5", *ITS), "--width: a number above 0"),
        (
            ("MODEL.INTEREST_TOKENS.ENABLED", "True", "TEST.BOX_THRESH", "2"),
            "no keyframe has persons",
        ),
    ],
)
def test_what_cannot_be_drawn(case_config: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        visualize(case_config, *arguments)
