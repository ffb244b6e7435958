"""What of the server can be reached at all.

Gradio serves much that this page does not need: an API, a proxy, files by their path, streams. Only
what stands in the lists below is let through, whatever else a version of Gradio brings.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READ = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|jobs)/.*"
    r"|/gradio_api/(startup-events|queue/data|upload_progress|heartbeat/\w+|theme\.css|app_id)"
)
_WRITE = re.compile(r"/gradio_api/(queue/join|run/predict|reset|cancel|upload)/?")
_FILE, _UPLOAD = "/gradio_api/file=", "/gradio_api/upload"
_LARGEST = 1 << 18  # bytes of a request that is no upload
_AROUND = 1 << 16  # bytes around the file in an upload
_UPLOADS_AT_ONCE = 10  # as many of the largest may lie on the disk
_IDLE_SECONDS = 600.0  # after which an upload goes if another one needs its room; jobs have a link

# No request leaves this server, whatever a version of Gradio would like to fetch. Its scripts are
# compiled in the browser, hence 'unsafe-eval'.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)


class Gate:
    """Lets through what the page needs, and no request that is too large.

    Args:
        app: what is behind it.
        uploads: the folder of uploads, the only one whose files may be asked for by path.
        largest: bytes of an upload.
    """

    def __init__(self, app: ASGIApp, uploads: Path, largest: int) -> None:
        self._app, self._uploads, self._largest = app, uploads.resolve(), largest
        self._coming = 0  # bytes of uploads that have begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", _POLICY)
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "same-origin"  # addresses hold tokens
            await send(message)

        uploads = scope["method"] == "POST" and scope["path"].startswith(_UPLOAD)
        length = _length_of(scope) if uploads else 0
        self._coming += length
        try:
            await self._app(scope, receive, send_on)
        finally:
            self._coming -= length

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD"):
            if path.startswith(_FILE):
                asked = Path(os.path.realpath(unquote(path.removeprefix(_FILE))))
                known = asked.is_relative_to(self._uploads) and asked != self._uploads
            else:
                known = _READ.fullmatch(path) is not None
            return None if known else PlainTextResponse("not found", 404)
        if method != "POST" or not _WRITE.fullmatch(path):
            return PlainTextResponse("not found", 404)
        length = _length_of(scope)
        if length < 0:
            return PlainTextResponse("a length expected", 411)
        if not path.startswith(_UPLOAD):
            return PlainTextResponse("too large", 413) if length > _LARGEST else None
        if length > self._largest + _AROUND:
            text = f"larger than {self._largest >> 20} MB, the most that is taken here"
            return PlainTextResponse(text, 413)
        # What is coming may lie on the disk in part already, and counts twice then.
        room = _UPLOADS_AT_ONCE * (self._largest + _AROUND) - self._coming - length
        if not _make_room(self._uploads, room):
            return PlainTextResponse("too many uploads at the moment; please try again later", 507)
        return None


def _length_of(scope: Scope) -> int:
    """Bytes of a request's body; -1 if nobody knows."""
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    # Of a body in chunks the length that is told is not that of the body.
    return int(length) if length.isdecimal() and "transfer-encoding" not in headers else -1


def _make_room(folder: Path, most: int) -> bool:
    """Let a folder hold at most so many bytes; whether that can be done.

    The oldest files go first, and none that somebody may still be about to use.
    """
    files: list[tuple[float, int, Path]] = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # swept meanwhile
            about = path.lstat()
            if S_ISREG(about.st_mode):
                # An empty one takes room as well.
                files.append((about.st_mtime, max(about.st_size, _AROUND), path))
    size = sum(file[1] for file in files)
    for changed, bytes_of_file, path in sorted(files):
        if size <= most or changed > time.time() - _IDLE_SECONDS:
            break
        path.unlink(missing_ok=True)
        size -= bytes_of_file
    return size <= most
