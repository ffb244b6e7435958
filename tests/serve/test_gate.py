"""What can be reached of the server, and how large requests may be."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs gradio (extra app)")

from stclip.serve.gate import Gate


def ask(
    gate: Gate, method: str, path: str, length: int | None = None, chunked: bool = False
) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    headers += [(b"transfer-encoding", b"chunked")] if chunked else []
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(gate(scope, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    uploads = tmp_path / "uploads"
    (uploads / "a").mkdir(parents=True)
    (uploads / "a" / "film.mp4").write_bytes(b"0" * 100)
    (uploads / "link.mp4").symlink_to("/etc/passwd")
    return Gate(behind, uploads, 1000)


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/assets/index.js", "/gradio_api/queue/data", "/gradio_api/heartbeat/a1",
     "/jobs/a/b", "/gradio_api/file={}/a/film.mp4", "/gradio_api/file={}/a/../a/film.mp4"],
)  # fmt: skip
def test_what_the_page_needs(gate: Gate, tmp_path: Path, path: str) -> None:
    status, headers = ask(gate, "GET", path.format(tmp_path / "uploads"))
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/docs", "/monitoring", "/gradio_api/info", "/gradio_api/mcp/sse", "/gradio_api/proxy=http://a/",
     "/gradio_api/file=/etc/passwd", "/gradio_api/file=http://a.example/", "/gradio_api/file={}",
     "/gradio_api/file={}/../secret", "/gradio_api/file={}/link.mp4",
     "/gradio_api/file=%2fetc%2fpasswd", "/gradio_api/stream/a/b/c/playlist.m3u8", "/login",
     "/gradio_api/file/etc/passwd", "/config\n"],
)  # fmt: skip
def test_what_nobody_needs(gate: Gate, tmp_path: Path, path: str) -> None:
    assert ask(gate, "GET", path.format(tmp_path / "uploads"))[0] == 404


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        ("/gradio_api/queue/join", 1000, 200),
        ("/gradio_api/queue/join", 1 << 20, 413),
        ("/gradio_api/queue/join", None, 411),
        ("/gradio_api/upload", 1000, 200),
        ("/gradio_api/upload", 1 << 20, 413),
        ("/gradio_api/call/v2/begin", 10, 404),
        ("/gradio_api/process_recording", 10, 404),
        ("/gradio_api/vibe-edit", 10, 404),
        ("/jobs/a/b", 10, 404),
    ],
)
def test_what_may_be_sent(gate: Gate, path: str, length: int | None, status: int) -> None:
    assert ask(gate, "POST", path, length)[0] == status
    assert ask(gate, "PUT", path, length)[0] == 404


def test_a_length_that_does_not_hold(gate: Gate) -> None:
    """Of a body in chunks another length may be told."""
    assert ask(gate, "POST", "/gradio_api/queue/join", 10, chunked=True)[0] == 411


def test_uploads_do_not_fill_the_disk(gate: Gate, tmp_path: Path) -> None:
    """The room of ten is for ten; old ones, which jobs have taken, make room for new ones."""
    for n in range(9):
        (tmp_path / "uploads" / str(n)).write_bytes(b"0" * 60_000)
    assert ask(gate, "POST", "/gradio_api/upload", 500)[0] == 200
    (tmp_path / "uploads" / "large").write_bytes(b"0" * 100_000)
    assert ask(gate, "POST", "/gradio_api/upload", 500)[0] == 507
    os.utime(tmp_path / "uploads" / "0", (0, 0))
    os.utime(tmp_path / "uploads" / "1", (0, 0))
    assert ask(gate, "POST", "/gradio_api/upload", 500)[0] == 200
    assert not (tmp_path / "uploads" / "0").exists()
    assert (tmp_path / "uploads" / "2").exists()


def test_uploads_at_the_same_time(tmp_path: Path) -> None:
    """What is still coming is counted before it lies on the disk."""
    largest = 1 << 20
    statuses: list[int] = []
    inner: list[Any] = []

    async def nested(scope: Any, receive: Any, send: Any) -> None:
        inner.append(scope)
        if len(inner) < 20:
            await one()
        await behind(scope, receive, send)

    gate = Gate(nested, tmp_path, largest)

    async def one() -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"content-length", str(largest).encode())]
        path = "/gradio_api/upload"
        await gate({"type": "http", "method": "POST", "path": path, "headers": headers}, None, send)  # type: ignore[arg-type]

    asyncio.run(one())
    assert sorted(statuses) == [200] * 10 + [507]
    statuses.clear()
    inner[:] = [None] * 20
    asyncio.run(one())
    assert statuses == [200]
