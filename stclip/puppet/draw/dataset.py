"""Draws Puppet: a benchmark in J-HMDB's layout, of people that the project draws itself.

A folder holds ``videos/<video>/00001.png`` (or .jpg) ..., J-HMDB's json files with everybody
annotated, ``lists/`` (which videos are of the seen and the unseen classes of each split), the same
clips with several labels a person (multi.py), and ``puppet.json``, which says what was drawn.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stclip.data.jhmdb import CLASSES
from stclip.data.labels import choices, read_label_file
from stclip.errors import UserError
from stclip.files import locked, write_json, write_text
from stclip.puppet.draw.camera import plan_camera
from stclip.puppet.draw.chance import Chance
from stclip.puppet.draw.detections import Box, Detection, detect
from stclip.puppet.draw.multi import annotations, detection_rows
from stclip.puppet.draw.scene import HEIGHT, WIDTH, plan_scene
from stclip.puppet.draw.settings import (
    MAX_CLIPS,
    PARTS,
    SETTINGS,
    ClipPlan,
    choose_actions,
    choose_frames,
    plan_clips,
)

VERSION = 1  # goes up whenever equal arguments would give other pixels
SPLITS = (1, 2, 3, 4)
_COMPRESSION = 6  # of zlib; 9 would take seven times as long, for 8 % less


@dataclass(frozen=True)
class DrawnClip:
    """A clip whose frames are on disk.

    Attributes:
        plan: what was asked for.
        actions: of the persons, the main one first.
        boxes: of every frame, one for each person, xyxy in pixels.
        detections: of every frame, the best score first.
        pixels: SHA-256 over the RGB bytes of all frames.
        bytes: size of the frames on disk.
    """

    plan: ClipPlan
    actions: tuple[str, ...]
    boxes: list[list[Box]]
    detections: list[list[Detection]]
    pixels: bytes
    bytes: int


def draw_puppet(
    folder: str | Path,
    *,
    setting: str = "standard",
    train_clips: int = 96,
    test_clips: int = 40,
    seed: int = 0,
    workers: int | None = None,
    label_splits: str | Path = "data/label_splits",
) -> dict[str, Any]:
    """Draw the dataset into ``folder``, whole or not at all.

    Args:
        folder: is created; must not exist yet.
        setting: a key of SETTINGS.
        train_clips: clips of each of the 21 classes for training.
        test_clips: the same for testing.
        seed: of everything. A clip depends on the seed, the setting, its part, its class and its
            number alone, so fewer clips are the first of more.
        workers: processes that draw; None takes one for each core.
        label_splits: the folder that holds ``jhmdb/split_<n>/`` and ``puppet/time.txt``.

    Returns:
        The content of ``puppet.json``. Its ``pixels_sha256`` (over the SHA-256 of each clip's
        RGB bytes before compression, in the order of ``plan_clips``) is the same on every machine
        but for the setting ``camera``, whose filters may round otherwise in another Pillow; the
        bytes of PNG files depend on the build of zlib.

    Raises:
        UserError: an argument cannot be, the folder exists, or the disk is full or not writable.
    """
    _check(setting, train_clips, test_clips, workers)
    folder = Path(folder)
    lists = _label_lists(Path(label_splits))
    plans = plan_clips(setting, train_clips, test_clips, seed)
    with _new_folder(folder) as temporary:
        clips = list(_draw_all(plans, temporary / "videos", workers or os.cpu_count() or 1))
        summary = {
            "version": VERSION,
            "setting": setting,
            "seed": seed,
            "train_clips": train_clips,
            "test_clips": test_clips,
            "width": WIDTH,
            "height": HEIGHT,
            "frames": sum(len(clip.boxes) for clip in clips),
            "persons": sum(len(clip.actions) for clip in clips),
            "boxes": sum(map(len, (boxes for clip in clips for boxes in clip.boxes))),
            "frame_bytes": sum(clip.bytes for clip in clips),
            "pixels_sha256": hashlib.sha256(b"".join(clip.pixels for clip in clips)).hexdigest(),
        }
        _write_jhmdb(temporary, clips)
        _write_multi(temporary, clips)
        _write_lists(temporary / "lists", clips, lists)
        write_json(temporary / "puppet.json", summary)
    return summary


def _check(setting: str, train_clips: int, test_clips: int, workers: int | None) -> None:
    if setting not in SETTINGS:
        raise UserError(f"setting {setting!r} is unknown; {choices(setting, SETTINGS)}")
    for name, count in (("train_clips", train_clips), ("test_clips", test_clips)):
        if not 0 <= count <= MAX_CLIPS:
            raise UserError(f"{name}: a number from 0 to {MAX_CLIPS} expected, found {count}")
    if train_clips + test_clips == 0:
        raise UserError("train_clips and test_clips are both 0; there is nothing to draw")
    if workers is not None and workers < 1:
        raise UserError(f"workers: a number above 0 expected, found {workers}")


def draw_clip(plan: ClipPlan, videos: Path) -> DrawnClip:
    """Draw the frames of one clip into the folder ``videos/<name>``."""
    setting = SETTINGS[plan.setting]
    rng = plan.random()
    actions = choose_actions(rng, setting, plan.action)
    frames = choose_frames(rng)
    scene = plan_scene(rng, actions, frames, apart=setting.apart)
    errors = plan.random("detections")
    camera = plan_camera(Chance(plan.random("camera"))) if setting.camera else None
    boxes: list[list[Box]] = []
    detections: list[list[Detection]] = []
    folder = videos / plan.name
    folder.mkdir(parents=True)
    pixels, size = hashlib.sha256(), 0
    for frame in range(frames):
        picture, found = scene.draw(frame)
        assert all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in found), f"{plan.name}: {found}"
        path = folder / f"{frame + 1:05d}.{setting.ending}"
        if camera is None:
            picture.save(path, compress_level=_COMPRESSION)
        else:
            picture = camera.film(picture, frame)
            path.write_bytes(camera.compress(picture))
        pixels.update(picture.tobytes())
        size += path.stat().st_size
        boxes.append(found)
        detections.append(detect(errors, found, WIDTH, HEIGHT))
    return DrawnClip(plan, actions, boxes, detections, pixels.digest(), size)


def _draw_all(plans: Sequence[ClipPlan], videos: Path, workers: int) -> Iterator[DrawnClip]:
    """The clips in the order of the plans, with a progress bar."""
    draw = partial(draw_clip, videos=videos)
    bar = partial(tqdm, total=len(plans), desc="drawing", unit="clip", disable=None)
    if workers == 1:
        yield from bar(map(draw, plans))
        return
    # Spawned, not forked: torch may have threads by now, which a fork would lose.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        # This starts the processes. A terminal interrupts the whole group; they inherit that
        # interrupts are blocked, and this process alone cleans up.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            drawn = pool.map(draw, plans, chunksize=4)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            yield from bar(drawn)
        except BrokenProcessPool as error:
            raise UserError(
                "a drawing process was killed, perhaps for lack of memory; use fewer workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that gets its name when the block succeeds."""
    if os.path.lexists(folder):
        raise UserError(f"{folder} exists already; remove it to draw it again")
    prefix = f".tmp-{folder.name}-"
    with locked(folder.parent, folder.name, leftovers=f"{prefix}*"):
        parent = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            temporary = parent / folder.name  # made by mkdir, so that its mode follows the umask
            temporary.mkdir()
            yield temporary
            os.rename(temporary, folder)
        except OSError as error:
            raise UserError(f"{folder}: writing failed: {error.strerror or error}") from error
        finally:  # after an interrupt too: half a dataset would be taken for a whole one
            shutil.rmtree(parent, ignore_errors=True)


