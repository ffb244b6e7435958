"""J-HMDB, and datasets in its layout, from whatever files there are (DATA.md, "J-HMDB").

Everything is looked for under ``<DATA_DIR>/<name>``: annotations and detections there or in
``annotations/``; frames as ``videos/<video>/00001.png`` (flattened), or in class folders as the
official archives have them, ``Rename_Images/<class>/<video>/00001.png`` and
``ReCompress_Videos/<class>/<video>.avi``.

``JHMDB-GT.pkl`` holds all annotations; ``jhmdb_{train,test}_gt_min.json`` hold one part each, and
the ids that detection files call the frames by.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stclip.data.annotations import DetectionDataset, GroundTruth, Request, Rows, keyframes_of
from stclip.data.class_videos import check_sizes, find_file, find_videos, read_lines
from stclip.data.fields import is_box, rows_of, whole_number
from stclip.data.labels import Part, match_names, read_label_file, read_video_list
from stclip.data.proposals import Proposals, read_coco_detections
from stclip.data.safe_pickle import load_pickle
from stclip.data.tubes import parse_act
from stclip.errors import Report, UserError, fail, reporting
from stclip.files import read_json
from stclip.structures import FrameKey

logger = logging.getLogger(__name__)

OFFICIAL = "jhmdb"
# Datasets in this layout that the project draws, and the commands that do it.
DRAWN = {
    "puppet": "stclip puppet draw --setting standard",
    "puppet_crowd": "stclip puppet draw --setting crowd",
    "puppet_context": "stclip puppet draw --setting context",
    "puppet_camera": "stclip puppet draw --setting camera",
}
# The 21 classes; the files number them in this order.
CLASSES = (
    "brush_hair", "catch", "clap", "climb_stairs", "golf", "jump", "kick_ball", "pick", "pour",
    "pullup", "push", "run", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "stand",
    "swing_baseball", "throw", "walk", "wave",
)  # fmt: skip
PICKLE = "JHMDB-GT.pkl"
DETECTIONS = "jhmdb_faster_RCNN_person.json"
_JSON = {"train": "jhmdb_train_gt_min.json", "test": "jhmdb_test_gt_min.json"}
_FOLDERS = ("videos", "Rename_Images", "ReCompress_Videos")
# HMDB51, which J-HMDB is cut from, was released at this rate.
_FPS = 30.0
# Split 1: videos and annotated frames of each part.
_COUNTS = {"train": (660, 22713), "test": (268, 9139)}
_DETECTED = 9114  # test frames that the released detections cover


def build_jhmdb(request: Request) -> DetectionDataset:
    """The keyframes that are asked for (of official split 1), with their videos found on disk.

    Raises:
        UserError: annotations, detections, videos or frames are missing or malformed, or no video
            is left. All missing videos and frames are reported in one message.
    """
    root, report = request.data_dir / request.name, request.report
    if request.name in DRAWN and not root.is_dir():
        raise UserError(
            f"DATASETS.{request.part.upper()} {request.name}: {root} is not there; draw it: "
            f"{DRAWN[request.name]} --out {root}"
        )
    truth = _ground_truth(root, request.part, request.labels.all, report)
    chosen = request.choose(truth.video_labels(), str(truth.path))
    keyframes = [keyframe for video in chosen for keyframe in truth.keyframes[video]]
    if request.part == "train":
        keyframes = [keyframe for keyframe in keyframes if len(keyframe.boxes)]
    proposals, path = None, None
    if request.detections is not None:
        path = Path(request.detections) if request.detections else _own_detections(root)
        found = _proposals(root, path, truth, chosen, report)
        if not request.detections:
            _warn_coverage(root, truth, found)
        keys = {keyframe.key for keyframe in keyframes}
        proposals = {key: rows for key, rows in found.items() if key in keys}
        if not proposals:
            logger.warning("%s: no detection for any of the %d keyframes", root, len(keys))
    lengths = {video: truth.lengths[video] for video in chosen}
    remedy = _remedy(root, "put them there")
    videos = find_videos(root, _FOLDERS, lengths, "00001.png", remedy, report)
    remedy = _remedy(root, "take the pictures as they were released, or boxes of their size")
    check_sizes(videos, truth.sizes, truth.path, remedy, report)
    return DetectionDataset(
        request.name, videos, keyframes, proposals, sources=(truth.path, path),
        fps=dict.fromkeys(videos, _FPS),
    )  # fmt: skip


def _ground_truth(root: Path, part: Part, all_names: Sequence[str], report: Report) -> GroundTruth:
    path = find_file(root, _JSON[part]) or find_file(root, PICKLE)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: neither {_JSON[part]} nor {PICKLE} is in {root} or "
            f"{root / 'annotations'}; {_remedy(root, 'put one of them there')}"
        )
    truth = read_ground_truth(path, part, all_names, report)
    videos, frames = len(truth.keyframes), sum(map(len, truth.keyframes.values()))
    # A small test set is fine; one that is nearly all of J-HMDB is probably damaged.
    nearly_whole = root.name == OFFICIAL and 2 * videos > _COUNTS[part][0]
    if nearly_whole and (videos, frames) != _COUNTS[part]:
        logger.warning(
            "%s: %d %s videos with %d frames; split 1 of J-HMDB has %d with %d",
            path, videos, part, frames, *_COUNTS[part],
        )  # fmt: skip
    return truth


def _warn_coverage(root: Path, truth: GroundTruth, found: Mapping[FrameKey, Proposals]) -> None:
    """Compare with the released detections, where the whole test part is there."""
    keys = {keyframe.key for video in truth.keyframes.values() for keyframe in video}
    covered = len(keys & found.keys())
    if root.name == OFFICIAL and len(keys) == _COUNTS["test"][1] and covered != _DETECTED:
        logger.warning(
            "%s: detections for %d of the %d test frames; the released file has them for %d",
            find_file(root, DETECTIONS), covered, len(keys), _DETECTED,
        )  # fmt: skip


def _remedy(root: Path, otherwise: str) -> str:
    """What to do about a file that is not in the dataset's folder."""
    command = DRAWN.get(root.name)
    if command is None:
        return f"{otherwise} (see DATA.md)"
    return f"remove {root} and draw it again: {command} --out {root}"


