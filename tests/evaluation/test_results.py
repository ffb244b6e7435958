import csv
import logging
import os
import stat

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stclip.errors import UserError
from stclip.evaluation import results
from stclip.evaluation.frame_map import FrameMapEvaluator, frame_map
from stclip.evaluation.result_csv import read_result_csv
from stclip.evaluation.results import soft_voting, write_results
from stclip.evaluation.rows import rows_of
from stclip.structures import Detections, FrameKey
from tests.evaluation.make import annotated, detections
from tests.helpers import shared_path

TWO_PERSONS = [(0, (1.5, 2.25, 30, 40), 0.5, [0.5, 0.25]), (2, (0, 0, 9.6, 8.4), 1.0, [0.0, 1.0])]
KEYS = [("sit/v", 1), ("sit/v", 2), ("wave/w", 12)]


def few():
    return detections(KEYS, TWO_PERSONS, 2)


def test_files_have_the_known_format(tmp_path):
    folder = write_results(tmp_path / "inference", "jhmdb", ["sit", "wave"], few())
    assert folder == tmp_path / "inference" / "jhmdb"
    assert (folder / "result_jhmdb.csv").read_bytes() == (
        b"sit/v,0001,1.50000,2.25000,30.00000,40.00000,1,0.25000\r\n"
        b"sit/v,0001,1.50000,2.25000,30.00000,40.00000,2,0.12500\r\n"
        b"wave/w,0012,0.00000,0.00000,9.60000,8.40000,2,1.00000\r\n"
    )
    texts = {path.name: path.read_text() for path in (folder / "detections").iterdir()}
    assert texts == {
        "sit_v_00001.txt": "1 0.25000 2 2 30 40\n2 0.12500 2 2 30 40\n",
        "wave_w_00012.txt": "2 1.00000 0 0 10 8\n",
    }
    assert sorted(path.name for path in folder.iterdir()) == [
        "detections",
        "predictions.npz",
        "result_jhmdb.csv",
    ]


