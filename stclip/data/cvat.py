"""Annotations made in CVAT: "CVAT for video 1.1" and "CVAT for images 1.1", as .xml or .zip.

Frames of CVAT count from 0 in the order in which a decoder yields pictures, also where a task skips
some (``frame_filter``). A project counts the frames of its tasks on, one after the other, and
begins anew with each subset. A track that CVAT writes lists the box of every frame; one that other
programs write may have key frames alone, between which CVAT interpolates.
"""

from __future__ import annotations

import math
import re
import shlex
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO
from xml.etree import ElementTree as ET
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np

from stclip.data.fields import whole_number
from stclip.data.labels import choices
from stclip.data.tracks import Annotated, Track
from stclip.errors import UserError
from stclip.files import check_regular
from stclip.structures.boxes import LARGEST

LABEL = "label"  # in place of an attribute's name: the label itself is the action
_ACTION = ("action", "actions")  # the attribute that says it, unless the user names others
_STEP = re.compile(r"\bstep\s*=\s*([0-9]{1,9})")
_NUMBER = re.compile(r"([0-9]{1,9})\.\w+$")  # of a picture, at the end of its file's name
_BLOCK = 1 << 16
# What zipfile and expat raise for damaged files, and for encodings that are not there.
_BROKEN = (ET.ParseError, BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, LookupError)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Task:
    """A task or job: what its video may be called, and how it counts frames."""

    names: tuple[str, ...]
    has_video: bool
    size: tuple[int, int] | None
    step: int
    offset: int


def read_cvat(
    path: Path, actions_from: Sequence[str] = (), left_out: Counter[str] | None = None
) -> list[Annotated]:
    """Read the people of a file, one after the other.

    Args:
        path: what CVAT exported: the .zip, or the .xml in it.
        actions_from: attributes that say what a person does: the value of a select, radio or text,
            the name of a checkbox that is ticked; ``label`` for the label itself. Empty: the
            attribute ``action``, and if no label has any attribute the label.
        left_out: counts what is not used, by reason.

    Returns:
        One for each task, or folder of pictures.

    Raises:
        UserError: the file is not as CVAT writes it, or it is not clear where actions are.
    """
    left_out = Counter() if left_out is None else left_out
    tasks: dict[str, _Task] = {}
    sources: tuple[str, ...] = ()
    found: dict[_Task, list[Track]] = {}
    for parent, group in groupby(_elements(path), key=lambda pair: pair[0]):
        if parent.tag == "meta":
            meta = next(group)[1]
            tasks, sources = _tasks(meta, path), _sources(meta, actions_from, path)
            continue
        if not tasks:
            raise UserError(f"{path}: no meta before its first {parent.tag}; is it CVAT's?")
        boxes = _boxes((element for _, element in group), left_out)
        task = _task_of(parent, tasks, path)
        if parent.tag == "image":
            task, tracks = _image(parent, boxes, task, sources, path, left_out)
        else:
            tracks = _track(parent, boxes, task, sources, path, left_out)
        found.setdefault(task, []).extend(tracks)
    if not tasks:
        raise UserError(f"{path}: no meta in it; is it the annotations.xml that CVAT exports?")

    def as_read(task: _Task, tracks: list[Track]) -> Annotated:
        where = f"{path}: {task.names[0]}" if len(found) > 1 and task.names else str(path)
        names, folders = task.names or (path.stem,), (path.parent, Path("."))
        return Annotated(where, path, names, folders, task.size, lambda film: tracks)

    return [as_read(task, tracks) for task, tracks in found.items()]


def _boxes(elements: Iterable[ET.Element], left_out: Counter[str]) -> Iterator[ET.Element]:
    for element in elements:
        if element.tag == "box":
            yield element
        else:
            left_out[f"shapes that are no boxes ({element.tag})"] += 1


