"""Downloads, against a server on this machine."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stclip.errors import UserError
from stclip.models.download import default_cache_dir, download

CONTENTS = bytes(range(256)) * 12000  # about 3 MB: several chunks
SHA256 = hashlib.sha256(CONTENTS).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENTS; ``breaks`` says after how many bytes each of the next answers ends."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks: list[int] = []
        self.ranges = True
        self.length = True
        self.requests: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/models/weights.pt"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if not self.path.endswith("weights.pt"):
            self.send_error(404)
            return
        start = 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENTS):
                self.send_error(416)
                return
            self.send_response(206)
            end = len(CONTENTS) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(CONTENTS)}")
        else:
            self.send_response(200)
        body = CONTENTS[start:]
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server, tmp_path):
    path = download(server.url, SHA256, tmp_path / "cache")
    assert path == tmp_path / "cache" / "weights.pt"
    assert path.read_bytes() == CONTENTS
    assert download(server.url, SHA256, tmp_path / "cache") == path
    assert server.requests == [None]
    assert [p.name for p in path.parent.iterdir() if not p.name.startswith(".")] == ["weights.pt"]


def test_without_a_checksum_the_whole_length_must_come(server, tmp_path):
    server.breaks = [1_500_000, 0]
    with pytest.raises(UserError, match="the connection was closed; 1500000 bytes came"):
        download(server.url, None, tmp_path)
    assert not (tmp_path / "weights.pt").exists()
    for _ in range(2):
        assert download(server.url, None, tmp_path).read_bytes() == CONTENTS
    assert server.requests == [None, "bytes=1500000-", "bytes=1500000-"]


def test_a_broken_transfer_is_resumed_at_once(server, tmp_path):
    server.breaks = [1_500_000, 70_000]
    assert download(server.url, SHA256, tmp_path).read_bytes() == CONTENTS
    assert server.requests == [None, "bytes=1500000-", "bytes=1570000-"]


def test_a_broken_transfer_is_resumed_by_the_next_call(server, tmp_path):
    server.breaks = [1_500_000, 0]
    with pytest.raises(UserError, match="the connection was closed; 1500000 bytes came") as error:
        download(server.url, SHA256, tmp_path)
    assert f"fetch {server.url} by hand and put it at {tmp_path / 'weights.pt'}" in str(error.value)
    assert not (tmp_path / "weights.pt").exists()
    assert download(server.url, SHA256, tmp_path).read_bytes() == CONTENTS
    assert server.requests[-1] == "bytes=1500000-"


def test_a_server_that_cannot_resume_sends_all_again(server, tmp_path):
    server.breaks, server.ranges = [1000], False
    assert download(server.url, SHA256, tmp_path).read_bytes() == CONTENTS
    assert server.requests == [None, "bytes=1000-"]


def test_a_server_that_tells_no_length(server, tmp_path):
    server.length = False
    assert download(server.url, SHA256, tmp_path).read_bytes() == CONTENTS


@pytest.mark.parametrize("complete", [True, False])
def test_a_partial_file_as_long_as_the_whole(server, tmp_path, complete):
    held = CONTENTS if complete else b"x" * len(CONTENTS)
    (tmp_path / "weights.pt.part").write_bytes(held)
    if complete:
        assert download(server.url, SHA256, tmp_path).read_bytes() == CONTENTS
    else:
        with pytest.raises(UserError, match=r"found SHA-256 .* what came was removed"):
            download(server.url, SHA256, tmp_path)
        assert download(server.url, SHA256, tmp_path).read_bytes() == CONTENTS


def test_a_wrong_checksum_is_told_and_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match=f"found SHA-256 {SHA256}, expected {'0' * 64}"):
        download(server.url, "0" * 64, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".weights.pt.lock"]


def test_a_damaged_file_in_the_cache_is_replaced(server, tmp_path):
    (tmp_path / "weights.pt").write_bytes(CONTENTS[:100])
    assert download(server.url, SHA256, tmp_path).read_bytes() == CONTENTS


def test_a_file_put_there_by_hand_needs_no_network(tmp_path):
    (tmp_path / "weights.pt").write_bytes(CONTENTS)
    assert download("http://127.0.0.1:9/weights.pt", SHA256, tmp_path).name == "weights.pt"


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    url = "http://127.0.0.1:9/weights.pt"  # a port where nothing listens
    with pytest.raises(UserError) as error:
        download(url, SHA256, tmp_path)
    message = str(error.value)
    assert f"fetch {url} by hand and put it at {tmp_path / 'weights.pt'}" in message
    assert "\n" not in message
    (tmp_path / "weights.pt").write_bytes(b"cut short")
    with pytest.raises(UserError, match="the file there has another SHA-256"):
        download(url, SHA256, tmp_path)


def test_what_the_server_lacks_is_told(server, tmp_path):
    with pytest.raises(UserError, match="the server answered 404"):
        download(server.url + "x", SHA256, tmp_path)


def test_a_folder_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written: .*set STCLIP_CACHE"):
        download(server.url, SHA256, tmp_path / "file" / "cache")


def test_several_at_once_fetch_it_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(server.url, SHA256, tmp_path), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENTS}
    assert server.requests == [None]


def test_the_cache_folder(monkeypatch, tmp_path, server):
    monkeypatch.setenv("STCLIP_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    assert download(server.url, SHA256).parent == tmp_path
    monkeypatch.delenv("STCLIP_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "stclip"
