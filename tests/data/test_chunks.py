import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.data.chunks import ChunkKeyframe, make_chunk, shown_frames
from stclip.data.frames import FrameList
from stclip.data.proposals import NO_PROPOSALS, Proposals
from stclip.data.transforms import crop_box, preprocess
from stclip.data.windows import spread, window
from stclip.errors import UserError
from stclip.structures import ClipBatch, FrameKey, Needs
from tests.data.make import numbered

SIZE = 16
WHOLE = Needs(SIZE, 4, clips="video")
WINDOW = Needs(SIZE, 4, 2, "window")


class Counting(FrameList):
    """Remembers which frames were decoded."""

    def __init__(self, count):
        super().__init__([numbered(number, 40, 30) for number in range(1, count + 1)])
        self.decoded = []

    def _decode(self, frames):
        self.decoded += frames
        return super()._decode(frames)


def keyframe(frame, boxes=(), labels=None):
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    scores = np.linspace(0.5, 1, len(array), dtype=np.float32)
    return ChunkKeyframe(FrameKey("v", frame), Proposals(array, scores), labels)


def test_every_frame_is_decoded_once_and_found_by_index():
    video = Counting(12)
    batch = make_chunk(video, [keyframe(5), keyframe(6), keyframe(7)], Needs(SIZE, 9))
    assert video.decoded == list(range(1, 12))
    assert batch.frames.shape == (11, 3, SIZE, SIZE)
    assert batch.frames.dtype == torch.uint8
    assert batch.window.tolist() == [list(range(i, i + 9)) for i in range(3)]
    assert batch.keyframe.tolist() == [4, 5, 6]
    assert batch.keys == (("v", 5), ("v", 6), ("v", 7))
    for index, row in enumerate(batch.frames):
        assert torch.equal(row, preprocess(numbered(index + 1, 40, 30), SIZE))
    assert batch.crops.shape == (0, 3, SIZE, SIZE)
    assert batch.labels is None


def test_far_apart_keyframes_decode_only_their_windows():
    video = Counting(40)
    batch = make_chunk(video, [keyframe(2), keyframe(38)], Needs(SIZE, 3))
    assert video.decoded == [1, 2, 3, 37, 38, 39]
    assert batch.window.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_stride_decodes_the_keyframe_beside_its_window():
    video = Counting(12)
    batch = make_chunk(video, [keyframe(2), keyframe(6)], Needs(SIZE, 3, 2))
    assert video.decoded == [1, 2, 3, 4, 5, 6, 8]
    assert batch.window.tolist() == [[0, 2, 4], [3, 5, 6]]
    assert batch.keyframe.tolist() == [1, 5]


@pytest.mark.parametrize("needs", [Needs(SIZE, 3), WHOLE])
def test_a_keyframe_outside_the_video_is_named(needs):
    for frame in (0, 4):
        with pytest.raises(UserError, match=f"frame {frame} is not there; 3 frames are"):
            make_chunk(Counting(3), [keyframe(1), keyframe(frame)], needs)


def test_short_videos_are_padded_at_the_end():
    batch = make_chunk(Counting(3), [keyframe(2)], Needs(SIZE, 9))
    assert batch.window.tolist() == [[0, 1, 2, -1, -1, -1, -1, -1, -1]]
    assert batch.keyframe.tolist() == [1]


def test_boxes_are_clipped_and_empty_ones_dropped_with_their_scores_and_labels():
    boxes = [
        [-5, -5, 100, 100],  # the whole frame, 40 x 30
        [50, 5, 60, 10],  # outside
        [10, 10, 10, 20],  # no width
        [10.2, 3, 10.4, 20],  # a width, but of no whole pixel
        [10.5, 3, 12.5, 20],
        [20, 25, 10, 28],  # inverted
    ]
    labels = np.eye(6, dtype=np.float32)
    video = Counting(4)
    batch = make_chunk(video, [keyframe(1), keyframe(3, boxes, labels)], Needs(SIZE, 3))
    assert batch.boxes.tolist() == [[0, 0, 39, 29], [10.5, 3, 12.5, 20]]
    assert batch.boxes.dtype == batch.det_scores.dtype == torch.float32
    assert torch.allclose(batch.det_scores, torch.tensor([0.5, 0.9]))
    assert batch.owner.tolist() == [1, 1]
    assert torch.equal(batch.labels, torch.eye(6)[[0, 4]])
    picture = numbered(3, 40, 30)
    for crop, box in zip(batch.crops, batch.boxes.numpy(), strict=True):
        assert torch.equal(crop, preprocess(crop_box(picture, box), SIZE))


