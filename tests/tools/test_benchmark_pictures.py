import json

import numpy as np
import pytest

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
    assert list(found["rows"]) == [
        "decode PNG, pillow", "decode PNG, torchvision", "decode JPEG, pillow",
        "decode JPEG, torchvision", "resize, pillow", "resize, torch",
    ]  # fmt: skip
    assert found["rows"]["decode PNG, torchvision"]["largest"] == 0  # PNG loses nothing
    assert found["rows"]["resize, torch"]["largest"] <= 1
    assert all(row["ms"] > 0 for row in found["rows"].values())
    assert "resize, torch" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists already"):
        tool.main(arguments)


def test_numbers_below_1_are_refused():
    with pytest.raises(UserError, match="--count and --size: numbers from 1 expected"):
        tool.main(["--count", "0"])
