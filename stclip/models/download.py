"""Downloads that resume, are checked, and are kept."""

import hashlib
import json
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
from stclip.models.tensor_files import check_beginning, check_download

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
# No file that is fetched here has half of it.
_MOST_BYTES = 4 << 30


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
    if name in _XCLIP_BY_HAND:
        if target.is_file():
            return target
        raise UserError(
            f"{name}: found no {target}, and its authors publish it where only a browser can fetch "
            f"it: get {_XCLIP_PAGE}/{_XCLIP_BY_HAND[name]} and put the file there"
        )
    return download(f"{_XCLIP}/{name}.pth", None, folder)


def download(
    url: str,
    sha256: str | None,
    cache_dir: str | Path | None = None,
    most_bytes: int = _MOST_BYTES,
) -> Path:
    """Fetch a file of weights once, and make sure that it is the right one.

    A transfer that breaks off is resumed where it broke, in this call or in the next one, if the
    server says that it is still the same file. Several processes may ask for the same file: one
    fetches it, the others wait.

    Args:
        url: what to fetch.
        sha256: the checksum of the file, in hexadecimal; None if it is not known. What came must
            then be a whole file of weights, by its form and the checksums inside.
        cache_dir: the folder that keeps it; by default ``default_cache_dir()``.
        most_bytes: a longer file is refused.

    Returns:
        The path of the file, which has the last part of the URL for its name.

    Raises:
        UserError: the URL cannot be reached, gives a page of HTML or too much, the checksum
            differs, or the folder is not writable.
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
            return _fetch(_Transfer(url, target, sha256, most_bytes))
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be written: {error.strerror or error}; "
            "set STCLIP_CACHE to a folder with room for the download"
        ) from error


class _NetworkError(Exception):
    """A transfer broke off; distinct from a disk error, which is an OSError too."""


class _Transfer:
    """A file on its way: ``<name>.part``, and next to it what the server said about it."""

    def __init__(self, url: str, target: Path, sha256: str | None, most_bytes: int) -> None:
        self.url, self.target, self.sha256, self.most_bytes = url, target, sha256, most_bytes
        self.part = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self.by_hand = f"run again to continue, or fetch {url} by hand and put it at {target}"
        if target.exists():  # the caller has seen that it is not the right one
            wrong = "is no whole file of weights" if sha256 is None else "has another SHA-256"
            self.by_hand += f" (the file there {wrong}: is it cut short?)"

    def size(self) -> int:
        """How many bytes have come."""
        return self.part.stat().st_size if self.part.exists() else 0

    def remove(self) -> None:
        """Forget what has come."""
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its name."""
        os.replace(self.part, self.target)
        self._note.unlink(missing_ok=True)

    def go_on(self) -> bool:
        """Append what is lacking of the file; whether it is complete then.

        Raises:
            UserError: what the server sends is not the file.
        """
        note = self._read_note()
        start = self.size()
        # Without a checksum only the server can say that both halves are of one file.
        if note.get("url", self.url) != self.url or not (note.get("version") or self.sha256):
            start = 0
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and note.get("version"):
            headers["If-Range"] = note["version"]
        request = urllib.request.Request(self.url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not start:
                raise
            if self.sha256 or note.get("total") == start:  # nothing lies beyond what we have
                return True
            return self._anew()
        except urllib.error.URLError:
            raise
        except (OSError, HTTPException) as error:
            raise _NetworkError(str(error) or type(error).__name__) from error
        with response:
            version = _version(response)
            if response.status == 206:
                found = re.fullmatch(
                    r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")
                )
                total = int(found[2]) if found and found[2] != "*" else None
                now = {"version": version, "total": total}
                same = all(note.get(key) in (None, value) for key, value in now.items())
                if not start:
                    raise _NetworkError("a part came where the whole was asked for")
                if found is None or int(found[1]) != start or not same:
                    return self._anew()
            else:
                start, total = 0, _number(response.headers.get("Content-Length"))
            self._refuse(response, total)
            if start == 0:
                content = {"url": self.url, "version": version, "total": total}
                self._note.write_text(json.dumps(content), encoding="utf-8")
            self._receive(response, start, total)
        return total is None or self.size() == total

    def _anew(self) -> bool:
        """Begin again: what has come is of another file than what the server has."""
        self.remove()
        return self.go_on()

    def _refuse(self, response: Any, total: int | None) -> None:
        kind = response.headers.get("Content-Type", "")
        if "html" in kind.lower():
            raise UserError(
                f"{self.url}: found a page of HTML ({kind:.40}), expected a file of weights: is a "
                f"login or a proxy in between? {self.by_hand}"
            )
        if total is not None and total > self.most_bytes:
            raise UserError(
                f"{self.url}: found {total} bytes, expected at most {self.most_bytes}: "
                f"{self.by_hand}"
            )

    def _receive(self, response: Any, start: int, total: int | None) -> None:
        size = start
        with (
            open(self.part, "ab" if start else "wb") as file,
            tqdm(
                total=total,
                initial=start,
                unit="B",
                unit_scale=True,
                desc=self.target.name,
                disable=None,
            ) as progress,
        ):
            while chunk := _read_chunk(response):
                if not size and self.sha256 is None:
                    check_beginning(chunk, self.url)
                size += len(chunk)
                if size > (self.most_bytes if total is None else total):
                    self.remove()
                    raise UserError(
                        f"{self.url}: sends more than the {total or self.most_bytes} bytes that "
                        f"were expected; what came was removed: {self.by_hand}"
                    )
                file.write(chunk)
                progress.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())

    def _read_note(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        version = note.get("version") if isinstance(note, dict) else 0
        right = version is None or (isinstance(version, str) and version.isprintable())
        return note if right else {}


def _fetch(transfer: _Transfer) -> Path:
    url = transfer.url
    while True:
        before = transfer.size()
        try:
            complete, reason = transfer.go_on(), "the connection was closed"
        except urllib.error.HTTPError as error:
            raise UserError(
                f"{url}: the server answered {error.code} {error.reason}; expected the file: "
                f"fetch it by hand from elsewhere and put it at {transfer.target}"
            ) from error
        except (_NetworkError, urllib.error.URLError) as error:
            complete, reason = False, str(getattr(error, "reason", error))
        after = transfer.size()
        if complete:
            break
        if after <= before:  # not even a little more: the network is down
            raise UserError(
                f"{url}: cannot be fetched ({reason}; {after} bytes came): {transfer.by_hand}"
            )
    wrong = ""
    if transfer.sha256 is None:
        try:
            check_download(transfer.part)
        except UserError as error:
            wrong = str(error).removeprefix(f"{transfer.part}: ")
    elif (found := _sha256(transfer.part)) != transfer.sha256:
        wrong = f"found SHA-256 {found}, expected {transfer.sha256}"
    if wrong:
        transfer.remove()
        raise UserError(f"{url}: {wrong}; what came was removed: {transfer.by_hand}")
    transfer.finish()
    return transfer.target


def _version(response: Any) -> str | None:
    """What tells one version of a file from the next: its tag, or else its date."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    return response.headers.get("Last-Modified")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


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
    if not path.is_file():
        return False
    if sha256 is not None:
        return _sha256(path) == sha256
    try:
        check_download(path)
    except UserError:
        return False
    return True


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