def test_folders_and_files_have_the_modes_of_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        folder = write_results(tmp_path, "jhmdb", ["sit", "wave"], few())
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    for name in ("result_jhmdb.csv", "predictions.npz"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o644


def test_predictions_hold_what_everything_can_be_computed_from(tmp_path):
    raw, voted = few(), soft_voting(few())
    folder = write_results(tmp_path, "jhmdb", ["sit", "wave"], voted, unvoted=raw)
    with np.load(folder / "predictions.npz", allow_pickle=False) as stored:
        saved = dict(stored)
    keys = zip(saved["videos"].tolist(), saved["frames"].tolist(), strict=True)
    again = Detections(
        keys=tuple(FrameKey(*key) for key in keys),
        owner=torch.from_numpy(saved["owner"]),
        boxes=torch.from_numpy(saved["boxes"]),
        det_scores=torch.from_numpy(saved["det_scores"]),
        scores=torch.from_numpy(saved["scores"]),
    )
    assert again.keys == raw.keys  # the keyframe without persons too
    for name in ("owner", "boxes", "det_scores", "scores"):
        torch.testing.assert_close(getattr(again, name), getattr(raw, name), rtol=0, atol=0)
    assert saved["labels"].tolist() == ["sit", "wave"]
    assert saved["scores"].dtype == np.float32


def test_no_detections_at_all(tmp_path):
    folder = write_results(tmp_path, "jhmdb", ["sit"], detections([("v", 1)], [], 1))
    assert (folder / "result_jhmdb.csv").read_bytes() == b""
    assert not list((folder / "detections").iterdir())
    assert len(read_result_csv(folder / "result_jhmdb.csv", ["sit"])) == 0


def test_rows_not_above_action_thresh_are_left_out(tmp_path):
    folder = write_results(tmp_path, "d", ["sit", "wave"], few(), action_thresh=0.125)
    assert len(read_result_csv(folder / "result_d.csv", ["sit", "wave"])) == 2


def test_earlier_results_are_kept(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for count in range(3):
        folder = write_results(tmp_path, "jhmdb", ["sit", "wave"], few())
        (folder / "metrics.json").write_text(str(count))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "jhmdb",
        "jhmdb.old-1",
        "jhmdb.old-2",
    ]
    assert (tmp_path / "jhmdb.old-1" / "metrics.json").read_text() == "0"
    assert (tmp_path / "jhmdb.old-2" / "metrics.json").read_text() == "1"
    assert "jhmdb.old-2" in caplog.text


def test_a_failure_leaves_earlier_results_and_no_rubbish(tmp_path, monkeypatch):
    folder = write_results(tmp_path, "jhmdb", ["sit", "wave"], few())
    before = (folder / "result_jhmdb.csv").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_predictions", full)
    with pytest.raises(UserError, match="jhmdb: results cannot be written: No space"):
        write_results(tmp_path, "jhmdb", ["sit", "wave"], few())
    assert [path.name for path in tmp_path.iterdir()] == ["jhmdb"]
    assert (folder / "result_jhmdb.csv").read_bytes() == before


def test_scores_that_are_not_finite_are_an_error_and_write_nothing(tmp_path):
    bad = detections([("v", 1)], [(0, (0, 0, 1, 1), 1.0, [float("inf")])], 1)
    with pytest.raises(UserError, match="v frame 1"):
        write_results(tmp_path / "out", "jhmdb", ["sit"], bad)
    assert not (tmp_path / "out").exists()


def test_names_with_commas_quotes_and_folders_survive(tmp_path):
    names = ['a,b/"v"', "deep/er/v", "Größe/v"]
    found = detections(
        [(name, 1) for name in names], [(i, (0, 0, 1, 1), 1.0, [0.5]) for i in range(3)], 1
    )
    folder = write_results(tmp_path, "x", ["sit"], found)
    rows = read_result_csv(folder / "result_x.csv", ["sit"])
    assert [key.video for key in rows.keys] == names
    assert (folder / "detections" / "deep_er_v_00001.txt").exists()


def test_videos_that_one_name_would_fit_have_text_files_of_their_own(tmp_path, caplog):
    videos = ["cam/1", "cam_1", "cam/2", "cam_1~2"]
    found = detections(
        [(video, 1) for video in videos],
        [(i, (i, 0, i + 1, 1), 1.0, [0.5]) for i in range(4)],
        1,
    )
    folder = write_results(tmp_path, "x", ["sit"], found)
    texts = {path.name: path.read_text() for path in (folder / "detections").iterdir()}
    names = ["cam_1", "cam_1~2", "cam_2", "cam_1~2~2"]
    assert texts == {
        f"{name}_00001.txt": f"1 0.50000 {i} 0 {i + 1} 1\n" for i, name in enumerate(names)
    }
    assert "cam_1~2_*.txt is of cam_1:" in caplog.text


numbers = st.floats(0, 2000, width=32)


@given(st.lists(st.tuples(numbers, st.floats(0, 1, width=32)), min_size=1, max_size=20))
def test_rounding_equals_printing_and_reading(values):
    persons = [(0, (number, 0, number, 1), 1.0, [score]) for number, score in values]
    found = detections([("v", 1)], persons, 1)
    rows = rows_of(found)
    kept = [(n, s) for n, s in zip(found.boxes[:, 0], found.scores[:, 0], strict=True) if s > 0]
    assert rows.boxes[:, 0].tolist() == [float(f"{n.item():.5f}") for n, _ in kept]
    assert rows.scores.tolist() == [float(f"{s.item():.5f}") for _, s in kept]


def test_minus_zero_is_printed_without_a_sign():
    found = detections([("v", 1)], [(0, (-1e-9, -0.0, 1, 1), 1.0, [0.5])], 1)
    assert [f"{value:.5f}" for value in rows_of(found).boxes[0, :2]] == ["0.00000", "0.00000"]


def test_the_evaluator_gives_the_number_of_the_written_file(tmp_path):
    generator = torch.Generator().manual_seed(1)
    keys = [(f"c/{video}", frame) for video in "zyx" for frame in range(1, 31)]
    truth = [annotated(*key, ((0, 0, 10, 10), "ab"[i % 2])) for i, key in enumerate(keys)]
    found = Detections(
        keys=tuple(FrameKey(*key) for key in keys),
        owner=torch.randint(0, len(keys), (400,), generator=generator).sort().values,
        boxes=torch.tensor([0, 0, 10, 10]) + 4 * torch.rand(400, 4, generator=generator),
        det_scores=torch.rand(400, generator=generator),
        # Scores that round to equal ones, and to zero.
        scores=0.0001 * torch.rand(400, 2, generator=generator),
    )
    evaluator = FrameMapEvaluator(truth, ("a", "b"))
    evaluator.process(found)
    folder = write_results(tmp_path, "x", ["a", "b"], found)
    rows = read_result_csv(folder / "result_x.csv", ["a", "b"])
    metrics = evaluator.evaluate()
    assert frame_map(truth, rows, ("a", "b")) == metrics
    assert 0 < metrics["rows"] < 800
    assert metrics["frame_mAP@0.5"] > 0


def test_soft_voting_by_hand():
    keys = [("v", 1), ("v", 2), ("w", 1), ("empty", 1)]
    persons = [
        (0, (0, 0, 1, 1), 0.9, [0.8, 0.2]),
        (0, (0, 0, 2, 2), 0.1, [0.6, 0.4]),
        (1, (0, 0, 3, 3), 0.5, [0.1, 0.9]),
        (2, (0, 0, 4, 4), 0.5, [0.3, 0.7]),
    ]
    found = detections(keys, persons, 2)
    voted = soft_voting(found)
    expected = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.3, 0.7]])
    torch.testing.assert_close(voted.scores, expected)
    assert voted.scores.dtype == torch.float32
    assert voted.keys == found.keys
    for name in ("owner", "boxes", "det_scores"):
        assert torch.equal(getattr(voted, name), getattr(found, name))
    torch.testing.assert_close(soft_voting(voted).scores, voted.scores)  # voting twice is once


