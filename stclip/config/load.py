"""Read yaml files and ``KEY VALUE`` pairs into a config, and refuse what is wrong with them.

yacs holds the config, but the merging is done here: yacs names neither the file nor the choices
when a key is wrong, and takes no integer where the default is a float.
"""

import ast
import difflib
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from stclip.config.defaults import get_cfg_defaults
from stclip.errors import UserError
from stclip.files import write_text

logger = logging.getLogger(__name__)

BASE_KEY = "_BASE_"

CHOICES: dict[str, tuple[str, ...]] = {
    "MODEL.NAME": ("stclip", "frame", "crop", "frame_crop", "xclip"),
    "MODEL.XCLIP.UNIT": ("video", "window"),
    "MODEL.BACKBONE": ("clip", "xclip"),
    "MODEL.DEVICE": ("auto", "cpu", "cuda"),
    "MODEL.PRECISION": ("fp32", "bf16", "fp16"),
    "SOLVER.OPTIMIZER": ("sgd", "adamw"),
    "DATALOADER.RESIZE": ("pillow", "torch"),
    "SOLVER.SCHEDULE": ("step", "cosine"),
    "TEST.BOXES": ("detected", "ground_truth"),
}
POSITIVE = (
    "MODEL.TEMPORAL.FRAMES",
    "MODEL.TEMPORAL.STRIDE",
    "MODEL.XCLIP.FRAMES",
    "MODEL.XCLIP.STRIDE",
    "MODEL.HEAD.TEMPERATURE",
    "SOLVER.MAX_ITER",
    "SOLVER.VIDEOS_PER_BATCH",
    "SOLVER.ACCUMULATION_STEPS",
    "SOLVER.MAX_PERSONS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.LOG_PERIOD",
    "TEST.VIDEOS_PER_BATCH",
)
NOT_NEGATIVE = (
    "SEED",
    "MODEL.LORA.RANK",
    "MODEL.INTEREST_TOKENS.TOP_K",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.STORE_GB",
    "SOLVER.BASE_LR",
    "SOLVER.NEW_LR_FACTOR",
    "SOLVER.MOMENTUM",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.WARMUP_FACTOR",
    "SOLVER.FOCAL_GAMMA",
    "SOLVER.EVAL_PERIOD",
    "TEST.MAX_PERSONS",
)


def load_config(config_file: str | Path | None = None, pairs: Sequence[str] = ()) -> CfgNode:
    """The frozen config of a run.

    Args:
        config_file: a yaml file; its ``_BASE_`` names another one, relative to itself, to start
            from.
        pairs: KEY VALUE KEY VALUE ..., which win over the files.

    Raises:
        UserError: a file that is missing or no yaml mapping, an unknown key, a value of the wrong
            type or outside the choices.
    """
    cfg = get_cfg_defaults()
    if config_file is not None:
        _merge_file(cfg, Path(config_file), seen=())
    if len(pairs) % 2:
        raise UserError(
            f"command line: KEY VALUE pairs expected, found {len(pairs)} words: {' '.join(pairs)}"
        )
    for key, text in zip(pairs[::2], pairs[1::2], strict=True):
        _set(cfg, key, text, "command line")
    _validate(cfg)
    cfg.freeze()
    return cfg


def save_config(cfg: CfgNode, path: str | Path) -> None:
    """Write the resolved config as yaml, whole or not at all."""
    write_text(path, cfg.dump())


def differences(cfg: CfgNode, saved: str) -> list[str]:
    """How a config differs from the yaml text that ``save_config`` or a checkpoint keeps.

    Returns:
        ``KEY old -> new`` for each key with another value; a key that the text lacks, because
        another version wrote it, had the value of today's default. Nothing if there is no text.
    """
    if not saved:
        return []
    old = dict(flatten(get_cfg_defaults())) | dict(flatten(CfgNode(yaml.safe_load(saved) or {})))
    old = {key: tuple(value) if isinstance(value, list) else value for key, value in old.items()}
    return [f"{key} {old[key]!r} -> {value!r}" for key, value in flatten(cfg) if old[key] != value]


def warn_scales(cfg: CfgNode, saved: str | None) -> None:
    """Warn if weights were trained with other values of what their shapes do not show."""
    keys = (
        "MODEL.LORA.ALPHA ",
        "MODEL.TEMPORAL.",
        "MODEL.HEAD.TEMPERATURE ",
        "MODEL.INTEREST_TOKENS.",
        "MODEL.XCLIP.",
    )
    for change in differences(cfg, saved or ""):
        if change.startswith(keys):
            logger.warning("the weights were trained with another value of %s", change)


