"""Ground truth alone, for scoring result files, from any of the formats that it comes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stclip.data.annotations import GroundTruth, Keyframe
from stclip.data.custom import VideoEntry, read_annotations
from stclip.data.jhmdb import CLASSES, read_ground_truth
from stclip.data.tubes import TubeFile, read_tube_json
from stclip.data.ucf24 import read_tube_file, worded
from stclip.data.video import VideoFile
from stclip.errors import UserError
from stclip.files import check_regular, read_json
from stclip.structures import FrameKey, Tube


def read_evaluation_truth(
    path: str | Path, official_split: int = 1, all_names: Sequence[str] | None = None
) -> GroundTruth:
    """Read the ground truth of all test videos.

    Args:
        path: ``JHMDB-GT.pkl``, ``UCF101v2-GT.pkl``, ``pyannot.pkl`` with its lists of videos, a
            ``jhmdb_*_gt_min.json``, or a file in our annotations format.
        official_split: which of the pickle's test lists, from 1; the other files have no such
            lists and take no notice of it.
        all_names: ALL_LABEL's names, for class names worded differently than in the file. UCF101-24
            without it: as in ``data/label_splits/ucf24``.

    Raises:
        UserError: the file cannot be read or is in none of the formats.
    """
    path = Path(path)
    is_json = _is_json(path)
    content = read_json(path) if is_json else None
    if isinstance(content, dict) and "keyframes" in content:
        return _from_annotations(path)
    if is_json != (path.suffix == ".json"):
        kind = "JSON" if is_json else "no JSON"
        raise UserError(
            f"{path}: holds {kind}; name J-HMDB's pickle .pkl, UCF101-24's too, and "
            "J-HMDB's json .json"
        )
    if is_json:
        if not (isinstance(content, dict) and "images" in content):
            raise UserError(
                f"{path}: neither J-HMDB's json, with lists 'images' and 'annotations', nor our "
                "annotations format, with 'videos' and 'keyframes' (DATA.md); tubes are for the "
                "video mAP"
            )
        names = tuple(CLASSES if all_names is None else all_names)
        return replace(read_ground_truth(path, "test", all_names), labels=names)
    file = read_tube_file(path)
    truth = file.ground_truth(file.videos("test", official_split), worded(file, all_names))
    return truth if all_names is None else replace(truth, labels=tuple(all_names))


def read_tube_truth(
    path: str | Path, official_split: int = 1, all_names: Sequence[str] | None = None
) -> TubeFile:
    """Read the tubes of all test videos.

    Args:
        path: ``JHMDB-GT.pkl``, ``UCF101v2-GT.pkl``, ``pyannot.pkl`` with its lists of videos, or a
            .json of tubes.
        official_split: which of the pickle's test lists, from 1; a .json has no such lists.
        all_names: ALL_LABEL's names, for class names worded differently than in the pickle.

    Raises:
        UserError: the file cannot be read, has no tubes, or is in none of the formats.
    """
    path = Path(path)
    if path.suffix == ".json":
        return read_tube_json(path)
    file = read_tube_file(path)
    names = worded(file, all_names)
    tubes = {
        video: [Tube(names[tube.label], tube.frames, tube.boxes) for tube in file.tubes[video]]
        for video in file.videos("test", official_split)
    }
    return TubeFile(path, tuple(names.values()), tubes, file.lengths)


def _from_annotations(path: Path) -> GroundTruth:
    file = read_annotations(path)
    keyframes: dict[str, list[Keyframe]] = {video: [] for video in file.videos}
    opened: dict[str, VideoFile] = {}
    for entry in file.keyframes:
        frame = _frame(file.videos[entry.video], entry.timestamp, opened)
        key = FrameKey(entry.video, frame)
        keyframes[entry.video].append(Keyframe(key, entry.boxes, entry.labels))
    return GroundTruth(path, file.labels, keyframes)


def _frame(video: VideoEntry, seconds: float, opened: dict[str, VideoFile]) -> int:
    """The frame at a time. Only a video file must be there: its frames carry their own times."""
    if video.path.suffix.lower() == ".zip" or not video.path.is_file():
        return round(seconds * video.fps) + 1
    if video.id not in opened:
        opened[video.id] = VideoFile(video.path, video.id)
    return opened[video.id].frame_at(seconds, video.fps)


def _is_json(path: Path) -> bool:
    check_regular(path)
    try:
        with open(path, "rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
