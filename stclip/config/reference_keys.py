"""Config keys of the published implementation, and of other versions, and what each is here.

What a key of this table turns into is decided by its name alone, whichever file or command line it
stands in; GETTING_STARTED.md ("From the published implementation") explains it key by key.
"""

import ast
from fnmatch import fnmatchcase
from typing import Any

from stclip.errors import UserError

# Keys with the same meaning under another name.
RENAMED = {
    "MODEL.ROI_ACTION_HEAD.PROPOSAL_PER_CLIP": "SOLVER.MAX_PERSONS",
    "MODEL.ROI_ACTION_HEAD.FOCAL_LOSS.GAMMA": "SOLVER.FOCAL_GAMMA",
    "SOLVER.SCHEDULER": "SOLVER.SCHEDULE",
}
# Values that have another name here, by the key's name here.
VALUES = {
    "SOLVER.SCHEDULE": {"warmup_multi_step": "step", "half_period_cosine": "cosine"},
    "DATASETS.TRAIN": {"jhmdb_train": "jhmdb", "ava_video_train_v2.2": "ava"},
    "DATASETS.TEST": {"jhmdb_val": "jhmdb", "jhmdb_test": "jhmdb", "ava_video_val_v2.2": "ava"},
}
# Keys that hold a tuple of names there, and one name here.
_ONE_NAME = ("DATASETS.TRAIN", "DATASETS.TEST")
# Keys without a choice here: the value that is built in, and what it means.
FIXED: dict[str, tuple[Any, str]] = {
    "SOLVER.WARMUP_METHOD": ("linear", "SOLVER.WARMUP_ON False leaves the warm-up out"),
    "MODEL.ROI_ACTION_HEAD.FOCAL_LOSS.ALPHA": (-1, "the focal loss does not weight classes"),
    "MODEL.ROI_ACTION_HEAD.POSE_LOSS_WEIGHT": (1, "the weight of the pose classes' loss is 1"),
}
# Keys without effect: unused there, or replaced by the label files here.
WITHOUT_EFFECT = (
    "INPUT.*",
    "MODEL.STCLIP_structure.*",
    "MODEL.ROI_ACTION_HEAD.FEATURE_EXTRACTOR",
    "MODEL.ROI_ACTION_HEAD.MLP_HEAD_DIM",
    "MODEL.ROI_ACTION_HEAD.PREDICTOR",
    "MODEL.ROI_ACTION_HEAD.DROPOUT_RATE",
    "MODEL.ROI_ACTION_HEAD.TEXT_FEATURE_GENERATOR",
    "MODEL.ROI_ACTION_HEAD.PREFIX_LEN",
    "MODEL.ROI_ACTION_HEAD.POSTFIX_LEN",
    "MODEL.ROI_ACTION_HEAD.VIDEO_PROMPT",
    "MODEL.ROI_ACTION_HEAD.VIDEO_FEATURE_GENERATOR",
    "MODEL.ROI_ACTION_HEAD.NUM_CLASSES",
    "MODEL.ROI_ACTION_HEAD.NUM_PERSON_MOVEMENT_CLASSES",
    "MODEL.ROI_ACTION_HEAD.NUM_OBJECT_MANIPULATION_CLASSES",
    "MODEL.ROI_ACTION_HEAD.NUM_PERSON_INTERACTION_CLASSES",
    "MODEL.ROI_ACTION_HEAD.OBJECT_LOSS_WEIGHT",
    "MODEL.ROI_ACTION_HEAD.PERSON_LOSS_WEIGHT",
    "DATALOADER.SIZE_DIVISIBILITY",
    "DATALOADER.ASPECT_RATIO_GROUPING",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.IA_LR_FACTOR",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.WEIGHT_DECAY_BN",
    "TEST.EXTEND_SCALE",
)
# Keys that older versions had, and what to write in their place.
REMOVED: dict[str, str] = {}


def groups() -> set[str]:
    """The groups that occur only in this table, such as INPUT."""
    names = (*RENAMED, *FIXED, *WITHOUT_EFFECT, *REMOVED)
    parts = [name.split(".") for name in names]
    return {".".join(words[:n]) for words in parts for n in range(1, len(words))}


def has_no_effect(key: str) -> bool:
    """Whether a key is one of the published implementation that changes nothing here."""
    return any(fnmatchcase(key, pattern) for pattern in WITHOUT_EFFECT)


def translate(key: str, value: Any, source: str) -> tuple[str, Any]:
    """A key and its value as they are called here.

    Raises:
        UserError: several datasets where one is expected, or another value than the built-in one.
    """
    if key in FIXED:
        built_in, meaning = FIXED[key]
        if literal(value) != built_in:
            raise UserError(
                f"{source}: {key}: {built_in} expected, found {shown(value)}: {meaning}"
            )
    name = RENAMED.get(key, key)
    if name in _ONE_NAME:
        value = _one_name(name, value, source)
    if isinstance(value, str):
        value = VALUES.get(name, {}).get(value, value)
    return name, value


def literal(value: Any) -> Any:
    """Text that is a Python literal as its value; everything else as it is."""
    if not isinstance(value, str) or len(value) > 10_000:
        return value
    text = {"true": "True", "false": "False"}.get(value.lower(), value)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def shown(value: Any, limit: int = 60) -> str:
    """A value for an error message, cut to a part of a line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python prints integers of up to 4,300 digits
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= limit else f"{text[:limit]}..."


def short(key: str) -> str:
    """A key as a file has it, on one line and cut, for an error message."""
    key = " ".join(key.split())
    return key if len(key) <= 100 else f"{key[:100]}..."


def _one_name(key: str, value: Any, source: str) -> Any:
    if isinstance(value, str) and value.strip()[:1] in ("(", "["):
        value = literal(value.strip())
    if not isinstance(value, list | tuple):
        return value
    if len(value) != 1:
        raise UserError(f"{source}: {key}: one dataset expected, found {shown(value)}")
    return value[0]
