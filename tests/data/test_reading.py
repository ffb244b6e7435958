import os
import pickle
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.build import build_test_loader
from stclip.data.chunks import make_chunk, shown_frames
from stclip.data.frames import FrameList
from stclip.data.reading import FrameReader
from stclip.data.store import PictureStore
from stclip.data.transforms import clip_picture, crop_box, preprocess
from stclip.data.video import Decoder, VideoFile, open_video
from stclip.data.windows import order_in_runs
from stclip.structures import ClipBatch, FrameKey, Needs
from tests.data.make import number_of, numbered, write_frames, write_jhmdb, write_video
from tests.data.test_build import same
from tests.data.test_chunks import Counting, keyframe

SIZE = 8
NEEDS = Needs(SIZE, 9)


# ------------------------------------------------------------------ frames once


def test_frames_that_are_kept_are_not_decoded_again():
    video = Counting(12)
    reader = FrameReader()
    reader.frames(video, [1, 2, 3, 4], SIZE)
    box = np.array([2, 3, 20, 25], dtype=np.float32)
    (crop,) = reader.crops([(3, box)])
    assert torch.equal(crop, preprocess(crop_box(numbered(3, 40, 30), box), SIZE))
    reader.keep([3, 4, 5])
    frames = reader.frames(video, [3, 4, 5], SIZE)
    assert video.decoded == [1, 2, 3, 4, 5]
    assert list(frames) == [3, 4, 5]
    for number, frame in frames.items():
        assert torch.equal(frame.pixels, preprocess(numbered(number, 40, 30), SIZE))
        assert (frame.width, frame.height) == (40, 30)
    (crop,) = reader.crops([(4, box)])  # its picture was kept too
    assert torch.equal(crop, preprocess(crop_box(numbered(4, 40, 30), box), SIZE))
    reader.keep([])
    reader.frames(video, [5], SIZE)
    assert video.decoded == [1, 2, 3, 4, 5, 5]


def test_another_video_or_size_is_read_anew():
    one, two = Counting(3), FrameList([numbered(9, 40, 30)] * 3)
    reader = FrameReader()
    for video, size in ((one, SIZE), (two, SIZE), (two, 16), (one, 16)):
        frame = reader.frames(video, [1], size)[1]
        reader.keep([1])
        number = 9 if video is two else 1
        assert torch.equal(frame.pixels, preprocess(numbered(number, 40, 30), size))
    assert one.decoded == [1, 1]


def test_the_config_chooses_who_resizes(tmp_path):
    cfg = write_jhmdb(tmp_path)
    cfg.TEST.BOXES = "ground_truth"
    cfg.DATALOADER.RESIZE = "torch"
    noise = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    dataset = counting_dataset({"one": 1})
    dataset.videos["a/one"] = FrameList([noise])
    (batch,) = build_test_loader(cfg, dataset, Needs(32, 9))
    crop = crop_box(noise, np.array([1, 2, 30, 20]))
    for pixels, picture in ((batch.frames[0], noise), (batch.crops[0], crop)):
        assert torch.equal(pixels, preprocess(picture, 32, "torch"))
        assert not torch.equal(pixels, preprocess(picture, 32, "pillow"))


def test_the_device_resizes(tmp_path):
    cfg = write_jhmdb(tmp_path)
    cfg.TEST.BOXES = "ground_truth"
    dataset = counting_dataset({"one": 12})
    noise = np.random.default_rng(0).integers(256, size=(12, 30, 40, 3), dtype=np.uint8)
    dataset.videos["a/one"] = FrameList(list(noise))
    batches = {}
    for cfg.DATALOADER.RESIZE in ("pillow", "device"):
        for needs in (Needs(32, 9), Needs(32, 3, 2, fit="squash", frame_boxes=True)):
            loader = build_test_loader(cfg, dataset, needs)
            found = ClipBatch.cat(list(loader))
            batches[cfg.DATALOADER.RESIZE, needs.frames] = found
    for frames in (9, 3):
        expected, raw = batches["pillow", frames], batches["device", frames]
        assert raw.frames.shape == (*expected.frames.shape[:2], 0, 0)
        found = raw.to(torch.device("cpu"))
        for name, value in vars(expected).items():
            if name in ("frames", "crops"):
                difference = (getattr(found, name).int() - value.int()).abs()
                assert difference.max() <= 1
                assert (difference > 0).float().mean() < 1e-3
            elif isinstance(value, torch.Tensor):
                assert torch.equal(getattr(found, name), value), name


