import zipfile

import av
import numpy as np
import pytest
from PIL import Image

from stclip.data.video import FrameArchive, FrameFolder, FrameList, VideoFile, open_video
from stclip.errors import UserError
from tests.data.make import number_of, numbered, write_frames, write_video


def numbers(video, frames):
    return [number_of(picture) for picture in video.read(frames)]


# ------------------------------------------------------------------ pictures


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_pictures_in_any_order_and_repeated(tmp_path, kind):
    path = write_frames(tmp_path / "v.1", 12)
    if kind == "archive":
        with zipfile.ZipFile(tmp_path / "v.1.zip", "w") as archive:
            for file in sorted(path.iterdir()):
                archive.write(file, f"v/{file.name}")
        path = tmp_path / "v.1.zip"
    video = open_video(path, "walk/v.1")
    assert video.name == "walk/v.1"
    assert (len(video), video.size, video.missing(), video.missing(14)) == (
        12, (40, 30), [], [13, 14],
    )  # fmt: skip
    pictures = video.read([7, 1, 12, 7])
    assert [number_of(picture) for picture in pictures] == [7, 1, 12, 7]
    assert pictures[0].shape == (30, 40, 3)
    assert pictures[0].dtype == np.uint8
    assert video.read([]) == []
    assert [video.frame_at(seconds, 25) for seconds in (0, 0.04, 0.239)] == [1, 2, 7]


def test_names_that_ffmpeg_users_give_and_other_files(tmp_path):
    for number in (1, 2):
        Image.fromarray(numbered(number)).save(tmp_path / f"clip_3_{number:06d}.JPG", "JPEG")
    for stray in ("._00003.png", "Thumbs.db", "00004.txt", "notes.png"):
        (tmp_path / stray).write_bytes(b"")
    video = FrameFolder(tmp_path)
    assert len(video) == 2
    assert numbers(video, [1, 2]) == [1, 2]


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    Image.new("L", (4, 3), 9).save(tmp_path / "1.png")
    Image.new("RGBA", (4, 3), (1, 2, 3, 0)).save(tmp_path / "2.png")
    Image.new("P", (4, 3)).save(tmp_path / "3.png")
    first, second, third = FrameFolder(tmp_path).read([1, 2, 3])
    assert first[0, 0].tolist() == [9, 9, 9]
    assert second[0, 0].tolist() == [1, 2, 3]
    assert third.shape == (3, 4, 3)


def test_missing_pictures(tmp_path):
    folder = write_frames(tmp_path / "v", 9)
    (folder / "00004.png").unlink()
    video = FrameFolder(folder)
    assert len(video) == 9
    assert video.missing() == [4]
    assert video.missing(10) == [4, 10]
    with pytest.raises(UserError, match=f"{folder}: frame 4 is not there; 8 frames are"):
        video.read([3, 4])
    (tmp_path / "empty").mkdir()
    empty = FrameFolder(tmp_path / "empty")
    assert (len(empty), empty.missing(2)) == (0, [1, 2])
    with pytest.raises(UserError, match="no frame in it"):
        _ = empty.size


def test_pictures_from_0_or_twice_are_refused(tmp_path):
    folder = write_frames(tmp_path / "v", 2)
    (folder / "00002.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="are both frame 2"):
        FrameFolder(folder)
    (folder / "00002.jpg").unlink()
    (folder / "00000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"00000\.png: frames count from 1"):
        FrameFolder(folder)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6, 0.95])
def test_a_truncated_picture_is_named(tmp_path, keep):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    for number in (1, 2, 3):
        Image.fromarray(noise).save(tmp_path / f"{number:05d}.png")
    path = tmp_path / "00002.png"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    video = FrameFolder(tmp_path)
    assert len(video.read([1, 3])) == 2
    with pytest.raises(UserError, match=f"{path}: this picture cannot be decoded") as error:
        video.read([1, 2, 3])
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "v.zip"
    path.write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match=f"{path}: not a readable zip file"):
        FrameArchive(path)


def test_nothing_there(tmp_path):
    for function in (open_video, FrameFolder, FrameArchive, VideoFile):
        with pytest.raises(UserError, match="none"):
            function(tmp_path / "none")


# ------------------------------------------------------------------ frames in memory


def test_frame_list():
    video = FrameList([numbered(number) for number in (1, 2, 3)])
    assert (len(video), video.size, video.missing(4)) == (3, (128, 32), [4])
    assert numbers(video, [3, 1]) == [3, 1]
    with pytest.raises(UserError, match="frame 4 is not there; 3 are"):
        video.read([4])
    for wrong in ([], [numbered(1).astype(float)], [numbered(1), numbered(1)[:5]], [[1]]):
        with pytest.raises(UserError, match="frames"):
            FrameList(wrong)


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
