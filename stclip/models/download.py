"""Downloads that resume, are checked, and are kept."""

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stclip.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has other locks; there, downloads by several processes may collide
    fcntl = None  # type: ignore[assignment]

# X-CLIP, by data set, patch size and frames (source: microsoft/VideoX, X-CLIP/README.md). "zero" is
# B/16 with 32 frames for zero-shot recognition. The authors give no checksums.
_XCLIP = "https://github.com/nbl97/X-CLIP_Model_Zoo/releases/download/v1.0"
_XCLIP_MODELS = (
    *("k400_32_8", "k400_32_16", "k400_16_8", "k400_16_16", "k600_16_8", "k600_16_16"),
    *(f"few_{dataset}_{shots}" for dataset in ("hmdb", "ucf") for shots in (2, 4, 8, 16)),
    "zero",
)
# Those that a browser only can fetch.
_XCLIP_PAGE = "https://drive.google.com/file/d"
_XCLIP_BY_HAND = {
    "k400_14_8": "1NUOImq0o5DlQTST17iIP3vG7DgmHQuCx",
    "k400_14_16_336": "1FOYgnJc097OJ4lGwtRCCydQyVPJEOH7d",
    "k600_14_8": "1FV8C1INuM91sLAN4ImjzePLIlpMSihwV",
}

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30


def default_cache_dir() -> Path:
    """Where downloads go: $STCLIP_CACHE, or ~/.cache/stclip."""
    return Path(os.environ.get("STCLIP_CACHE") or "~/.cache/stclip").expanduser()


def xclip_models() -> list[str]:
    """The names of X-CLIP's published weights, as the authors call the files."""
    return [*_XCLIP_MODELS, *_XCLIP_BY_HAND]


def download_xclip(name: str) -> Path:
    """The file of one of ``xclip_models()``, fetched into the folder xclip of the cache if need be.

    Raises:
        UserError: it cannot be fetched, or lies where only a browser can fetch it.
    """
    folder = default_cache_dir() / "xclip"
    target = folder / f"{name}.pth"
    if name in _XCLIP_BY_HAND and not target.is_file():
        raise UserError(
            f"{name}: found no {target}, and its authors publish it where only a browser can fetch "
            f"it: get {_XCLIP_PAGE}/{_XCLIP_BY_HAND[name]} and put the file there"
        )
    return download(f"{_XCLIP}/{name}.pth", None, folder)


def download(url: str, sha256: str | None, cache_dir: str | Path | None = None) -> Path:
    """Fetch a file once, and make sure that it is the right one.

    A transfer that breaks off is resumed where it broke, in this call or in the next one. Several
    processes may ask for the same file: one fetches it, the others wait.

    Args:
        url: what to fetch.
        sha256: the checksum of the file, in hexadecimal; None if it is not known. A complete
            transfer is all that is made sure of then.
        cache_dir: the folder that keeps it; by default ``default_cache_dir()``.

    Returns:
        The path of the file, which has the last part of the URL for its name.

    Raises:
        UserError: the URL cannot be reached, the checksum differs, or the folder is not writable.
    """
    folder = default_cache_dir() if cache_dir is None else Path(cache_dir)
    target = folder / url.rsplit("/", 1)[-1]
    if _is_right(target, sha256):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f".{target.name}.lock")):
            if _is_right(target, sha256):  # another process was faster
                return target
            return _fetch(url, sha256, target)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be written: {error.strerror or error}; "
            "set STCLIP_CACHE to a folder with room for the download"
        ) from error


def _fetch(url: str, sha256: str | None, target: Path) -> Path:
    part = target.with_name(target.name + ".part")
    by_hand = f"run again to go on, or fetch {url} by hand and put it at {target}"
    if target.exists():  # the caller has seen that its checksum is wrong
        by_hand += " (the file there has another SHA-256: is it cut short?)"
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            complete, reason = _transfer(url, part), "the connection was closed"
        except urllib.error.HTTPError as error:
            raise UserError(
                f"{url}: the server answered {error.code} {error.reason}; expected the file: "
                f"fetch it by hand from elsewhere and put it at {target}"
            ) from error
        except (_NetworkError, urllib.error.URLError) as error:
            complete, reason = False, str(getattr(error, "reason", error))
        after = part.stat().st_size if part.exists() else 0
        if complete:
            break
        if after <= before:  # not even a little more: the network is down
            raise UserError(f"{url}: cannot be fetched ({reason}; {after} bytes came): {by_hand}")
    if not _is_right(part, sha256):
        found = _sha256(part)
        part.unlink()
        raise UserError(
            f"{url}: found SHA-256 {found}, expected {sha256}; what came was removed: {by_hand}"
        )
    os.replace(part, target)
    return target


class _NetworkError(Exception):
    """A transfer broke off; told apart from an error of the disk, which is an OSError too."""


def _transfer(url: str, part: Path) -> bool:
    """Append to ``part`` what it lacks of the file; whether it is complete then."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing lies beyond what we have: the checksum decides
            return True
        raise
    except urllib.error.URLError:
        raise
    except (OSError, HTTPException) as error:
        raise _NetworkError(str(error) or type(error).__name__) from error
    with response:
        length = response.headers.get("Content-Length")
        resumed = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if resumed is None or int(resumed[1]) != start:
            start = 0  # the server sends the whole file
        total = None if length is None else start + int(length)
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(
                total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None
            ) as progress,
        ):
            while chunk := _read_chunk(response):
                file.write(chunk)
                progress.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    return total is None or part.stat().st_size == total


def _read_chunk(response: Any) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _NetworkError(str(error) or type(error).__name__) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield


def _is_right(path: Path, sha256: str | None) -> bool:
    return path.is_file() and (sha256 is None or _sha256(path) == sha256)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