class _Collector:
    """Gets the events of an XML parser and keeps whole elements, each with its parent.

    These are ``meta``, and what is inside of the other children of the root: a track of an hour is
    not kept as a tree.
    """

    def __init__(self, path: Path) -> None:
        self.found: deque[tuple[ET.Element, ET.Element]] = deque()
        self._path = path
        self._depth = 0
        self._top = 0  # the depth of the element that is being built
        self._parent = ET.Element("")
        self._builder: ET.TreeBuilder | None = None

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Refuse what could define entities that expand without end, or name other files."""
        raise UserError(f"{self._path}: has a DOCTYPE, which CVAT does not write; remove it")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        self._depth += 1
        if self._depth == 1 and tag != "annotations":
            raise UserError(
                f"{self._path}: <annotations> of CVAT expected, found <{tag}>; export as CVAT for "
                "video 1.1"
            )
        if self._depth == 2:
            self._parent = ET.Element(tag, attributes)
        used = self._parent.tag in (("meta",) if self._depth == 2 else ("track", "image"))
        if self._builder is None and self._depth in (2, 3) and used:
            self._builder, self._top = ET.TreeBuilder(), self._depth
        if self._builder is not None:
            self._builder.start(tag, attributes)

    def data(self, text: str) -> None:
        """Text inside of an element."""
        if self._builder is not None:
            self._builder.data(text)

    def end(self, tag: str) -> None:
        """An element ends."""
        if self._builder is not None:
            self._builder.end(tag)
            if self._depth == self._top:
                self.found.append((self._parent, self._builder.close()))
                self._builder = None
        self._depth -= 1

    def close(self) -> None:
        """The document ends."""


def _elements(path: Path) -> Iterator[tuple[ET.Element, ET.Element]]:
    """Whole elements and their parents, read piece by piece."""
    collector = _Collector(path)
    parser = ET.XMLParser(target=collector)
    try:
        with _opened(path) as file:
            while block := file.read(_BLOCK):
                parser.feed(block)
                while collector.found:
                    yield collector.found.popleft()
            parser.close()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _BROKEN as error:
        raise UserError(
            f"{path}: not the xml that CVAT exports ({error}); is the file cut short?"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    check_regular(path)
    if not is_zipfile(path):
        with open(path, "rb") as file:
            yield file
        return
    with ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".xml")]
        own = [name for name in names if PurePosixPath(name).name == "annotations.xml"]
        if len(own or names) != 1:
            raise UserError(
                f"{path}: one annotations.xml in it expected, found {len(own or names)}; export as "
                "CVAT for video 1.1"
            )
        with archive.open((own or names)[0]) as file:
            yield file


def _tasks(meta: ET.Element, path: Path) -> dict[str, _Task]:
    """The tasks by id."""
    in_project = meta.findall("project/tasks/task")
    elements = in_project or meta.findall("task") or meta.findall("job")
    if not elements:
        raise UserError(f"{path}: no task, job or project in its meta; is it CVAT's?")
    tasks: dict[str, _Task] = {}
    offset, subset = 0, None
    for number, element in enumerate(elements, start=1):
        where = f"{path}: task {number} of its meta"
        if in_project and element.findtext("subset") != subset:
            offset, subset = 0, element.findtext("subset")
        step = _STEP.search(element.findtext("frame_filter") or "")
        every = max(int(step[1]), 1) if step else 1
        source, name = (element.findtext(tag) or "" for tag in ("source", "name"))
        size = element.find("original_size")
        size = meta.find("original_size") if size is None else size
        pixels = None
        if size is not None:
            pixels = _whole(size, "width", where), _whole(size, "height", where)
        id_ = element.findtext("id") or str(number)
        names = tuple(text for text in (source, name) if text)
        tasks[id_] = _Task(names, bool(source) or pixels is not None, pixels, every, offset)
        if in_project:
            first, count = (_whole(element, tag, where) for tag in ("start_frame", "size"))
            offset += first + every * count
    return tasks


def _task_of(parent: ET.Element, tasks: Mapping[str, _Task], path: Path) -> _Task:
    id_ = parent.get("task_id")
    if id_ is None and len(tasks) == 1:
        return next(iter(tasks.values()))
    if id_ is None or id_ not in tasks:
        raise UserError(
            f"{path}: {_called(parent)}: task_id {id_!r:.60}: one of the tasks of its meta expected"
        )
    return tasks[id_]


def _sources(meta: ET.Element, given: Sequence[str], path: Path) -> tuple[str, ...]:
    """The attributes that say what a person does, or ``label``."""
    known = {element.findtext("name") or "" for element in meta.iter("attribute")}
    for name in given:
        if name != LABEL and name not in known:
            raise UserError(
                f"--actions-from {name}: {path} has no such attribute; "
                f"{choices(name, {LABEL, *known})}"
            )
    if given:
        return tuple(given)
    named = tuple(sorted(name for name in known if name.lower() in _ACTION))
    if not named and known:
        listed = shlex.join(sorted(known))
        raise UserError(
            f"{path}: no attribute of its labels is called action; say what holds the actions: "
            f"--actions-from label, or attributes, --actions-from {listed}"
        )
    return named or (LABEL,)


def _actions(
    sources: Sequence[str], label: str, attributes: Mapping[str, str], left_out: Counter[str]
) -> tuple[str, ...] | None:
    """What a person does; None if this is no person, but an object without these attributes."""
    found: dict[str, None] = {}
    is_person = False
    for name in sources:
        value = label if name == LABEL and name not in attributes else attributes.get(name)
        is_person |= value is not None
        if value and value.lower() != "false":
            found[name if value.lower() == "true" else value] = None
    if not is_person:
        left_out[f"boxes of {label!r}, which has no attribute {' or '.join(sources)}"] += 1
        return None
    return tuple(found)


def _track(
    parent: ET.Element,
    boxes: Iterable[ET.Element],
    task: _Task,
    sources: tuple[str, ...],
    path: Path,
    left_out: Counter[str],
) -> list[Track]:
    """The person of a track; nobody if it is another object."""
    label = _text(parent.get("label"))
    rows: dict[int, tuple[Box, bool, tuple[str, ...]]] = {}
    attributes: dict[str, str] = {}
    sparse = task.step == 1
    for box in boxes:
        where = f"{path}: {_called(parent)}"
        frame = _whole(box, "frame", where) - task.offset
        where += f", frame {box.get('frame')}"
        if frame < 0:
            raise UserError(f"{where}: a frame of its task, from {task.offset} on, was expected")
        # CVAT itself lists every frame of a task; what is not listed then is not to be seen.
        sparse &= box.get("keyframe") != "0"
        attributes |= _attributes(box)  # a value holds until another one is given
        actions = _actions(sources, label, attributes, left_out)
        if actions is not None:
            visible = box.get("outside") != "1"
            rows[frame] = _corners(box, where, visible), visible, actions
    if not rows:
        return []
    frames = np.array(sorted(rows))
    corners, shown, done = zip(*(rows[frame] for frame in frames.tolist()), strict=True)
    return [Track(_called(parent), frames, np.array(corners), np.array(shown), done, sparse)]


def _image(
    parent: ET.Element,
    boxes: Iterable[ET.Element],
    task: _Task,
    sources: tuple[str, ...],
    path: Path,
    left_out: Counter[str],
) -> tuple[_Task, list[Track]]:
    """The persons of a picture, and the task as it is of this picture's video."""
    name = parent.get("name") or ""
    where = f"{path}: image {name or parent.get('id')}"
    size = _whole(parent, "width", where), _whole(parent, "height", where)
    names, frame = task.names, _whole(parent, "id", where) - task.offset
    if not task.has_video:  # pictures: folder/00001.png
        number = _NUMBER.search(name)
        if number is None:
            raise UserError(f"{where}: a name that ends in the frame's number, 00001.png, expected")
        frame = int(number[1]) - 1
        folder = PurePosixPath(name).parent.name
        names = (folder,) if folder else names
    if frame < 0:
        raise UserError(f"{where}: a frame of its task expected, found number {frame}")
    tracks = []
    for number_of_box, box in enumerate(boxes, start=1):
        called = f"{where}, box {number_of_box}"
        actions = _actions(sources, _text(box.get("label")), _attributes(box), left_out)
        if actions is None:
            continue
        corners = np.array([_corners(box, called)])
        tracks.append(
            Track(
                called.removeprefix(f"{path}: "), np.array([frame]), corners,
                np.array([box.get("outside") != "1"]), (actions,),
            )
        )  # fmt: skip
    return _Task(names, task.has_video, size, task.step, task.offset), tracks


