import numpy as np
import pytest
import torch

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.build import build_dataset, build_test_loader, build_train_loader
from stclip.data.chunks import ChunkKeyframe
from stclip.data.clips import ClipReader, clip_picture, one_keyframe_a_video
from stclip.data.proposals import Proposals
from stclip.data.windows import spread, window
from stclip.errors import UserError
from stclip.models.xclip import normalize_video, preprocess_video
from stclip.structures import ClipBatch, FrameKey
from tests.data.make import write_jhmdb
from tests.data.test_chunks import Counting

SIZE = 14
WHOLE = ClipReader("video", length=4, stride=1, image_size=SIZE)
WINDOW = ClipReader("window", length=4, stride=2, image_size=SIZE)


def item(frame: int, boxes=((1, 2, 20, 25),), labels=None) -> ChunkKeyframe:
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    scores = np.linspace(0.5, 1, len(array), dtype=np.float32)
    return ChunkKeyframe(FrameKey("v", frame), Proposals(array, scores), labels)


@pytest.mark.parametrize(
    ("n", "length", "expected"),
    [
        (8, 4, [2, 4, 6, 8]),
        (9, 3, [2, 5, 8]),
        (40, 8, [3, 8, 13, 18, 23, 28, 33, 38]),
        (3, 6, [1, 1, 2, 2, 3, 3]),
        (1, 3, [1, 1, 1]),
        (7, 1, [4]),
    ],
)
def test_spread_takes_the_middles_of_equal_parts(n: int, length: int, expected: list[int]) -> None:
    assert spread(n, length) == expected


def test_spread_is_the_frame_shown_in_the_middle_of_each_part() -> None:
    for n in range(1, 30):
        for length in range(1, 12):
            parts = [int((part + 0.5) * n / length + 1e-9) + 1 for part in range(length)]
            assert spread(n, length) == parts


def test_all_keyframes_of_a_video_share_its_clip_and_frames_are_decoded_once() -> None:
    video = Counting(8)
    batch = WHOLE(video, [item(1), item(5), item(8)])
    assert video.decoded == [2, 4, 6, 8]
    assert batch.frames.shape == (4, 3, SIZE, SIZE)
    assert batch.window.tolist() == [[0, 1, 2, 3]] * 3
    assert batch.keyframe.tolist() == [-1] * 3
    assert batch.crops.shape == (3, 3, 0, 0)
    assert batch.owner.tolist() == [0, 1, 2]
    assert batch.labels is None


def test_windows_lie_around_their_keyframes_and_share_frames() -> None:
    video = Counting(20)
    batch = WINDOW(video, [item(8), item(10)])
    assert video.decoded == [4, 6, 8, 10, 12]
    assert batch.window.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert WINDOW.frames(20, 20) == window(20, 20, 4, 2) == [14, 16, 18, 20]


def test_where_a_window_does_not_fit_it_is_the_whole_video() -> None:
    assert WINDOW.frames(3, 7) == window(3, 7, 4, 2) == [1, 3, 5, 7]
    assert WINDOW.frames(3, 6) == spread(6, 4)
    assert WINDOW.frames(2, 2) == [1, 1, 2, 2]


def test_boxes_are_clipped_and_empty_ones_dropped() -> None:
    boxes = [(-5, -5, 60, 60), (50, 1, 60, 9), (3, 4, 20, 21)]
    labels = np.eye(3, dtype=np.float32)
    batch = WHOLE(Counting(8), [item(1, ()), item(2, boxes, labels)])  # of 40 x 30 pixels
    assert batch.boxes.tolist() == [[0, 0, 39, 29], [3, 4, 20, 21]]
    assert batch.det_scores.tolist() == [0.5, 1]
    assert batch.owner.tolist() == [1, 1]


def test_a_keyframe_outside_the_video_is_named() -> None:
    with pytest.raises(UserError, match="frame 9 is not there; 8 frames are"):
        WHOLE(Counting(8), [item(9)])


def test_batches_keep_their_missing_keyframes_when_laid_end_to_end() -> None:
    batch = ClipBatch.cat([WHOLE(Counting(8), [item(1)]), WHOLE(Counting(9), [item(2)])])
    assert batch.keyframe.tolist() == [-1, -1]
    assert batch.window.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("shape", [(30, 40), (41, 23), (14, 14), (300, 20)])
