import math
from fractions import Fraction

import av
import numpy as np
import pytest

from stclip.data.ava_videos import AVA, AvaClips, AvaFile, find_videos
from stclip.data.frames import FrameFolder
from stclip.data.video import VideoFile
from stclip.errors import UserError
from tests.data.make import number_of, write_video
from tests.data.make_ava import (
    GOP,
    LAST,
    RATE,
    number_at,
    write_clips,
    write_cut,
    write_film,
    write_frame_folder,
)


def numbers(video, frames):
    return [number_of(picture) for picture in video.read(frames)]


def test_seconds_and_frames():
    assert [AVA.frame_of(second) for second in (900, 902, 1798)] == [1, 61, 26941]
    assert [AVA.second_of(frame) for frame in (1, 30, 31, 61, 26941)] == [900, 900, 901, 902, 1798]


def test_the_tests_own_numbers_by_hand():
    # Second 900 is the 26th picture of 25 a second from 899 on; frame 2 (900.033) shows the one of
    # 900.04, the 30th of a second nearest to which is that one; 900.5 lies between 900.48 and .52.
    assert [number_at(index) for index in (1, 2, 3, 16, 31)] == [26, 27, 28, 38, 51]


WRITERS = {
    "film.mp4": write_film,
    "film.mkv": write_film,
    "film with sound before the pictures.mp4": lambda path: write_film(path, sound_first=True),
    "film with sound before the pictures.mkv": lambda path: write_film(path, sound_first=True),
    "cut.mp4": write_cut,
    "cut with the film's stamps.mp4": lambda path: write_cut(path, keep_stamps=True),
    "cut with the film's stamps.mkv": lambda path: write_cut(path, keep_stamps=True),
    "frames": write_frame_folder,
    "clips": write_clips,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_frame_is_the_same_picture_in_every_layout(tmp_path, name):
    path = WRITERS[name](tmp_path / name)
    if name == "frames":
        video = FrameFolder(path)
    else:
        video = AvaClips(path) if name == "clips" else AvaFile(path, cut=name == "cut.mp4")
    assert len(video) == 30 * (LAST - 900)
    assert video.size == (128, 32)
    frames = range(31, len(video) + 1)  # the clips begin at second 901
    assert numbers(video, frames) == [number_at(frame) for frame in frames]
    for second in range(901, LAST):  # on the second itself there is no doubt
        assert numbers(video, [AVA.frame_of(second)]) == [(second - 899) * RATE + 1]
    assert numbers(video, [200, 61, 61, 95]) == [number_at(n) for n in (200, 61, 61, 95)]
    assert [video.frame_at(seconds, 30) for seconds in (0, 2, 2.034)] == [1, 61, 62]
    assert video.missing(len(video) + 1) == [len(video) + 1]
    with pytest.raises(UserError, match=str(path)):
        video.read([len(video) + 30])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "times"),
    [
        (24, range(898 * 24, 908 * 24)),
        (30, range(898 * 30, 906 * 30)),
        (10, [n for n in range(8980, 9080) if n % 7 not in (2, 3, 4)]),  # variable
    ],
)
def test_what_a_linear_decode_shows(tmp_path, rate, times):
    """Also where pictures come at odd times: the last one that has come, on a grid of 30."""
    path = write_video(tmp_path / "v.mp4", times, rate=rate, options=GOP)
    video = AvaFile(path)
    shown = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            place = Fraction(frame.pts) * frame.time_base * 30 - 900 * 30
            number = number_of(frame.to_ndarray(format="rgb24"))
            shown.append((math.ceil(place - Fraction(1, 2)), number))
    assert [number for _, number in shown] == list(range(1, len(times) + 1))
    frames = range(1, len(video) - 2)
    expected = [max(number for place, number in shown if place <= n - 1) for n in frames]
    assert numbers(video, frames) == expected


