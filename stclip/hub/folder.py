"""The folder that a model is published as, on a disk or as a repository of the Hugging Face Hub.

    model.safetensors   every weight of models.stclip.STCLIP under its name, CLIP included, so that
                        nothing else has to be downloaded
    config.json         what the weights do not show, and what they must agree with
    README.md           the model card (card.py); not read

The keys of config.json, all of which must be there, and no other:

    format          "stclip-model/1"
    stclip_version  the version of stclip that wrote it
    dtype           what the weights are stored as: float32, float16 or bfloat16; they are read as
                    float32
    activation      quick_gelu or gelu: that of CLIP's MLPs
    clip            the sizes of CLIP: the fields of models.clip.CLIPSizes
    model           the config keys of ``SETTINGS``, without "MODEL." in front, and their values
    groups          {class name: pose, object or person} of a training with several labels a person
                    (ALL_GROUP), or null
    training        what is known of the training: the fields of ``Training``, or null for each

The folder may come from a stranger: nothing in it is run, and no file is opened but these two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import stclip
from stclip.config import get_cfg_defaults, saved_config
from stclip.config.load import flatten, validate
from stclip.data.labels import read_label_file
from stclip.engine.checkpoint import Checkpoint
from stclip.errors import UserError
from stclip.files import atomic_path, read_json, shipped
from stclip.models.build import config_of_state
from stclip.models.clip import ACTIVATIONS
from stclip.models.download import xclip_models
from stclip.models.formats import check_floats, clip_sizes
from stclip.models.lora import LoRALinear
from stclip.models.stclip import STCLIP
from stclip.models.weights import available_models
from stclip.structures.groups import GROUPS

FORMAT = "stclip-model/1"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Keys under MODEL that parameters do not always tell, and those that they tell.
NOT_IN_SHAPES = (
    "LORA.ALPHA",
    "TEMPORAL.ENABLED", "TEMPORAL.FRAMES", "TEMPORAL.STRIDE",
    "HEAD.TEMPERATURE", "HEAD.CROP_WEIGHT", "HEAD.MARKED", "HEAD.MARKED_WEIGHT",
    "INTEREST_TOKENS.ENABLED", "INTEREST_TOKENS.TOP_K", "INTEREST_TOKENS.INCLUDE_PERSON",
)  # fmt: skip
SETTINGS = (
    "BACKBONE", "PERSON_TOKENS.ENABLED", "PROMPT.ENABLED", "PROMPT.LAYERS", "PROMPT.DEPTH",
    "LORA.RANK", "TEMPORAL.DEPTH", "TEMPORAL.BEFORE_XCLIP", *NOT_IN_SHAPES, "TEMPLATES",
)  # fmt: skip

_KEYS = (
    "format", "stclip_version", "dtype", "activation", "clip", "model", "groups", "training"
)  # fmt: skip
# Far above any config; lengths of windows are bounded, since no weight need agree with them.
_MOST_BYTES, _LONGEST_WINDOW, _LONGEST_TEXT = 1 << 20, 10_000, 200
_SPLIT = re.compile(r"label_splits/([\w-]+/[\w-]+)/(?:train|test)_label\.txt$")
_ALL_WEIGHTS = "expected all weights of ST-CLIP, CLIP's included"


@dataclass(frozen=True)
class Training:
    """What is known of how a model was trained; None where it is not.

    Attributes:
        dataset: the value of DATASETS.TRAIN, if stclip has that dataset.
        split: such as jhmdb/split_1, if TRAIN_LABEL is a label split that comes with stclip.
        seen_labels: the class names that were trained on.
        iterations: how many there were.
        clip: the name of the CLIP that the training started from.
        continued: whether it started from weights that had been trained before.
    """

    dataset: str | None = None
    split: str | None = None
    seen_labels: tuple[str, ...] | None = None
    iterations: int | None = None
    clip: str | None = None
    continued: bool | None = None


@dataclass
class Published(Checkpoint):
    """What a folder holds; ``config`` has the keys of ``SETTINGS`` and no others.

    Attributes:
        facts: of its training.
        sizes: of its CLIP, as config.json has them.
        commit: of the Hub that it was taken from; None of a folder on a disk.
    """

    facts: Training = field(default_factory=Training)
    sizes: dict[str, int] = field(default_factory=dict)
    commit: str | None = None


def training_of(checkpoint: Checkpoint) -> Training:
    """What a checkpoint tells of its training.

    Paths on somebody's disk are left out, and no file that a checkpoint names is read but the label
    splits that come with stclip.
    """
    if isinstance(checkpoint, Published):
        return checkpoint.facts
    if checkpoint.config is None or checkpoint.training is None:  # not written by stclip train
        rest = (checkpoint.reference or {}).get("rest", {})
        iterations = rest.get("iteration")
        return Training(iterations=iterations if type(iterations) is int else None)
    cfg = saved_config(checkpoint.config)
    split, clip = split_of(cfg.TRAIN_LABEL), cfg.MODEL.CLIP
    named = clip in (*available_models(), *xclip_models())
    named = named or re.fullmatch(r"open_clip:[\w.-]+/\w+", clip) is not None
    labels = shipped(f"data/label_splits/{split}/train_label.txt")
    return Training(
        dataset=None if cfg.DATASETS.TRAIN.endswith(".json") else cfg.DATASETS.TRAIN,
        split=split,
        seen_labels=None if split is None else tuple(read_label_file(labels)),
        iterations=checkpoint.training["iteration"],
        clip=clip if named and not cfg.MODEL.WEIGHT else None,
        continued=bool(cfg.MODEL.WEIGHT),
    )


def split_of(label_file: str) -> str | None:
    """The name of a label split that comes with stclip, by the value of TRAIN_LABEL or TEST_LABEL.

    ``data/label_splits/jhmdb/split_1/train_label.txt`` is of jhmdb/split_1.
    """
    found = _SPLIT.search(label_file)
    if found is None or not shipped(f"data/label_splits/{found[1]}/train_label.txt").is_file():
        return None
    return found[1]


def make_config(
    model: nn.Module,
    stride: int,
    groups: Mapping[str, str] | None,
    templates: Sequence[str],
    training: Training,
    dtype: str,
) -> dict[str, Any]:
    """What config.json says of a model.

    Args:
        model: ST-CLIP.
        stride: from one frame of a window to the next.
        groups: of class names, or None.
        templates: in which the names are read.
        training: what is known of it.
        dtype: what the weights will be stored as.

    Raises:
        UserError: it is another model, or there is no such dtype.
    """
    if not isinstance(model, STCLIP):
        raise UserError(
            f"found {type(model).__name__}, expected ST-CLIP: only a trained ST-CLIP is published "
            "as a folder; CLIP without training is loaded by its name"
        )
    if dtype not in DTYPES:
        raise UserError(f"dtype: one of {', '.join(DTYPES)} expected, found {dtype!r}")
    lora = next((part for part in model.modules() if isinstance(part, LoRALinear)), None)
    interest, state = model.interest_tokens, model.state_dict()
    shown = config_of_state(state)
    found = {
        "TEMPORAL.ENABLED": model.window_length > 1 or shown.get("TEMPORAL.BEFORE_XCLIP", False),
        "TEMPORAL.FRAMES": model.window_length,
        **shown,
        "TEMPORAL.STRIDE": stride,
        "HEAD.TEMPERATURE": float(model.temperature),
        "HEAD.CROP_WEIGHT": float(model.crop_weight),
        "TEMPLATES": tuple(templates),
    }
    if lora is not None:
        found["LORA.ALPHA"] = float(lora.alpha)
    if interest is not None:
        found |= {
            "INTEREST_TOKENS.ENABLED": True,
            "INTEREST_TOKENS.TOP_K": interest.top_k,
            "INTEREST_TOKENS.INCLUDE_PERSON": interest.include_person,
        }
    if model.marked is not None:
        found |= {"HEAD.MARKED": model.marked, "HEAD.MARKED_WEIGHT": float(model.marked_weight)}
    values = dict(flatten(get_cfg_defaults().MODEL)) | found
    return {
        "format": FORMAT,
        "stclip_version": stclip.__version__,
        "dtype": dtype,
        "activation": model.clip.activation,
        "clip": _sizes(state, "the model"),
        "model": {key: values[key] for key in SETTINGS},
        "groups": None if groups is None else dict(groups),
        "training": asdict(training),
    }


def write_folder(
    folder: str | Path, model: nn.Module, config: dict[str, Any], card: str, overwrite: bool = False
) -> None:
    """Write the three files; none of them gets its name before all are written.

    Args:
        folder: made if it is not there; other files in it are left alone.
        model: whose weights are saved.
        config: ``make_config`` of it.
        card: the text of README.md.
        overwrite: replace the three files if they exist.

    Raises:
        UserError: one of the files exists, cannot be written, or the weights do not fit its dtype.
    """
    folder = Path(folder)
    for name in () if overwrite else (WEIGHTS, CONFIG, CARD):
        if (folder / name).exists():
            raise UserError(
                f"{folder / name}: exists already; choose another folder or allow to overwrite"
            )
    dtype = config["dtype"]
    state = {
        name: tensor.detach().to("cpu", DTYPES[dtype]).contiguous()
        for name, tensor in model.state_dict().items()
    }
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{name}: is not finite as {dtype}: choose another dtype, or another checkpoint"
            )
    with (
        atomic_path(folder / CARD) as readme,
        atomic_path(folder / CONFIG) as settings,
        atomic_path(folder / WEIGHTS) as weights,
    ):
        try:
            save_file(state, weights, metadata={"format": "pt"})
        except SafetensorError as error:  # it hides what the system said
            raise OSError(f"{error} (no space left?)") from error
        settings.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        readme.write_text(card, "utf-8")


def read_folder(folder: Path) -> Published:
    """The model that a folder holds, in float32.

    Raises:
        UserError: a file is missing or damaged, is of another format, or the two do not agree.
    """
    found = read_config(folder / CONFIG)
    found.model = _read_weights(folder / WEIGHTS)
    _compare(found, folder)
    return found


def read_config(path: Path) -> Published:
    """What config.json says, without weights.

    Raises:
        UserError: it is missing, damaged, not of stclip, of another format, or has a key or value
            that it should not have.
    """
    if not path.is_file():
        raise UserError(
            f"{path.parent}: found no {path.name} in this folder; expected a model that stclip "
            "saved as a folder. Of a training's folder name a checkpoint (model_<iteration>.pth)"
        )
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path}: is larger than any config of stclip ({_MOST_BYTES >> 20} MB)")
    config = read_json(path)
    form = config.get("format") if isinstance(config, dict) else None
    if form != FORMAT:
        newer = isinstance(form, str) and form.startswith("stclip-model/")
        raise UserError(
            f"{path}: format {FORMAT!r} expected, found {form!r:.60}: "
            + (
                "another version of stclip wrote it, use that one"
                if newer
                else "this is no model of stclip"
            )
        )
    _check_keys(config, _KEYS, str(path))
    parts = {name: config[name] for name in ("clip", "model", "training")}
    for name, keys in (("model", SETTINGS), ("training", tuple(asdict(Training())))):
        _check_keys(parts[name], keys, f"{path}: {name}")
    sizes = parts["clip"]
    right = {
        "stclip_version": isinstance(config["stclip_version"], str),
        "dtype": config["dtype"] in list(DTYPES),
        "activation": config["activation"] in list(ACTIVATIONS),
        "clip": isinstance(sizes, dict) and all(type(size) is int for size in sizes.values()),
        "groups": _are_groups(config["groups"]),
    }
    right |= {f"training: {key}": ok for key, ok in _check_training(parts["training"]).items()}
    wrong = [name for name, ok in right.items() if not ok]
    if wrong:
        raise UserError(
            f"{path}: {wrong[0]}: found a value that stclip does not write; is the file damaged?"
        )
    seen = parts["training"]["seen_labels"]
    return Published(
        {},
        config=_settings(parts["model"], path),
        groups=config["groups"],
        activation=config["activation"],
        facts=Training(
            **{**parts["training"], "seen_labels": None if seen is None else tuple(seen)}
        ),
        sizes=sizes,
    )


def _settings(model: dict[str, Any], path: Path) -> str:
    """Config keys as a checkpoint keeps them, once their values are seen to be right."""
    text = json.dumps({f"MODEL.{key}": value for key, value in model.items()}, ensure_ascii=False)
    cfg = saved_config(text, str(path))
    try:
        validate(cfg)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    for key in ("FRAMES", "STRIDE"):
        if cfg.MODEL.TEMPORAL[key] > _LONGEST_WINDOW:
            raise UserError(
                f"{path}: MODEL.TEMPORAL.{key}: at most {_LONGEST_WINDOW} expected, found "
                f"{cfg.MODEL.TEMPORAL[key]}"
            )
    return text


def _check_keys(found: Any, expected: Sequence[str], where: str) -> None:
    if not isinstance(found, dict):
        raise UserError(f"{where}: an object of keys and values expected, found {found!r:.60}")
    lacking = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    if lacking or unknown:
        what = f"the key {lacking[0]} is missing" if lacking else f"unknown key {unknown[0]!r:.80}"
        raise UserError(f"{where}: {what}; was it written by another version of stclip?")


def _are_groups(found: Any) -> bool:
    return found is None or (
        isinstance(found, dict) and all(_is_text(k) and v in GROUPS for k, v in found.items())
    )


def _check_training(found: dict[str, Any]) -> dict[str, bool]:
    """For each fact of ``Training`` whether it is None or of the right type."""
    right = {key: _is_text(found[key]) for key in ("dataset", "split", "clip")}
    seen, iterations = found["seen_labels"], found["iterations"]
    right["seen_labels"] = isinstance(seen, list) and all(map(_is_text, seen))
    right["iterations"] = type(iterations) is int and iterations >= 0
    right["continued"] = isinstance(found["continued"], bool)
    return {key: ok or found[key] is None for key, ok in right.items()}


def _is_text(found: Any) -> bool:
    """Whether it is a short line: it may come to stand in a model card."""
    return isinstance(found, str) and found.isprintable() and len(found) <= _LONGEST_TEXT


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, and of no other kind of file."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; expected next to {CONFIG}")
    try:
        with open(path, "rb") as file:
            head = file.read(16)
        if head[8:9] != b"{":
            remedy = (
                "run `git lfs pull` in this clone"
                if head == b"version https://"
                else "no other format is read from a folder"
            )
            raise UserError(f"{path}: safetensors expected, found something else; {remedy}")
        state = load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{path}: found a damaged file of weights ({error}); is it cut short? Fetch it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    check_floats(state, str(path), _ALL_WEIGHTS)
    return {name: tensor.float() for name, tensor in state.items()}


def _compare(found: Published, folder: Path) -> None:
    """Refuse weights of another model than config.json says."""
    settings = saved_config(found.config, str(folder / CONFIG)).MODEL
    shown = _sizes(found.model, str(folder / WEIGHTS)) | config_of_state(found.model)
    told = found.sizes | dict(flatten(settings))
    for key, value in shown.items():
        if told.get(key) != value:
            raise UserError(
                f"{folder / CONFIG}: {key} is {told.get(key)!r:.60}, but {WEIGHTS} has {value!r}: "
                "the two do not belong together, or weights are missing; fetch both again"
            )


def _sizes(state: Mapping[str, Tensor], source: str) -> dict[str, int]:
    """The sizes of the CLIP in ST-CLIP."""
    bare = {
        name.removeprefix("clip."): tensor
        for name, tensor in state.items()
        if name.startswith("clip.")
    }
    return vars(clip_sizes(bare, source, _ALL_WEIGHTS))