def test_pictures_are_those_of_preprocess_video_in_whole_grey_levels(shape) -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(256, size=(*shape, 3), dtype=np.uint8)
    ours = normalize_video(clip_picture(picture, SIZE)[None])
    theirs = preprocess_video(torch.from_numpy(picture).permute(2, 0, 1)[None], SIZE)
    half_a_level = 0.5 / 255 / 0.224
    assert (ours - theirs).abs().max() <= half_a_level + 1e-5


def test_a_video_is_one_sample_with_each_of_its_labels() -> None:
    def keyframe(video, frame, boxes, labels):
        array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        return Keyframe(FrameKey(video, frame), array, tuple((name,) for name in labels))

    keyframes = [
        keyframe("a", 3, [(0, 0, 0, 9), (0, 0, 5, 5)], ["run", "sit"]),
        keyframe("b", 1, [(1, 1, 2, 2)], ["run"]),
        keyframe("a", 4, [(0, 0, 9, 9), (0, 0, 4, 4)], ["run", "sit"]),
        keyframe("a", 5, [(50, 0, 90, 30), (39, -40, 60, 30)], ["run", "sit"]),  # of 40 x 30
    ]
    videos = {name: Counting(4) for name in "ab"}
    found = one_keyframe_a_video(DetectionDataset("two", videos, keyframes))
    assert [sample.key for sample in found] == [("a", 3), ("b", 1)]
    assert found[0].labels == (("run",), ("sit",))
    assert found[0].boxes.tolist() == [[0, 0, 9, 9], [0, 0, 5, 5]]


@pytest.fixture
def cfg(tmp_path):
    cfg = write_jhmdb(tmp_path)
    cfg.SOLVER.MAX_ITER = 2
    cfg.SOLVER.VIDEOS_PER_BATCH = 2
    cfg.MODEL.NAME = "xclip"
    cfg.MODEL.XCLIP.FRAMES = 4
    return cfg


def test_training_takes_videos_as_often_as_each_other(cfg) -> None:
    dataset = build_dataset(cfg, "train")
    assert len(dataset.keyframes) == 17  # all are there to be looked at
    for batch in build_train_loader(cfg, dataset, ["sit", "run"], SIZE):
        assert {key.video for key in batch.keys} == {k.key.video for k in dataset.keyframes}
        assert len(batch) == 2
        assert batch.labels.sum(dim=1).tolist() == [1] * len(batch.boxes)
        assert batch.window.shape == (2, 4)


def test_windows_are_trained_on_by_keyframe(cfg) -> None:
    cfg.MODEL.XCLIP.UNIT = "window"
    assert len(build_dataset(cfg, "train").keyframes) == 17


@pytest.mark.parametrize(("unit", "largest"), [("video", None), ("window", 8)])
def test_a_test_reads_every_keyframe_once(cfg, unit: str, largest: int | None) -> None:
    cfg.MODEL.XCLIP.UNIT, cfg.MODEL.XCLIP.STRIDE = unit, 1
    cfg.TEST.BOXES = "ground_truth"
    dataset = build_dataset(cfg, "test")
    batches = list(build_test_loader(cfg, dataset, SIZE))
    assert [key for batch in batches for key in batch.keys] == [k.key for k in dataset.keyframes]
    videos = [batch.keys[0].video for batch in batches]
    if largest is None:  # the whole video in one batch, which is one clip
        assert len(videos) == len(set(videos))
        assert all(len(batch.frames) <= 4 for batch in batches)
    else:
        assert max(len(batch) for batch in batches) <= largest


def test_keys_that_clips_do_not_heed_are_named_once(cfg, tmp_path, caplog) -> None:
    dataset = build_dataset(cfg, "train")
    build_train_loader(cfg, dataset, ["sit", "run"], SIZE)
    assert "not used" not in caplog.text
    cfg.DATALOADER.STORE, cfg.DATALOADER.RESIZE = str(tmp_path / "store"), "torch"
    build_train_loader(cfg, dataset, ["sit", "run"], SIZE)
    warning = (
        f"DATALOADER.STORE {tmp_path}/store, DATALOADER.RESIZE torch: not used with MODEL.NAME"
    )
    assert caplog.text.count(warning) == caplog.text.count("not used") == 1
    assert not (tmp_path / "store").exists()
