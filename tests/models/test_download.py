"""Downloads, against a server on this machine."""

import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from stclip.errors import UserError
from stclip.models.download import default_cache_dir, download


def weights(seed: int) -> bytes:
    """A file of weights of about 3 MB, which is several chunks."""
    generator = torch.Generator().manual_seed(seed)
    buffer = io.BytesIO()
    torch.save({"w": torch.rand(770_000, generator=generator)}, buffer)
    return buffer.getvalue()


CONTENTS = weights(0)
SHA256 = hashlib.sha256(CONTENTS).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENTS; ``breaks`` says after how many bytes each of the next answers ends."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks: list[int] = []
        self.ranges = True
        self.length = True
        self.contents = CONTENTS
        self.tag: str | None = '"1"'
        self.heeds_if_range = True
        self.kind = "application/octet-stream"
        self.endless = False
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
        start, contents = 0, server.contents
        if server.heeds_if_range and self.headers.get("If-Range") not in (None, server.tag):
            wanted = None
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(contents):
                self.send_error(416)
                return
            self.send_response(206)
            end = len(contents) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(contents)}")
        else:
            self.send_response(200)
        body = contents[start:]
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.send_header("Content-Type", server.kind)
        self.end_headers()
        with suppress(OSError):  # the other side has closed the connection
            while server.endless:
                self.wfile.write(body)
        if not server.endless:
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


def test_without_a_checksum_a_file_cut_short_is_told(server, tmp_path):
    server.length, server.breaks = False, [1_500_000]
    with pytest.raises(UserError, match=r"damaged file of weights .*what came was removed"):
        download(server.url, None, tmp_path)
    assert names(tmp_path) == []
    assert download(server.url, None, tmp_path).read_bytes() == CONTENTS
    (tmp_path / "weights.pt").write_bytes(CONTENTS[:-100])  # cut by whoever put it there
    assert download(server.url, None, tmp_path).read_bytes() == CONTENTS


@pytest.mark.parametrize("tag", ['"2"', 'W/"1"', None])
@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("sha256", [True, False])
def test_parts_of_two_files_are_not_joined(server, tmp_path, tag, heeds, sha256):
    server.breaks, server.heeds_if_range = [1_500_000, 0], heeds
    if tag != '"2"':  # then nothing tells that it is another file
        server.tag = tag
    with pytest.raises(UserError, match=r"1500000 bytes came|0 bytes came"):
        download(server.url, SHA256 if sha256 else None, tmp_path)
    server.contents, server.tag = weights(1), tag
    if not sha256:
        assert download(server.url, None, tmp_path).read_bytes() == server.contents
        return
    right = hashlib.sha256(server.contents).hexdigest()
    if tag == '"2"':
        assert download(server.url, right, tmp_path).read_bytes() == server.contents
    else:
        with pytest.raises(UserError, match=r"found SHA-256 .*what came was removed"):
            download(server.url, right, tmp_path)
        assert names(tmp_path) == []


def test_a_part_of_another_address_is_not_gone_on_with(server, tmp_path):
    server.breaks = [1_500_000, 0]
    with pytest.raises(UserError, match="1500000 bytes came"):
        download(server.url, None, tmp_path)
    server.contents = weights(1)
    other = server.url.replace("/models/", "/others/")
    assert download(other, None, tmp_path).read_bytes() == server.contents
    assert server.requests[-1] is None


@pytest.mark.parametrize("note", ["", "[1]", '{"version": 3}', '{"version": "a\\nb"}', "\x00"])
def test_a_damaged_note_beside_a_part_is_as_none(server, tmp_path, note):
    (tmp_path / "weights.pt.part").write_bytes(weights(1)[:1000])
    (tmp_path / "weights.pt.part.json").write_text(note)
    assert download(server.url, None, tmp_path).read_bytes() == CONTENTS
    assert names(tmp_path) == ["weights.pt"]


def test_a_part_that_nothing_is_known_of_is_not_gone_on_with(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(weights(1)[:1000])
    assert download(server.url, None, tmp_path).read_bytes() == CONTENTS
    assert server.requests == [None]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("body", [b"\n<!DOCTYPE html><title>Sign in</title>", b"404: Not Found  "])
def test_a_page_is_no_file_of_weights(server, tmp_path, kind, body):
    server.contents, server.kind = body, kind
    found = "a page of HTML" if "html" in kind or b"<" in body else "no file of weights"
    with pytest.raises(UserError, match=f"weights.pt: found {found}") as error:
        download(server.url, None, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "weights.pt").exists()
    server.contents, server.kind = CONTENTS, "application/octet-stream"
    assert download(server.url, None, tmp_path).read_bytes() == CONTENTS


def test_a_body_without_end_is_stopped(server, tmp_path):
    server.endless, server.length = True, False
    with pytest.raises(UserError, match="sends more than the 10000000 bytes"):
        download(server.url, None, tmp_path, most_bytes=10_000_000)
    server.endless, server.length = False, True
    with pytest.raises(UserError, match=f"found {len(CONTENTS)} bytes, expected at most 1000"):
        download(server.url, SHA256, tmp_path, most_bytes=1000)
    assert names(tmp_path) == []


def names(folder) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


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
