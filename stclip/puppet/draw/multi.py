"""Puppet-multi: the same clips with several labels a person, in our annotations format.

As in AVA, labels come in three groups and only some frames are annotated: every fifth.

pose: exactly one a person: the action itself where it is one of the whole body, ``bend`` for those
    who bend down or lean forward, else ``upright``.
object: the action itself where something is handled, and the kind of the thing where several
    actions have one: ``use_ball``, ``use_stick``, ``use_weapon``.
person: ``clap`` and ``wave``, which are meant for others, and ``near_person`` for everyone beside
    whom another person is at that moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stclip.data.jhmdb import CLASSES
from stclip.puppet.draw.detections import Box, Detection

FPS = 30  # as J-HMDB's
FIRST_FRAME, STEP = 3, 5  # the frames that are keyframes

_POSE = {"climb_stairs", "jump", "pullup", "run", "sit", "stand", "walk"}
_PERSON = {"clap", "wave"}
_BENT = {"pick", "push"}
_KINDS = {
    "use_ball": {"catch", "kick_ball", "shoot_ball", "throw"},
    "use_stick": {"golf", "swing_baseball"},
    "use_weapon": {"shoot_bow", "shoot_gun"},
}

# Label -> group; the 21 actions first, in their order.
LABELS: Mapping[str, str] = {
    **{
        name: "pose" if name in _POSE else "person" if name in _PERSON else "object"
        for name in CLASSES
    },
    "upright": "pose",
    "bend": "pose",
    **dict.fromkeys(_KINDS, "object"),
    "near_person": "person",
}


def labels_of(actions: Sequence[str], boxes: Sequence[Box]) -> list[list[str]]:
    """The labels of the persons of one frame, in the order of LABELS.

    Args:
        actions: what the persons do.
        boxes: of the same persons, xyxy in pixels.
    """
    found = []
    for index, (action, box) in enumerate(zip(actions, boxes, strict=True)):
        names = {action} | {kind for kind, members in _KINDS.items() if action in members}
        if action in _BENT:
            names.add("bend")
        elif action not in _POSE:
            names.add("upright")
        if any(_near(box, other) for place, other in enumerate(boxes) if place != index):
            names.add("near_person")
        found.append([name for name in LABELS if name in names])
    return found


def keyframes_of(frames: int) -> range:
    """The annotated frames of a clip, from 1."""
    return range(FIRST_FRAME, frames + 1, STEP)


def annotations(
    clips: Iterable[tuple[str, Sequence[str], Sequence[Sequence[Box]]]], width: int, height: int
) -> dict[str, Any]:
    """The content of an annotations file.

    Args:
        clips: the name of each video, what its persons do, and for each frame their boxes. The
            frames are in ``videos/<name>`` beside the file.
        width: of a frame, in pixels.
        height: of a frame, in pixels.
    """
    videos: list[dict[str, Any]] = []
    keyframes: list[dict[str, Any]] = []
    for name, actions, boxes in clips:
        videos.append({"id": name, "path": f"videos/{name}", "size": [width, height], "fps": FPS})
        keyframes += [
            {
                "video": name,
                "timestamp": (frame - 1) / FPS,
                "boxes": boxes[frame - 1],
                "labels": labels_of(actions, boxes[frame - 1]),
            }
            for frame in keyframes_of(len(boxes))
        ]
    labels = [{"name": name, "group": group} for name, group in LABELS.items()]
    return {"labels": labels, "videos": videos, "keyframes": keyframes}


def detection_rows(name: str, detections: Sequence[Sequence[Detection]]) -> list[dict[str, Any]]:
    """The rows of a detections file for the keyframes of one video.

    Args:
        name: of the video.
        detections: for each frame what was detected.
    """
    return [
        {"video": name, "frame": frame, "box": box, "score": round(score, 7)}
        for frame in keyframes_of(len(detections))
        for box, score in detections[frame - 1]
    ]


def _near(box: Box, other: Box) -> bool:
    """Whether two persons are less than a step apart, also in depth (where their feet are)."""
    reach = max(box[3] - box[1], other[3] - other[1])
    gap = max(box[0], other[0]) - min(box[2], other[2])
    return gap < 0.25 * reach and abs(box[3] - other[3]) < 0.2 * reach