def _write_jhmdb(root: Path, clips: Sequence[DrawnClip]) -> None:
    """The json and text files that J-HMDB comes with."""
    detections: list[dict[str, Any]] = []
    tested: list[str] = []
    content: dict[str, dict[str, list[Any]]] = {
        part: {"images": [], "annotations": [], "categories": [_PERSON]} for part in PARTS
    }
    for number, clip in enumerate(clips, start=1):
        name, part = clip.plan.name, clip.plan.part
        for frame, boxes in enumerate(clip.boxes, start=1):
            image_id = 1000 * number + frame
            file = f"{name}/{frame:05d}.{SETTINGS[clip.plan.setting].ending}"
            content[part]["images"].append(_image(image_id, name, frame, file))
            content[part]["annotations"] += [
                _annotation(image_id, person, clip.actions[person - 1], box)
                for person, box in enumerate(boxes, start=1)
            ]
            if part == "test":
                detections += [
                    {"image_id": image_id, "category_id": 0, "bbox": box, "score": f"{score:.7f}"}
                    for box, score in clip.detections[frame - 1]
                ]
                tested.append(f"{clip.plan.action}/{name}/{frame:05d}.txt")
    _write_lines(root / "annotations" / "all_label.txt", CLASSES)
    _write_lines(root / "annotations" / "testlist.txt", tested)
    for part in PARTS:
        path = root / "annotations" / f"jhmdb_{part}_gt_min.json"
        write_text(path, json.dumps(content[part]))
    write_text(root / "jhmdb_faster_RCNN_person.json", json.dumps(detections))


