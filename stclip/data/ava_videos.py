"""AVA's videos, in whichever form they lie on disk, with one way of counting frames.

AVA annotates seconds 902 to 1798 of films. Frame n of a video is the picture that is shown at
second 900 + (n - 1) / 30, up to second 1801. That is how the frames are numbered that people
extract with ``ffmpeg -ss 900 -t 901 -r 30``, and it is used for the other forms too: the same
second is the same frame, and a window covers the same time, whatever rate a film was made at. Other
data in AVA's form has a ``Grid`` of its own.
These are looked for, in this order, under ``<DATA_DIR>/ava``:

frames/<video>/<video>_000001.jpg (or rawframes/<video>/img_00001.jpg): those extracted frames.
clips/[trainval/]<video>/<second>.mp4: clips of one second, each from that second on.
videos/[trainval/]<video>.mp4, .mkv or .webm: the films. Second 0 is where the earliest stream of
    the file begins, sound included, as ``ffmpeg -ss`` has it.
videos_15min/<video>.mp4, .mkv or .webm: films cut to minutes 15 to 30, whose second 0 is 900 (that
    of the grid's frame 1).

ffmpeg's versions round differently, by up to one picture; DATA.md has what was measured.

A file that begins past second 450 was cut with its time stamps kept (``ffmpeg -copyts``); its
stamps are then AVA's seconds.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stclip.data.frames import FrameFolder, Picture, Video
from stclip.data.video import VideoFile
from stclip.errors import Report, UserError, fail

_SUFFIXES = (".mp4", ".mkv", ".webm")
_FOLDERS = ("frames", "rawframes")
_CLIPS = ("clips", "clips/trainval")
_FILMS = ("videos", "videos/trainval")
_CUT = "videos_15min"
LAYOUTS = (
    f"{{{','.join(_FOLDERS)}}}/<video>/, clips/[trainval/]<video>/<second>.mp4, "
    f"videos/[trainval/]<video>.{{mp4,mkv,webm}} and {_CUT}/<video>.{{mp4,mkv,webm}}"
)


@dataclass(frozen=True)
class Grid:
    """How seconds and frames are counted; by default AVA's way.

    Attributes:
        first: the first second that is annotated.
        last: the last one.
        start: the second that frame 1 shows.
        fps: frames a second.
    """

    first: int = 902
    last: int = 1798
    start: int = 900
    fps: int = 30

    @property
    def frames(self) -> int:
        """The most frames of a video: up to three seconds after the last annotated one."""
        return (self.last + 3 - self.start) * self.fps

    def frame_of(self, second: int) -> int:
        """The frame of a second."""
        return (second - self.start) * self.fps + 1

    def second_of(self, frame: int) -> int:
        """The second that a frame is in."""
        return self.start + (frame - 1) // self.fps


AVA = Grid()


class AvaFile(Video):
    """A film, or its minutes 15 to 30 (``cut``: the file begins with the grid's frame 1).

    Opening it reads the header and decodes one picture, which says how it is rotated.
    """

    in_sequence = True

    def __init__(
        self, path: str | Path, name: str | None = None, cut: bool = False, grid: Grid = AVA
    ) -> None:
        super().__init__(path, name)
        self._grid = grid
        whole = VideoFile(path)
        header, self._size = whole.header, whole.size
        begin = grid.start if cut else 0
        # The second of frame 1 on the file's own clock.
        kept = header.start > grid.start / 2 > 0
        self._zero = grid.start if kept else header.start + grid.start - begin
        self._end = None if header.end is None else header.end - self._zero + grid.start
        span = (self._zero - 1, self._zero + grid.frames / grid.fps + 1)
        self._file = VideoFile(path, name, span)

    @property
    def last_second(self) -> float:
        """The second that the file ends at, or some later one; infinite if it does not say."""
        return math.inf if self._end is None else self._end

    @cached_property
    def _length(self) -> int:
        table = self._file.table
        fps = self._grid.fps
        shown = float(table.seconds[-1]) + (table.interval or 1 / fps) - self._zero
        # Up to, not including: a picture is shown until the next one would be.
        return min(max(math.ceil(shown * fps - 1e-6), 0), self._grid.frames)

    def __len__(self) -> int:
        return self._length

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._size

    def frame_at(self, seconds: float, fps: float) -> int:
        """The frame that many seconds after frame 1; the rate is the grid's."""
        return round(seconds * self._grid.fps) + 1

    def irregularities(self) -> list[str]:
        """See ``Video``; its frames are counted as the file has them."""
        return self._file.irregularities()

    def fingerprints(self, frames: Sequence[int]) -> list[bytes]:
        """See ``Video``; the whole file is read at the first call."""
        return self._file.fingerprints(self._numbers(frames))

    def keep_open(self, keep: bool) -> None:
        """See ``Video``."""
        self._file.keep_open(keep)

    def _numbers(self, frames: Sequence[int]) -> list[int]:
        """The frames of the file that are shown at our frames."""
        table, grid = self._file.table, self._grid
        found = []
        for frame in frames:
            after = (frame - 1) / grid.fps
            number = table.sampled(self._zero + after, grid.fps)
            if not 1 <= number <= len(table):
                shown = table.seconds[[0, -1]] - self._zero + grid.start
                raise UserError(
                    f"{self.path}: frame {frame} (second {grid.start + after:.3f}) is not there; "
                    f"the pictures are of seconds {shown[0]:.3f} to {shown[1]:.3f}"
                )
            found.append(number)
        return found

    def _decode(self, frames: list[int]) -> list[Picture]:
        return self._file.read(self._numbers(frames))


class AvaClips(Video):
    """A folder of clips ``<second>.mp4``, each of which shows the second that begins then."""

    def __init__(self, path: str | Path, name: str | None = None, grid: Grid = AVA) -> None:
        super().__init__(path, name)
        self._grid = grid
        self._clips = {
            int(file.stem): file
            for file in self.path.iterdir()
            if file.suffix.lower() in _SUFFIXES and file.stem.isdecimal()
        }
        if not self._clips:
            raise UserError(f"{path}: no clip <second>.mp4 in it")

    @property
    def seconds(self) -> Set[int]:
        """Those that there is a clip of."""
        return self._clips.keys()

    def __len__(self) -> int:
        return min(self._grid.frame_of(max(self._clips) + 1) - 1, self._grid.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._size

    @cached_property
    def _size(self) -> tuple[int, int]:
        return VideoFile(self._clips[min(self._clips)]).size

    def missing(self, expected: int = 0) -> list[int]:
        """The frames whose clip is not there, from the first clip to the expected frame."""
        first = max(self._grid.frame_of(min(self._clips)), 1)
        frames = range(first, max(len(self), expected) + 1)
        return [frame for frame in frames if self._place(frame)[0] not in self._clips]

    def frame_at(self, seconds: float, fps: float) -> int:
        """The frame that many seconds after frame 1; the rate is the grid's."""
        return round(seconds * self._grid.fps) + 1

    def _place(self, frame: int) -> tuple[int, float]:
        """The clip, and the seconds in it."""
        second, rest = divmod(frame - 1, self._grid.fps)
        return self._grid.start + second, rest / self._grid.fps

    def fingerprints(self, frames: Sequence[int]) -> list[bytes]:
        """See ``Video``; the clips are read."""
        found: dict[int, bytes] = {}
        for clip, shown in self._shown(frames):
            numbers = list(shown.values())
            found.update(zip(shown, clip.fingerprints(numbers), strict=True))
        return [found[frame] for frame in frames]

    def _shown(self, frames: Sequence[int]) -> Iterator[tuple[VideoFile, dict[int, int]]]:
        """The clips of some frames, each with those of its own pictures that are shown at them."""
        wanted: dict[int, list[int]] = {}
        for frame in frames:
            wanted.setdefault(self._place(frame)[0], []).append(frame)
        for second, of_second in wanted.items():
            if second not in self._clips:
                raise UserError(f"{self.path}: {second}.mp4 is missing; cut the film again")
            clip = VideoFile(self._clips[second])
            begin = clip.table.seconds[0]
            yield (
                clip,
                {
                    frame: clip.table.sampled(begin + self._place(frame)[1], self._grid.fps)
                    for frame in of_second
                },
            )

    def _decode(self, frames: list[int]) -> list[Picture]:
        pictures: list[Picture] = []
        for clip, shown in self._shown(frames):
            pictures += clip.read(list(shown.values()))
        return pictures


def find_videos(
    root: Path,
    seconds: Mapping[str, Collection[int]],
    report: Report = fail,
    grid: Grid = AVA,
) -> dict[str, Video]:
    """Open videos and see that what is annotated is there, without listing packets.

    Args:
        root: ``<DATA_DIR>/ava``.
        seconds: the annotated ones of each video; these must be there, and what a window around
            them needs.
        report: gets one message for all videos that are missing, unreadable or too short.
        grid: how frames are counted.
    """
    videos: dict[str, Video] = {}
    absent: list[str] = []
    problems: list[str] = []
    for name, annotated in seconds.items():
        video: Video | None = None
        try:
            video = _find_video(root, name, grid)
            problem = None if video is None else _problem(video, annotated, grid)
        except UserError as error:
            problem = str(error)
        if problem is not None:
            problems.append(problem)
        elif video is None:
            absent.append(name)
        else:
            videos[name] = video
    if not absent and not problems:
        return videos
    parts = []
    if absent:
        parts.append(
            f"{len(absent)} of {len(seconds)} videos are missing, the first is {absent[0]}"
        )
    if problems:
        parts.append(f"{len(problems)} cannot be used, the first: {problems[0]}")
    report(
        UserError(
            f"DATASETS.DATA_DIR {root.parent}: {'; '.join(parts)}; looked in {root} for {LAYOUTS}; "
            "put them there (see DATA.md)"
        )
    )
    return videos


def _find_video(root: Path, name: str, grid: Grid) -> Video | None:
    for place in _FOLDERS:
        if (root / place / name).is_dir():
            return FrameFolder(root / place / name, name)
    for place in _CLIPS:
        if (root / place / name).is_dir():
            return AvaClips(root / place / name, name, grid)
    for place in (*_FILMS, _CUT):
        for suffix in _SUFFIXES:
            path = root / place / f"{name}{suffix}"
            if path.is_file():
                return AvaFile(path, name, place == _CUT, grid)
    return None


def _problem(video: Video, annotated: Collection[int], grid: Grid) -> str | None:
    """What a video lacks, as far as can be told without reading all of it."""
    if not annotated:
        return None
    last = max(annotated)
    if isinstance(video, AvaFile):
        if video.last_second >= last:
            return None
        return (
            f"{video.path} ends at second {video.last_second:.1f}, but second {last} is annotated "
            f"(a film that was cut to minutes 15 to 30 belongs in {_CUT}/)"
        )
    if isinstance(video, AvaClips):
        # The window of a second begins in the one before.
        needed = {max(n, grid.start) for second in annotated for n in (second - 1, second)}
        lacking = sorted(needed - video.seconds)
        if not lacking:
            return None
        return f"{video.path} lacks {len(lacking)} of its clips, the first is {lacking[0]}.mp4"
    gaps = video.missing(expected=grid.frame_of(last))
    if not gaps:
        return None
    return (
        f"{video.path} lacks {len(gaps)} frames, the first is {gaps[0]} (second "
        f"{grid.second_of(gaps[0])}); second {last} is annotated"
    )
