"""What is wrong with a dataset, collected: nothing stops at the first mistake."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from stclip.errors import UserError


@dataclass(frozen=True)
class Kind:
    """A kind of mistake.

    Attributes:
        name: what it is, in the plural.
        remedy: what to do.
        problem: False for what may well be as it should be.
    """

    name: str
    remedy: str
    problem: bool = True


UNREADABLE = Kind(
    "things that stop the dataset from being read",
    "correct the file as the message says; what depends on it was not checked",
)
FORMAT = Kind("mistakes in the annotations file", "DATA.md describes the format")
FILES = Kind(
    "mistakes in the files of the dataset",
    "correct them; what is wrong was left out",
)
DETECTIONS = Kind("mistakes in the detections file", "DATA.md describes the format")
VIDEOS = Kind(
    "videos that cannot be used", "correct path and size in the annotations, or fetch the videos"
)
MISSING = Kind("videos with missing frames", "extract the frames again; they are numbered from 1")
PAST_END = Kind(
    "keyframes past the end of their video",
    "timestamps are seconds since the first frame; see that they, and fps, are of this video",
)
TIMES = Kind(
    "videos with missing pictures or gaps in time",
    "nothing, if that is how they were recorded: frames are found by their own times, and those of "
    ".avi files numbered as ffmpeg extracts them",
    problem=False,
)
TWICE = Kind("frames that are annotated twice", "put the boxes of a frame into one keyframe")
READING = Kind(
    "boxes whose numbers seem to mean something else",
    "write x1, y1, x2, y2 in pixels from the left and the top of the picture",
)
EMPTY = Kind("annotated boxes that are empty", "x2 must be above x1, and y2 above y1")
EMPTY_DETECTIONS = Kind(
    "detected boxes that are empty", "nothing, if they are few: they are left out", problem=False
)
OUTSIDE = Kind(
    "boxes that lie mostly outside of their picture",
    "boxes are pixels of the video as it is stored: were they made at another resolution?",
)
EDGE = Kind(
    "boxes that reach over the edge of their picture by more than 2 pixels",
    "nothing, if the detector or annotator does that: boxes are clipped",
    problem=False,
)
SCORES = Kind(
    "detector scores outside of 0 to 1", "divide percents by 100; apply the sigmoid to logits"
)
UNKNOWN_LABELS = Kind(
    "labels outside of the vocabulary", "add them to ALL_LABEL, or correct the annotations"
)
NO_LABEL = Kind("training boxes without any label", "label them, or leave them out")
SEVERAL_LABELS = Kind(
    "training boxes with several labels of TRAIN_LABEL",
    "set ALL_GROUP if a person can do several things at once; else leave one label",
)
SEVERAL_POSES = Kind(
    "training boxes with several labels of the group pose",
    "a person has one pose: leave one label, or correct the groups",
)
GROUPS = Kind("groups that differ from ALL_GROUP", "make the two files agree")
NO_SAMPLE = Kind(
    "classes without any box", "check the spelling of the names, or leave the class out"
)
NOT_TESTED = Kind(
    "trained classes without any box in the test",
    "nothing: the mean is of the other classes",
    problem=False,
)
NO_OVERLAP = Kind(
    "detections that do not fit the annotations",
    "see that both files are of the same videos, count frames alike and hold xyxy pixels",
)
LOW_RECALL = Kind(
    "detections that miss most annotated persons",
    "a better detector, a lower TEST.BOX_THRESH or a higher TEST.MAX_PERSONS",
    problem=False,
)
UNDECODABLE = Kind("frames that cannot be decoded", "extract or fetch them again")
SIZES = Kind("frames of another size than their video", "extract all frames at one size")
SHARED_LABELS = Kind(
    "classes that are trained on and tested as unseen",
    "take them out of TRAIN_LABEL or TEST_LABEL; right only if this is not meant as zero-shot",
)
NOT_ZERO_SHOT = Kind(
    "tests on classes that are all trained on",
    "nothing, if this is not meant as zero-shot; else take the unseen ones out of TRAIN_LABEL",
    problem=False,
)
SHARED_VIDEOS = Kind(
    "videos that are both trained on and tested", "keep each video in one of the two parts"
)
WARNINGS = Kind("warnings while reading", "see the messages", problem=False)


@dataclass
class Findings:
    """Mistakes by kind, in the order in which the kinds were met.

    Attributes:
        keep: how many places of a kind are kept. All are counted, each once: the two parts of a
            dataset may read the same file.
    """

    keep: int
    counts: dict[Kind, int] = field(default_factory=dict)
    places: dict[Kind, list[str]] = field(default_factory=dict)
    # Digests, not the places: there may be a mistake in every row of a large file.
    _known: set[bytes] = field(default_factory=set, repr=False)

    def add(self, kind: Kind, place: str) -> None:
        """Note a mistake and where it is."""
        digest = hashlib.blake2b(
            f"{kind.name}\n{place}".encode(errors="backslashreplace"), digest_size=8
        ).digest()
        if digest in self._known:
            return
        self._known.add(digest)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        kept = self.places.setdefault(kind, [])
        if len(kept) < self.keep:
            kept.append(place)

    def report(self, kind: Kind) -> Callable[[UserError], None]:
        """The report for a reader that collects its mistakes and continues."""
        return lambda error: self.add(kind, str(error))

    @property
    def problems(self) -> int:
        """How many mistakes are not merely notes."""
        return sum(count for kind, count in self.counts.items() if kind.problem)

    def text(self) -> str:
        """All kinds, problems first: how many, the first places, and what to do."""
        lines = []
        for kind in sorted(self.counts, key=lambda kind: not kind.problem):
            count, kept = self.counts[kind], self.places[kind]
            lines.append(f"{'problem' if kind.problem else 'note'}: {kind.name}: {count}")
            lines += [f"    {place}" for place in kept]
            if count > len(kept):
                lines.append(f"    ... and {count - len(kept)} more")
            lines.append(f"  -> {kind.remedy}")
        return "\n".join(lines)