@settings(max_examples=30)
@given(st.data())
def test_chunks_with_a_reader_are_those_without(data):
    n = data.draw(st.integers(1, 20))
    stride = data.draw(st.integers(1, 3))
    size = data.draw(st.integers(1, 5))
    box = [[1, 2, 30, 20], [0, 0, 9, 9]]
    items = [keyframe(frame, box) for frame in range(1, n + 1)]
    chunks = [items[start : start + size] for start in range(0, n, size)]
    video, reader = Counting(n), FrameReader()
    for place, chunk in enumerate(chunks):
        alone = make_chunk(FrameList(video._frames), chunk, Needs(SIZE, 5, stride))
        following = range(1, n + 1) if place + 1 < len(chunks) else ()
        batch = make_chunk(video, chunk, Needs(SIZE, 5, stride), reader, following)
        assert same(alone, batch)
    assert sorted(video.decoded) == sorted(set(video.decoded))


def counting_dataset(lengths):
    videos = {f"a/{name}": Counting(length) for name, length in lengths.items()}
    keyframes = [
        Keyframe(FrameKey(name, frame), np.array([[1, 2, 30, 20]], np.float32), (("wave",),))
        for name, video in videos.items()
        for frame in range(1, len(video) + 1)
    ]
    return DetectionDataset("counting", videos, keyframes)


@pytest.mark.parametrize(("size", "stride"), [(8, 1), (3, 1), (1, 1), (8, 2), (2, 2)])
def test_a_test_decodes_every_frame_once_and_keeps_few(tmp_path, size, stride):
    cfg = write_jhmdb(tmp_path)
    cfg.TEST.BOXES = "ground_truth"
    cfg.TEST.VIDEOS_PER_BATCH = size
    dataset = counting_dataset({"long": 40, "short": 5, "middle": 17})
    loader = build_test_loader(cfg, dataset, Needs(SIZE, 9, stride))
    for _ in loader:
        assert len(loader.samples.reader._frames) <= 9 * stride
    for video in dataset.videos.values():
        assert sorted(video.decoded) == list(range(1, len(video) + 1))
    assert loader.samples.reader._frames == {}


def test_each_worker_reads_a_run():
    """What two workers, dealt the order in turn, decode beyond once: the frames at one border."""
    dataset = counting_dataset({"long": 40, "short": 5, "middle": 17})
    keys = [item.key for item in dataset.keyframes]
    chunks = [keys[start : start + 4] for start in (*range(0, 40, 4), 40, *range(45, 62, 4))]
    order = order_in_runs(len(chunks), 2)
    assert sorted(order) == list(range(len(chunks)))
    decoded = 0
    for worker in range(2):
        mine, reader = order[worker::2], FrameReader()
        assert mine == list(range(mine[0], mine[-1] + 1))
        for chunk in mine:
            video = dataset.videos[chunks[chunk][0].video]
            items = [keyframe(key.frame) for key in chunks[chunk]]
            before = len(video.decoded)
            make_chunk(video, items, NEEDS, reader, range(1, 41))
            decoded += len(video.decoded) - before
    assert 62 < decoded <= 62 + 8


