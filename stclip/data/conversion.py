"""From tracks in videos to all that training and testing need: annotations, label files, a config.

People are annotated in nearly every frame of a video, and neighbouring frames look alike, so only
some of them become keyframes. Whole videos are for training or for testing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from stclip.data.labels import choices
from stclip.data.tracks import Annotated, Film, Track
from stclip.data.video import open_video
from stclip.errors import UserError
from stclip.files import write_json, write_text
from stclip.structures.boxes import are_empty
from stclip.structures.groups import OBJECT, POSE

NOTHING = ("none", "__undefined__")  # what `stclip detect` and CVAT write for no action
TEST_SHARE = 0.25
_VIDEOS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".wmv", ".flv", ".3gp", ".ogv", ".zip",
)  # fmt: skip
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")

# Boxes in a picture, and what each person does.
Persons = dict[tuple[float, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Clip:
    """A video and the people in its keyframes, by the number of the picture from 0."""

    film: Film
    keyframes: dict[int, Persons] = field(repr=False)

    def people(self) -> Iterator[tuple[str, ...]]:
        """What the person of each box does."""
        return (actions for persons in self.keyframes.values() for actions in persons.values())

    def counts(self) -> Counter[str]:
        """How many boxes have each action."""
        return Counter(name for actions in self.people() for name in actions)


@dataclass(frozen=True)
class Dataset:
    """What is written: videos for training and for testing, and class names.

    Attributes:
        parts: the videos of ``train`` and of ``test``; either may be empty.
        unseen: actions that are not trained.
        seen: the other ones.
        poses: the actions that exclude each other; None where a person has one action.
    """

    parts: Mapping[str, list[Clip]]
    seen: list[str]
    unseen: list[str]
    poses: Collection[str] | None

    def counts(self, part: str) -> Counter[str]:
        """How many boxes of a part have each action."""
        return sum((clip.counts() for clip in self.parts[part]), Counter())


def films_of(
    annotated: Sequence[Annotated], places: Sequence[Path], fps: float
) -> list[tuple[Film, list[Track]]]:
    """Find and open the videos.

    Args:
        annotated: what was read.
        places: videos, and folders that hold some; empty for the folder of the annotations and the
            current one.
        fps: frames a second of pictures.

    Returns:
        Each video with its people, in the order of names.

    Raises:
        UserError: a video is not found, is not clear, or is not the one that was annotated.
    """
    inputs = {one.file.resolve() for one in annotated}
    for place in places:
        if not place.exists():
            raise UserError(f"--videos {place}: there is no such file or folder")
    paths = [_find(one, places, inputs) for one in annotated]
    if len({one.names for one in annotated}) == len(places) == 1 and _is_video(places[0]):
        paths = [path or places[0] for path in paths]  # whatever it is called, it is meant
    films: dict[Path, Film] = {}
    found: dict[Path, list[Track]] = {}
    for one, path in zip(annotated, paths, strict=True):
        if path is None:
            raise UserError(
                f"{one.where}: its video {' or '.join(map(repr, one.names))} is not in "
                f"{', '.join(map(str, places or one.folders))}; --videos names the video, or its "
                "folder"
            )
        key = path.resolve()
        if key not in films:
            films[key] = _open(path, fps)
        film = films[key]
        if one.size not in (None, film.size):
            raise UserError(
                f"{one.where}: its pictures are {list(one.size or ())} (width, height), but {path} "
                f"is {list(film.size)}; --videos names the video that was annotated"
            )
        for track in one.tracks(film):
            _check_end(track, one, film)
            found.setdefault(key, []).append(track)
    names: dict[str, Path] = {}
    for film in films.values():
        if names.setdefault(film.name, film.path) != film.path:
            raise UserError(
                f"{film.path}: {names[film.name]} has the same name; rename one of the two"
            )
    return sorted(((films[key], rows) for key, rows in found.items()), key=lambda row: row[0].name)


def _check_end(track: Track, one: Annotated, film: Film) -> None:
    """See that the video is as long as what is annotated in it."""
    count = len(film.seconds)
    late = track.frames[track.shown & (track.frames >= count)]
    if len(late):
        raise UserError(
            f"{one.where}: {track.name}, frame {late[0]} of the video: {film.path} has {count} "
            "frames, counted from 0; is it the one that was annotated?"
        )


def _find(one: Annotated, places: Sequence[Path], inputs: Collection[Path]) -> Path | None:
    """The video of an annotation; None if it is not there."""
    candidates: dict[Path, Path] = {}
    for place in places or one.folders:
        inside = sorted(place.iterdir()) if place.is_dir() else []
        candidates |= {path.resolve(): path for path in (place, *inside)}
    paths = [path for real, path in candidates.items() if real not in inputs]
    for name in one.names:
        for part, wanted in (("name", name), ("stem", name), ("stem", Path(name).stem)):
            found = [p for p in paths if getattr(p, part) == wanted and _is_video(p)]
            if len(found) > 1:
                raise UserError(
                    f"{one.where}: its video {name!r} may be {found[0]} or {found[1]}; --videos "
                    "names the right one"
                )
            if found:
                return found[0]
    return None


def _is_video(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix.lower() in _VIDEOS and path.is_file()
    return any(child.suffix.lower() in _PICTURES for child in path.iterdir())


def _open(path: Path, fps: float) -> Film:
    video = open_video(path)
    seconds = video.picture_seconds(fps)
    if not len(seconds):
        raise UserError(f"{path}: no frames in it")
    mean = float(seconds[-1]) / (len(seconds) - 1) if len(seconds) > 1 else 1 / fps
    return Film(video.name, path, video.size, round(1 / mean, 3), seconds, video.delay)


def clip_of(
    film: Film,
    tracks: Iterable[Track],
    every: int | None,
    ignored: Collection[str],
    left_out: Counter[str],
) -> Clip:
    """The keyframes of a video.

    Boxes are clipped to the picture. Equal boxes of one picture are one person.

    Args:
        film: the video.
        tracks: its people.
        every: from one keyframe to the next there are at least so many frames; None: half a second.
        ignored: actions that are no classes.
        left_out: counts what is not used, by reason.
    """
    tracks = [track for track in tracks if track.shown.any()]
    seen = [track.visible(len(film.seconds)) for track in tracks]
    wanted = thinned(
        np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *seen])),
        max(round(film.fps / 2), 1) if every is None else every,
    )
    keyframes: dict[int, Persons] = {int(frame): {} for frame in wanted}
    limit = np.array([*film.size, *film.size], dtype=np.float64)
    for track, visible in zip(tracks, seen, strict=True):
        frames = np.intersect1d(visible, wanted)
        rows, boxes = track.at(frames)
        boxes = np.clip(boxes, 0, limit).round(2)
        empty = are_empty(boxes)
        left_out["boxes outside of the picture"] += int(empty.sum())
        for frame, row, box in zip(frames[~empty], rows[~empty], boxes[~empty], strict=True):
            named = [name for name in track.actions[row] if name.casefold() not in NOTHING]
            actions = [name for name in named if name not in ignored]
            if not actions:
                left_out["boxes without an action" if not named else "boxes of --ignore"] += 1
                continue
            persons, key = keyframes[int(frame)], tuple(box.tolist())
            persons[key] = tuple(dict.fromkeys([*persons.get(key, ()), *actions]))
    return Clip(film, keyframes)


def thinned(frames: NDArray[np.int64], every: int) -> NDArray[np.int64]:
    """Ascending frames, without those that follow the last one kept by less than ``every``."""
    kept: list[int] = []
    place = 0
    while place < len(frames):
        kept.append(int(frames[place]))
        place = int(np.searchsorted(frames, kept[-1] + every))
    return np.array(kept, dtype=np.int64)


def dataset_of(
    clips: Sequence[Clip],
    test: Sequence[str] | None,
    unseen: Sequence[str],
    poses: Sequence[str] | None,
) -> Dataset:
    """Split videos and class names.

    Args:
        clips: all videos.
        test: names of the videos to test on, or how large a share of them, from 0 to 1. None: with
            ``unseen`` the videos that show such an action, without a quarter.
        unseen: actions that are not trained.
        poses: actions of which a person has one at most, where people have several. None: nothing
            is known of that.

    Raises:
        UserError: a name is unknown, or a part would have nothing to train or to test.
    """
    names = sorted(sum((clip.counts() for clip in clips), Counter()))
    if not names:
        raise UserError("no box has an action that is wanted, so there is nothing to train")
    for option, given in (("--unseen", unseen), ("--poses", poses or ())):
        for name in given:
            if name not in names:
                raise UserError(f"{option} {name}: nobody does that; {choices(name, names)}")
    seen = [name for name in names if name not in unseen]
    tested = _tested(clips, test, set(unseen))
    parts = {
        "train": [clip for clip in clips if clip.film.name not in tested],
        "test": [clip for clip in clips if clip.film.name in tested],
    }
    several = any(len(actions) > 1 for clip in clips for actions in clip.people())
    held_out = [name for name in names if name in unseen]
    exclusive = (poses or ()) if several or poses else None
    dataset = Dataset(parts, seen, held_out, exclusive)
    trained = (actions for clip in parts["train"] for actions in clip.people())
    if parts["train"] and not any(set(actions).isdisjoint(unseen) for actions in trained):
        raise UserError(
            "nobody is left to train on: each person of the training videos does something of "
            "--unseen; name other videos with --test, or fewer actions with --unseen"
        )
    wanted = dataset.unseen or names
    if (parts["test"] or unseen) and not any(dataset.counts("test")[name] for name in wanted):
        raise UserError(f"no test video shows {' or '.join(wanted)}; name others with --test")
    return dataset


def _tested(clips: Sequence[Clip], test: Sequence[str] | None, unseen: set[str]) -> set[str]:
    """The names of the videos to test on."""
    names = {clip.film.name: clip.film.name for clip in clips}
    names |= {clip.film.path.name: clip.film.name for clip in clips}
    # A video may be called 1.
    share = _share(test) if test is not None and test[0] not in names else None
    if test is not None and share is None:
        for name in test:
            if name not in names:
                raise UserError(f"--test {name}: no such video; {choices(name, names)}")
        return {names[name] for name in test}
    if test is None and unseen:
        showing = {clip.film.name for clip in clips if not unseen.isdisjoint(clip.counts())}
        if len(showing) < len(clips):
            return showing
        raise UserError(
            "every video shows an action of --unseen, so none is for training alone; say which are "
            "for testing with --test NAME or --test 0.25: training then leaves out the people who "
            "do any of these"
        )
    share = TEST_SHARE if share is None else share
    if share in (0, 1):
        return set(names.values()) if share else set()
    if len(clips) == 1:
        if test is None:
            return set()
        raise UserError("--test: there is one video, which is for training (0) or for testing (1)")
    count = min(max(round(share * len(clips)), 1), len(clips) - 1)
    left = Counter(name for clip in clips for name in clip.counts() if name not in unseen)
    chosen: set[str] = set()
    for clip in sorted(clips, key=lambda clip: hashlib.sha256(clip.film.name.encode()).digest()):
        shown = [name for name in clip.counts() if name not in unseen]
        if len(chosen) < count and clip.counts() and all(left[name] > 1 for name in shown):
            chosen.add(clip.film.name)
            left.subtract(shown)
    if not chosen:
        raise UserError(
            "each video shows an action that no other one shows, so none can be spared for "
            "testing; name some with --test, or train on all with --test 0"
        )
    return chosen


def _share(test: Sequence[str]) -> float | None:
    """What --test says if it is a number."""
    try:
        share = float(test[0]) if len(test) == 1 else -1.0
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def write_dataset(dataset: Dataset, out: Path, note: str) -> Path:
    """Write everything, none of which may be there.

    Args:
        dataset: what is written.
        out: the folder.
        note: the first line of the config.

    Returns:
        The config.

    Raises:
        UserError: something is there already, or cannot be written.
    """
    names = sorted([*dataset.seen, *dataset.unseen])
    lists = {"all_label": names}
    if dataset.poses is not None:
        lists["all_group"] = [POSE if name in dataset.poses else OBJECT for name in names]
    if dataset.parts["train"]:
        lists["train_label"] = dataset.seen
    if dataset.parts["test"]:
        lists["test_label"] = dataset.unseen or names
    paths = {name: out / f"{name}.txt" for name in lists}
    used = [part for part in ("train", "test") if dataset.parts[part]]
    annotations = {part: out / f"{part}.json" for part in used}
    config = out / "config.yaml"
    for path in (*annotations.values(), *paths.values(), config):
        if path.exists():
            raise UserError(f"{path}: exists already; choose another --out, or remove it")
    for part, path in annotations.items():
        write_json(path, _content(dataset.parts[part], names, out))
    for name, path in paths.items():
        write_text(path, "".join(f"{line}\n" for line in lists[name]))
    tree: dict[str, Any] = {"_BASE_": "configs/base.yaml"}
    tree |= {name.upper(): path.as_posix() for name, path in paths.items()}
    tree["DATASETS"] = {part.upper(): path.as_posix() for part, path in annotations.items()}
    tree["TEST"] = {"BOXES": "ground_truth", "MAX_PERSONS": 0}
    if dataset.poses is not None and dataset.unseen:
        tree["TEST"]["GENERALIZED"] = True  # as on AVA: all classes compete
    tree["OUTPUT_DIR"] = f"output/{out.resolve().name}"
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1000)
    write_text(config, f"# {note}\n{text}")
    return config


def _content(clips: Sequence[Clip], names: Sequence[str], out: Path) -> dict[str, Any]:
    """A file in the annotations format (DATA.md, "Annotations (.json)")."""
    videos, keyframes = [], []
    for clip in clips:
        film = clip.film
        path, root = film.path.resolve(), out.resolve()
        inside = path.is_relative_to(root)
        videos.append(
            {
                "id": film.name,
                "path": (path.relative_to(root) if inside else path).as_posix(),
                "size": list(film.size),
                "fps": film.fps,
            }
        )
        keyframes += [
            {
                "video": film.name,
                "timestamp": round(float(film.seconds[frame]), 6),
                "boxes": [list(box) for box in persons],
                "labels": [list(actions) for actions in persons.values()],
            }
            for frame, persons in sorted(clip.keyframes.items())
        ]
    return {"labels": list(names), "videos": videos, "keyframes": keyframes}
