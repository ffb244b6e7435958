import json
from importlib.util import find_spec

import numpy as np
import pytest

from stclip.data.transforms import preprocess
from stclip.errors import UserError
from tests.data.make import write_frames
from tests.helpers import load_tool

tool = load_tool("benchmark_pictures")


def test_differences_by_hand(monkeypatch):
    monkeypatch.setattr(tool, "milliseconds", lambda method, item: item.sum() / 100)
    rows = {}
    one, two = np.full((2, 2), 250, np.uint8), np.full((2, 2), 5, np.uint8)
    shifted = lambda item: item + np.array([[0, 1], [0, 3]], np.uint8)  # noqa: E731
    compared = {"first": lambda item: item, "second": shifted}
    tool.compare(rows, "work", [one, two], compared)
    assert rows == {
        "work, first": {"ms": 5.1, "largest": 0, "mean": 0},
        "work, second": {"ms": 5.1, "largest": 3, "mean": 1},
    }


def test_a_folder_of_frames(tmp_path, capsys):
    write_frames(tmp_path / "frames", 3)
    out = tmp_path / "out.json"
    arguments = ["--frames", str(tmp_path / "frames"), "--size", "16", "--json", str(out)]
    assert tool.main(arguments) == 0
    found = json.loads(out.read_text())
    assert (found["pictures"], found["width"], found["height"], found["size"]) == (3, 40, 30, 16)
    expected = [
        "decode PNG, pillow", "decode PNG, torchvision", "decode PNG, opencv",
        "decode JPEG, pillow", "decode JPEG, torchvision", "decode JPEG, opencv",
        "resize, pillow", "resize, torch", "resize, opencv cubic", "resize, opencv area",
    ]  # fmt: skip
    if find_spec("cv2") is None:
        expected = [name for name in expected if "opencv" not in name]
    else:
        assert found["rows"]["decode PNG, opencv"]["largest"] == 0
        # A picture that is not made smaller needs no antialiasing, and differs in rounding only.
        picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        same = tool.opencv_resize(picture, 30, "INTER_CUBIC")
        np.testing.assert_array_equal(same, preprocess(picture, 30).numpy())
    assert list(found["rows"]) == expected
    assert found["rows"]["decode PNG, torchvision"]["largest"] == 0  # PNG loses nothing
    assert found["rows"]["resize, torch"]["largest"] <= 1
    assert all(row["ms"] > 0 for row in found["rows"].values())
    assert "resize, torch" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists already"):
        tool.main(arguments)


def test_numbers_below_1_are_refused():
    with pytest.raises(UserError, match="--count and --size: numbers from 1 expected"):
        tool.main(["--count", "0"])