def test_soft_voting_joins_a_video_that_comes_in_pieces():
    parts = [detections([("v", i)], [(0, (0, 0, 1, 1), 1.0, [float(i)])], 1) for i in range(1, 4)]
    parts.insert(1, detections([("w", 1)], [(0, (0, 0, 1, 1), 1.0, [7.0])], 1))
    assert soft_voting(Detections.cat(parts)).scores.tolist() == [[2], [7], [2], [2]]


def test_soft_voting_of_nothing():
    assert soft_voting(detections([("v", 1)], [], 3)).scores.shape == (0, 3)


def test_the_conformance_result_is_written_byte_for_byte(tmp_path):
    expected = shared_path("conformance/jhmdb_tiny/expected")
    with open(expected / "result_jhmdb.csv", newline="") as file:
        table = list(csv.reader(file))
    keys = list(dict.fromkeys((row[0], int(row[1])) for row in table))
    persons = []
    for rows in zip(table[0::3], table[1::3], table[2::3], strict=True):
        first = rows[0]
        box = [float(value) for value in first[2:6]]
        scores = [float(row[7]) for row in rows]
        persons.append((keys.index((first[0], int(first[1]))), box, 1.0, scores))
    found = detections(keys, persons, 3)
    folder = write_results(tmp_path, "jhmdb", ["push", "shoot_bow", "stand"], found)
    names = sorted(path.name for path in (expected / "detections").iterdir())
    assert sorted(path.name for path in (folder / "detections").iterdir()) == names
    for name in ["result_jhmdb.csv", *(f"detections/{name}" for name in names)]:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