def test_boxes_in_the_resized_frames_come_if_they_are_needed():
    """40 x 30 becomes 21 x 16, of which the crop keeps columns 2 to 18."""
    boxes = [[-5, 0, 20, 15], [10, 7.5, 99, 99]]
    keyframes = [keyframe(1, boxes), keyframe(2)]
    batch = make_chunk(Counting(2), keyframes, Needs(SIZE, 1, frame_boxes=True))
    expected = [[-2, 0, 8.5, 8], [3.25, 4, 18.475, 15.467]]  # of boxes clipped to the frame
    np.testing.assert_allclose(batch.frame_boxes, expected, rtol=1e-4)
    assert make_chunk(Counting(2), keyframes, Needs(SIZE, 1)).frame_boxes is None
    alone = make_chunk(Counting(2), keyframes[1:], Needs(SIZE, 1, frame_boxes=True))
    assert alone.frame_boxes.shape == (0, 4)


def test_a_keyframe_without_persons_keeps_its_columns_of_labels():
    empty = ChunkKeyframe(FrameKey("v", 1), NO_PROPOSALS, np.zeros((0, 5), dtype=np.float32))
    batch = make_chunk(Counting(2), [empty], Needs(SIZE, 3))
    assert batch.labels.shape == (0, 5)
    assert batch.owner.dtype == torch.long


@settings(max_examples=40)
@given(st.data())
def test_a_chunk_is_its_keyframes_one_by_one(data):
    n = data.draw(st.integers(1, 15))
    frames = data.draw(st.lists(st.integers(1, n), min_size=1, max_size=4, unique=True))
    coordinate = st.floats(-10, 50, width=32)
    boxes = st.lists(st.lists(coordinate, min_size=4, max_size=4), max_size=3)
    keyframes = [keyframe(frame, data.draw(boxes)) for frame in sorted(frames)]
    video = Counting(n)
    whole = make_chunk(video, keyframes, Needs(SIZE, 9))
    assert len(video.decoded) == len(set(video.decoded)) == len(whole.frames)
    single = ClipBatch.cat([make_chunk(video, [item], Needs(SIZE, 9)) for item in keyframes])
    for name in ("owner", "boxes", "det_scores", "crops"):
        assert torch.equal(getattr(whole, name), getattr(single, name))
    for row, item in enumerate(keyframes):
        expected = window(item.key.frame, n, 9)
        for batch in (whole, single):
            indices = batch.window[row][batch.window[row] >= 0]
            assert len(indices) == len(expected)
            for index, number in zip(indices, expected, strict=True):
                assert torch.equal(batch.frames[index], preprocess(numbered(number, 40, 30), SIZE))
    assert torch.equal(whole.frames[whole.keyframe], single.frames[single.keyframe])
    assert (whole.boxes[:, 2:] > whole.boxes[:, :2]).all()
    assert (whole.boxes >= 0).all()
    assert (whole.boxes <= torch.tensor([39, 29, 39, 29])).all()


def test_all_keyframes_of_a_video_share_its_clip_and_frames_are_decoded_once():
    video, box = Counting(8), [[1, 2, 20, 25]]
    batch = make_chunk(video, [keyframe(1, box), keyframe(5, box), keyframe(8, box)], WHOLE)
    assert video.decoded == [2, 4, 6, 8]
    assert batch.frames.shape == (4, 3, SIZE, SIZE)
    assert batch.window.tolist() == [[0, 1, 2, 3]] * 3
    assert batch.keyframe.tolist() == [-1] * 3
    assert batch.crops.shape == (3, 3, 0, 0)
    assert batch.owner.tolist() == [0, 1, 2]
    assert batch.labels is None
    both = ClipBatch.cat([batch, make_chunk(Counting(9), [keyframe(2)], WHOLE)])
    assert both.keyframe.tolist() == [-1] * 4
    assert both.window.tolist() == [[0, 1, 2, 3]] * 3 + [[4, 5, 6, 7]]


def test_clips_around_keyframes_share_frames():
    video = Counting(20)
    batch = make_chunk(video, [keyframe(8), keyframe(10)], WINDOW)
    assert video.decoded == [4, 6, 8, 10, 12]
    assert batch.window.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert shown_frames(WINDOW, 20, 20) == window(20, 20, 4, 2) == [14, 16, 18, 20]


def test_a_clip_that_does_not_fit_is_spread_over_the_whole_video():
    assert shown_frames(WINDOW, 3, 7) == window(3, 7, 4, 2) == [1, 3, 5, 7]
    assert shown_frames(WINDOW, 3, 6) == spread(6, 4)
    assert shown_frames(WINDOW, 2, 2) == [1, 1, 2, 2]


def test_boxes_of_clips_are_clipped_and_empty_ones_dropped():
    boxes = [(-5, -5, 60, 60), (50, 1, 60, 9), (3, 4, 20, 21)]  # the frame has 40 x 30 pixels
    labels = np.eye(3, dtype=np.float32)
    batch = make_chunk(Counting(8), [keyframe(1), keyframe(3, boxes, labels)], WHOLE)
    assert batch.boxes.tolist() == [[0, 0, 39, 29], [3, 4, 20, 21]]
    assert batch.det_scores.tolist() == [0.5, 1]
    assert batch.owner.tolist() == [1, 1]
