"""Checked values of files that people and other programs wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stclip.errors import UserError
from stclip.files import check_regular
from stclip.structures.boxes import LARGEST

LAST_FRAME = 2**31  # longer than any video, and larger than any count in a file


def read_text(path: str | Path, where: str = "") -> str:
    """A text file in UTF-8, perhaps with a byte order mark; a UserError if it is none."""
    check_regular(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{where or path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where or path}: not a UTF-8 text file ({error.reason})") from error


@contextmanager
def format_of(name: str, where: str) -> Iterator[None]:
    """Turn errors raised by content of another structure into a UserError."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{where}: not in the format of {name} ({type(error).__name__}: {error})"
        ) from error


def rows_of(content: Any, name: str, path: Path, hint: str) -> list[tuple[Any, str]]:
    """The rows of a list in a JSON object, each with its place; a UserError without the list."""
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UserError(f"{path}: {name!r} is missing or not a list; {hint}")
    return [(row, f"{path}: {name}[{index}]") for index, row in enumerate(rows)]


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number of a size that coordinates, times and scores have."""
    return type(value) in (int, float) and abs(value) <= LARGEST


def is_box(value: Any, length: int = 4) -> bool:
    """Whether a JSON value is a list of so many numbers."""
    return isinstance(value, list) and len(value) == length and all(map(is_number, value))


def whole_number(value: Any) -> int:
    """A number that a file counts with; a ValueError or TypeError if it is no whole one."""
    try:
        number = int(value)
        whole = number == float(value) and abs(number) < LAST_FRAME
    except OverflowError:  # of infinity, or of hundreds of digits
        whole = False
    if not whole:
        raise ValueError(f"{value!r:.60}: a whole number was expected")
    return number