def test_workers_change_only_the_order_of_test_batches(tmp_path):
    cfg = write_jhmdb(tmp_path)
    cfg.TEST.BOXES = "ground_truth"
    dataset = counting_dataset({"long": 20, "short": 5})
    cfg.TEST.VIDEOS_PER_BATCH = 4
    alone = list(build_test_loader(cfg, dataset, NEEDS))
    cfg.DATALOADER.NUM_WORKERS = 2
    shared = list(build_test_loader(cfg, dataset, NEEDS))
    # Chunks of 1, 5, 9, 13 and of 17, 1, 5, where the short video begins.
    assert [batch.keys[0].frame for batch in shared] == [1, 17, 5, 1, 9, 5, 13]
    of = {batch.keys: batch for batch in alone}
    for batch in shared:
        assert same(batch, of[batch.keys])


# ------------------------------------------------------------------ video files


@pytest.fixture
def openings(monkeypatch):
    """How often a file was opened to decode pictures."""
    found = []
    original = Decoder.__init__

    def opened(self, *arguments):
        found.append(self)
        original(self, *arguments)

    monkeypatch.setattr(Decoder, "__init__", opened)
    return found


def test_a_pass_through_an_avi_file_decodes_each_frame_once(tmp_path, openings, decoded):
    video = VideoFile(write_video(tmp_path / "v.avi", range(40), "mpeg4", options={"bf": "2"}))
    video.keep_open(True)
    for first in range(1, 40, 4):
        frames = list(range(first, min(first + 4, 41)))
        assert [number_of(picture) for picture in video.read(frames)] == frames
    assert len(openings) == 1
    assert len(decoded) == 40
    assert [number_of(picture) for picture in video.read([7])] == [7]  # back: from the start
    assert len(openings) == 2
    video.keep_open(False)
    video.read([8])
    video.read([9])
    assert len(openings) == 4


def film(folder):
    """Eight persons in each frame of an .avi file."""
    video = VideoFile(write_video(folder / "v.avi", range(40), "mpeg4", options={"bf": "2"}))
    boxes = np.array([[8 * place, 0, 8 * place + 40, 30] for place in range(8)], np.float32)
    keyframes = [
        Keyframe(FrameKey("v", frame), boxes, (("wave",),) * len(boxes)) for frame in range(1, 41)
    ]
    return DetectionDataset("film", {"v": video}, keyframes), video


@pytest.mark.parametrize(
    "size", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(8, marks=pytest.mark.slow)]
)
def test_a_store_at_its_limit_sends_no_reader_back(tmp_path, openings, decoded, size):
    cfg = write_jhmdb(tmp_path)
    cfg.TEST.BOXES = "ground_truth"
    cfg.TEST.VIDEOS_PER_BATCH = size
    dataset, _ = film(tmp_path)
    without = list(build_test_loader(cfg, dataset, NEEDS))
    cfg.DATALOADER.STORE = str(tmp_path / "store")
    cfg.DATALOADER.STORE_GB = 256 * 216 / 1e9  # an entry in each subfolder: many are not kept
    for _ in range(3):
        openings.clear()
        decoded.clear()
        stored = list(build_test_loader(cfg, dataset, NEEDS))
        assert all(map(same, without, stored))
        assert len(openings) == 1
        assert 20 < len(decoded) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4, 8])
def test_windows_of_xclip_go_through_a_file_once(tmp_path, openings, decoded, size):
    cfg = write_jhmdb(tmp_path)
    needs = Needs(SIZE, 5, clips="window")
    cfg.TEST.BOXES, cfg.TEST.VIDEOS_PER_BATCH = "ground_truth", size
    dataset, video = film(tmp_path)
    batches = list(build_test_loader(cfg, dataset, needs))
    assert (len(openings), len(decoded)) == (1, 40)
    assert video._decoder is None  # closed at the end
    for batch in batches:
        for key, shown in zip(batch.keys, batch.window, strict=True):
            pictures = video.read(shown_frames(needs, key.frame, 40))
            expected = torch.stack([clip_picture(picture, SIZE) for picture in pictures])
            assert torch.equal(batch.frames[shown], expected)


