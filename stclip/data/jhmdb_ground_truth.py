"""J-HMDB's annotations, from either of the files that they are released in.

DATA.md, "J-HMDB's files", has the formats.

``JHMDB-GT.pkl`` holds everything; ``jhmdb_{train,test}_gt_min.json`` hold one part each, and the
ids that detection files call the frames by.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stclip.data.annotations import Keyframe
from stclip.data.labels import read_label_file, read_video_list
from stclip.data.proposals import is_number
from stclip.data.safe_pickle import load_pickle
from stclip.data.selection import Part
from stclip.data.tube_file import parse_act, whole_number
from stclip.errors import Report, UserError, fail, reporting
from stclip.files import read_json
from stclip.structures import FrameKey

# The 21 classes; the files number them in this order.
CLASSES = (
    "brush_hair", "catch", "clap", "climb_stairs", "golf", "jump", "kick_ball", "pick", "pour",
    "pullup", "push", "run", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "stand",
    "swing_baseball", "throw", "walk", "wave",
)  # fmt: skip

# One frame's rows while a file is read: its boxes, and the class name of each.
_Rows = tuple[list[Sequence[float]], list[tuple[str, ...]]]


@dataclass(frozen=True)
class GroundTruth:
    """The annotations of one part (split 1's train or test videos).

    Attributes:
        path: the file they were read from.
        keyframes: for every ``class/video`` its annotated frames, ascending.
        lengths: for every ``class/video`` the frames that it has according to the file.
        image_ids: the frame of every image id; empty if the file has no such ids.
        sizes: for the ``class/video`` of which the file says that, width and height of its frames.
    """

    path: Path
    keyframes: dict[str, list[Keyframe]] = field(repr=False)
    lengths: dict[str, int] = field(repr=False)
    image_ids: dict[Any, FrameKey] = field(repr=False)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def video_labels(self) -> dict[str, set[str]]:
        """For every video the labels of its boxes."""
        return {
            video: {name for frame in frames for names in frame.labels for name in names}
            for video, frames in self.keyframes.items()
        }


def read_ground_truth(
    path: str | Path,
    part: Part,
    all_names: Sequence[str] | None = None,
    report: Report = fail,
) -> GroundTruth:
    """Read ``JHMDB-GT.pkl``, or ``jhmdb_train_gt_min.json`` or ``jhmdb_test_gt_min.json``.

    Class numbers get the names of ``all_label.txt`` beside the json (of the pickle's own list), and
    these the spelling of ``all_names``. Class folders come from ``testlist.txt`` beside the json
    where that lists the video, and else are the class name.

    Args:
        path: the file.
        part: which of the pickle's videos; a json file holds one part only.
        all_names: ALL_LABEL's names; None keeps the names of the dataset.
        report: gets what is wrong with a row or video, which is then left out.

    Raises:
        UserError: the file cannot be read, is not in the format, or does not fit ``all_names``.
    """
    path = Path(path)
    if path.suffix == ".json":
        return _read_json(path, all_names, report)
    return _read_pickle(path, part, all_names, report)


def _read_pickle(
    path: Path, part: Part, all_names: Sequence[str] | None, report: Report
) -> GroundTruth:
    file = parse_act(path, load_pickle(path), report)
    own = file.labels
    names = dict(zip(own, spelt(own, own if all_names is None else all_names, path), strict=True))
    videos = file.videos(part)
    keyframes = {video: file.keyframes(video, names) for video in videos}
    lengths = {video: file.lengths[video] for video in videos}
    sizes = {video: file.sizes[video] for video in videos if video in file.sizes}
    return GroundTruth(path, keyframes, lengths, {}, sizes)


def _read_json(path: Path, all_names: Sequence[str] | None, report: Report) -> GroundTruth:
    content = read_json(path)
    own = _own_names(path.parent, all_names)
    names = spelt(own, own if all_names is None else all_names, path)
    places: dict[Any, tuple[str, int]] = {}
    slots: dict[tuple[str, int], _Rows] = {}
    rows: dict[Any, _Rows] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for image, where in _entries(content, "images", path):
        with reporting(report):
            id_, place = _image(image, where)
            if places.setdefault(id_, place) != place:
                raise UserError(
                    f"{where}: id {id_!r} is that of frame {places[id_][1]} of {places[id_][0]} "
                    "too; give every frame an id of its own"
                )
            if "width" in image and "height" in image:
                size = _size(image["width"], image["height"], where)
                if sizes.setdefault(place[0], size) != size:
                    raise UserError(
                        f"{where}: {size[0]} x {size[1]} pixels, but other frames of {place[0]} "
                        f"have {sizes[place[0]][0]} x {sizes[place[0]][1]}"
                    )
            rows[id_] = slots.setdefault(place, ([], []))
    folders = _class_folders(path.parent)
    for annotation, where in _entries(content, "annotations", path):
        with reporting(report):
            id_, box, numbers = _annotation(annotation, rows, len(names), where)
            boxes, labels = rows[id_]
            boxes.append(box)
            labels.append(tuple(names[number - 1] for number in numbers))
            for number in numbers:
                folders.setdefault(places[id_][0], own[number - 1])
    frames: dict[str, dict[int, _Rows]] = {}
    image_ids: dict[Any, FrameKey] = {}
    names_of = {movie: f"{folder}/{movie}" for movie, folder in folders.items()}
    for id_, (movie, frame) in places.items():
        video = names_of.get(movie, movie)
        image_ids[id_] = FrameKey(video, frame)
        frames.setdefault(video, {})[frame] = rows[id_]
    keyframes = {video: _keyframes(video, found) for video, found in frames.items()}
    lengths = {video: max(found) for video, found in frames.items()}
    sizes = {names_of.get(movie, movie): size for movie, size in sizes.items()}
    return GroundTruth(path, keyframes, lengths, image_ids, sizes)


def _image(image: Any, where: str) -> tuple[Any, tuple[str, int]]:
    """The id of an image, and its movie and frame."""
    try:
        place = (str(image["movie"]), whole_number(image["timestamp"]))
        if place[1] < 1:
            raise ValueError("frames count from 1")
        hash(image["id"])  # of a list it is a TypeError: an id is a number or a text
        return image["id"], place
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: id, movie and timestamp (a frame from 1) were expected, found {image!r:.80}"
        ) from error


def _size(width: Any, height: Any, where: str) -> tuple[int, int]:
    try:
        size = whole_number(width), whole_number(height)
        if min(size) < 1:
            raise ValueError
        return size
    except (TypeError, ValueError):
        raise UserError(
            f"{where}: width {width!r:.20}, height {height!r:.20}: whole pixels were expected"
        ) from None


def _annotation(
    annotation: Any, images: Mapping[Any, _Rows], classes: int, where: str
) -> tuple[Any, Sequence[float], list[int]]:
    """The image id of an annotation, its box, and its action numbers."""
    try:
        id_ = annotation["image_id"]
        if id_ not in images:
            raise KeyError(id_)
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
            raise ValueError("not a box")
        if not isinstance(annotation["action_ids"], list):
            raise TypeError("not a list")
        numbers = [whole_number(number) for number in annotation["action_ids"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: image_id (of one of the images), bbox (x1, y1, x2, y2) and action_ids were "
            f"expected, found {annotation!r:.120}"
        ) from error
    if not all(1 <= number <= classes for number in numbers):
        raise UserError(f"{where}: action_ids {numbers}: numbers from 1 to {classes} were expected")
    return id_, box, numbers


def beside(folder: Path, name: str) -> Path | None:
    """A file in ``folder`` or its ``annotations``, or in the folder above if this is that one."""
    places = [folder, folder / "annotations"]
    if folder.name == "annotations":
        places.append(folder.parent)
    return next((place / name for place in places if (place / name).is_file()), None)


def _keyframes(video: str, frames: Mapping[int, _Rows]) -> list[Keyframe]:
    return [
        Keyframe(
            FrameKey(video, frame),
            np.array(boxes, dtype=np.float32).reshape(-1, 4),
            tuple(labels),
        )
        for frame, (boxes, labels) in sorted(frames.items())
    ]


def _entries(content: Any, name: str, path: Path) -> Iterable[tuple[Any, str]]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UserError(f"{path}: no list {name!r} in it; J-HMDB's json files have one")
    for index, row in enumerate(rows):
        yield row, f"{path}: {name}[{index}]"


def _own_names(folder: Path, all_names: Sequence[str] | None) -> Sequence[str]:
    """The names that the json's class numbers stand for."""
    path = beside(folder, "all_label.txt")
    if path is not None:
        return read_label_file(path)
    return CLASSES if all_names is None else all_names


def spelt(own: Sequence[str], all_names: Sequence[str], source: Path) -> list[str]:
    """The dataset's class names in ALL_LABEL's spelling, for each of ``own`` one.

    Where one list holds all names of the other, in any order, they stay as they are. Otherwise
    ALL_LABEL is taken for the same classes in the same order with some of the texts edited, which
    is what a person would do to try another wording; anything else cannot be told from a wrong
    file.
    """
    known = set(all_names)
    if set(own) <= known or known <= set(own):
        return list(own)
    moved = [
        name
        for position, name in enumerate(own)
        if name in known and (len(own) != len(all_names) or all_names[position] != name)
    ]
    if len(own) != len(all_names) or moved:
        lacking = sorted(set(own) - known)
        raise UserError(
            f"ALL_LABEL: the classes of {source} are not in it ({', '.join(lacking[:5])}"
            f"{', ...' if len(lacking) > 5 else ''}); list all {len(own)}, and to word some "
            "differently keep the order"
        )
    return list(all_names)


def _class_folders(folder: Path) -> dict[str, str]:
    """The class folder of the videos in ``testlist.txt`` (``class/video/frame.txt`` a line)."""
    path = beside(folder, "testlist.txt")
    if path is None:
        return {}
    folders: dict[str, str] = {}
    for line in read_video_list(path):
        parts = line.split("/")
        if len(parts) == 3:
            folders[parts[1]] = parts[0]
    return folders
