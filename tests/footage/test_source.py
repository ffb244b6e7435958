"""Every kind of video that people have, gone through frame by frame."""

import math
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

import av
import numpy as np
import pytest

from stclip.errors import UserError
from stclip.footage.source import ArraySource, FileSource, LiveSource, open_source
from stclip.serve.analysis import FORMATS
from tests.data.make import number_of, numbered, write_frames, write_video


def shown(source) -> list[tuple[int, float, int]]:
    """Number, seconds and content of every frame."""
    return [(f.number, round(f.seconds, 3), number_of(f.image)) for f in source]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx265"), ("a.webm", "libvpx-vp9"),
     ("a.ts", "mpeg2video"), ("a.mov", "mjpeg")],
)  # fmt: skip
def test_files_at_a_constant_rate(tmp_path: Path, name: str, codec: str) -> None:
    source = open_source(write_video(tmp_path / name, range(12), codec))
    assert source.fps == pytest.approx(25, abs=0.1)
    assert source.expected in (None, 11, 12, 13)
    frames = shown(source)
    assert [content for _, _, content in frames] == list(range(1, 13))
    assert [number for number, _, _ in frames] == list(range(1, 13))
    times = np.array([seconds for _, seconds, _ in frames])
    np.testing.assert_allclose(times - times[0], np.arange(12) / 25, atol=2e-3)
    assert 0 <= times[0] < 0.1
    assert source.damaged == 0


def test_times_are_those_of_the_file(tmp_path: Path) -> None:
    """Variable frame rate, and sound that begins before the pictures."""
    times = [0, 1, 2, 10, 11, 30]
    frames = shown(open_source(write_video(tmp_path / "v.mkv", times)))
    assert [seconds for _, seconds, _ in frames] == [t / 25 for t in times]
    late = write_video(tmp_path / "late.mp4", [25, 26, 27], sound=range(3))
    assert [seconds for _, seconds, _ in shown(open_source(late))] == [1.0, 1.04, 1.08]


def test_a_part_of_a_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", range(0, 25 * 12, 2), options={"g": "10"})
    source = open_source(path, start=8.0, end=8.5)
    part = [(number, seconds) for number, seconds, _ in shown(source)]
    times = [8.0, 8.08, 8.16, 8.24, 8.32, 8.4, 8.48]
    assert part == list(zip(range(101, 108), times, strict=True))  # numbered as in the whole
    assert source.expected == 6  # at 12.5 a second
    with pytest.raises(UserError, match="no frame from second 100 can be"):
        list(open_source(path, start=100))
    with pytest.raises(UserError, match="no frame from second 90 before second 95 can be"):
        list(open_source(path, start=90, end=95))
    with pytest.raises(UserError, match="a start before the end"):
        open_source(path, start=3, end=3)


def test_pictures_in_folders_and_archives(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "pictures", 5, size=(128, 32))
    with ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    expected = [(n, round((n - 1) / 10, 3), n) for n in range(1, 6)]
    for path in (folder, tmp_path / "pictures.zip"):
        source = open_source(path, fps=10)
        assert (source.name, source.expected) == ("pictures", 5)
        assert shown(source) == expected
        assert shown(open_source(path, fps=10, start=0.1, end=0.3)) == expected[1:3]


def test_rotated_video_is_turned(tmp_path: Path) -> None:
    path = write_video(tmp_path / "phone.mp4", range(3), degrees=90)
    (first, *_) = list(open_source(path))
    assert first.image.shape == (128, 32, 3)
    assert number_of(np.rot90(first.image, -1)) == 1


def test_interlaced_video_is_deinterlaced(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "tv.ts", range(10), "mpeg2video",
        options={"flags": "+ildct+ilme", "top": "1"}, size=(128, 64),
    )  # fmt: skip
    with av.open(str(path)) as container:
        interlaced = next(container.decode(video=0)).interlaced_frame
    frames = shown(open_source(path))
    assert interlaced
    assert [content for _, _, content in frames] == list(range(1, 11))


def test_damaged_parts_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "d.ts", range(100), "mpeg2video", options={"g": "5"})
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content) // 3, len(content) // 2, 400):
        content[place] ^= 0xFF
    path.write_bytes(content)
    frames = shown(open_source(path))
    assert 50 < len(frames) <= 100
    assert [number for number, _, _ in frames] == list(range(1, len(frames) + 1))
    assert all(a[1] < b[1] for a, b in pairwise(frames))


