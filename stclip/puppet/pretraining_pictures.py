"""Pictures for pre-training the small CLIP: frames and crops of scenes in other looks and streams.

The pictures are drawn once, into a cache: a folder of parts, each an array of pictures (.npy) and
the people that they show (.json). A part is whole or absent, so that drawing goes on where it was
interrupted.

S is the side of a picture in pixels.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from stclip.data.transforms import crop_box, preprocess
from stclip.errors import UserError
from stclip.files import atomic_path, read_json, write_json
from stclip.puppet.draw.actions import ACTIONS, EXTRA_ACTIONS
from stclip.puppet.draw.captions import Looks
from stclip.puppet.draw.chance import Chance
from stclip.puppet.draw.scene import HEIGHT, WIDTH, Box, plan_scene
from stclip.puppet.draw.settings import SETTINGS, choose_actions, choose_frames
from stclip.structures.boxes import Boxes, clip

ALL_ACTIONS: tuple[str, ...] = (*ACTIONS, *EXTRA_ACTIONS)

_SCENES_PER_PART = 256
_SAMPLES_PER_SCENE = 5
SAMPLES_PER_PART = _SCENES_PER_PART * _SAMPLES_PER_SCENE
# How many people a scene of the cache shows.
_PEOPLE = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4)
# A detector's boxes are not exact: every side of a crop is moved by up to this part of its length.
_JITTER = 0.08


@dataclass(frozen=True)
class Shown:
    """What a picture shows: people, the one that it is about first, and where they are."""

    people: tuple[Looks, ...]
    place: str


@dataclass(frozen=True)
class Cache:
    """Pictures in files and what they show.

    Attributes:
        pictures: one memory-mapped array (SAMPLES_PER_PART, 3, S, S) uint8 per part.
        shown: what each picture shows, in the order of the parts.
    """

    pictures: list[NDArray[np.uint8]]
    shown: list[Shown]

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.shown)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Some pictures, (n, 3, S, S) uint8."""
        places = [divmod(index, SAMPLES_PER_PART) for index in indices]
        return torch.from_numpy(np.stack([self.pictures[part][row] for part, row in places]))


@dataclass(frozen=True)
class Trial:
    """Scenes to try a CLIP on. P persons do one of the 21 actions each.

    Attributes:
        frames: (F, 3, S, S) uint8, the whole frames.
        crops: (P, 3, S, S) uint8, the persons.
        frame_of: for each person the row of the frame.
        actions: for each person the action.
    """

    frames: Tensor
    crops: Tensor
    frame_of: tuple[int, ...]
    actions: tuple[str, ...]


