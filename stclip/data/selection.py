"""Which videos of a dataset a run uses: those of its labels, and of its list if it has one."""

import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal

from stclip.data.labels import read_video_list
from stclip.errors import UserError

Part = Literal["train", "test"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """What is asked for: a part of the dataset, some labels, perhaps some videos.

    Attributes:
        part: the official part to take videos from.
        vocabulary: TRAIN_LABEL's or TEST_LABEL's names.
        listed: the names in TRAIN_VIDEO or TEST_VIDEO (``video`` or ``class/video``); None for no
            such list.
        list_path: the file they stand in.
        vocabulary_key: the config key of the vocabulary; "" for TRAIN_LABEL or TEST_LABEL.
    """

    part: Part
    vocabulary: tuple[str, ...]
    listed: tuple[str, ...] | None = None
    list_path: str = ""
    vocabulary_key: str = ""

    @property
    def label_key(self) -> str:
        """The config key of the vocabulary, for messages."""
        return self.vocabulary_key or f"{self.part.upper()}_LABEL"

    @property
    def video_key(self) -> str:
        """The config key of the list of videos."""
        return f"{self.part.upper()}_VIDEO"

    def choose(self, labels: Mapping[str, Set[str]], source: str) -> list[str]:
        """The videos to use, in the order of their names.

        Args:
            labels: for every video of the part, the labels of its boxes. A video without labels is
                not chosen for training, and is for testing: it can still be scored.
            source: where the videos come from, for messages.

        Raises:
            UserError: none is left.
        """
        wanted = set(self.vocabulary)
        chosen = {
            video
            for video, names in labels.items()
            if (names & wanted) or (self.part == "test" and not names)
        }
        if not chosen:
            raise UserError(
                f"{self.label_key}: {source} has no {self.part} video of any of its "
                f"{len(wanted)} labels; the labels there are "
                f"{', '.join(sorted(set().union(*labels.values()))) or 'none'}"
            )
        if self.listed is not None:
            chosen = self._listed(chosen, labels, source)
        found = set().union(*(labels[video] for video in chosen))
        if found and wanted - found:  # without any annotation there is nothing to miss
            absent = ", ".join(sorted(wanted - found))
            logger.warning("%s: no video of %s", self.label_key, absent)
        return sorted(chosen)

    def _listed(self, chosen: set[str], labels: Mapping[str, Set[str]], source: str) -> set[str]:
        assert self.listed is not None
        where = f"{self.video_key} {self.list_path}"
        names = {name: video for video in labels for name in (video, video.rpartition("/")[2])}
        known = {names[name] for name in self.listed if name in names}
        kept = chosen & known
        if not kept:
            raise UserError(
                f"{where}: none of its {len(self.listed)} videos is left: {len(known)} of them are "
                f"{self.part} videos of {source}, none with a label of {self.label_key}; the first "
                f"it names is {self.listed[0]!r}"
            )
        outside = [name for name in self.listed if name not in names]
        if outside:
            logger.warning(
                "%s: %d of %d videos are left out, they are not in the %s part of %s (first: %s)",
                where, len(outside), len(self.listed), self.part, source, outside[0],
            )  # fmt: skip
        if len(known) > len(kept):
            logger.warning(
                "%s: %d of %d videos are left out, they have no label of %s",
                where, len(known) - len(kept), len(self.listed), self.label_key,
            )  # fmt: skip
        return kept


def make_selection(
    part: Part, vocabulary: list[str], list_path: str, vocabulary_key: str = ""
) -> Selection:
    """A selection whose list of videos is read from ``list_path``; ``""`` is no list.

    Raises:
        UserError: the list cannot be read or is empty.
    """
    listed = tuple(read_video_list(list_path, f"{part.upper()}_VIDEO")) if list_path else None
    return Selection(part, tuple(vocabulary), listed, list_path, vocabulary_key)