@pytest.mark.parametrize("name", ["cut.mkv", "cut.ts"])
def test_a_file_cut_short_gives_what_is_there(tmp_path: Path, name: str) -> None:
    share = 0.8
    path = write_video(tmp_path / name, range(60), options={"g": "10"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    frames = shown(open_source(path))
    assert 0 < len(frames) < 60
    assert [content for _, _, content in frames] == list(range(1, len(frames) + 1))


def test_a_clock_that_is_set_back_goes_on(tmp_path: Path) -> None:
    one = write_video(tmp_path / "1.ts", range(5), "mpeg2video")
    (tmp_path / "joined.ts").write_bytes(one.read_bytes() * 2)
    times = [seconds for _, seconds, _ in shown(open_source(tmp_path / "joined.ts"))]
    assert len(times) == 10
    assert all(a < b for a, b in pairwise(times))


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "in.mkv", range(4))
    with open(path, "rb") as file:
        monkeypatch.setattr(sys, "stdin", type("In", (), {"buffer": file}))
        source = open_source("-")
        assert source.name == "stdin"
        assert [content for _, _, content in shown(source)] == [1, 2, 3, 4]


def test_files_without_video(tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UserError, match=r"sound\.mp4: no video in this file, only sound"):
        open_source(sound)
    text = tmp_path / "text.mp4"
    text.write_text("no video at all")
    with pytest.raises(UserError, match=r"text\.mp4: cannot be read as a video"):
        open_source(text)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        list(open_source(tmp_path / "empty"))
    with pytest.raises(UserError, match="no such file or folder; give a video file"):
        open_source(tmp_path / "absent.mp4")
    with pytest.raises(UserError, match="camera 97"):
        open_source("97")


def test_frames_in_memory() -> None:
    pictures = [numbered(n) for n in (1, 2, 3)]
    assert shown(ArraySource(pictures, fps=10)) == [(1, 0.0, 1), (2, 0.1, 2), (3, 0.2, 3)]
    timed = [(0.5, pictures[0]), (0.9, pictures[1])]
    assert shown(ArraySource(timed, None)) == [(1, 0.5, 1), (2, 0.9, 2)]
    assert shown(ArraySource(pictures, 10, start=0.1)) == [(2, 0.1, 2), (3, 0.2, 3)]
    with pytest.raises(UserError, match="frame 1: an array"):
        list(ArraySource([np.zeros((4, 4))], 10))
    with pytest.raises(UserError, match="frame 2: all frames must have one size"):
        list(ArraySource([pictures[0], pictures[1][:8]], 10))
    with pytest.raises(UserError, match="ascending times"):
        list(ArraySource([(1.0, pictures[0]), (0.5, pictures[1])], 10))


def test_a_live_source_drops_old_frames_and_gives_up(tmp_path: Path) -> None:
    """A file in place of a stream, which is gone when the source tries to reach it again."""
    path = write_video(tmp_path / "stream.mkv", range(40))
    source = LiveSource(str(path), "stream", None, attempts=2, wait=0.01, buffered=4)
    path.unlink()
    frames = iter(source)
    first = next(frames)
    time.sleep(1)  # meanwhile the thread decodes everything
    rest = list(frames)
    assert first.image.shape == (32, 128, 3)
    assert len(rest) <= 4
    assert source.dropped >= 30
    assert not [t for t in threading.enumerate() if "_read" in t.name]


def test_a_live_source_ends_where_it_is_told_to(tmp_path: Path) -> None:
    """It is a file that would be opened again for ever."""
    path = write_video(tmp_path / "stream.mkv", range(40))
    source = LiveSource(str(path), "stream", None, end=0.2, attempts=100, wait=0.01)
    assert all(frame.seconds < 0.2 for frame in source)
    assert not [t for t in threading.enumerate() if "_read" in t.name]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{found.server_port}"
        found.shutdown()


def test_a_file_on_a_server_is_no_stream(server: str, tmp_path: Path) -> None:
    """Every frame comes, and it ends; its password is shown nowhere."""
    write_video(tmp_path / "film.mp4", range(30))
    source = open_source(f"http://me:secret@{server}/film.mp4?token=hidden")
    assert [content for _, _, content in shown(source)] == list(range(1, 31))
    assert source.dropped == 0
    assert source.location == f"http://{server}/film.mp4?token=hidden"
    assert "secret" not in source.name
    with pytest.raises(UserError, match="cannot be read as a video") as caught:
        open_source(f"http://me:secret@{server}/absent.mp4")
    assert "secret" not in str(caught.value)


def test_the_size_may_change_on_the_way(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{n}.ts", range(5), "mpeg2video", size=size).read_bytes()
        for n, size in enumerate([(128, 32), (256, 64)])
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    source = open_source(tmp_path / "both.ts")
    assert isinstance(source, FileSource)
    frames = list(source)
    assert {frame.image.shape for frame in frames} == {(32, 128, 3)}
    assert 9 <= len(frames) <= 10  # the decoder may lose one where the size changes
    assert all(a.seconds < b.seconds for a, b in pairwise(frames))


LISTS = {
    "playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "upload.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "upload": "ffconcat version 1.0\nfile secret.mp4\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n",
    "text": "file:{0}",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_stranger_s_file_that_names_others_is_refused(tmp_path: Path, name: str) -> None:
    secret = write_video(tmp_path / "secret.mp4", range(3))
    path = tmp_path / name
    path.write_text(LISTS[name].format(secret))
    with pytest.raises(UserError, match=r"^a\.mp4: cannot be read as a video .*are taken here"):
        FileSource(path, "a", "a.mp4", 0, math.inf, FORMATS)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.ts", "a.mov", "a.flv"])
def test_a_stranger_s_video_is_read(tmp_path: Path, name: str) -> None:
    codec = {"webm": "libvpx-vp9", "flv": "flv1", "avi": "mpeg4", "ts": "mpeg2video"}.get(
        name[2:], "libx264"
    )
    path = write_video(tmp_path / name, range(30), codec).rename(tmp_path / "upload")
    assert len(shown(FileSource(path, "a", "a.mp4", 0, math.inf, FORMATS))) == 30


def test_sound_is_of_the_file_and_not_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's name for a file may be that of another one here."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "secret.mp4", range(3), sound=range(3))
    upload = write_video(tmp_path / "upload.mp4", range(3))
    sound = FileSource(upload, "a", "secret.mp4", 0, math.inf, FORMATS).open_sound()
    assert sound is not None
    with sound:
        assert not sound.streams.audio
