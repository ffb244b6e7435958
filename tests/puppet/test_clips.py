import numpy as np
import pytest

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.frames import FrameList
from stclip.evaluation.pictures import VERDICT_COLOURS
from stclip.puppet.experiment.clips import first_clips, view_clip
from stclip.structures import FrameKey
from tests.evaluation.make import detections

LEFT, RIGHT = (5.0, 10.0, 25.0, 45.0), (40.0, 10.0, 58.0, 45.0)
LABELS = ["sit", "wave", "run"]


def dataset(*labels_of_persons, frames=2, video="v"):
    boxes = np.array([LEFT, RIGHT][: len(labels_of_persons)], dtype=np.float32)
    labels = tuple((name,) for name in labels_of_persons)
    pictures = [np.full((50, 60, 3), 200, dtype=np.uint8) for _ in range(frames)]
    keyframes = [Keyframe(FrameKey(video, f + 1), boxes, labels) for f in range(frames)]
    return DetectionDataset("puppet", {video: FrameList(pictures)}, keyframes)


def test_scores_are_averaged_and_judged():
    found = detections(
        [("v", 1), ("v", 2), ("other", 1)],
        [
            (0, LEFT, 0.9, (0.2, 0.7, 0.1)),
            (0, RIGHT, 0.9, (0.5, 0.3, 0.2)),
            (1, RIGHT, 0.9, (0.2, 0.7, 0.1)),
            (1, LEFT, 0.9, (0.5, 0.4, 0.1)),
            (2, LEFT, 0.9, (1.0, 0.0, 0.0)),
        ],
        3,
    )
    view = view_clip(dataset("wave", "sit"), "v", found, LABELS)
    a, b = view.persons
    assert (a.tag, a.truth, a.right) == ("A", "wave", True)
    assert [name for name, _ in a.guesses] == ["wave", "sit"]
    assert [score for _, score in a.guesses] == pytest.approx([0.55, 0.35])
    assert a.note == "(right in 1 of 2 frames)"
    assert (b.right, b.guesses[0][0]) == (False, "wave")
    assert len(view.frames) == 2
    assert view.frames[0].getpixel((50, 60)) == VERDICT_COLOURS[True]
    assert view.frames[0].getpixel((116, 60)) == VERDICT_COLOURS[False]


def test_bystanders_and_missed_persons():
    found = detections(
        [("v", 1), ("v", 2)], [(0, LEFT, 0.9, (1.0, 0.0, 0.0)), (1, LEFT, 0.9, (1.0, 0.0, 0.0))], 3
    )
    view = view_clip(dataset("jump", "sit"), "v", found, LABELS)
    assert [(p.right, p.note, len(p.guesses)) for p in view.persons] == [
        (None, "not among the names", 0),
        (None, "no box found this person", 0),
    ]
    assert view.frames[0].getpixel((50, 60)) == VERDICT_COLOURS[None]


def test_first_clips():
    parts = [
        dataset("sit", "wave", video="a"),
        dataset("wave", video="b"),
        dataset("sit", video="c"),
        dataset("jump", video="d"),
    ]
    together = DetectionDataset(
        "puppet",
        {name: video for part in parts for name, video in part.videos.items()},
        [keyframe for part in parts for keyframe in part.keyframes],
    )
    assert first_clips(together, ["wave", "run", "sit"], 6) == ["b", "a"]
    assert first_clips(together, ["wave", "run", "sit"], 1) == ["b"]
