"""Label files and video lists: plain text, one name a line."""

import difflib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from stclip.errors import UserError
from stclip.files import check_regular, shipped
from stclip.structures.groups import GROUPS

logger = logging.getLogger(__name__)


def read_label_file(path: str | Path, key: str = "") -> list[str]:
    """Class names, one a line, in the file's order, which is the order of the vocabulary.

    The text is kept exactly as written, because the text encoder reads it; only the line end goes.
    Blank lines are ignored.

    Args:
        path: the file; ``""`` is how an unset config key arrives here.
        key: the config key that holds ``path``, for error messages.

    Raises:
        UserError: no path, no such file, no name in it, or a name that stands there twice.
    """
    names = [line for line in _lines(path, key) if line.strip()]
    where = _where(path, key)
    if not names:
        raise UserError(f"{where}: no label in it; write one class name a line")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where}: label {name!r} stands there twice; leave one of them")
        seen.add(name)
    return names


def label_line(path: str | Path, name: str, key: str = "") -> str:
    """Words for where a name of a label file stands: the key, the file and the line."""
    lines = enumerate(_lines(path, key), start=1)
    return f"{_where(path, key)}, line {next((n for n, line in lines if line == name), '?')}"


def read_group_file(path: str | Path, names: Sequence[str], key: str = "") -> dict[str, str]:
    """The group of every class: one of GROUPS a line, in the order of the classes.

    Blank lines and spaces around a group are ignored.

    Args:
        path: the file.
        names: the class names that the lines belong to, in their order.
        key: the config key that holds ``path``, for error messages.

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


def check_vocabulary(
    names: Sequence[str], all_names: Collection[str], key: str, path: str | Path
) -> None:
    """Check that every label of a vocabulary is one of ALL_LABEL's.

    Raises:
        UserError: naming the key, the file, the label and the choices that come close.
    """
    known = set(all_names)
    for name in names:
        if name not in known:
            raise UserError(
                f"{_where(path, key)}: label {name!r} is not in ALL_LABEL; "
                f"{choices(name, all_names)}"
            )


def choices(name: str, valid: Collection[str], limit: int = 5) -> str:
    """Words for the end of an error message: the valid names that ``name`` may have meant."""
    close = difflib.get_close_matches(name, list(valid), n=limit, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    shown = ", ".join(sorted(valid)[:30])
    return f"choices: {shown}{', ...' if len(valid) > 30 else ''}"


def warn_overlap(train_names: Sequence[str], test_names: Sequence[str]) -> None:
    """Log a warning if the test labels contain seen ones: then the test is not zero-shot."""
    trained = set(train_names)
    both = [name for name in test_names if name in trained]
    if both:
        logger.warning(
            "%d of %d labels of TEST_LABEL are in TRAIN_LABEL too, so this is not zero-shot: %s",
            len(both),
            len(test_names),
            ", ".join(both[:30]) + (", ..." if len(both) > 30 else ""),
        )


def _lines(path: str | Path, key: str) -> list[str]:
    if not str(path):
        raise UserError(f"{key or 'label file'}: is empty; set it to a text file, one name a line")
    check_regular(path)
    try:
        # utf-8-sig: editors on Windows put a byte order mark in front, which is not text.
        text = shipped(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{_where(path, key)}: cannot be read: {error.strerror or error}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{_where(path, key)}: not a UTF-8 text file ({error.reason})") from error
    return text.split("\n")


def _where(path: str | Path, key: str) -> str:
    return f"{key} {path}" if key else str(path)