def _called(parent: ET.Element) -> str:
    return f"{parent.tag} {parent.get('id') or parent.get('name') or '?'}"


def _attributes(box: ET.Element) -> dict[str, str]:
    return {child.get("name") or "": _text(child.text) for child in box.findall("attribute")}


def _text(text: str | None) -> str:
    return " ".join((text or "").split())


def _corners(box: ET.Element, where: str, shown: bool = True) -> Box:
    """x1, y1, x2, y2; of a rotated box those of the upright box around it. A hidden one is any."""
    x1, y1, x2, y2 = (_number(box, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
    if shown and (x2 <= x1 or y2 <= y1):
        raise UserError(f"{where}: box {x1:g}, {y1:g}, {x2:g}, {y2:g} is empty; correct it in CVAT")
    if box.get("rotation") is None:
        return x1, y1, x2, y2
    turn = math.radians(_number(box, "rotation", where))
    cosine, sine = abs(math.cos(turn)), abs(math.sin(turn))
    width = ((x2 - x1) * cosine + (y2 - y1) * sine) / 2
    height = ((x2 - x1) * sine + (y2 - y1) * cosine) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - width, y - height, x + width, y + height


def _number(element: ET.Element, name: str, where: str) -> float:
    """A number that is an attribute of an element."""
    text = element.get(name)
    try:
        value = float(text or "")
        if abs(value) <= LARGEST:
            return value
    except ValueError:
        pass
    raise UserError(f"{where}: {name} {text!r:.60}: a number was expected")


def _whole(element: ET.Element, name: str, where: str) -> int:
    """A whole number from 0, an attribute of an element or a child of it."""
    text = element.get(name, element.findtext(name))
    try:
        value = whole_number(text)
        if value >= 0:
            return value
    except (TypeError, ValueError):
        pass
    raise UserError(f"{where}: {name} {text!r:.60}: a whole number from 0 was expected")
