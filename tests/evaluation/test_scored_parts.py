"""What a test keeps on disk while it runs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stclip.errors import UserError
from stclip.evaluation import scored_parts
from stclip.evaluation.scored_parts import ScoredParts, fingerprint
from stclip.structures import Detections, FrameKey

LABELS = ["walk", "wave"]
KEYS = [FrameKey(video, n) for video in ("v", "w") for n in range(1, 12)]


def detections(video: str, frames: int, persons: int = 2) -> Detections:
    """Random ones, the same number of persons in every frame."""
    total = frames * persons
    return Detections(
        keys=tuple(FrameKey(video, n) for n in range(1, frames + 1)),
        owner=torch.arange(frames).repeat_interleave(persons),
        boxes=torch.rand(total, 4),
        det_scores=torch.rand(total),
        scores=torch.rand(total, len(LABELS)),
    )


def test_what_was_added_comes_back(tmp_path: Path) -> None:
    parts, first, second = (
        ScoredParts(tmp_path / "p", LABELS),
        detections("v", 3),
        detections("w", 0),
    )
    parts.prepare("a")
    assert parts.done(KEYS) == set()
    parts.add(first)
    parts.add(second)
    assert parts.read() == [], "a part is due after ten seconds"
    parts.flush()
    (found,) = ScoredParts(tmp_path / "p", LABELS).read(parts.names)
    assert found.keys == first.keys
    for name in ("owner", "boxes", "det_scores", "scores"):
        assert torch.equal(getattr(found, name), getattr(first, name))
    assert ScoredParts(tmp_path / "p", LABELS).done(KEYS) == set(first.keys)
    parts.remove()
    assert not any(tmp_path.iterdir())


def test_parts_are_written_as_time_goes_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(scored_parts.time, "monotonic", lambda: now)
    parts = ScoredParts(tmp_path / "p", LABELS)
    parts.prepare("a")
    for frame in range(25):
        now = float(frame)
        parts.add(detections(f"v{frame}", 1))
    assert sorted(len(part.keys) for part in parts.read()) == [10, 11]  # at 10 s and at 20 s


def test_many_keyframes_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored_parts, "_KEYFRAMES", 4)
    parts = ScoredParts(tmp_path / "p", LABELS)
    parts.prepare("a")
    parts.add(detections("v", 3))
    assert parts.done(KEYS) == set()
    parts.add(detections("w", 1))
    assert len(parts.done(KEYS)) == 4


def test_another_test_does_not_go_on_from_it(tmp_path: Path) -> None:
    parts = ScoredParts(tmp_path / "p", LABELS)
    parts.prepare("a")
    parts.add(detections("v", 1))
    parts.flush()
    parts.prepare("a")
    assert len(parts.done(KEYS)) == 1
    parts.prepare("b")
    assert parts.done(KEYS) == set()
    kept = ScoredParts(tmp_path / "p.old-1", LABELS)
    assert kept.done(KEYS) == {FrameKey("v", 1)}, "nothing is lost"


def test_a_broken_part_is_scored_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = ScoredParts(tmp_path / "p", LABELS)
    parts.prepare("a")
    parts.add(detections("v", 1))
    parts.flush()
    (path,) = (tmp_path / "p").glob("part-*")
    path.write_bytes(path.read_bytes()[:100])
    assert parts.done(KEYS) == set()
    assert "scored anew" in caplog.text
    assert path.name in caplog.text
    assert parts.read() == []


def test_a_part_that_is_not_of_this_test_is_scored_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Damage may leave a file that can be read: of other keyframes, or of some twice."""
    parts = ScoredParts(tmp_path / "p", LABELS)
    parts.prepare("a")
    for added in (detections("v", 2), detections("x", 1)):
        parts.add(added)
        parts.flush()
    (path, _) = (tmp_path / "p").glob("part-*")
    path.with_name("part-zz.npz").write_bytes((tmp_path / "p" / parts.names[0]).read_bytes())
    assert parts.done(KEYS) == {FrameKey("v", 1), FrameKey("v", 2)}
    assert len(parts.names) == 1
    assert caplog.text.count("not a part of this test") == 2
    (tmp_path / "p" / "run.json").write_bytes(b"\x00")
    parts.prepare("a")
    assert parts.done(KEYS) == set(), "without its note nobody knows what they are of"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    parts = ScoredParts(tmp_path / "file" / "p", LABELS)
    with pytest.raises(UserError, match="file/p"):
        parts.prepare("a")


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
def test_fingerprints_differ(words: list[str], arrays: list[np.ndarray]) -> None:
    base = fingerprint(["x"], [np.arange(4)])
    assert fingerprint(["x"], [np.arange(4)]) == base
    assert fingerprint(words, arrays) != base
    assert fingerprint([], [np.arange(8)[::2]]) == fingerprint([], [np.arange(0, 8, 2)])
