"""Make a dataset to train and test on of annotations from CVAT, AVA's csv or stclip detect.

FILE is what CVAT exports as "CVAT for video 1.1" or "CVAT for images 1.1" (.zip, or the .xml in
it), a .csv in AVA's form, or result.json of stclip detect. OUT receives train.json and test.json,
the label files and config.yaml, with which stclip validate, train and test run as they are.

The action is the attribute called action of a box, or the label if there are no attributes;
--actions-from names others. Every half second of a video one frame is used, with everybody in it:
neighbouring frames look nearly the same, and a frame's window shows what is around it. Videos are
either for training or for testing; which ones does not depend on the machine or the order of files.

Examples:
    stclip convert-annotations annotations.zip --out data/mine --videos videos
    stclip convert-annotations *.zip --out data/mine --videos videos --unseen wave "fall down"
    stclip convert-annotations task.xml --out data/mine --actions-from run talk --poses run
    stclip convert-annotations output/detect/party/ava.csv --out data/party --videos party.mp4
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stclip.cli import Parser, positive
from stclip.data.ava import LABEL_MAP
from stclip.data.ava_files import Persons, read_ava_csv, read_label_map
from stclip.data.conversion import Clip, Dataset, clip_of, dataset_of, films_of, write_dataset
from stclip.data.cvat import read_cvat
from stclip.data.fields import format_of
from stclip.data.tracks import Annotated, Film, Track
from stclip.errors import UserError
from stclip.evaluation.tables import format_table
from stclip.footage.decoding import DEFAULT_FPS
from stclip.footage.exports import action_at
from stclip.footage.results import read_result


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_args(argv)
    if not 0 < args.fps <= 1000:
        raise UserError(f"--fps {args.fps:g}: frames a second, above 0, expected")
    left_out: Counter[str] = Counter()
    annotated: list[Annotated] = []
    for path in args.files:
        annotated += _read(path, args.actions_from, args.label_map, left_out)
    films = films_of(annotated, args.videos, args.fps)
    if not films:
        raise UserError(f"{args.files[0]}: nobody is annotated in it")
    clips = [clip_of(film, tracks, args.every, args.ignore, left_out) for film, tracks in films]
    dataset = dataset_of(clips, args.test, args.unseen, args.poses)
    names = ", ".join(path.name for path in args.files)
    config = write_dataset(
        dataset, args.out, f"Written by stclip convert-annotations from {names:.200}."
    )
    _sum_up(dataset, left_out, config)
    return 0


def _read(
    path: Path, actions_from: Sequence[str], label_map: Path | None, left_out: Counter[str]
) -> list[Annotated]:
    """What a file says, whatever it is."""
    suffix = path.suffix.lower()
    if suffix in (".xml", ".zip"):
        return read_cvat(path, actions_from, left_out)
    if suffix == ".csv":
        return read_ava(path, label_map)
    if suffix == ".json":
        return [read_detected(path)]
    raise UserError(
        f"{path}: .xml or .zip of CVAT, .csv in AVA's form or result.json of stclip detect expected"
    )


def read_ava(path: Path, label_map: Path | None) -> list[Annotated]:
    """AVA's csv; the names of its classes are in a label map, by default beside it.

    Raises:
        UserError: there is no label map, or one of the files is malformed.
    """
    beside = [path.with_name(name) for name in ("ava_action_list.pbtxt", LABEL_MAP)]
    found = label_map or next((other for other in beside if other.exists()), None)
    if found is None:
        raise UserError(
            f"{path}: {' or '.join(other.name for other in beside)} is not beside it; --label-map "
            "names the file with the names of its classes"
        )
    videos: dict[str, list[tuple[int, Persons]]] = {}
    for (video, second), persons in read_ava_csv(path, read_label_map(found), found).items():
        videos.setdefault(video, []).append((second, persons))
    return [
        Annotated(
            f"{path}: {video}",
            path,
            (video,),
            (path.parent, Path(".")),
            None,
            _Seconds(f"{path}: {video}", rows),
        )
        for video, rows in videos.items()
    ]


class _Seconds:
    """People at whole seconds, in parts of the picture, as tracks of one box each."""

    def __init__(self, where: str, rows: list[tuple[int, Persons]]) -> None:
        self._where, self._rows = where, rows

    def __call__(self, film: Film) -> list[Track]:
        tracks = []
        last = float(film.seconds[-1]) + 1 / film.fps
        for second, (boxes, actions, _) in self._rows:
            since_first = second - film.delay
            if since_first > last:
                raise UserError(
                    f"{self._where}, second {second}: {film.path} ends after {last:.2f} seconds"
                )
            frame = np.array([np.abs(film.seconds - since_first).argmin()])
            tracks += [
                Track(
                    f"second {second}", frame, box[None] * (*film.size, *film.size), shown, (own,)
                )
                for box, own in zip(boxes, actions, strict=True)
                for shown in [np.array([True])]
            ]
        return tracks


def read_detected(path: Path) -> Annotated:
    """result.json of ``stclip detect``; a person does what its best event at a time says."""
    footage = read_result(path)
    with format_of("stclip detect", str(path)):
        video = Path(str(footage.video["path"]))
        width, height = footage.video["size"] or (0, 0)
    tracks = []
    for track in footage.tracks.values():
        frames = track.boxes[:, 1].astype(np.int64) - 1
        if (np.diff(frames, prepend=-1) <= 0).any():
            raise UserError(f"{path}: person {track.id}: ascending frames from 1 on expected")
        actions = tuple((action_at(track.events, seconds),) for seconds in track.boxes[:, 0])
        shown = np.ones(len(frames), dtype=np.bool_)
        tracks.append(Track(f"person {track.id}", frames, track.boxes[:, 2:6], shown, actions))
    folders = tuple(place for place in (video.parent, path.parent) if place.is_dir())
    names = (video.name, footage.name)
    return Annotated(str(path), path, names, folders, (width, height), lambda film: tracks)


def _sum_up(dataset: Dataset, left_out: Counter[str], config: Path) -> None:
    """Print what was written, and how to go on."""
    parts = ("train", "test")
    lines = [["", *parts]]
    for name, count in (("videos", len), ("keyframes", _keyframes)):
        lines.append([name, *(f"{count(dataset.parts[part]):,}" for part in parts)])
    counts = {part: dataset.counts(part) for part in parts}
    for name in (*dataset.seen, *dataset.unseen):
        role = " (unseen)" if name in dataset.unseen else ""
        lines.append([f"boxes: {name}{role}", *(f"{counts[part][name]:,}" for part in parts)])
    print(format_table(lines))
    for reason, number in sorted((+left_out).items()):
        print(f"left out: {number:,} {reason}")
    if dataset.poses is not None and not dataset.poses:
        print("people do several things at once; --poses names actions that exclude each other")
    if not dataset.parts["test"]:
        print("no video is for testing; --test names some")
    print(f"{config}: next is stclip validate --config-file {config}")


def _keyframes(clips: Sequence[Clip]) -> int:
    return sum(len(clip.keyframes) for clip in clips)


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="annotations")
    add("--out", type=Path, required=True, help="the folder of the dataset")
    add(
        "--videos", nargs="+", type=Path, default=[], metavar="PATH",
        help="videos, or folders of them (default: beside the annotations, or here)",
    )  # fmt: skip
    add("--fps", type=float, default=DEFAULT_FPS, help="frames a second of folders of pictures")
    add = parser.add_argument_group("what is used").add_argument
    add(
        "--actions-from", nargs="+", default=[], metavar="NAME",
        help="attributes that hold the action (the value of a select, the name of a ticked "
        "checkbox), or label (default: the attribute action, else label)",
    )  # fmt: skip
    add("--ignore", nargs="+", default=[], metavar="NAME", help="actions that are left out")
    add(
        "--every", type=positive, metavar="N",
        help="frames from one keyframe to the next, at least; 1 uses all (default: half a second)",
    )  # fmt: skip
    add(
        "--label-map", type=Path, metavar="FILE",
        help="class names of AVA's csv (default: ava_action_list.pbtxt beside it)",
    )  # fmt: skip
    add = parser.add_argument_group("what it is for").add_argument
    add(
        "--test", nargs="+", metavar="NAME",
        help="videos to test on, or what share of them, 0 to 1 (default: those with an action of "
        "--unseen, or a quarter)",
    )  # fmt: skip
    add("--unseen", nargs="+", default=[], metavar="NAME", help="actions that are not trained")
    add(
        "--poses", nargs="+", metavar="NAME",
        help="where a person can do several things: actions that exclude each other",
    )  # fmt: skip
    return parser
