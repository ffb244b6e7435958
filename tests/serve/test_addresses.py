"""Downloads from addresses that strangers give, from servers of this machine."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stclip.errors import UserError
from stclip.serve.addresses import fetch, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "2002:a9fe:a9fe::",
        "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2001:0:5ef5:79fd:0:0:80ff:fffe",
        "fec0::1", "::7f00:1", "::ffff:0:7f00:1", "::ffff:0:808:808", "4000::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:2800:220:1::1"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))  # type: ignore[attr-defined]
        if self.path.startswith("/to"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to="))
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        else:
            self.send_response(200)
            if self.path in ("/large", "/short"):
                self.send_header("Content-Length", "5000" if self.path == "/large" else "900")
            self.end_headers()
            self.wfile.write(b"v" * (5000 if "large" in self.path else 500))

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def get(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fetch as if 127.0.0.1 were public, its port the usual one, and names led there."""
    port, find = server.server_address[1], socket.getaddrinfo
    names = {"video.example": "127.0.0.1", "inside.example": "127.0.0.2"}

    def resolve(host: str, *words: Any, **options: Any) -> Any:
        if host not in (*names, *names.values()):
            raise socket.gaierror(8, "no such name")
        return find(names.get(host, host), *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    server.asked.clear()

    def get(
        address: str, public: Any = lambda ip: ip == "127.0.0.1", port: int = port, **options: Any
    ) -> Path:
        target = tmp_path / "upload"
        ports = {"http": port, "https": port}
        fetch(address, target, 1000, public=public, ports=ports, **options)
        return target

    return get


def test_a_transfer_that_breaks_off_is_no_video(get: Any) -> None:
    with pytest.raises(UserError, match="broke off"):
        get("http://video.example/short")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_drips(get: Any, scheme: str) -> None:
    """A byte of the header, or of the handshake, now and then is as slow as none."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def drip() -> None:
            with listening.accept()[0] as peer:
                try:
                    if scheme == "https":  # the head of a record of 16 kB
                        peer.sendall(b"\x16\x03\x03\x3f\xff")
                    while not over.wait(0.05):
                        peer.sendall(b"H")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        port = listening.getsockname()[1]
        try:
            with pytest.raises(UserError, match="the download took too long"):
                get(f"{scheme}://video.example/x", port=port, seconds=0.5)
        finally:
            over.set()
            thread.join()


def test_a_video_is_fetched(get: Any, server: Any) -> None:
    assert get("http://video.example/a%20b c.mp4?x=1").read_bytes() == b"v" * 500
    assert server.asked == [("/a%20b%20c.mp4?x=1", "video.example")]


def test_redirects_are_followed(get: Any) -> None:
    assert get("http://video.example/to=/to=http://video.example/x").exists()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("http://inside.example/x", "inside.example: is not on the public internet"),
        ("http://127.0.0.2/x", "is not on the public internet"),
        ("http://video.example/to=http://inside.example/x", "is not on the public internet"),
        ("http://video.example/to=file:///etc/passwd", "http:// or https:// expected"),
        ("http://video.example/to=" + "/to=" * 9, "more than 5 redirects"),
        ("file:///etc/passwd", "http:// or https:// expected"),
        ("ftp://video.example/x", "http:// or https:// expected"),
        ("/etc/passwd", "http:// or https:// expected"),
        ("http://video.example/x\r\nHost: y", "http:// or https:// expected"),
        ("http://[::1/x", "no address"),
        ("http://user:word@video.example/x", "without user and password"),
        ("http://video.example:22/x", "port 22; only"),
        ("http://nowhere.example/x", "there is no such server"),
        ("http://video.example/missing", "the server answered 404"),
        ("http://video.example/large", "larger than 0 MB"),
        ("http://video.example/large-without-a-length", "larger than 0 MB"),
        ("https://video.example/x", "cannot be fetched"),
    ],
)
def test_what_is_refused(get: Any, address: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        get(address)


def test_nothing_of_this_machine_by_default(get: Any, server: Any) -> None:
    with pytest.raises(UserError, match="is not on the public internet"):
        get("http://video.example/x", is_public)
    assert not server.asked


def test_the_name_is_resolved_once(get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that gives a public address first and a private one then gains nothing."""
    answers = iter(["127.0.0.1"])
    find = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *words, **options: find(
            next(answers) if host == "video.example" else host, *words, **options
        ),
    )
    assert get("http://video.example/x").exists()