def flatten(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a config."""
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _merge_file(cfg: CfgNode, path: Path, seen: tuple[Path, ...]) -> None:
    if path.resolve() in seen:
        raise UserError(f"{path}: {BASE_KEY} leads back to a file that is already being read")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: config file cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not valid yaml: {reason}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a mapping of keys to values expected, found {tree!r:.60}")
    base = tree.pop(BASE_KEY, None)
    if base is not None:
        _merge_file(cfg, path.parent / str(base), (*seen, path.resolve()))
    _merge_tree(cfg, tree, "", str(path))


def _merge_tree(cfg: CfgNode, tree: dict[Any, Any], prefix: str, source: str) -> None:
    groups = _groups(cfg)
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in groups and value is None:
            continue  # a group whose keys are all commented out
        if isinstance(value, dict) and (key in groups or not _known(cfg, key)):
            if key not in groups:
                raise UserError(_unknown(cfg, key, source))
            _merge_tree(cfg, value, f"{key}.", source)
        else:
            _set(cfg, key, value, source)


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    if not _known(cfg, key):
        raise UserError(_unknown(cfg, key, source))
    *groups, leaf = key.split(".")
    node = cfg
    for group in groups:
        node = node[group]
    node[leaf] = _coerce(key, value, node[leaf], source)


def _coerce(key: str, value: Any, default: Any, source: str) -> Any:
    """``value`` as the type of ``default``; text is read as a Python literal where it is one."""
    expected = type(default)
    if isinstance(value, str) and expected is not str:
        text = {"true": "True", "false": "False"}.get(value.lower(), value)
        with suppress(ValueError, SyntaxError, TypeError):  # it stays text, and is refused below
            value = ast.literal_eval(text)
    if expected is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # a folder may be called 2024
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if expected is tuple:
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
        number = float if any(isinstance(item, float) for item in default) else int
        numeric = all(_is_number(x) for x in value)
        if numeric and (number is float or all(item == int(item) for item in value)):
            return tuple(number(item) for item in value)
        raise UserError(f"{source}: {key}: a list of {number.__name__}s expected, found {value!r}")
    if type(value) is not expected:
        raise UserError(
            f"{source}: {key}: {expected.__name__} expected, "
            f"found {type(value).__name__} {value!r:.60}"
        )
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _known(cfg: CfgNode, key: str) -> bool:
    return any(key == known for known, _ in flatten(cfg))


def _groups(cfg: CfgNode) -> set[str]:
    groups: set[str] = set()
    for key, _ in flatten(cfg):
        parts = key.split(".")
        groups.update(".".join(parts[:length]) for length in range(1, len(parts)))
    return groups


def _unknown(cfg: CfgNode, key: str, source: str) -> str:
    if key in _groups(cfg):
        inside = ", ".join(name for name, _ in flatten(cfg) if name.startswith(f"{key}."))
        return f"{source}: {key} is a group of keys, not a key; it holds {inside}"
    known = [name for name, _ in flatten(cfg)]
    leaf = key.split(".")[-1]
    close = [name for name in known if name.split(".")[-1] == leaf]
    close += [name for name in difflib.get_close_matches(key, known) if name not in close]
    hint = f"did you mean {' or '.join(close)}?" if close else "see stclip/config/defaults.py"
    return f"{source}: unknown key {key}; {hint}"


def _validate(cfg: CfgNode) -> None:
    values = dict(flatten(cfg))
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise UserError(f"{key}: one of {', '.join(choices)} expected, found {values[key]!r}")
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}: a finite number expected, found {value}")
    for key in POSITIVE:
        if values[key] <= 0:
            raise UserError(f"{key}: a number above 0 expected, found {values[key]}")
    for key in NOT_NEGATIVE:
        if values[key] < 0:
            raise UserError(f"{key}: a number not below 0 expected, found {values[key]}")
    if values["MODEL.INTEREST_TOKENS.ENABLED"]:
        for needed in ("MODEL.PERSON_TOKENS.ENABLED", "MODEL.PROMPT.ENABLED"):
            if not values[needed]:
                raise UserError(
                    f"MODEL.INTEREST_TOKENS.ENABLED: with it {needed} True expected, found False"
                )
    if values["MODEL.NAME"] == "xclip" and values["ALL_GROUP"]:
        raise UserError(
            f"ALL_GROUP: '' expected with MODEL.NAME xclip, whose classes exclude each other; "
            f"found {values['ALL_GROUP']!r}"
        )
    if values["SOLVER.OPTIMIZER"] == "adamw" and values["SOLVER.MOMENTUM"] >= 1:
        raise UserError(
            "SOLVER.MOMENTUM: a number below 1 expected with SOLVER.OPTIMIZER adamw, found "
            f"{values['SOLVER.MOMENTUM']}"
        )
    if values["MODEL.TEMPORAL.BEFORE_XCLIP"]:
        for needed, expected in (("MODEL.BACKBONE", "xclip"), ("MODEL.TEMPORAL.ENABLED", True)):
            if values[needed] != expected:
                raise UserError(
                    f"MODEL.TEMPORAL.BEFORE_XCLIP: with it {needed} {expected} expected, found "
                    f"{values[needed]}"
                )
    if not values["TEST.IOU_THRESHOLDS"]:
        raise UserError("TEST.IOU_THRESHOLDS: at least one number expected, found none")
    for threshold in values["TEST.IOU_THRESHOLDS"]:
        if not 0 < threshold <= 1:
            raise UserError(f"TEST.IOU_THRESHOLDS: numbers in (0, 1] expected, found {threshold}")