_PERSON = {"supercategory": "person", "id": 1, "name": "person"}


def _image(image_id: int, name: str, frame: int, file: str) -> dict[str, Any]:
    return {
        "id": image_id,
        "img_path": file,
        "height": HEIGHT,
        "width": WIDTH,
        "movie": name,
        "timestamp": f"{frame:05d}",
    }


def _annotation(image_id: int, person: int, action: str, box: Box) -> dict[str, Any]:
    return {
        "id": 10 * image_id + person,
        "image_id": image_id,
        "category_id": 1,
        "action_ids": [CLASSES.index(action) + 1],
        "person_id": person,
        "bbox": box,
        "area": (box[2] - box[0]) * (box[3] - box[1]),
        "keypoints": [],
        "iscrowd": 0,
    }


def _write_multi(root: Path, clips: Sequence[DrawnClip]) -> None:
    """The files of Puppet-multi."""
    rows: list[dict[str, Any]] = []
    for part in PARTS:
        chosen = [clip for clip in clips if clip.plan.part == part]
        described = ((clip.plan.name, clip.actions, clip.boxes) for clip in chosen)
        content = annotations(described, WIDTH, HEIGHT)
        write_text(root / f"annotations_{part}.json", json.dumps(content))
        if part == "test":
            for clip in chosen:
                rows += detection_rows(clip.plan.name, clip.detections)
    _write_lines(root / "detections_test.jsonl", map(json.dumps, rows))


def _label_lists(folder: Path) -> dict[str, tuple[str, set[str]]]:
    """For the name of every list but its part: the part's place in the name, and the labels."""
    kinds = {"seen": "train", "unseen": "test"}
    lists = {
        f"split_{split}_{{part}}_{kind}": set(
            read_label_file(folder / "jhmdb" / f"split_{split}" / f"{file}_label.txt")
        )
        for split in SPLITS
        for kind, file in kinds.items()
    }
    lists["time_{part}"] = set(read_label_file(folder / "puppet" / "time.txt"))
    return {
        name.format(part=part): (part, labels) for name, labels in lists.items() for part in PARTS
    }


def _write_lists(
    folder: Path, clips: Sequence[DrawnClip], lists: dict[str, tuple[str, set[str]]]
) -> None:
    """The videos of a part whose main person does one of the labels, for every list."""
    for name, (part, labels) in lists.items():
        plans = (clip.plan for clip in clips if clip.plan.part == part)
        _write_lines(folder / f"{name}.txt", [p.name for p in plans if p.action in labels])


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))
