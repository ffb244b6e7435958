"""What datasets share whose videos are called ``class/video``: finding these, and their persons."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from stclip.data.frames import Video
from stclip.data.labels import choices
from stclip.data.proposals import Proposals, read_jsonl_detections
from stclip.data.video import open_video
from stclip.errors import Report, UserError, fail, reporting
from stclip.structures import FrameKey

# Files whose frames are counted by reading them.
_COUNTED = (".avi", ".mp4")
_SUFFIXES = (*_COUNTED, ".zip")


def find_file(
    folder: Path, name: str, places: Collection[str] = ("", "annotations")
) -> Path | None:
    """A file in one of the places in a folder; if the folder is such a place, next to it too."""
    roots = [folder, folder.parent] if folder.name in places else [folder]
    paths = (root / place / name for root in roots for place in places)
    return next((path for path in paths if path.is_file()), None)


def find_videos(
    root: Path,
    folders: Sequence[str],
    lengths: Mapping[str, int],
    picture: str,
    remedy: str,
    report: Report = fail,
) -> dict[str, Video]:
    """Open the videos and see that all their frames are there, without decoding pictures.

    The frames of an .avi file are counted by decoding it; a bar shows how far that is.

    Args:
        root: the folder of the dataset.
        folders: where in it to look, with and without class folders.
        lengths: for every ``class/video`` how many frames it must have at least.
        picture: the usual name of a first frame, for the message.
        remedy: what to do if something is missing, for the message.
        report: gets one message for all videos and frames that are missing or unreadable.
    """
    videos: dict[str, Video] = {}
    broken: list[str] = []
    gaps: list[tuple[Path, list[int]]] = []
    places = {key: _find_video(root, folders, key) for key in lengths}
    absent = [key for key, path in places.items() if path is None]
    found = {key: path for key, path in places.items() if path is not None}
    bar: Iterable[tuple[str, Path]] = found.items()
    if any(path.suffix in _COUNTED for path in found.values()):  # the others take no time
        bar = tqdm(bar, desc="opening", unit="video", delay=3, leave=False, disable=None)
    for key, path in bar:
        try:
            videos[key] = open_video(path, key)
            missing = videos[key].missing(expected=lengths[key])
        except UserError as error:
            broken.append(str(error))
            continue
        if missing:
            gaps.append((path, missing))
    parts = []
    if absent:
        parts.append(
            f"{len(absent)} of {len(lengths)} videos are missing, the first is {absent[0]}"
        )
    if gaps:
        parts.append(
            f"{sum(len(missing) for _, missing in gaps)} frames of {len(gaps)} videos are missing, "
            f"the first is frame {gaps[0][1][0]} of {gaps[0][0]}"
        )
    if broken:
        parts.append(f"{len(broken)} videos cannot be read, the first is {broken[0]}")
    if parts:
        report(
            UserError(
                f"DATASETS.DATA_DIR {root.parent}: {'; '.join(parts)}; looked for "
                f"[class/]video/{picture} and [class/]video{'|'.join(_SUFFIXES)} in "
                f"{', '.join(folders)} of {root}; {remedy}"
            )
        )
    return videos


def check_sizes(
    videos: Mapping[str, Video],
    stated: Mapping[str, tuple[int, int]],
    source: Path,
    remedy: str,
    report: Report = fail,
) -> None:
    """See that pictures are as large as the annotations say, whose boxes are pixels of them.

    Args:
        videos: the opened videos.
        stated: width and height of some of them.
        source: the file that says so.
        remedy: what to do, for the message.
        report: gets one message for all videos of another size, or that a picture is unreadable.
    """
    other: dict[str, tuple[int, int]] = {}
    with reporting(report):
        for name, video in videos.items():
            if name in stated and (size := video.size) != stated[name]:
                other[name] = size
        if other:
            name, size = next(iter(other.items()))
            raise UserError(
                f"{source}: its boxes are in pixels of other sizes than the pictures of "
                f"{len(other)} of {len(videos)} videos have (first: {stated[name][0]} x "
                f"{stated[name][1]} it says, {size[0]} x {size[1]} has {videos[name].path}); "
                f"{remedy}"
            )


def _find_video(root: Path, folders: Sequence[str], key: str) -> Path | None:
    folder, _, video = key.rpartition("/")
    for place in folders:
        for parent in (root / place, root / place / folder):
            if (parent / video).is_dir():
                return parent / video
            for suffix in _SUFFIXES:
                if (parent / f"{video}{suffix}").is_file():
                    return parent / f"{video}{suffix}"
    return None


def read_lines(
    path: Path,
    lengths: Mapping[str, int],
    fps: float,
    chosen: Collection[str],
    source: str,
    report: Report = fail,
) -> dict[FrameKey, Proposals]:
    """The detected persons of a .jsonl file, which may name videos with or without their class.

    ``lengths`` has the frames of every ``class/video`` of ``source``; ``fps`` turns seconds into
    frames. Rows of videos that are not chosen are checked and left out.

    Raises:
        UserError: the file cannot be read, or a line is malformed or of no such video or frame.
    """
    names = {name: video for video in lengths for name in (video, video.rpartition("/")[2])}
    used = set(chosen)

    def locate(name: str, seconds: float | None, frame: int | None) -> FrameKey | None:
        if name not in names:
            raise UserError(f"video {name!r} is not in {source}; {choices(name, names)}")
        video = names[name]
        number = round(seconds * fps) + 1 if seconds is not None else frame
        assert number is not None
        if number > lengths[video]:
            raise UserError(
                f"video {name!r} has {lengths[video]} frames ({fps:g} a second), no frame {number}"
            )
        return FrameKey(video, number) if video in used else None

    return read_jsonl_detections(path, locate, report)
