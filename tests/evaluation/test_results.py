import csv
import logging
import os
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch

from stclip.errors import UserError
from stclip.evaluation import results
from stclip.evaluation.result_csv import read_result_csv, rows_of
from stclip.evaluation.results import ScoredParts, fingerprint, read_predictions, write_results
from stclip.structures import Detections, FrameKey
from tests.evaluation.make import detections
from tests.helpers import shared_path

TWO_PERSONS = [(0, (1.5, 2.25, 30, 40), 0.5, [0.5, 0.25]), (2, (0, 0, 9.6, 8.4), 1.0, [0.0, 1.0])]
KEYS = [("sit/v", 1), ("sit/v", 2), ("wave/w", 12)]
LABELS = ["sit", "wave"]


def few():
    return detections(KEYS, TWO_PERSONS, 2)


def write(folder, found=None, labels=LABELS, name="jhmdb"):
    found = few() if found is None else found
    return write_results(folder, name, labels, found, rows_of(found))


def equal(one, other):
    assert one.keys == other.keys
    for name in ("owner", "boxes", "det_scores", "scores"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_files_have_the_known_format(tmp_path):
    old = os.umask(0o022)
    try:
        folder = write(tmp_path / "inference")
    finally:
        os.umask(old)
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
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "detections": 0o755,
        "predictions.npz": 0o644,
        "result_jhmdb.csv": 0o644,
    }


def test_no_detections_at_all(tmp_path):
    folder = write(tmp_path, detections([("v", 1)], [], 2))
    assert (folder / "result_jhmdb.csv").read_bytes() == b""
    assert not list((folder / "detections").iterdir())


def test_earlier_results_are_kept(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for count in range(3):
        (write(tmp_path) / "metrics.json").write_text(str(count))
    assert (tmp_path / "jhmdb.old-1" / "metrics.json").read_text() == "0"
    assert (tmp_path / "jhmdb.old-2" / "metrics.json").read_text() == "1"
    assert len(list(tmp_path.iterdir())) == 3
    assert "jhmdb.old-2" in caplog.text


def test_a_failure_leaves_earlier_results_and_no_rubbish(tmp_path, monkeypatch):
    folder = write(tmp_path)
    before = (folder / "result_jhmdb.csv").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_predictions", full)
    with pytest.raises(UserError, match="jhmdb: results cannot be written: No space"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["jhmdb"]
    assert (folder / "result_jhmdb.csv").read_bytes() == before


def test_names_with_commas_quotes_and_folders_survive(tmp_path, caplog):
    """Videos whose text files would have the same name get different ones."""
    videos = ['a,b/"v"', "deep/er/v", "Größe/v", "cam/1", "cam_1", "cam/2", "cam_1~2"]
    persons = [(i, (i, 0, i + 1, 1), 1.0, [0.5]) for i in range(len(videos))]
    folder = write(tmp_path, detections([(video, 1) for video in videos], persons, 1), ["sit"])
    rows = read_result_csv(folder / "result_jhmdb.csv", ["sit"])
    assert [key.video for key in rows.keys] == videos
    texts = {path.name: path.read_text() for path in (folder / "detections").iterdir()}
    names = ['a,b_"v"', "deep_er_v", "Größe_v", "cam_1", "cam_1~2", "cam_2", "cam_1~2~2"]
    assert texts == {
        f"{name}_00001.txt": f"1 0.50000 {i} 0 {i + 1} 1\n" for i, name in enumerate(names)
    }
    assert "cam_1~2_*.txt is of cam_1:" in caplog.text


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
    folder = write(tmp_path, detections(keys, persons, 3), ["push", "shoot_bow", "stand"])
    names = sorted(path.name for path in (expected / "detections").iterdir())
    assert sorted(path.name for path in (folder / "detections").iterdir()) == names
    for name in ["result_jhmdb.csv", *(f"detections/{name}" for name in names)]:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def test_predictions_come_back(tmp_path):
    found, labels = read_predictions(write(tmp_path) / "predictions.npz")
    assert labels == tuple(LABELS)
    equal(found, few())  # the keyframe without persons too
    assert found.seconds is found.persons is None
    seconds = torch.arange(len(few().keys)).double() / 7
    more = replace(few(), seconds=seconds, persons=torch.arange(len(few())))
    found, _ = read_predictions(write(tmp_path, more) / "predictions.npz")
    equal(found, more)
    assert torch.equal(found.seconds, more.seconds)
    assert torch.equal(found.persons, more.persons)


def test_files_that_are_no_predictions(tmp_path):
    path = tmp_path / "predictions.npz"
    with pytest.raises(UserError, match=r"predictions\.npz: .*run the test again"):
        read_predictions(path)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="run the test again"):
        read_predictions(path)
    np.savez(path, videos=np.array(["a"]), frames=np.array([1]))
    with pytest.raises(UserError, match="owner"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("frames", np.array([1.5, 2.0]), "frames: whole numbers were expected, found float64"),
        ("frames", np.array([0, 1]), "frames: numbers from 1"),
        ("frames", np.array([1]), r"frames: shape \(2,\) was expected, found \(1,\)"),
        ("frames", np.array([1, 1]), "a keyframe occurs twice"),
        ("owner", np.array([2]), "owner: places of the 2 keyframes"),
        ("owner", np.array([-1]), "owner: places of the 2 keyframes"),
        ("boxes", np.zeros((1, 5), np.float32), r"boxes: shape \(1, 4\)"),
        ("boxes", np.zeros((1, 4), np.int64), "boxes: numbers were expected, found int64"),
        ("scores", np.zeros((1, 2), np.float32), r"scores: shape \(1, 1\)"),
        ("labels", np.array([7]), "labels: texts were expected"),
        ("seconds", np.array([0.0]), r"seconds: shape \(2,\) was expected"),
        ("seconds", np.array([0.0, np.nan]), "seconds: finite numbers"),
        ("persons", np.array([1.0]), "persons: whole numbers"),
    ],
)
def test_arrays_that_cannot_be_so_are_named(tmp_path, name, value, words):
    arrays = {
        "videos": np.array(["a", "a"]),
        "frames": np.array([1, 2]),
        "owner": np.array([0]),
        "boxes": np.zeros((1, 4), np.float32),
        "det_scores": np.ones(1, np.float32),
        "scores": np.ones((1, 1), np.float32),
        "labels": np.array(["run"]),
    }
    np.savez(tmp_path / "p.npz", **arrays)
    assert len(read_predictions(tmp_path / "p.npz")[0]) == 1
    np.savez(tmp_path / "p.npz", **{**arrays, name: value})
    with pytest.raises(UserError, match=rf"p\.npz: .*{words}.*; run the test again"):
        read_predictions(tmp_path / "p.npz")