def draw_cache(folder: Path, samples: int, seed: int, size: int, workers: int) -> Cache:
    """Draw the pictures for pre-training, or what is missing of them.

    Args:
        folder: where to keep them; 3 S**2 bytes each.
        samples: how many at least; whole parts are drawn.
        seed: equal seeds give equal pictures.
        size: S.
        workers: processes that draw.

    Raises:
        UserError: the folder holds pictures of another seed, size or version of the drawing.
    """
    made_with = {"seed": seed, "size": size, "drawing": _fingerprint()}
    note = folder / "cache.json"
    if note.exists() and read_json(note) != made_with:
        raise UserError(
            f"{note}: found {read_json(note)}, expected {made_with}: these pictures were drawn "
            "with other settings; remove the folder or name another one"
        )
    write_json(note, made_with)
    count = -(-samples // SAMPLES_PER_PART)
    missing = [part for part in range(count) if not _part_path(folder, part, ".json").exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(_draw_part, folder, part, seed, size) for part in missing]
        total = len(tasks) * SAMPLES_PER_PART
        try:
            with tqdm(total=total, desc="drawing", unit="picture", disable=not tasks) as bar:
                for task in as_completed(tasks):
                    task.result()
                    bar.update(SAMPLES_PER_PART)
        except BaseException:  # an interrupt does not wait for what has not been begun
            pool.shutdown(cancel_futures=True)
            raise
    pictures, shown = [], []
    for part in range(count):
        pictures.append(np.load(_part_path(folder, part, ".npy"), mmap_mode="r"))
        rows = read_json(_part_path(folder, part, ".json"))
        shown += [Shown(tuple(Looks(*looks) for looks in people), place) for people, place in rows]
    return Cache(pictures, shown)


def draw_trial(look: str, others: bool, scenes_per_action: int, seed: int, size: int) -> Trial:
    """Draw scenes that neither the cache nor the benchmark has.

    Args:
        look: "pretrain" or "benchmark".
        others: whether other people are there, as in the benchmark's standard setting.
        scenes_per_action: how many, one frame each.
        seed: equal seeds give equal scenes.
        size: S.
    """
    frames, crops = [], []
    frame_of: list[int] = []
    actions: list[str] = []
    scenes = itertools.product(ACTIONS, range(scenes_per_action))
    for row, (action, number) in enumerate(scenes):
        rng = random.Random(f"pretrain-eval/{look}/{others}/{seed}/{action}/{number}")
        people = choose_actions(rng, SETTINGS["standard"], action) if others else (action,)
        scene = plan_scene(rng, people, choose_frames(rng), look=look)
        image, boxes = scene.draw(Chance(rng).below(scene.frames))
        picture = np.asarray(image)
        frames.append(preprocess(picture, size))
        for box in boxes:
            crops.append(preprocess(crop_box(picture, np.array(box, np.float32)), size))
            frame_of.append(row)
        actions += scene.actions
    return Trial(torch.stack(frames), torch.stack(crops), tuple(frame_of), tuple(actions))


def scene_samples(seed: int, index: int, size: int) -> Iterator[tuple[Tensor, Shown]]:
    """The pictures (3, S, S) uint8 of one scene: four whole frames and one crop.

    As in the photographs that CLIP was trained on, a person cut out of a scene is the exception.
    """
    rng = random.Random(f"pretrain/{seed}/{index}")
    chance = Chance(rng)
    actions = [chance.choice(ALL_ACTIONS) for _ in range(chance.choice(_PEOPLE))]
    scene = plan_scene(rng, actions, choose_frames(rng), look="pretrain")
    everyone = [Looks(p.action, p.shirt, p.trousers, p.hair) for p in scene.people]
    for whole in (True, True, True, True, False):
        image, boxes = scene.draw(chance.below(scene.frames))
        picture = np.asarray(image)
        seen = [p for p, box in zip(everyone, boxes, strict=True) if _in_the_square(box)]
        if whole and seen:
            yield preprocess(picture, size), Shown(tuple(seen), scene.place)
        else:  # a frame without people has no caption
            person = chance.below(len(everyone))
            crop = crop_box(picture, _jittered(chance, boxes[person]))
            yield preprocess(crop, size), Shown((everyone[person],), scene.place)


def _in_the_square(box: Box) -> bool:
    """Whether the person's middle is in what ``preprocess`` keeps of a frame."""
    margin = (WIDTH - HEIGHT) / 2
    return margin <= (box[0] + box[2]) / 2 <= WIDTH - margin


def _jittered(chance: Chance, box: Box) -> Boxes:
    """A box as a detector may find it, within the frame."""
    x1, y1, x2, y2 = box
    sides = np.array([x2 - x1, y2 - y1] * 2, np.float32)
    moves = np.array([chance.uniform(-_JITTER, _JITTER) for _ in range(4)], np.float32)
    moved: Boxes = clip(np.array([box], np.float32) + moves * sides, HEIGHT, WIDTH)[0]
    return moved


def _draw_part(folder: Path, part: int, seed: int, size: int) -> None:
    first = part * _SCENES_PER_PART
    scenes = range(first, first + _SCENES_PER_PART)
    samples = [sample for index in scenes for sample in scene_samples(seed, index, size)]
    with atomic_path(_part_path(folder, part, ".npy")) as path:
        np.save(path, torch.stack([pixels for pixels, _ in samples]).numpy())
    # Written last: it marks the part as complete.
    write_json(_part_path(folder, part, ".json"), [(s.people, s.place) for _, s in samples])


def _fingerprint() -> str:
    """A digest of a few pictures, which changes with the drawing."""
    digest = hashlib.sha256()
    for index in range(8):
        for pixels, _ in scene_samples(0, index, 32):
            digest.update(pixels.numpy().tobytes())
    return digest.hexdigest()[:16]


def _part_path(folder: Path, part: int, suffix: str) -> Path:
    return folder / f"part_{part:04d}{suffix}"
