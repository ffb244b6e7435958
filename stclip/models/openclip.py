"""CLIPs of open_clip (the extra ``open_clip``), named ``open_clip:MODEL/TAG``.

TAG is a published training of MODEL, or a file of its weights. Where CLIP of clip.py can hold the
model, weights.py makes one of it; ``OpenCLIP`` is for all others, whose two towers can be used and
not taken apart.

Weights are downloaded once, to the cache of Hugging Face, and read without running code in them.
"""

import difflib
import importlib
import logging
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.files import read_json
from stclip.models.clip import HEAD_WIDTH, normalize_pixels
from stclip.structures import Needs

logger = logging.getLogger(__name__)

PREFIX = "open_clip:"
EXTRA = 'pip install "stclip[open_clip]"'

# What CLIP of clip.py takes in any size; all else has to be as open_clip has it by default.
_ANY = {
    "model": {
        "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale",
        "init_logit_bias", "nonscalar_logit_scale",
    },
    "vision_cfg": {"image_size", "patch_size", "width", "layers", "patch_dropout"},
    "text_cfg": {"context_length", "width", "heads", "layers"},
}  # fmt: skip
# open_clip's names of what Needs knows.
_FITS: dict[str, Literal["crop", "squash"]] = {"shortest": "crop", "squash": "squash"}
_INTERPOLATIONS: dict[str, Literal["bicubic", "bilinear"]] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
}
# Read by tokenizers of Hugging Face; no file among them holds code.
_TOKENIZER_FILES = ("*.json", "*.txt", "*.model")
# Of an open_clip_config.json.
_GROUPS = ("model_cfg", "preprocess_cfg")


@dataclass(frozen=True)
class Pictures:
    """How a model's pictures were made in its training.

    Attributes:
        mean: of each channel, of pixels from 0 to 1.
        std: of each channel.
        fit: how they became square, see ``Needs``.
        interpolation: how they were resized.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Literal["crop", "squash"]
    interpolation: Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Found:
    """A model that open_clip knows, before anything is downloaded.

    Attributes:
        source: as it was named.
        model: open_clip's name of it.
        config: open_clip's ``model_cfg``.
        weights: a file, or ``owner/name/file`` on Hugging Face.
        pictures: what it takes.
        quick_gelu: whether it was trained with QuickGELU.
    """

    source: str
    model: str
    config: dict[str, Any]
    weights: Path | str
    pictures: Pictures
    quick_gelu: bool

    def unlike_clip(self) -> str:
        """What keeps CLIP of clip.py from holding the model; "" if nothing does."""
        package = _package(self.source)
        vision, text = self.config["vision_cfg"], self.config["text_cfg"]
        if trunk := vision.get("timm_model_name"):
            pool = vision.get("timm_pool", "avg")
            return f"its image tower is timm's {trunk} (pooling {pool!r})"
        if isinstance(vision.get("layers"), list | tuple):
            return "its image tower is a ResNet"
        if isinstance(vision.get("image_size"), list | tuple):
            return f"its pictures are {vision['image_size']} pixels"
        found = sorted(self.config.keys() - _ANY["model"])
        for part, defaults in (
            ("vision_cfg", package.CLIPVisionCfg()),
            ("text_cfg", package.CLIPTextCfg()),
        ):
            found += [
                f"{part} {key} {value!r}"
                for key, value in self.config[part].items()
                if key not in _ANY[part] and value != getattr(defaults, key, None)
            ]
        width, heads = text.get("width", 512), text.get("heads", 8)
        if width != heads * HEAD_WIDTH:
            found.append(f"text_cfg width {width} with {heads} heads")
        if found:
            return f"it has {', '.join(found)}"
        if (self.pictures.fit, self.pictures.interpolation) != ("crop", "bicubic"):
            how = f"{self.pictures.interpolation}, {self.pictures.fit}"
            return f"its pictures are resized in another way ({how})"
        return ""


class OpenCLIP(nn.Module):
    """The two towers of a model of open_clip, in eval mode, with its tokenizer and its pictures.

    Args:
        found: the model.
        model: open_clip's module.
        tokenizer: open_clip's.

    Attributes:
        name: the model's.
        needs: the pictures that it takes.
        embed_dim: E.
        text_length: T, tokens of a text.
        activation: says that the towers are open_clip's own.
    """

    def __init__(self, found: Found, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.towers: Any = model.eval()
        self.name = found.model
        self.activation = "open_clip's"
        self.embed_dim = int(found.config["embed_dim"])
        self.text_length = int(tokenizer.context_length)
        self._tokenizer, self._pictures = tokenizer, found.pictures
        self.needs = Needs(
            _side(model, found),
            fit=found.pictures.fit,
            interpolation=found.pictures.interpolation,
        )

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.needs.image_size

    @property
    def temperature(self) -> float:
        """What cosines were divided by in the training."""
        return float((-self.towers.logit_scale.detach()).exp())

    def normalize(self, pixels: Tensor) -> Tensor:
        """What ``encode_image`` takes, from (..., 3, H, W) uint8 RGB."""
        return normalize_pixels(pixels, self._pictures.mean, self._pictures.std)

    def encode_image(self, images: Tensor) -> Tensor:
        """Image features, not normalised: (B, 3, H, W) from ``normalize`` -> (B, E)."""
        return self.towers.encode_image(images, normalize=False)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text features, not normalised: (C, T) token ids from ``tokenize`` -> (C, E)."""
        return self.towers.encode_text(tokens, normalize=False)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (n, T) long; a text that is too long is cut."""
        return self._tokenizer(list(texts))

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has with start and end of text: above T where it would be cut."""
        # open_clip's own tokenizer pads with zeros, those of Hugging Face with an id of theirs that
        # may be the end's as well: that a text is cut shows in the longer of two only.
        padding = getattr(getattr(self._tokenizer, "tokenizer", None), "pad_token_id", 0)
        cut, whole = (
            int((self._tokenizer([text], context_length=length) != padding).sum())
            for length in (self.text_length, 4 * self.text_length)
        )
        return whole if whole == cut else max(whole, self.text_length + 1)


