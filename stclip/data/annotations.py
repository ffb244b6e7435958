"""Datasets in memory: keyframes, what a run asks of a dataset, and what it gets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.data.findings import FILES, Kind
from stclip.data.frames import Video
from stclip.data.labels import Labels, Part, read_video_list
from stclip.data.proposals import Proposals
from stclip.errors import Report, UserError, fail
from stclip.structures import FrameKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keyframe:
    """A frame and what is annotated in it.

    Attributes:
        key: its video and 1-based frame.
        boxes: (n, 4) float32 xyxy in pixels, as annotated: not clipped.
        labels: for each box the names of what the person does.
        persons: for each box the number of the person in the video, from 1; () where the
            annotations do not say which boxes are the same person.
    """

    key: FrameKey
    boxes: NDArray[np.float32]
    labels: tuple[tuple[str, ...], ...]
    persons: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.boxes.shape == (len(self.labels), 4), f"{self.boxes.shape}, {self.labels}"
        assert len(self.persons) in (0, len(self.labels)), f"{self.persons}, {self.labels}"

    def of_vocabulary(self, vocabulary: Collection[str], unseen: Collection[str] = ()) -> Keyframe:
        """Without the boxes that have other labels only, or an unseen one among them.

        The boxes that stay keep their labels of the vocabulary.
        """
        labels = [tuple(name for name in names if name in vocabulary) for names in self.labels]
        kept = [
            row
            for row, names in enumerate(self.labels)
            if not names or (labels[row] and not any(name in unseen for name in names))
        ]
        persons = tuple(self.persons[row] for row in kept) if self.persons else ()
        return Keyframe(self.key, self.boxes[kept], tuple(labels[row] for row in kept), persons)

    def with_several(self, names: Collection[str]) -> list[tuple[int, list[str]]]:
        """The boxes with more than one label of ``names``: their number from 1, those labels."""
        mine = [sorted(set(names).intersection(labels)) for labels in self.labels]
        return [(number, found) for number, found in enumerate(mine, start=1) if len(found) > 1]


# One frame's boxes while a file is read, and the class names of each.
Rows = tuple[list[Sequence[float]], list[tuple[str, ...]]]


def keyframes_of(
    video: str, frames: Mapping[int, Rows], persons: Mapping[int, Sequence[int]] | None = None
) -> list[Keyframe]:
    """The keyframes of a video, ascending, from the rows and perhaps the persons of each frame."""
    return [
        Keyframe(
            FrameKey(video, frame),
            np.array(boxes, dtype=np.float32).reshape(-1, 4),
            tuple(labels),
            () if persons is None else tuple(persons[frame]),
        )
        for frame, (boxes, labels) in sorted(frames.items())
    ]


def multi_hot(
    keyframe: Keyframe, vocabulary: Mapping[str, int], several: bool = False
) -> NDArray[np.float32]:
    """The labels of a keyframe's n boxes: (n, C) float32, 1 where a box has the class.

    ``vocabulary`` has the column of each of C class names; other labels are no targets.

    Raises:
        UserError: a box has no label of the vocabulary, or more than one without ``several``.
    """
    targets = np.zeros((len(keyframe.boxes), len(vocabulary)), dtype=np.float32)
    for row, names in enumerate(keyframe.labels):
        columns = [vocabulary[name] for name in set(names) if name in vocabulary]
        if not columns or (len(columns) > 1 and not several):
            remedy = ", or set ALL_GROUP, with which a box may have several" if columns else ""
            raise UserError(
                f"TRAIN_LABEL: box {row + 1} of frame {keyframe.key.frame} of video "
                f"{keyframe.key.video} has {len(columns)} of its labels ({', '.join(names)}); "
                f"training takes boxes with {'at least' if several else 'exactly'} one: leave the "
                f"video out with TRAIN_VIDEO, or change its labels{remedy}"
            )
        targets[row, columns] = 1
    return targets


@dataclass(frozen=True)
class AvaNumbers:
    """The numbers of AVA's files: the second of each keyframe, the action id of each class name."""

    seconds: Mapping[FrameKey, int]
    action_ids: Mapping[str, int]


@dataclass(frozen=True)
class DetectionDataset:
    """The keyframes that a run trains on or tests, and where their frames are.

    Attributes:
        name: names the result files: what DATASETS.TEST says, or ``annotations`` for our own
            format.
        videos: by the ``video`` of the frame keys, in the order of the results.
        keyframes: in the order of the videos, then of the frames.
        proposals: detected persons of the keyframes that have some; None if none were read.
        ava: what AVA's own files call keyframes and classes; None for other datasets.
        sources: the files that annotated boxes and proposals come from, for messages; None where
            that is unknown.
        fps: frames a second of each video, used where its frames carry no time themselves; empty
            where that is unknown, without which there is no voting along tracks.
    """

    name: str
    videos: Mapping[str, Video]
    keyframes: list[Keyframe]
    proposals: Mapping[FrameKey, Proposals] | None = None
    ava: AvaNumbers | None = None
    sources: tuple[Path | None, Path | None] = (None, None)
    fps: Mapping[str, float] = field(default_factory=dict)

    def with_proposals(
        self, proposals: Mapping[FrameKey, Proposals], source: Path
    ) -> DetectionDataset:
        """With detected persons; every frame that has some becomes a keyframe."""
        keyframes = {keyframe.key: keyframe for keyframe in self.keyframes}
        for key in proposals:
            keyframes.setdefault(key, Keyframe(key, np.zeros((0, 4), np.float32), ()))
        return replace(
            self,
            keyframes=[keyframes[key] for key in sorted(keyframes)],
            proposals=proposals,
            sources=(self.sources[0], source),
        )

    def annotates(self, vocabulary: Collection[str]) -> bool:
        """Whether any box has a label of a vocabulary, so that a metric can be computed."""
        wanted = set(vocabulary)
        return any(wanted & set(names) for frame in self.keyframes for names in frame.labels)


