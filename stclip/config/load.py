"""Read yaml files and ``KEY VALUE`` pairs into a config, and refuse what is wrong with them.

yacs holds the config, but the merging is done here: yacs names neither the file nor the choices
when a key is wrong, and takes no integer where the default is a float.
"""

import difflib
import logging
import math
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from stclip.config.defaults import get_cfg_defaults
from stclip.config.reference_keys import (
    FIXED,
    REMOVED,
    RENAMED,
    has_no_effect,
    literal,
    short,
    shown,
    translate,
)
from stclip.config.reference_keys import groups as reference_groups
from stclip.config.templates import parse_templates
from stclip.config.yaml_text import parse_yaml, read_yaml
from stclip.errors import UserError
from stclip.files import shipped, shipped_roots, write_text

logger = logging.getLogger(__name__)

# A file, or the command line, and its (dotted key, value) pairs.
Source = tuple[str, list[tuple[str, Any]]]

BASE_KEY = "_BASE_"
# Integers with more bits than this do not fit the integer types of torch and numpy; other keys
# have at most 63.
_BITS = {"SEED": 64}
# How many unknown keys of a file an error names.
_SHOWN = 20
# What the text of a saved config is called.
_KEPT = "the config kept with the weights"

CHOICES: dict[str, tuple[str, ...]] = {
    "MODEL.NAME": (
        *("stclip", "frame", "crop", "frame_crop"),
        *("marked", "frame_marked", "frame_crop_marked", "xclip"),
    ),
    "MODEL.XCLIP.UNIT": ("video", "window"),
    "MODEL.BACKBONE": ("clip", "xclip"),
    "MODEL.CLIP_ACTIVATION": ("auto", "quick_gelu", "gelu"),
    "MODEL.DEVICE": ("auto", "cpu", "cuda"),
    "MODEL.PRECISION": ("fp32", "bf16", "fp16"),
    "MODEL.HEAD.MARKED": ("blur", "mask"),
    "SOLVER.OPTIMIZER": ("sgd", "adamw"),
    "DATALOADER.RESIZE": ("pillow", "torch", "device"),
    "SOLVER.SCHEDULE": ("step", "cosine"),
    "TEST.BOXES": ("detected", "ground_truth"),
    "TEST.VOTING": ("none", "video", "track"),
}
POSITIVE = (
    "MODEL.TEMPORAL.FRAMES",
    "MODEL.TEMPORAL.STRIDE",
    "MODEL.TEMPORAL.DEPTH",
    "MODEL.PROMPT.DEPTH",
    "MODEL.XCLIP.FRAMES",
    "MODEL.XCLIP.STRIDE",
    "MODEL.HEAD.TEMPERATURE",
    "DATASETS.AVA.FPS",
    "DATALOADER.MAX_PIXELS",
    "SOLVER.MAX_ITER",
    "SOLVER.VIDEOS_PER_BATCH",
    "SOLVER.ACCUMULATION_STEPS",
    "SOLVER.MAX_PERSONS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.LOG_PERIOD",
    "TEST.VIDEOS_PER_BATCH",
    "TEST.VOTING_WINDOW",
)
NOT_NEGATIVE = (
    "SEED",
    "DATASETS.AVA.START",
    "MODEL.SCALE",
    "MODEL.HEAD.CROP_WEIGHT",
    "MODEL.HEAD.MARKED_WEIGHT",
    "MODEL.LORA.RANK",
    "MODEL.TEMPORAL.INIT_STD",
    "MODEL.PROMPT.INIT_STD",
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

    Keys of the published implementation are taken as what they mean here; one warning lists those
    that have no effect (stclip/config/reference_keys.py).

    Args:
        config_file: a yaml file; its ``_BASE_`` names another one, relative to itself, to start
            from, or one that comes with stclip (``configs/base.yaml``). Several files, with commas
            between them, are read one after the other; the later ones win.
        pairs: KEY VALUE KEY VALUE ..., which win over the files.

    Raises:
        UserError: a file that is missing or no yaml mapping, unknown keys (all of them at once), a
            value of the wrong type or outside the choices.
    """
    names = [] if config_file is None else [str(config_file)]
    if names and not os.path.exists(names[0]):
        names = names[0].split(",")
    sources = [source for name in names for source in _read_files(Path(name), seen=())]
    if len(pairs) % 2:
        raise UserError(
            f"command line: KEY VALUE pairs expected, found {len(pairs)} words: "
            f"{' '.join(pairs):.200}"
        )
    sources.append(("command line", list(zip(pairs[::2], pairs[1::2], strict=True))))
    cfg = get_cfg_defaults()
    _refuse_unknown(cfg, sources)
    ignored: dict[str, None] = {}
    for source, settings in sources:
        for key, value in settings:
            name, value = translate(key, value, source)
            if has_no_effect(name):
                ignored[name] = None
            elif name not in FIXED:
                _set(cfg, name, value, source)
        _agree_on_voting(cfg.TEST, {key for key, _ in settings}, source)
    if ignored and os.environ.get("RANK", "0") == "0":  # once, however many processes there are
        logger.warning(
            "%s: %d keys of the published implementation have no effect here (GETTING_STARTED.md "
            "says why): %s",
            config_file or "command line", len(ignored), ", ".join(ignored),
        )  # fmt: skip
    validate(cfg)
    cfg.freeze()
    return cfg


def save_config(cfg: CfgNode, path: str | Path) -> None:
    """Write the resolved config as yaml, whole or not at all."""
    write_text(path, cfg.dump())


def find_config(path: Path) -> Path:
    """A config file: by its path, or one that comes with the package by its name.

    ``jhmdb/split_1`` is the file ``configs/jhmdb/split_1.yaml``.
    """
    try:
        if path.exists():
            return path
        name = path.parent / (path.name if path.suffix == ".yaml" else f"{path.name}.yaml")
        found = shipped(Path("configs") / name) if path.parts[:1] != ("configs",) else shipped(name)
        return found if found.exists() else path
    except (OSError, ValueError):  # reported when the file is opened
        return path


def shipped_configs() -> str:
    """The configs that come with the package by their names, for an error message."""
    names: dict[str, list[str]] = {}
    for root in shipped_roots()[:1]:
        for path in sorted((root / "configs").glob("*/*.yaml")):
            if path.stem not in ("base", "plus"):  # parts of configs
                names.setdefault(path.parent.name, []).append(path.stem)
    return ", ".join(f"{folder}/{{{','.join(found)}}}" for folder, found in names.items())


def saved_config(saved: str | Path | None, source: str = _KEPT) -> CfgNode:
    """The config that ``save_config`` or a checkpoint keeps, from this version or another one.

    Args:
        saved: its yaml text, or the file that holds it. A key that it lacks, because another
            version wrote it, had the value of today's default; one that is unknown today is left
            out.
        source: what to call the text in an error.

    Raises:
        UserError: the file cannot be read, the text is no yaml mapping, or a value has the wrong
            type.
    """
    cfg = get_cfg_defaults()
    values = dict(flatten(cfg))
    if isinstance(saved, Path):
        source, tree = str(saved), read_yaml(saved)
    else:
        tree = parse_yaml("" if saved is None else saved, source)
    settings = dict(_leaves(_mapping(tree, source), cfg))
    for key, value in settings.items():
        name, value = translate(key, value, source)
        if name in values:
            _set(cfg, name, value, source)
    _agree_on_voting(cfg.TEST, settings, source)
    return cfg


def differences(cfg: CfgNode, saved: str | Path | None, source: str = _KEPT) -> list[str]:
    """How a config differs from the yaml text that ``save_config`` or a checkpoint keeps.

    Returns:
        ``KEY old -> new`` for each key with another value, see ``saved_config``. Nothing if there
        is no text.

    Raises:
        UserError: as ``saved_config``.
    """
    if saved is None or (isinstance(saved, str) and not saved):
        return []
    old = dict(flatten(saved_config(saved, source)))
    return [
        f"{key} {shown(old[key], 200)} -> {shown(value, 200)}"
        for key, value in flatten(cfg)
        if old[key] != value
    ]


def warn_scales(cfg: CfgNode, saved: str | None, path: str | Path) -> None:
    """Warn if weights were trained with other values of what their shapes do not show.

    Args:
        cfg: the config that they are to be used with.
        saved: the yaml text of the one that they were trained with.
        path: the checkpoint, for error messages.

    Raises:
        UserError: as ``saved_config``.
    """
    keys = (
        "MODEL.LORA.ALPHA ",
        *(f"MODEL.TEMPORAL.{name} " for name in ("ENABLED", "BEFORE_XCLIP", "FRAMES", "STRIDE")),
        "MODEL.HEAD.TEMPERATURE ",  # the weights of features are meant to be added in the test
        "MODEL.TEMPLATES ",
        "MODEL.INTEREST_TOKENS.",
        "MODEL.XCLIP.",
    )
    for change in differences(cfg, saved, f"the config kept in {path}"):
        if change.startswith(keys):
            logger.warning("the weights were trained with another value of %s", change)


def flatten(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a config."""
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _read_files(path: Path, seen: tuple[Path, ...]) -> list[Source]:
    """A yaml file and those that it starts from, the first of them first."""
    path = find_config(path)
    try:
        real, exists = path.resolve(), path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a NUL
        raise UserError(f"{path}: config file cannot be read: {error}") from error
    if real in seen:
        raise UserError(f"{path}: {BASE_KEY} leads back to a file that is already being read")
    if not exists and (configs := shipped_configs()):
        raise UserError(f"{path}: there is no such config file; there are {configs}")
    source = str(path)
    tree = _mapping(read_yaml(path), source)
    base = tree.pop(BASE_KEY, None)
    if base is not None and not isinstance(base, str):
        raise UserError(f"{source}: {BASE_KEY}: the name of a file expected, found {shown(base)}")
    settings: dict[str, Any] = {}
    names: dict[str, str] = {}
    for key, value in _leaves(tree, get_cfg_defaults()):
        name = RENAMED.get(key, key)
        if name in names:
            raise UserError(
                f"{source}: {names[name]} and {key} set the same key, {name}; remove one of them"
                if names[name] != key
                else f"{source}: the key {short(key)} is set twice; remove one of them"
            )
        names[name] = key
        settings[key] = value
    beside = path.parent / (base or "")
    ships = base is not None and base.startswith("configs/") and not os.path.exists(beside)
    files = [] if base is None else _read_files(Path(base) if ships else beside, (*seen, real))
    return [*files, (source, list(settings.items()))]


def _mapping(tree: Any, source: str) -> dict[Any, Any]:
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{source}: a mapping of keys to values expected, found {shown(tree)}")
    return tree


def _leaves(tree: dict[Any, Any], cfg: CfgNode) -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a yaml mapping."""
    groups = _groups(cfg) | reference_groups()

    def walk(tree: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            key = f"{prefix}{name}"
            if key in groups and isinstance(value, dict):
                yield from walk(value, f"{key}.")
            elif key not in groups or value is not None:  # None: all its keys are commented out
                yield key, value

    return walk(tree, "")


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    *groups, leaf = key.split(".")
    node = cfg
    for group in groups:
        node = node[group]
    node[leaf] = _coerce(key, value, node[leaf], source)


def _agree_on_voting(test: CfgNode, given: Collection[str], source: str) -> None:
    """Let TEST.SINGLE_ACTION and TEST.VOTING say the same after a source set one of them."""
    over_video = test.VOTING == "video"
    if over_video == test.SINGLE_ACTION:
        return
    if "TEST.SINGLE_ACTION" not in given:
        test.SINGLE_ACTION = over_video
    elif "TEST.VOTING" not in given:
        test.VOTING = "video" if test.SINGLE_ACTION else "none"
    else:
        raise UserError(
            f"{source}: TEST.SINGLE_ACTION {test.SINGLE_ACTION} contradicts TEST.VOTING "
            f"{shown(test.VOTING)}, True is another name of video; set one of the two keys"
        )


def _coerce(key: str, value: Any, default: Any, source: str) -> Any:
    """``value`` as the type of ``default``; text is read as a Python literal where it is one."""
    expected = type(default)
    if key == "MODEL.TEMPLATES":
        templates = parse_templates(value, f"{source}: {key}")
        for text in templates:
            _check_text(key, text, source)
        return templates
    if expected is not str:
        value = literal(value)
    bits = _BITS.get(key, 63)
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, int) and item.bit_length() > bits:
            raise UserError(
                f"{source}: {key}: a whole number below 2^{bits} expected, found {shown(item)}"
            )
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
        raise UserError(
            f"{source}: {key}: a list of {number.__name__}s expected, found {shown(value)}"
        )
    if type(value) is not expected:
        raise UserError(
            f"{source}: {key}: {expected.__name__} expected, "
            f"found {type(value).__name__} {shown(value)}"
        )
    if isinstance(value, str):
        _check_text(key, value, source)
    return value


def _check_text(key: str, text: str, source: str) -> None:
    if "\0" in text or not _is_unicode(text):
        raise UserError(f"{source}: {key}: text in Unicode, without NUL, expected: {shown(text)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_unicode(text: str) -> bool:
    """Whether it can be written to a file: halves of surrogate pairs cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _groups(cfg: CfgNode) -> set[str]:
    groups: set[str] = set()
    for key, _ in flatten(cfg):
        parts = key.split(".")
        groups.update(".".join(parts[:length]) for length in range(1, len(parts)))
    return groups


def _refuse_unknown(cfg: CfgNode, sources: Sequence[Source]) -> None:
    """Name all keys that do not exist, of all files and the command line, in one error."""
    known = [name for name, _ in flatten(cfg)]
    lines = []
    for source, settings in sources:
        unknown = [
            key
            for key, _ in settings
            if not (key in known or key in RENAMED or key in FIXED or has_no_effect(key))
        ]
        if unknown:
            hints = [_unknown(cfg, known, key) for key in unknown[:_SHOWN]]
            more = f", and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            many = f"{len(unknown)} keys do not exist: " if len(unknown) > 1 else ""
            lines.append(f"{source}: {many}{', '.join(hints)}{more}")
    if lines:
        raise UserError(f"{'; '.join(lines)}; see stclip/config/defaults.py")


def _unknown(cfg: CfgNode, known: Sequence[str], key: str) -> str:
    """What is wrong with a key that does not exist."""
    if key in REMOVED:
        return f"{key} (was removed: {REMOVED[key]})"
    if key in _groups(cfg):
        inside = ", ".join(name for name in known if name.startswith(f"{key}."))
        return f"{key} (is a group of keys, not a key; it holds {inside})"
    key = short(key)
    leaf = key.split(".")[-1]
    close = [name for name in known if name.split(".")[-1] == leaf]
    close += [name for name in difflib.get_close_matches(key, known) if name not in close]
    return f"unknown key {key}" + (f" (did you mean {' or '.join(close)}?)" if close else "")


def validate(cfg: CfgNode) -> None:
    """Refuse values outside their choices or bounds, and keys that contradict each other."""
    values = dict(flatten(cfg))
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise UserError(
                f"{key}: one of {', '.join(choices)} expected, found {shown(values[key])}"
            )
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
            f"found {shown(values['ALL_GROUP'])}"
        )
    if values["SOLVER.OPTIMIZER"] == "adamw" and values["SOLVER.MOMENTUM"] >= 1:
        raise UserError(
            "SOLVER.MOMENTUM: a number below 1 expected with SOLVER.OPTIMIZER adamw, found "
            f"{values['SOLVER.MOMENTUM']}"
        )
    if values["DATALOADER.RESIZE"] == "device" and values["DATALOADER.STORE"]:
        raise UserError(
            "DATALOADER.STORE: '' expected with DATALOADER.RESIZE device, since it keeps resized "
            f"pictures; found {shown(values['DATALOADER.STORE'])}"
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
