import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from stclip.data.frames import FrameArchive, FrameFolder
from stclip.data.video import VideoFile, open_video
from stclip.errors import UserError
from tests.data.make import number_of, numbered, write_video
from tests.helpers import shared_path


def numbers(video, frames):
    return [number_of(picture) for picture in video.read(frames)]


def test_nothing_there(tmp_path):
    for function in (open_video, FrameFolder, FrameArchive, VideoFile):
        with pytest.raises(UserError, match="none"):
            function(tmp_path / "none")


# ------------------------------------------------------------------ video files

N = 40
B_FRAMES = {"bf": "3", "g": "12", "b_strategy": "0"}
OPEN_GOP = {"bf": "3", "g": "10", "x264-params": "open-gop=1:scenecut=0"}
CASES = {
    "mp4 with B-frames": ("v.mp4", range(N), "libx264", B_FRAMES),
    "mp4 that starts late": ("v.mp4", range(37, 37 + N), "libx264", B_FRAMES),
    "mp4, open groups": ("v.mp4", range(N), "libx264", OPEN_GOP),
    "mp4, variable rate": (
        "v.mp4", [n + n // 7 * 5 for n in range(N)], "libx264", B_FRAMES,
    ),
    "mkv with B-frames, late": ("v.mkv", range(20, 20 + N), "libx264", B_FRAMES),
    "ts with B-frames": ("v.ts", range(N), "libx264", B_FRAMES),
    "avi, MPEG-4 with B-frames": ("v.avi", range(N), "mpeg4", {"bf": "2", "g": "12"}),
    "avi, H.264 with B-frames": ("v.avi", range(N), "libx264", B_FRAMES),
    "avi, motion JPEG": ("v.avi", range(N), "mjpeg", {}),
    "webm": ("v.webm", range(N), "libvpx", {"g": "9"}),
    "no stamps at all": ("v.h264", range(N), "libx264", B_FRAMES),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_video_files_are_frame_exact(tmp_path, case):
    name, times, codec, options = CASES[case]
    video = VideoFile(write_video(tmp_path / name, times, codec, options=options))
    assert len(video) == N
    assert video.size == (128, 32)
    assert (video.missing(N), video.missing(N + 2)) == ([], [N + 1, N + 2])
    assert numbers(video, range(1, N + 1)) == list(range(1, N + 1))
    for frames in ([1], [N], [23], [30, 2, 2, 17], [12, 13, 14], [11, 10], [1, N]):
        assert numbers(video, frames) == frames
    generator = np.random.default_rng(0)
    for _ in range(3):
        frames = generator.integers(1, N + 1, size=5).tolist()
        assert numbers(video, frames) == frames
    assert numbers(video, [5]) == [5]


@pytest.mark.parametrize("gop", [1, 2, 7, 250])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_any_distance_of_key_frames(tmp_path, name, gop):
    """The same pictures, bit for bit, as decoding the file from its start gives."""
    options = {"bf": "3" if gop > 3 else "0", "g": str(gop), "b_strategy": "0"}
    path = write_video(tmp_path / name, range(5, 5 + N), options=options)
    with av.open(str(path)) as container:
        linear = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    video = VideoFile(path)
    assert len(linear) == len(video) == N
    for frames in (range(1, N + 1), [17], [33, 8], [N - 1, N]):
        for frame, picture in zip(frames, video.read(frames), strict=True):
            assert np.array_equal(picture, linear[frame - 1])


@pytest.mark.parametrize(
    ("name", "sound", "start"),
    [("v.mp4", None, 1.0), ("v.mkv", None, 1.0), ("v.mp4", range(3), 0), ("v.mkv", range(3), 0)],
)
def test_header(tmp_path, monkeypatch, name, sound, start):
    """Where a file begins, sound included, and a time that it does not reach past."""
    path = write_video(tmp_path / name, range(25, 25 + N), sound=sound)
    monkeypatch.delattr(VideoFile, "_packets")  # nothing is gone through
    header = VideoFile(path).header
    assert header.size == (128, 32)
    assert header.start == pytest.approx(start, abs=0.15)  # AAC begins a little before
    assert header.end >= (25 + N) / 25 - 1e-6
    assert header.end <= 4.6


@pytest.mark.parametrize(("sound", "delay"), [(None, 0.0), (range(3), 1.0)])
def test_times_of_pictures_and_where_players_begin_to_count(tmp_path, sound, delay):
    times = [25 + n + n // 7 * 5 for n in range(N)]
    video = VideoFile(
        write_video(tmp_path / "v.mp4", times, "libx264", options=B_FRAMES, sound=sound)
    )
    seconds = video.picture_seconds(30)
    np.testing.assert_allclose(seconds, (np.array(times) - 25) / 25, atol=1e-3)
    assert [video.frame_at(second, 30) for second in seconds] == [*range(1, N + 1)]
    assert video.delay == pytest.approx(delay, abs=0.15)


def test_the_first_video_case_does_have_reordered_frames_and_several_key_frames(tmp_path):
    name, times, codec, options = CASES["mp4 with B-frames"]
    path = write_video(tmp_path / name, times, codec, options=options)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    assert [p.pts for p in packets] != sorted(p.pts for p in packets)
    assert sum(p.is_keyframe for p in packets) > 2


def test_reading_the_end_of_a_video_does_not_decode_all_of_it(tmp_path, decoded):
    video = VideoFile(write_video(tmp_path / "v.mp4", range(N), options=B_FRAMES))
    assert numbers(video, [39, 40]) == [39, 40]
    assert 2 <= len(decoded) <= 12  # from a key frame on, of which every 12th is one


def test_frames_by_time(tmp_path):
    times = [10, 11, 12, 20, 21]
    video = VideoFile(write_video(tmp_path / "v.mp4", times, options=B_FRAMES))
    # Seconds count from the first frame shown.
    assert [video.frame_at(s, 25) for s in (0, 0.019, 0.021, 0.08, 0.39, 0.41, 0.44)] == [
        1, 1, 2, 3, 4, 4, 5,
    ]  # fmt: skip
    assert video.frame_at(0.5, 25) == 5
    assert video.frame_at(9, 25) == 6
    times = [video.seconds_at(frame, 99) for frame in range(1, 6)]
    assert times == pytest.approx([0, 0.04, 0.08, 0.4, 0.44])


def test_a_video_of_one_frame(tmp_path):
    video = VideoFile(write_video(tmp_path / "v.mp4", [3]))
    assert len(video) == 1
    assert numbers(video, [1, 1]) == [1, 1]
    assert (video.frame_at(0.01, 25), video.frame_at(1, 25)) == (1, 2)


def test_frames_outside_a_video(tmp_path):
    video = VideoFile(write_video(tmp_path / "v.mp4", range(5)))
    for frame in (0, 6):
        with pytest.raises(UserError, match=f"frame {frame} is not there; 5 frames are"):
            video.read([1, frame])


def test_damaged_video_files_are_named(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(N))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=f"{path}: this video cannot be read") as error:
        len(VideoFile(path))
    assert "\n" not in str(error.value)
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    with pytest.raises(UserError, match=f"{text}: this video cannot be read"):
        VideoFile(text).read([1])


# ------------------------------------------------------------------ files without a stamp table

# Which pictures of 20 are skipped, and what ffmpeg 5.1 and 9.0 extract.
SKIPPED = {
    "one": ({3}, [0, 1, 2, 4, 4, 5]),
    "two": ({3, 4}, [0, 1, 2, 2, 5, 5, 6]),
    "three": ({3, 4, 5}, [0, 1, 2, 2, 2, 6, 6, 7]),
    "every sixth": ({3, 9, 15}, [0, 1, 2, 4, 4, 5, 6, 7, 8, 10, 10, 11, 12, 13, 14, 16, 16, 17]),
}


def write_skipping(path, skipped, codec, options):
    times = [time for time in range(20) if time not in skipped]
    numbers = [time + 1 for time in times]
    return write_video(path, times, codec, rate=10, options=options, numbers=numbers)


@pytest.mark.parametrize("skipped", SKIPPED)
@pytest.mark.parametrize(
    ("codec", "options"),
    [("mjpeg", {}), ("mpeg4", {"bf": "0"}), ("mpeg4", {"bf": "2"}), ("libx264", {"bf": "0"})],
    ids=["mjpeg", "mpeg4", "mpeg4 with B-frames", "h264"],
)
def test_an_avi_is_numbered_as_ffmpeg_extracts_it(tmp_path, skipped, codec, options):
    left_out, begins = SKIPPED[skipped]
    path = write_skipping(tmp_path / "v.avi", left_out, codec, options)
    video = VideoFile(path)
    expected = [time + 1 for time in [*begins, *range(len(begins), 20)]]
    assert numbers(video, range(1, len(video) + 1)) == expected
    assert [video.frame_at(second, 25) for second in (0, 1.0, 1.9, 2.2)] == [1, 11, 20, 21]
    assert numbers(video, [11]) == [11]  # whatever was skipped before it
    assert numbers(video, [6, 4, 5, 6]) == [expected[n - 1] for n in (6, 4, 5, 6)]
    (text,) = video.irregularities()
    assert text.startswith(f"{len(left_out)} of 20 frames were skipped when it was made")
    same = video.fingerprints(range(1, 21))
    assert len(set(same)) == 20 - len(left_out)
    if codec == "mjpeg" and skipped == "three" and shutil.which("ffmpeg"):
        subprocess.run(["ffmpeg", "-v", "error", "-i", path, tmp_path / "%05d.png"], check=True)
        assert numbers(FrameFolder(tmp_path), range(1, 21)) == expected


def test_a_repeated_picture_is_decoded_once(tmp_path, decoded):
    video = VideoFile(write_skipping(tmp_path / "v.avi", {3, 4, 5, 6}, "mpeg4", {}))
    assert len(video) == 20
    decoded.clear()
    video.keep_open(True)
    assert [number_of(video.read([n])[0]) for n in (3, 4, 5, 6, 7, 8, 9)] == [
        3, 3, 3, 3, 8, 8, 9,
    ]  # fmt: skip
    assert len(decoded) == 5
    video.keep_open(False)
    # Other programs count pictures: the first is 0, and those that are skipped have no number.
    assert [video.frame_at(second, 10) for second in video.picture_seconds(10)[:5]] == [
        1,
        2,
        3,
        7,
        9,
    ]
    assert video.delay == 0


def test_a_real_avi_has_the_frames_of_its_annotations():
    video = VideoFile(shared_path("footage/v_SoccerJuggling_g23_c01.avi"))
    assert (len(video), video.size, video.irregularities()) == (240, (320, 240), [])


VARIABLE = [n + n // 7 * 5 for n in range(N)]


def test_alternate_references_of_vp8_are_no_frames(tmp_path):
    """Packets that are never shown; without decoding, as films are long."""
    path = tmp_path / "v.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 32, "yuv420p"
        encoder = av.CodecContext.create("libvpx", "w")
        encoder.width, encoder.height, encoder.pix_fmt = 128, 32, "yuv420p"
        encoder.time_base, encoder.options = Fraction(1, 25), {"g": "1"}
        other = av.VideoFrame.from_ndarray(numbered(99), format="rgb24").reformat(format="yuv420p")
        other.pts, other.time_base = 0, Fraction(1, 25)
        content = bytearray(bytes([*encoder.encode(other), *encoder.encode()][0]))
        content[0] &= ~0x10
        for number, time in enumerate(VARIABLE, start=1):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            for packet in stream.encode(frame):
                hidden = av.Packet(bytes(content))
                hidden.stream, hidden.time_base = stream, packet.time_base
                hidden.pts = hidden.dts = packet.pts
                if number % 10 == 4:
                    container.mux(hidden)
                container.mux(packet)
        container.mux(stream.encode())
    video = VideoFile(path)
    assert len(video) == N == len(video.table.stamps)
    assert numbers(video, range(1, N + 1)) == list(range(1, N + 1))
    assert [video.frame_at(time / 25, 25) for time in VARIABLE] == list(range(1, N + 1))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_transport_stream_cut_anywhere(tmp_path, codec):
    """The pictures that can be made of it, at their own times."""
    whole = write_video(tmp_path / "v.ts", VARIABLE, codec, options=B_FRAMES).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[len(whole) // 188 // 4 * 188 + 100 :])
    with av.open(str(path)) as container:
        shown = [number_of(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    assert 20 < len(shown) < 35
    video = VideoFile(path)
    assert numbers(video, range(1, len(video) + 1)) == shown
    assert len(video.table.stamps)  # so that frames are sought
    assert numbers(video, [len(video)]) == [N]
    begin = VARIABLE[shown[0] - 1]
    for index, number in enumerate(shown, start=1):
        assert video.frame_at((VARIABLE[number - 1] - begin) / 25, 25) == index
    cut, gaps = video.irregularities()
    assert "before the first key frame cannot be decoded" in cut
    assert "gaps between its frames, which are mostly 0.040 s apart" in gaps
    assert "the longest of 0.240 s" in gaps


def test_times_are_those_of_the_decoded_pictures(tmp_path, monkeypatch):
    """Where packets make no table, the pictures do."""
    path = write_video(tmp_path / "v.mp4", VARIABLE, options=B_FRAMES)
    monkeypatch.setattr("stclip.data.video.table_of_packets", lambda *_: None)
    video = VideoFile(path)
    assert len(video.table.stamps) == 0
    assert numbers(video, range(1, N + 1)) == list(range(1, N + 1))
    assert [video.frame_at(time / 25, 25) for time in VARIABLE] == list(range(1, N + 1))


def test_a_title_that_is_not_utf8(tmp_path):
    path = write_video(tmp_path / "v.avi", range(3), "mpeg4", title="TITLE")
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xd3\xc4\xff\xfe\xd3"))
    assert numbers(VideoFile(path), [1, 2, 3]) == [1, 2, 3]


def test_pictures_are_bounded_before_they_are_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", range(3))
    monkeypatch.setattr("stclip.data.video.MAX_PIXELS", 128 * 32 - 1)
    with pytest.raises(UserError, match=f"{path}: its pictures are 128 x 32, which is more than"):
        len(VideoFile(path))


# ------------------------------------------------------------------ colours

COLOUR = (192, 32, 64)
WEIGHTS = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}  # of red and blue in luma


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_colours_are_those_that_the_file_means(tmp_path, matrix, full):
    """Videos of 720 lines and more have other weights than small ones; the file says which."""
    red, blue = WEIGHTS[matrix]
    r, g, b = (value / 255 for value in COLOUR)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = ((b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red))
    low, scales = (0, (255, 255)) if full else (16, (219, 224))
    planes = [low + scales[0] * luma, *(128 + scales[1] * value for value in chroma)]
    values = np.repeat(np.round(planes).astype(np.uint8), [64 * 64, 32 * 32, 32 * 32])
    options = {
        "qp": "0",
        "x264-params": f"colormatrix={matrix}:fullrange={'on' if full else 'off'}",
    }
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(values.reshape(96, 64), format="yuv420p")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (picture,) = VideoFile(path).read([1])
    assert np.abs(picture.astype(int) - COLOUR).max() <= 3