def _own_detections(root: Path) -> Path:
    path = find_file(root, DETECTIONS)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: {DETECTIONS} is not in {root} or "
            f"{root / 'annotations'}; {_remedy(root, 'put it there')}, name another file in "
            "DATASETS.DETECTIONS, or set TEST.BOXES to ground_truth"
        )
    return path


def _proposals(
    root: Path, path: Path, truth: GroundTruth, chosen: Collection[str], report: Report
) -> dict[FrameKey, Proposals]:
    if path.suffix == ".jsonl":
        return read_lines(path, truth.lengths, _FPS, chosen, f"{truth.path}", report)
    image_ids = dict(truth.image_ids)
    # A file of detections may cover the other part as well, which is no mistake.
    for name in _JSON.values():
        other = find_file(root, name)
        if other is not None and other != truth.path:
            image_ids = {**read_ground_truth(other, "train", None, report).image_ids, **image_ids}
    if not image_ids:
        raise UserError(
            f"{path}: its image ids mean nothing without {_JSON['test']}, which is not next to "
            f"{truth.path}; put it there, or give detections as .jsonl, or set TEST.BOXES to "
            "ground_truth"
        )
    return read_coco_detections(path, image_ids, f"{truth.path}", report)


def read_ground_truth(
    path: str | Path,
    part: Part,
    all_names: Sequence[str] | None = None,
    report: Report = fail,
) -> GroundTruth:
    """Read ``JHMDB-GT.pkl``, or ``jhmdb_train_gt_min.json`` or ``jhmdb_test_gt_min.json``.

    Class numbers get the names of ``all_label.txt`` next to the json (of the pickle's own list),
    worded as in ``all_names`` (ALL_LABEL's). Class folders come from ``testlist.txt`` next to the
    json where that lists the video, and else are the class name. A json holds one part only.

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
    own = match_names(file.labels, file.labels if all_names is None else all_names, path)
    videos = file.videos(part)
    truth = file.ground_truth(videos, dict(zip(file.labels, own, strict=True)))
    return replace(truth, lengths={video: file.lengths[video] for video in videos})


def _read_json(path: Path, all_names: Sequence[str] | None, report: Report) -> GroundTruth:
    content, hint = read_json(path), "J-HMDB's json files have one"
    own = _own_names(path.parent, all_names)
    names = match_names(own, own if all_names is None else all_names, path)
    places: dict[Any, tuple[str, int]] = {}
    slots: dict[tuple[str, int], Rows] = {}
    rows: dict[Any, Rows] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for image, where in rows_of(content, "images", path, hint):
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
    for annotation, where in rows_of(content, "annotations", path, hint):
        with reporting(report):
            id_, box, numbers = _annotation(annotation, rows, len(names), where)
            boxes, labels = rows[id_]
            boxes.append(box)
            labels.append(tuple(names[number - 1] for number in numbers))
            for number in numbers:
                folders.setdefault(places[id_][0], own[number - 1])
    frames: dict[str, dict[int, Rows]] = {}
    image_ids: dict[Any, FrameKey] = {}
    names_of = {movie: f"{folder}/{movie}" for movie, folder in folders.items()}
    for id_, (movie, frame) in places.items():
        video = names_of.get(movie, movie)
        image_ids[id_] = FrameKey(video, frame)
        frames.setdefault(video, {})[frame] = rows[id_]
    keyframes = {video: keyframes_of(video, found) for video, found in frames.items()}
    lengths = {video: max(found) for video, found in frames.items()}
    sizes = {names_of.get(movie, movie): size for movie, size in sizes.items()}
    return GroundTruth(path, tuple(names), keyframes, lengths, sizes, image_ids)


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
    annotation: Any, images: Mapping[Any, Rows], classes: int, where: str
) -> tuple[Any, Sequence[float], list[int]]:
    """The image id of an annotation, its box, and its action numbers."""
    try:
        id_ = annotation["image_id"]
        if id_ not in images:
            raise KeyError(id_)
        box = annotation["bbox"]
        if not is_box(box):
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


def _own_names(folder: Path, all_names: Sequence[str] | None) -> Sequence[str]:
    """The names that the json's class numbers stand for."""
    path = find_file(folder, "all_label.txt")
    if path is not None:
        return read_label_file(path)
    return CLASSES if all_names is None else all_names


def _class_folders(folder: Path) -> dict[str, str]:
    """The class folder of the videos in ``testlist.txt`` (``class/video/frame.txt`` a line)."""
    path = find_file(folder, "testlist.txt")
    if path is None:
        return {}
    folders: dict[str, str] = {}
    for line in read_video_list(path):
        parts = line.split("/")
        if len(parts) == 3:
            folders[parts[1]] = parts[0]
    return folders
