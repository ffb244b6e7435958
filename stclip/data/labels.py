"""Label files, read once into one record; and lists of videos. Plain text, one name a line.

A line of a label file may say how the text encoder is to read the name:
``name | wording | wording``.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from yacs.config import CfgNode

from stclip.data.fields import read_text
from stclip.errors import UserError
from stclip.files import shipped
from stclip.structures.groups import GROUPS
from stclip.structures.wordings import split_label

Part = Literal["train", "test"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """The class names of a run.

    Attributes:
        all: ALL_LABEL's, in the order of the file.
        train: TRAIN_LABEL's, the vocabulary of training; () without the key.
        test: TEST_LABEL's; () without the key.
        generalized: whether a test scores all names (TEST.GENERALIZED) and not TEST_LABEL's alone.
        groups: the group of every name in ``all``, where a person may have several labels
            (ALL_GROUP); None where exactly one.
        places: for (config key, name) the key, file and line, for messages.
        texts: for (config key, name) the whole line, with the wordings of the name; ALL_WORDING's
            line for a name that has none of its own.
        none_of: the lines of TEST.NONE_OF, scored after the vocabulary and not reported.
    """

    all: tuple[str, ...]
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    generalized: bool = False
    groups: dict[str, str] | None = None
    places: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    texts: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    none_of: tuple[str, ...] = ()

    @classmethod
    def read(cls, cfg: CfgNode, part: Part) -> Labels:
        """Read ALL_LABEL, TRAIN_LABEL, TEST_LABEL, ALL_WORDING, TEST.NONE_OF, ALL_GROUP, each once.

        The list of ``part`` must be there, the other one need not be. Both must be part of
        ALL_LABEL, but for the labels trained on in a test, which may be another dataset's.

        Raises:
            UserError: a file is unset, unreadable or empty, has a name that ALL_LABEL lacks, or the
                groups do not fit the names.
        """
        found: dict[str, dict[str, Line]] = {"ALL_LABEL": _names(cfg.ALL_LABEL, "ALL_LABEL")}
        for other in (part, "train" if part == "test" else "test"):
            key = f"{other.upper()}_LABEL"
            found[key] = _names(cfg[key], key) if cfg[key] or other == part else {}
            for name in found[key] if (other, part) != ("train", "test") else ():
                if name not in found["ALL_LABEL"]:
                    raise UserError(
                        f"{_where(cfg[key], key)}: label {name!r} is not in ALL_LABEL; "
                        f"{choices(name, found['ALL_LABEL'])}"
                    )
        names = tuple(found["ALL_LABEL"])
        worded = _wordings(cfg.ALL_WORDING, found["ALL_LABEL"]) if cfg.ALL_WORDING else {}
        found = {key: _with_wordings(own, worded) for key, own in found.items()}
        groups = read_group_file(cfg.ALL_GROUP, names, "ALL_GROUP") if cfg.ALL_GROUP else None
        lines = {(key, name): line for key in found for name, line in found[key].items()}
        places = {place: line.where for place, line in lines.items()}
        texts = {place: line.text for place, line in lines.items()}
        train, test = tuple(found["TRAIN_LABEL"]), tuple(found["TEST_LABEL"])
        tested = names if cfg.TEST.GENERALIZED else test
        none_of: tuple[str, ...] = ()
        if cfg.TEST.NONE_OF:
            none_of = _none_of(cfg, tested, found["TRAIN_LABEL"], worded)
        return cls(names, train, test, cfg.TEST.GENERALIZED, groups, places, texts, none_of)

    def vocabulary(self, part: Part) -> list[str]:
        """The names that a part is trained or scored with, in their order.

        Raises:
            UserError: the key of that part is unset.
        """
        if not (self.train if part == "train" else self.test):
            _lines("", f"{part.upper()}_LABEL")
        return list(self.train if part == "train" else self.all if self.generalized else self.test)

    def key(self, part: Part) -> str:
        """The config key of the vocabulary."""
        return "ALL_LABEL" if part == "test" and self.generalized else f"{part.upper()}_LABEL"

    def wordings(self, part: Part) -> list[str]:
        """The lines of the vocabulary to encode, in a test followed by those of ``none_of``."""
        key = self.key(part)
        lines = [self.texts.get((key, name), name) for name in self.vocabulary(part)]
        return [*lines, *self.none_of] if part == "test" else lines

    def place(self, part: Part, name: str) -> str:
        """The key, file and line of a name of the vocabulary, for messages."""
        key = self.key(part)
        return self.places.get((key, name), key)

    def groups_of(self, part: Part) -> list[str] | None:
        """The group of each name of the vocabulary; None without ALL_GROUP."""
        return None if self.groups is None else [self.groups[n] for n in self.vocabulary(part)]

    @property
    def unseen(self) -> frozenset[str]:
        """The labels that are tested and not trained on."""
        return frozenset(self.test).difference(self.train)

    def warn_overlap(self) -> None:
        """Log a warning if the test labels contain seen ones: then the test is not zero-shot."""
        trained = set(self.train)
        both = [name for name in self.test if name in trained]
        if both:
            logger.warning(
                "%d of %d labels of TEST_LABEL are in TRAIN_LABEL too, so this is not zero-shot: "
                "%s", len(both), len(self.test),
                ", ".join(both[:30]) + (", ..." if len(both) > 30 else ""),
            )  # fmt: skip


def read_label_file(path: str | Path, key: str = "") -> list[str]:
    """Class names, one a line, in the file's order, which is the order of the vocabulary.

    The text is kept exactly as written, because the text encoder reads it; only the line end goes.
    Blank lines are ignored, and so is how a name is to be worded (``read_wordings``).

    Args:
        path: the file; "" for an unset config key.
        key: the config key that holds it, for messages.

    Raises:
        UserError: no path, no such file, no name in it, or a name that occurs twice.
    """
    return list(_names(path, key))


def read_wordings(path: str | Path, key: str = "") -> list[str]:
    """The lines of a label file: names, some with wordings. See ``read_label_file``."""
    return [line.text for line in _names(path, key).values()]


class Line(NamedTuple):
    """Where a name stands (key, file and line), and the text of that line."""

    where: str
    text: str


def _names(path: str | Path, key: str) -> dict[str, Line]:
    """The names of a label file, each with its line."""
    where = _where(path, key)
    found: dict[str, Line] = {}
    for number, text in enumerate(_lines(path, key), start=1):
        try:
            name, _ = split_label(text)
        except UserError as error:
            raise UserError(f"{where}: line {number}: {error}") from error
        if name in found:
            raise UserError(f"{where}: label {name!r} occurs twice; remove one of them")
        if name.strip():
            found[name] = Line(f"{where}, line {number}", text)
    if not found:
        raise UserError(f"{where}: no label in it; write one class name a line")
    return found


def _wordings(path: str, names: Collection[str]) -> dict[str, Line]:
    """The lines of ALL_WORDING, which must be of names of ALL_LABEL."""
    found = _names(path, "ALL_WORDING")
    for name, line in found.items():
        if name not in names:
            raise UserError(
                f"{line.where}: label {name!r} is not in ALL_LABEL; {choices(name, names)}"
            )
    return found


def _with_wordings(own: Mapping[str, Line], worded: Mapping[str, Line]) -> dict[str, Line]:
    """Lines of a label file, of names without wordings those of ALL_WORDING."""
    return {
        name: worded.get(name, line) if line.text == name else line for name, line in own.items()
    }


def _none_of(
    cfg: CfgNode,
    tested: Sequence[str],
    trained: Mapping[str, Line],
    worded: Mapping[str, Line],
) -> tuple[str, ...]:
    """The lines of TEST.NONE_OF, which must fit the tested names."""
    if cfg.ALL_GROUP:
        raise UserError(
            "TEST.NONE_OF: '' expected with ALL_GROUP, where names do not exclude each other"
        )
    if cfg.TEST.NONE_OF == "TRAIN_LABEL":
        if not trained:
            _lines("", "TRAIN_LABEL")
        return tuple(line.text for name, line in trained.items() if name not in tested)
    found = _names(cfg.TEST.NONE_OF, "TEST.NONE_OF")
    for name, line in found.items():
        if name in tested:
            raise UserError(
                f"{line.where}: label {name!r} is one of the tested names too; take it out of one "
                "of the two"
            )
    return tuple(line.text for line in _with_wordings(found, worded).values())


def read_group_file(path: str | Path, names: Sequence[str], key: str = "") -> dict[str, str]:
    """The group of every class: one of GROUPS a line, in the order of the classes' names.

    Blank lines and spaces around a group are ignored.

    Raises:
        UserError: no such file, a line that is no group, or not as many lines as names.
    """
    where = _where(path, key)
    groups = [line.strip() for line in _lines(path, key) if line.strip()]
    for number, group in enumerate(groups, start=1):
        if group not in GROUPS:
            raise UserError(
                f"{where}: {group!r}, number {number} of its groups: one of {', '.join(GROUPS)} "
                "expected"
            )
    if len(groups) != len(names):
        raise UserError(
            f"{where}: {len(groups)} groups for the {len(names)} names of ALL_LABEL; write one "
            "group a line, in the order of the names"
        )
    return dict(zip(names, groups, strict=True))


def read_video_list(path: str | Path, key: str = "") -> list[str]:
    """Video names, one a line, with or without their class folder; blank lines are ignored.

    Raises:
        UserError: no such file, or no name in it.
    """
    names = [line.strip() for line in _lines(path, key) if line.strip()]
    if not names:
        raise UserError(f"{_where(path, key)}: no video in it; write one name a line")
    return list(dict.fromkeys(names))


def match_names(own: Sequence[str], all_names: Sequence[str], source: Path) -> list[str]:
    """The class names of a dataset as ALL_LABEL words them, one for each of ``own``.

    Where one list holds all names of the other, in any order, they stay as they are. Otherwise
    ALL_LABEL is taken for the same classes in the same order with some of the texts edited, which
    is what a person would do to try another wording; anything else may as well be a wrong file.
    """
    known = set(all_names)
    if set(own) <= known or known <= set(own):
        return list(own)
    moved = [
        name
        for position, name in enumerate(own)
        if name in known and (len(own) != len(all_names) or all_names[position] != name)
    ]
    if len(own) != len(all_names) or moved:
        lacking = sorted(set(own) - known)
        raise UserError(
            f"ALL_LABEL: the classes of {source} are not in it ({', '.join(lacking[:5])}"
            f"{', ...' if len(lacking) > 5 else ''}); list all {len(own)}, and to word some "
            "differently keep the order"
        )
    return list(all_names)


def choices(name: str, valid: Collection[str], limit: int = 5) -> str:
    """Words for the end of an error message: the valid names that ``name`` may have meant."""
    close = difflib.get_close_matches(name, list(valid), n=limit, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    shown = ", ".join(sorted(valid)[:30])
    return f"choices: {shown}{', ...' if len(valid) > 30 else ''}"


def _lines(path: str | Path, key: str) -> list[str]:
    if not str(path):
        raise UserError(f"{key or 'label file'}: is empty; set it to a text file, one name a line")
    return read_text(shipped(path), _where(path, key)).split("\n")


def _where(path: str | Path, key: str) -> str:
    return f"{key} {path}" if key else str(path)