# ---------------------------------------------------------------- the log of a running test
ALL = [FrameKey(video, n) for video in ("v", "w") for n in range(1, 12)]


def scored(video, frames, persons=2):
    """Random detections, the same number of persons in every frame."""
    total = frames * persons
    return Detections(
        keys=tuple(FrameKey(video, n) for n in range(1, frames + 1)),
        owner=torch.arange(frames).repeat_interleave(persons),
        boxes=torch.rand(total, 4),
        det_scores=torch.rand(total),
        scores=torch.rand(total, len(LABELS)),
    )


@pytest.fixture
def log(tmp_path):
    parts = ScoredParts(tmp_path / "p", LABELS)
    parts.prepare("a")
    return parts


def another(parts):
    """What a second process finds, and the keyframes."""
    again = ScoredParts(parts.folder, LABELS)
    done = again.resume(ALL)
    return again, done


def test_detections_stay_in_memory_and_are_found_again(log, tmp_path):
    added = [scored("v", 3), scored("w", 0)]
    for part in added:
        log.add(part)
    assert all(mine is part for mine, part in zip(log.detections, added, strict=True))
    assert another(log)[1] == set(), "a part is due after ten seconds"
    log.flush()
    again, done = another(log)
    assert done == set(added[0].keys)
    equal(Detections.cat(again.detections), Detections.cat(added))
    again.add(scored("w", 2))
    again.flush()  # what was found is not written once more
    assert len(another(log)[1]) == 5
    log.remove()
    assert not any(tmp_path.iterdir())


def test_parts_are_written_as_time_goes_by(log, monkeypatch):
    now = log._since
    monkeypatch.setattr(results.time, "monotonic", lambda: now)
    for frame in range(25):
        now += frame > 0
        log.add(scored(f"v{frame}", 1))
    again = ScoredParts(log.folder, LABELS)
    again.resume([FrameKey(f"v{frame}", 1) for frame in range(25)])
    assert sorted(len(part.keys) for part in again.detections) == [10, 11]  # at 10 s and at 20 s


def test_many_keyframes_are_written_at_once(log, monkeypatch):
    monkeypatch.setattr(results, "_KEYFRAMES", 4)
    log.add(scored("v", 3))
    assert another(log)[1] == set()
    log.add(scored("w", 1))
    assert len(another(log)[1]) == 4


def test_another_test_does_not_continue_it(log, tmp_path):
    log.add(scored("v", 1))
    log.flush()
    log.prepare("a")
    assert len(log.resume(ALL)) == 1
    log.prepare("b")
    assert log.resume(ALL) == set()
    kept = ScoredParts(tmp_path / "p.old-1", LABELS)
    assert kept.resume(ALL) == {FrameKey("v", 1)}, "nothing is lost"


def test_a_broken_part_is_scored_anew(log, caplog):
    log.add(scored("v", 1))
    log.flush()
    (path,) = log.folder.glob("part-*")
    path.write_bytes(path.read_bytes()[:100])
    again, done = another(log)
    assert done == set()
    assert again.detections == []
    assert "scored again" in caplog.text
    assert path.name in caplog.text


def test_a_part_that_is_not_of_this_test_is_scored_anew(log, caplog):
    """Damage may leave a file that can be read: of other keyframes, or of some twice."""
    log.add(scored("v", 2))
    log.flush()
    (path,) = log.folder.glob("part-*")
    path.with_name("part-zz.npz").write_bytes(path.read_bytes())
    log.add(scored("x", 1))
    log.flush()
    again, done = another(log)
    assert done == {FrameKey("v", 1), FrameKey("v", 2)}
    assert len(again.detections) == 1
    assert caplog.text.count("not a part of this test") == 2
    (log.folder / "run.json").write_bytes(b"\x00")
    log.prepare("a")
    assert log.resume(ALL) == set(), "without its note nobody knows what they are of"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/p"):
        ScoredParts(tmp_path / "file" / "p", LABELS).prepare("a")


@pytest.mark.parametrize(
    ("words", "arrays"),
    [
        (["x", "y"], [np.arange(4)]),
        (["xy"], [np.arange(4)]),
        (["x"], [np.arange(3)]),
        (["x"], [np.arange(4).astype(np.int32)]),
        (["x"], [np.arange(4).reshape(2, 2)]),
        (["x"], [np.arange(2), np.arange(2, 4)]),
        (["x"], []),
    ],
)
def test_fingerprints_differ(words, arrays):
    base = fingerprint(["x"], [np.arange(4)])
    assert fingerprint(["x"], [np.arange(4)]) == base
    assert fingerprint(words, arrays) != base
    assert fingerprint([], [np.arange(8)[::2]]) == fingerprint([], [np.arange(0, 8, 2)])
