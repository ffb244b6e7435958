import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stclip.data.ground_truth import read_tube_truth
from stclip.data.tubes import read_detected_tubes, write_detected_tubes
from stclip.data.ucf24 import CLASSES, read_tube_file
from stclip.errors import UserError
from stclip.structures import Tube
from tests.data.make import VIDEOS as JHMDB_VIDEOS
from tests.data.make import box_of, jhmdb_pickle
from tests.data.make_ucf24 import TEST, act_pickle, dump
from tests.helpers import shared_path

ROWS = [[3, 0, 1, 10, 11.5], [4, 1, 1, 10, 11], [7, 2, 1, 10, 11]]
ENTRY = {"video": "run/a", "label": "run", "score": 0.25, "boxes": ROWS}
TRUTH = {"labels": ["wave", "run"], "nframes": {"run/a": 40, "wave/b": 9}, "ground_truth": [ENTRY]}


def write(folder: Path, content: Any, name: str = "tubes.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_ground_truth_in_json(tmp_path: Path) -> None:
    truth = read_tube_truth(write(tmp_path, TRUTH))
    assert truth.labels == ("wave", "run")
    assert truth.lengths == {"run/a": 40, "wave/b": 9}
    assert truth.tubes["wave/b"] == []
    (tube,) = truth.tubes["run/a"]
    assert (tube.label, tube.score, tube.first, tube.last) == ("run", 1, 3, 7)
    assert tube.boxes.tolist() == [row[1:] for row in ROWS]
    without = {name: TRUTH[name] for name in ("labels", "ground_truth")}
    assert read_tube_truth(write(tmp_path, without)).lengths == {}


def test_detected_tubes_there_and_back(tmp_path: Path) -> None:
    path = write(tmp_path, [ENTRY, {**ENTRY, "score": 1}])
    found = read_detected_tubes(path, ["run"], ["run/a"])
    assert [tube.score for tube in found["run/a"]] == [0.25, 1]
    again = tmp_path / "new" / "again.json"
    write_detected_tubes(again, found)
    assert json.loads(again.read_text()) == json.loads(path.read_text())
    exact = Tube("run", np.array([1]), np.array([[0.12345, 1, 2, 333.33333]], np.float32), 0.1)
    write_detected_tubes(again, {"run/a": [exact]})
    (tube,) = read_detected_tubes(again, ["run"], ["run/a"])["run/a"]
    np.testing.assert_array_equal(tube.boxes, exact.boxes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": 3}, "tube 1: video 3"),
        ({"video": "run/b"}, "video 'run/b' is not in the ground truth; did you mean 'run/a'"),
        ({"label": "runs"}, "label 'runs' is unknown; did you mean 'run'"),
        ({"score": None}, "score None"),
        ({"boxes": []}, "boxes: at least one"),
        ({"boxes": None}, "boxes: at least one"),
        ({"boxes": [[1, 2, 3, 4]]}, r"box \[1, 2, 3, 4\]"),
        ({"boxes": [[0, 0, 0, 5, 5]]}, "from 1 that ascend"),
        ({"boxes": [[2, 0, 0, 5, 5], [2, 0, 0, 5, 5]]}, "from 1 that ascend"),
        ({"boxes": [[1.5, 0, 0, 5, 5]]}, "whole frame numbers"),
        ({"boxes": [[1, 0, 0, 5, "x"]]}, "numbers frame, x1"),
    ],
)
def test_a_bad_tube_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path, [{**ENTRY, **change}])
    with pytest.raises(UserError, match=message) as caught:
        read_detected_tubes(path, ["run"], ["run/a"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_tubes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a list of tubes was expected"):
        read_detected_tubes(write(tmp_path, TRUTH), ["run"], ["run/a"])
    for content in ([ENTRY], {"labels": ["run"], "videos": [], "keyframes": []}):
        with pytest.raises(UserError, match="do not say which boxes are the same person's"):
            read_tube_truth(write(tmp_path, content))
    for labels in (["run", "run"], ["run", 3]):
        with pytest.raises(UserError, match="unique names were expected"):
            read_tube_truth(write(tmp_path, {**TRUTH, "labels": labels}))
    with pytest.raises(UserError, match="nframes"):
        read_tube_truth(write(tmp_path, {**TRUTH, "nframes": {"run/a": 0}}))


def test_the_pickle_of_act(tmp_path: Path) -> None:
    frames = np.array([[i, 0, 0, 10, 10] for i in (2, 3)], dtype=np.float32)
    content = {
        "labels": ["sit", "run"],
        "train_videos": [["sit/c"], ["run/a"]],
        "test_videos": [["run/a"], ["sit/c"]],
        "nframes": {"run/a": 20, "sit/c": 30},
        "resolution": {"run/a": (240, 320), "sit/c": (240, 320)},
        "gttubes": {"run/a": {1: [frames, frames]}, "sit/c": {0: [frames]}},
    }
    path = tmp_path / "GT.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    truth = read_tube_truth(path)
    assert truth.labels == ("sit", "run")
    assert [(tube.label, tube.first, tube.last) for tube in truth.tubes["run/a"]] == [
        ("run", 2, 3)
    ] * 2
    assert truth.lengths["run/a"] == 20
    assert list(read_tube_truth(path, 2).tubes) == ["sit/c"]
    worded = read_tube_truth(path, 1, ["sitting", "running"])
    assert worded.labels == ("sitting", "running")
    assert worded.tubes["run/a"][0].label == "running"


def test_real_jhmdb() -> None:
    """One tube in each of the 268 test videos, in every one of its frames' annotations."""
    truth = read_tube_truth(shared_path("annotations/jhmdb/JHMDB-GT.pkl"))
    assert len(truth.tubes) == 268
    assert all(len(tubes) == 1 for tubes in truth.tubes.values())
    assert sum(len(tubes[0].frames) for tubes in truth.tubes.values()) == 9139


# ------------------------------------------------------------------ ACT-detector's format


def test_tubes_of_jhmdb(tmp_path):
    tubes = read_tube_file(dump(tmp_path / "JHMDB-GT.pkl", jhmdb_pickle()))
    assert tubes.videos("test") == ["wave/c_wave", "run/d_run"]
    (tube,) = tubes.tubes["wave/c_wave"]
    assert tube.label == "wave"
    assert tube.frames.tolist() == list(range(1, JHMDB_VIDEOS["c_wave"][1] + 1))
    assert tube.boxes.tolist() == [box_of("c_wave", frame) for frame in tube.frames]


@pytest.mark.parametrize("number", [-1, 24])
def test_labels_of_act_count_from_0(tmp_path, number):
    content = act_pickle()
    content["gttubes"][TEST[0]] = {number: [np.array([[1, 0, 0, 1, 1]], np.float32)]}
    path = dump(tmp_path / "a.pkl", content)
    with pytest.raises(UserError, match=f"{TEST[0]}: .*label {number}: 0 to 23 were expected"):
        read_tube_file(path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1, 2, 3, 4]], r"rows of shape \(1, 4\); \(n, 5\) was expected"),
        ([[2, 0, 0, 1, 1], [7, 0, 0, 1, 1], [2, 0, 0, 2, 2]], "two boxes in frame 2"),
        ([[0, 0, 0, 1, 1]], r"\[0.0, .*\]: whole frames from 1"),
        ([[1, 0, 0, 1, 1], [2.5, 0, 0, 1, 1]], r"\[2.5, .*\]: whole frames from 1"),
        ([[1, 0, 0, 1, 1], [1e30, 0, 0, 1, 1]], r"\[1e\+30, .*\]: whole frames from 1"),
        ([[1, 0, np.nan, 1, 1]], "nan, .* finite numbers were expected"),
    ],
)
def test_malformed_tubes_of_act_are_named(tmp_path, table, message):
    content = act_pickle()
    good = np.array([[1, 0, 0, 1, 1]], np.float32)
    content["gttubes"][TEST[0]] = {10: [good, np.array(table, np.float64)]}
    path = dump(tmp_path / "a.pkl", content)
    with pytest.raises(UserError, match=message) as error:
        read_tube_file(path)
    start = f"{path}: {TEST[0]}: not in the format of JHMDB-GT.pkl (ValueError: tube 2 of "
    assert str(error.value).startswith(start)


def test_rows_of_a_tube_in_any_order(tmp_path):
    content = act_pickle()
    rows = content["gttubes"][TEST[0]][CLASSES.index("IceDancing")]
    rows[0] = rows[0][::-1]
    file = read_tube_file(dump(tmp_path / "a.pkl", content))
    assert file.tubes[TEST[0]][0].frames.tolist() == [2, 3, 4, 5, 6]