@dataclass(frozen=True)
class GroundTruth:
    """The annotated frames of a dataset or of a part of it, as its file has them.

    Attributes:
        path: the file.
        labels: the class names that the file knows.
        keyframes: for every video its annotated frames, ascending; videos without any are keys too.
        lengths: for the videos of which the file says that, how many frames they have.
        sizes: likewise width and height of their frames.
        image_ids: the frame of every image id; empty if the file has no such ids.
    """

    path: Path
    labels: tuple[str, ...]
    keyframes: dict[str, list[Keyframe]] = field(repr=False)
    lengths: Mapping[str, int] = field(default_factory=dict, repr=False)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    image_ids: dict[Any, FrameKey] = field(default_factory=dict, repr=False)

    def video_labels(self) -> dict[str, set[str]]:
        """For every video the labels of its boxes."""
        return {
            video: {name for frame in frames for names in frame.labels for name in names}
            for video, frames in self.keyframes.items()
        }


def stop_at_first(kind: Kind) -> Report:
    """A ``reports`` that raises at the first mistake of any kind."""
    return fail


@dataclass(frozen=True)
class Request:
    """What a run asks of a dataset: all that the functions of ``build.DATASETS`` get.

    Attributes:
        name: what DATASETS.TRAIN or DATASETS.TEST says.
        part: which of the two.
        labels: the class names.
        data_dir: DATASETS.DATA_DIR.
        detections: a file of person boxes, "" for the dataset's own; None reads none.
        list_path: the file that TRAIN_VIDEO or TEST_VIDEO names; "" for none.
        box_threshold: TEST.BOX_THRESH.
        options: the keys under DATASETS, for what only one dataset has.
        reports: the function that gets a kind of mistake; if it does not raise, reading continues
            without what is wrong.
    """

    name: str
    part: Part
    labels: Labels
    data_dir: Path = Path("data")
    detections: str | None = None
    list_path: str = ""
    box_threshold: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    reports: Callable[[Kind], Report] = stop_at_first

    @property
    def report(self) -> Report:
        """The function that receives a mistake in a file of the dataset."""
        return self.reports(FILES)

    def choose(self, labels: Mapping[str, Set[str]], source: str) -> list[str]:
        """The videos to use, in the order of their names.

        Args:
            labels: for every video of the part, the labels of its boxes. A video without labels is
                not chosen for training, and is for testing: it can still be scored.
            source: where the videos come from, for messages.

        Raises:
            UserError: none is left, or the list of videos cannot be read.
        """
        wanted, key = set(self.labels.vocabulary(self.part)), self.labels.key(self.part)
        chosen = {
            video
            for video, names in labels.items()
            if (names & wanted) or (self.part == "test" and not names)
        }
        if not chosen:
            raise UserError(
                f"{key}: {source} has no {self.part} video of any of its "
                f"{len(wanted)} labels; the labels there are "
                f"{', '.join(sorted(set().union(*labels.values()))) or 'none'}"
            )
        if self.list_path:
            chosen = self._listed(chosen, labels, source, key)
        found = set().union(*(labels[video] for video in chosen))
        if found and wanted - found:  # without any annotation there is nothing to miss
            absent = ", ".join(sorted(wanted - found))
            logger.warning("%s: no video of %s", key, absent)
        return sorted(chosen)

    def _listed(
        self, chosen: set[str], labels: Mapping[str, Set[str]], source: str, key: str
    ) -> set[str]:
        list_key = f"{self.part.upper()}_VIDEO"
        listed, where = read_video_list(self.list_path, list_key), f"{list_key} {self.list_path}"
        names = {name: video for video in labels for name in (video, video.rpartition("/")[2])}
        known = {names[name] for name in listed if name in names}
        kept = chosen & known
        if not kept:
            raise UserError(
                f"{where}: none of its {len(listed)} videos is left: {len(known)} of them are "
                f"{self.part} videos of {source}, none with a label of {key}; the first "
                f"it names is {listed[0]!r}"
            )
        outside = [name for name in listed if name not in names]
        if outside:
            logger.warning(
                "%s: %d of %d videos are left out, they are not in the %s part of %s (first: %s)",
                where, len(outside), len(listed), self.part, source, outside[0],
            )  # fmt: skip
        if len(known) > len(kept):
            logger.warning(
                "%s: %d of %d videos are left out, they have no label of %s",
                where, len(known) - len(kept), len(listed), key,
            )  # fmt: skip
        return kept