def test_opening_reads_no_packet_and_reading_only_those_around(tmp_path, monkeypatch):
    read = []

    def packets(self, *arguments):
        read.append(original(self, *arguments))
        return read[-1]

    original = VideoFile._packets
    monkeypatch.setattr(VideoFile, "_packets", packets)
    path = write_video(tmp_path / "v.mp4", range(870 * RATE, 907 * RATE), options=GOP)
    video = AvaFile(path)
    assert (video.size, read) == ((128, 32), [])
    video.read([61])
    video.read([62])
    (packets_read,) = read
    assert 8 * RATE <= len(packets_read) <= 8 * RATE + int(GOP["g"])


def test_what_is_not_shown_is_named(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(RATE * 3), options=GOP)
    video = AvaFile(path, cut=True)
    assert len(video) == 90
    with pytest.raises(UserError, match=r"frame 95 \(second 903\.133\) is not there; .* to 902\.9"):
        video.read([95])
    late = write_video(tmp_path / "late.mp4", range(901 * RATE, 903 * RATE), options=GOP)
    with pytest.raises(UserError, match=r"frame 1 \(second 900\.000\) is not there"):
        AvaFile(late).read([1])


def test_layouts_are_found_in_their_order(tmp_path):
    write_film(tmp_path / "videos" / "trainval" / "a.webm.mkv")
    write_cut(tmp_path / "videos_15min" / "b.mp4")
    write_clips(tmp_path / "clips" / "c", [901, 902])
    write_cut(tmp_path / "videos_15min" / "c.mp4")
    write_frame_folder(tmp_path / "frames" / "d")
    write_clips(tmp_path / "clips" / "trainval" / "d")
    names = {"a.webm": [902], "b": [902, 905], "c": [902], "d": []}
    videos = find_videos(tmp_path, names)
    kinds = [type(video) for video in videos.values()]
    assert kinds == [AvaFile, AvaFile, AvaClips, FrameFolder]
    assert [video.name for video in videos.values()] == list(names)
    for video in list(videos.values())[:3]:
        assert numbers(video, [61]) == [76]


def test_everything_that_lacks_is_in_one_message(tmp_path):
    write_cut(tmp_path / "videos" / "cut.mp4")
    write_clips(tmp_path / "clips" / "clips", [902, 903])
    (tmp_path / "videos" / "text.mp4").write_text("no video")
    frames = write_frame_folder(tmp_path / "frames" / "frames")
    (frames / "frames_000040.jpg").unlink()

    def message(**seconds):
        with pytest.raises(UserError, match=r"DATASETS\.DATA_DIR") as error:
            find_videos(tmp_path, seconds)
        assert "\n" not in str(error.value)
        return str(error.value)

    text = message(cut=[902], x=[902], y=[902], clips=[902])
    assert "2 of 4 videos are missing, the first is x; 2 cannot be used, the first: " in text
    assert "cut.mp4 ends at second 7.0, but second 902 is annotated" in text
    assert "belongs in videos_15min/" in text
    assert "lacks 1 of its clips, the first is 901.mp4" in message(clips=[902, 903])
    assert "text.mp4: this video cannot be read" in message(text=[902])
    assert "lacks 1 frames, the first is 40 (second 901)" in message(frames=[902])
    (tmp_path / "clips" / "empty").mkdir()
    assert "no clip <second>.mp4" in message(empty=[902])


def test_a_file_without_reliable_stamps_is_counted(tmp_path):
    """Nothing in AVA is like that; the part that is asked for is then ignored."""
    path = write_video(tmp_path / "v.avi", range(60), "mpeg4", options={"bf": "2"})
    video = VideoFile(path, span=(1.0, 1.5))
    assert len(video) == 60
    assert numbers(video, [1, 60]) == [1, 60]


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
@pytest.mark.parametrize("gop", [1, 5, 12, 250])
def test_a_part_of_a_file(tmp_path, name, gop):
    options = {"bf": "2" if gop > 2 else "0", "g": str(gop), "b_strategy": "0"}
    path = write_video(tmp_path / name, range(120), options=options)
    whole = VideoFile(path)
    begin = whole.table.seconds[0]
    part = VideoFile(path, span=(begin + 2.0, begin + 3.0))
    offset = int(np.searchsorted(whole.table.seconds, part.table.seconds[0]))
    assert offset <= 50
    assert offset + len(part) == 76
    assert numbers(part, range(1, len(part) + 1)) == list(range(offset + 1, 77))