def test_pictures_are_decoded_if_they_are_not_stored(tmp_path, monkeypatch):
    video = open_video(write_frames(tmp_path / "v", 9))
    store = PictureStore(tmp_path / "store")
    FrameReader(store).frames(video, [1, 2, 4], SIZE)
    read = []
    monkeypatch.setattr(video, "_decode", lambda f: read.extend(f) or [numbered(1, 40, 30)])
    FrameReader(store).frames(video, [1, 2, 3, 4], SIZE)
    assert read == [3]


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
@pytest.mark.parametrize("gop", [1, 7, 250])
def test_an_open_file_gives_the_same_pictures(tmp_path, openings, name, gop):
    options = {"bf": "3" if gop > 3 else "0", "g": str(gop), "b_strategy": "0"}
    path = write_video(tmp_path / name, range(5, 45), options=options)
    video, fresh = VideoFile(path), VideoFile(path)
    video.keep_open(True)
    asked = [[1, 2], [3], [5, 9], [10], [30, 40], [40], [2], [3, 4], [39], [40], [1]]
    for frames in asked:
        for one, two in zip(video.read(frames), fresh.read(frames), strict=True):
            assert np.array_equal(one, two)
    if name != "v.ts":  # whose seeking is inexact: reading begins anew where it failed
        assert len(openings) == 1 + len(asked)


def test_an_open_file_is_not_shared_with_other_processes(tmp_path):
    video = VideoFile(write_video(tmp_path / "v.avi", range(20), "mpeg4"))
    video.keep_open(True)
    video.read([3])
    copy = pickle.loads(pickle.dumps(video))
    assert number_of(copy.read([4])[0]) == 4
    right = False
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)  # what waits for threads that were not forked waits for ever
            right = number_of(video.read([9])[0]) == 9
        finally:
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert number_of(video.read([4])[0]) == 4


def test_a_reader_closes_the_video_before(tmp_path):
    one, two = (
        VideoFile(write_video(tmp_path / f"{name}.avi", range(9), "mpeg4")) for name in "ab"
    )
    reader = FrameReader()
    reader.frames(one, [1, 2], SIZE)
    reader.keep([2])
    assert one._decoder is not None
    reader.frames(two, [1], SIZE)
    assert one._decoder is None
    assert two._decoder is not None
    reader.keep([])
    assert two._decoder is None


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_what_a_telephone_filmed_on_its_side_is_turned(tmp_path, name, degrees):
    path = write_video(tmp_path / name, range(3), degrees=degrees)
    video = VideoFile(path)
    (picture,) = video.read([2])
    turned = degrees != 180
    assert video.size == ((32, 128) if turned else (128, 32))
    assert picture.shape == ((128, 32, 3) if turned else (32, 128, 3))
    assert number_of(np.rot90(picture, -degrees // 90)) == 2


def test_fingerprints_follow_the_content(tmp_path):
    one = write_frames(tmp_path / "one", 3)
    two = write_frames(tmp_path / "two", 3)
    first, second = open_video(one), open_video(two)
    assert first.fingerprints([1, 2]) == second.fingerprints([1, 2])
    assert first.fingerprints([2]) != first.fingerprints([1])
    path = write_video(tmp_path / "v.mp4", range(20), options={"g": "5"})
    other = tmp_path / "other.mp4"
    other.write_bytes(path.read_bytes())
    whole, part = VideoFile(path), VideoFile(other, span=(0.4, 2.0))
    shift = len(whole) - len(part)
    assert shift > 0
    assert part.fingerprints([1, 2]) == whole.fingerprints([1 + shift, 2 + shift])
    assert len(set(whole.fingerprints(range(1, 21)))) == 20
    assert FrameList([numbered(1)]).fingerprints([1]) is None
