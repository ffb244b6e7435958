"""Files that are whole or absent, and errors that name the file."""

import errno
import json
import logging
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from stclip.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_MANY_DIGITS = re.compile(r"[0-9]{19}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    If the block fails (no space left, an interrupt), the temporary file is removed and what stood
    at ``path`` before is untouched. The temporary name keeps the suffix of ``path``, because some
    writers choose the format by it.

    Raises:
        UserError: the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"{path}: cannot write here: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:  # the data must be on disk before the name is
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: writing failed: {error.strerror or error}; the old file is unchanged"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: the file is missing, unreadable or not JSON (cut short, say).
    """
    path = Path(path)
    check_regular(path)
    try:
        # utf-8-sig: some editors put a byte order mark in front, which json refuses.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error}); it must be UTF-8") from error
    return parse_json(text, str(path))


def parse_json(text: str, where: str) -> Any:
    """Parse JSON from an untrusted source.

    Whole numbers beyond 64 bits become floats, perhaps infinite, and all texts can be encoded.

    Args:
        text: the JSON.
        where: the file, and perhaps the line, for messages.

    Raises:
        UserError: it is not JSON, is nested too deeply, or has half a character in a text.
    """
    try:
        # Python's own conversion is faster, and without so many digits there is nothing to check.
        hook = _number if _MANY_DIGITS.search(text) else None
        value = json.loads(text, parse_int=hook)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not valid JSON ({error}); is the file cut short? Fetch or write it again"
        ) from error
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: a text in it has half a character ({error.object[error.start]!r}), which no "
            "file can hold; write the character itself, in UTF-8"
        ) from error
    except RecursionError as error:
        raise UserError(
            f"{where}: lists or objects are nested too deeply; is it damaged?"
        ) from error


def _number(digits: str) -> int | float:
    """Beyond 64 bits a float, which no reader takes for a count; int() refuses 5,000 digits."""
    number = int(digits) if len(digits) <= 20 else 1 << 64
    return number if -(1 << 63) <= number < 1 << 63 else float(digits)


def check_regular(path: str | Path) -> None:
    """Refuse named pipes, sockets and devices: opening or reading one may block forever.

    What cannot be found is left to the opening of the file.

    Raises:
        UserError: there is such a thing, or the path holds a NUL character.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    except ValueError as error:  # a NUL in it
        raise UserError(f"{_shown(path)}: cannot be read: {error}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}.get(stat.S_IFMT(mode))
        raise UserError(
            f"{path}: a {kind or 'device'}, but a file was expected; copy the data into a file"
        )


def file_names(videos: Iterable[str]) -> dict[str, str]:
    """What the files of each video begin with: its name with _ for /, and no two the same."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for video in dict.fromkeys(videos):
        name = plain = video.replace("/", "_")
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}~{number}"
        taken.add(name)
        names[video] = name
    return names


class InUse(UserError):
    """Another process holds the lock."""


@contextmanager
def locked(
    folder: str | Path, what: str, leftovers: str = ".tmp-*", patience: float = 0.0
) -> Iterator[None]:
    """Keep other processes from doing the same into a folder meanwhile.

    The system drops the lock with this process, however it ends. If a whole machine ends, the
    server of a network disk drops its locks after a while (NFS 4: 90 seconds) or never (NFS 3).
    Where there are no such locks (some network disks, Windows), nothing is locked.

    Args:
        folder: is made if it is not there.
        what: is done there, such as ``train``; other things may be done at the same time.
        leftovers: what a process that was killed there has left unfinished; it is deleted.
        patience: seconds to wait for another process.

    Raises:
        InUse: another process does that there now.
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    path, end = _lock_of(folder, what), time.monotonic() + patience
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (file := _lock(path)) is None and time.monotonic() < end:
            time.sleep(min(1.0, patience))
    except OSError as error:
        raise UserError(f"{folder}: cannot write here: {error.strerror or error}") from error
    if file is None:
        raise InUse(
            f"{folder}: {_holder(path)} is writing there now ({what}); wait until it has ended, or "
            f"choose another folder; if its machine is off, remove {path}"
        )
    with file:
        file.write(this_process())
        file.flush()
        for left in folder.glob(leftovers):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def this_process() -> str:
    """What a lock says of its holder."""
    return f"process {os.getpid()} on {platform.node()}"


def break_lock(folder: str | Path, what: str, holder: str) -> None:
    """Remove a lock that the server of a network disk still keeps for a machine that is gone.

    Args:
        folder: where something was done.
        what: was done there.
        holder: ``this_process()`` of the process that is known to have ended; locks of others stay.
    """
    path = _lock_of(folder, what)
    if _holder(path) == holder:
        path.unlink(missing_ok=True)


def _lock_of(folder: str | Path, what: str) -> Path:
    return Path(folder) / f".{what}.lock"


def _lock(path: Path) -> TextIO | None:
    """The open and locked file; None if another process has it locked."""
    while True:
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (held open for the run)
        try:
            # Not flock, which processes that are forked later would go on holding.
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.close()
                return None
            return file  # this disk knows no locks
        file.close()  # its last holder has deleted it meanwhile


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")[:200] or "another process"
    return "another process"


def shipped(path: str | Path) -> Path:
    """A file that the user has, or the one of that name among the configs and label splits here.

    Args:
        path: as a config or the command line says it; a relative one is looked for from the current
            folder first.

    Returns:
        Where the file is; ``path`` itself if it is nowhere.
    """
    path = Path(path)
    if path.is_absolute() or path.exists():
        return path
    return next((root / path for root in shipped_roots() if (root / path).exists()), path)


def shipped_roots() -> list[Path]:
    """What holds ``configs`` and ``data/label_splits``: a clone, or the package itself."""
    package = Path(__file__).resolve().parent
    roots = [package.parent, package / "shipped"]
    return [root for root in roots if (root / "configs" / "base.yaml").exists()]


def retire(path: Path) -> None:
    """Rename a file or folder to the next free ``<name>.old-N``, if it exists."""
    if not path.exists():
        return
    number = 1
    while (old := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    os.rename(path, old)
    logger.info("%s: what an earlier run left is kept as %s", path, old.name)


def _shown(path: str | Path) -> str:
    """A path for messages: without control characters, and of a length that can be read."""
    text = str(path)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 300 else f"{text[:300]}..."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