def is_open_clip(source: str | Path) -> bool:
    """Whether MODEL.CLIP names a model of open_clip."""
    return str(source).startswith(PREFIX)


def find(source: str) -> Found:
    """Look a model up.

    Args:
        source: ``open_clip:MODEL/TAG``, or a path in the place of TAG.

    Raises:
        UserError: open_clip is not installed, or knows no such model or training; the file is not
            there; or what ``open_clip_config.json`` beside it says cannot be used.
    """
    package = _package(source)
    model, _, place = source.removeprefix(PREFIX).partition("/")
    config = package.get_model_config(model) if model in package.list_models() else None
    if config is None:
        close = difflib.get_close_matches(model, package.list_models(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "open_clip.list_models() has all"
        raise UserError(f"{source}: open_clip has no model {model!r}; {hint}")
    trainings = {
        tag: package.get_pretrained_cfg(model, tag)
        for tag in package.list_pretrained_tags_by_model(model)
    }
    training = package.get_pretrained_cfg(model, place) if place else {}
    if training:
        quick_gelu = bool(training.get("quick_gelu", False))
        pictures = _pictures(training, source)
        return Found(source, model, config, training["hf_hub"], pictures, quick_gelu)
    path = Path(place).expanduser()
    if not place or not path.is_file():
        known = f"one of {', '.join(trainings)}, or a file" if trainings else "a file of weights"
        wrong = (
            f"{place!r}, which is neither a training of {model} nor a file" if place else "nothing"
        )
        raise UserError(f"{source}: found {wrong}, expected {known} after '{model}/'")
    beside = path.with_name("open_clip_config.json")
    told = read_json(beside) if beside.is_file() else {}
    groups = [told.get(key) if isinstance(told, dict) else None for key in _GROUPS]
    own, preprocess = (group if isinstance(group, dict) else {} for group in groups)
    quick_gelu = bool(own.get("quick_gelu", config.get("quick_gelu", False)))
    if preprocess:
        return Found(source, model, config, path, _pictures(preprocess, str(beside)), quick_gelu)
    ways = {_pictures(one, source) for one in trainings.values()} or {_pictures({}, source)}
    if len(ways) > 1:
        ways = {_pictures({}, source)}
        logger.warning(
            "%s: published trainings of %s normalise or resize pictures in different ways, and "
            "OpenAI's is taken; put the model's open_clip_config.json beside the file if it was "
            "another",
            *(source, model),
        )
    return Found(source, model, config, path, ways.pop(), quick_gelu)


def load_open_clip(found: Found) -> OpenCLIP:
    """A model with its tokenizer, on the CPU in float32.

    Raises:
        UserError: something cannot be downloaded or read, or is not of this model.
    """
    tokenizer = _tokenizer(found)  # first: it is the smaller one, and fails the sooner
    return OpenCLIP(found, create(found), tokenizer)


def create(found: Found) -> nn.Module:
    """open_clip's module with its weights, on the CPU in float32.

    Raises:
        UserError: the weights cannot be downloaded or read, or are not of this model.
    """
    path = found.weights if isinstance(found.weights, Path) else _download(found)
    package = _package(found.source)
    try:
        with _quiet():
            return package.create_model(
                found.model,
                str(path),
                require_pretrained=True,
                weights_only=True,
                quick_gelu=found.quick_gelu,
            )
    except Exception as error:  # whatever open_clip, torch, safetensors or timm stumble over
        raise UserError(
            f"{path}: open_clip cannot load this as the weights of {found.model} "
            f"({_reason(error)}); is it damaged, or another model's?"
        ) from error


def _download(found: Found) -> Path:
    """The file of a published training."""
    owner, _, file = str(found.weights).rpartition("/")
    names = (
        (f"{Path(file).stem}.safetensors", file)
        if file
        else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    )
    for name in names:
        try:
            path = _from_hub(owner, (name,), found) / name
        except UserError as error:
            raise UserError(f"{error}, or name a file: {PREFIX}{found.model}/FILE") from error
        if path.is_file():
            return path
    raise UserError(f"{found.source}: {owner} on Hugging Face has none of {', '.join(names)}")


def _from_hub(owner: str, patterns: Sequence[str], found: Found) -> Path:
    """The folder with some files of a model of Hugging Face."""
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        with _quiet():
            # Other ways to download would try for minutes where there is no network.
            return Path(hub.snapshot_download(owner, allow_patterns=list(patterns)))
    except Exception as error:  # of the network, of the disk
        raise UserError(
            f"{found.source}: {', '.join(patterns)} of {owner} cannot be downloaded from Hugging "
            f"Face ({_reason(error)}); without a network, run this where there is one and copy its "
            "cache (HF_HOME)"
        ) from error


def _tokenizer(found: Found) -> Any:
    """open_clip's tokenizer of a model."""
    package = _package(found.source)
    text = found.config["text_cfg"]
    name = text.get("hf_tokenizer_name")
    if not name:
        return package.get_tokenizer(found.model)
    folder = Path(name) if Path(name).is_dir() else _from_hub(name, _TOKENIZER_FILES, found)
    try:
        with _quiet():
            return package.tokenizer.HFTokenizer(
                str(folder),
                context_length=text.get("context_length", 77),
                tokenizer_mode=text.get("tokenizer_mode"),
                **text.get("tokenizer_kwargs") or {},
            )
    except ImportError as error:
        raise UserError(
            f"{found.source}: its tokenizer needs a package that is not installed "
            f"({_reason(error)}): {EXTRA}"
        ) from error
    except Exception as error:  # whatever transformers stumbles over
        raise UserError(
            f"{found.source}: its tokenizer {name} cannot be loaded from {folder} "
            f"({_reason(error)})"
        ) from error


def _pictures(config: Mapping[str, Any], source: str) -> Pictures:
    """What a ``preprocess_cfg``, or the entry of a training, says; open_clip's default for more."""
    defaults = vars(_package(source).transform.PreprocessCfg())
    given = {key: value for key, value in config.items() if value is not None}
    merged = {**defaults, **given}
    fit, interpolation = str(merged["resize_mode"]), str(merged["interpolation"])
    mean, std = _numbers(merged["mean"]), _numbers(merged["std"])
    if fit not in _FITS or interpolation not in _INTERPOLATIONS:
        raise UserError(
            f"{source}: found pictures resized with resize_mode {fit:.40} and interpolation "
            f"{interpolation:.40}, expected {' or '.join(_FITS)} and "
            f"{' or '.join(_INTERPOLATIONS)}: take another model"
        )
    if mean is None or std is None or min(std) <= 0:
        raise UserError(
            f"{source}: found mean {merged['mean']!r:.60} and std {merged['std']!r:.60}, expected "
            "three numbers each, of std above 0"
        )
    return Pictures(mean, std, _FITS[fit], _INTERPOLATIONS[interpolation])


def _numbers(values: Any) -> tuple[float, float, float] | None:
    """A number for each channel, or None if it is something else."""
    if not isinstance(values, list | tuple) or len(values) != 3:
        return None
    if not all(type(value) in (int, float) and abs(value) < 1e3 for value in values):
        return None
    red, green, blue = map(float, values)
    return red, green, blue


def _side(model: nn.Module, found: Found) -> int:
    size = _package(found.source).get_model_preprocess_cfg(model)["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UserError(
            f"{found.source}: found pictures of {width} x {height} pixels, expected square ones: "
            "take another model"
        )
    return int(height)


def _package(source: str) -> Any:
    """open_clip; by its name, because the types of the package would take the type checker long."""
    try:
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise UserError(
            f"{source}: needs the package open_clip_torch, which is not installed: {EXTRA}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from logging, which sets up the root logger, and from our random numbers."""
    root, silent = logging.getLogger(), logging.NullHandler()
    before = root.manager.disable
    root.addHandler(silent)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(silent)


def _reason(error: Exception) -> str:
    return textwrap.shorten(str(error), 200, placeholder=" ...") or type(error).__name__
