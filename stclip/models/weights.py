"""Weights of CLIP and X-CLIP: the list of models, and the reading of files of every format.

Weights do not show which activation function they were trained with, nor the width of heads. The
model's config beside them (``config.json``, ``open_clip_config.json``), the program of a
TorchScript archive, or the model's name in that of the file or folder tells the activation; without
any of these QuickGELU is taken, with a warning. Heads are 64 wide; a config that has others is
refused.
"""

import difflib
import logging
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.files import read_json
from stclip.models.clip import ACTIVATIONS, CLIP, HEAD_WIDTH, PIXEL_MEAN, PIXEL_STD
from stclip.models.download import download, download_xclip, xclip_models
from stclip.models.formats import (
    POSITIONS,
    XCLIP_EXPECTED,
    clip_sizes,
    is_hugging_face,
    openai_names,
    unwrap,
    with_clips_pixels,
    xclip_names,
    xclip_sizes,
)
from stclip.models.lora import LoRALinear
from stclip.models.openclip import Found, OpenCLIP, create, find, is_open_clip, load_open_clip
from stclip.models.tensor_files import read_tensors, script_activation, shorten
from stclip.models.xclip import XCLIP, resize_positions

logger = logging.getLogger(__name__)

_OPENAI = "https://openaipublic.azureedge.net/clip/models"


class _Model(NamedTuple):
    file: str
    sha256: str

    @property
    def url(self) -> str:
        return f"{_OPENAI}/{self.sha256}/{self.file}"


# Source: openai/CLIP, clip/clip.py.
_MODELS = {
    "ViT-B/32": _Model(
        "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    ),
    "ViT-B/16": _Model(
        "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    ),
    "ViT-L/14": _Model(
        "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    ),
    "ViT-L/14@336px": _Model(
        "ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    ),
}

# Activation functions by names of models, as open_clip's list of published weights has them.
_NAMED_ACTIVATIONS = (
    (r"quick[-_]?gelu", "quick_gelu"),
    (r"openai|metaclip|dfn[25]b", "quick_gelu"),
    (r"(b[-_]?32|patch32).*laion[-_]?400m", "quick_gelu"),
    (r"laion|datacomp|commonpool", "gelu"),
    (r"\bmodel_ViT-", "gelu"),  # a training of open_clip's, with a model that is not -quickgelu
)

# The small CLIP that comes with the package, and its file in assets/ (puppet_clip.md tells more).
PUPPET = "puppet"
PUPPET_FILE = "puppet_clip.safetensors"

# What a folder of a published model may call its weights, in the order in which they are tried.
_FILES_OF_A_FOLDER = (
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


def available_models() -> list[str]:
    """The names that ``load_clip`` knows: those that it downloads, and the small one at hand."""
    return [*_MODELS, PUPPET]


def load_clip(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    lora_rank: int = 0,
    lora_alpha: float = 1.0,
    activation: str = "auto",
) -> CLIP:
    """Load CLIP, in float32 and in eval mode.

    Args:
        name_or_path: one of ``available_models()``, or a file or folder. OpenAI's models are
            downloaded once; "puppet" is part of this package. ``open_clip:MODEL/TAG``: a model of
            open_clip (openclip.py), if it is a CLIP with a plain vision transformer.
        device: where to.
        lora_rank: rank of LoRA on the MLPs of the image tower; 0 leaves it out.
        lora_alpha: LoRA's scale times its rank.
        activation: the function in the MLPs that the weights were trained with, quick_gelu or gelu.
            auto: what is recognised (see the head of this module), else quick_gelu with a warning.

    Raises:
        UserError: the name or the file is unknown, the file is damaged or not CLIP's, the download
            fails, or the activation is none of these.
    """
    _check_activation(activation)
    source = str(name_or_path)
    if is_open_clip(source):
        return _clip_of_open_clip(find(source), lora_rank, lora_alpha, activation).to(device)
    if source in _MODELS:
        path = download(_MODELS[source].url, _MODELS[source].sha256)
    elif source == PUPPET:
        path = Path(str(files("stclip") / "assets" / PUPPET_FILE))
        if not path.exists():
            raise UserError(
                f"{path}: the weights of {PUPPET} are not there, though they are part of the "
                "package: install it again, or make them with stclip puppet pretrain"
            )
    else:
        path = _existing(name_or_path, available_models(), "CLIP")
    state, recognised = _read_clip(path)
    if source in available_models():
        recognised = "quick_gelu"
    model = clip_from_state_dict(state, lora_rank, lora_alpha, source=source)
    model.use_activation(_choose_activation(activation, recognised, source))
    return model.to(device)


def load_towers(source: str | Path, activation: str = "auto") -> CLIP | OpenCLIP:
    """What encodes pictures and texts, in float32 on the CPU and in eval mode.

    Args:
        source: of ``load_clip``, or any ``open_clip:MODEL/TAG``.
        activation: of ``load_clip``; auto where open_clip's own towers compute.

    Raises:
        UserError: as ``load_clip``.
    """
    if not is_open_clip(source):
        return load_clip(source, activation=activation)
    _check_activation(activation)
    found = find(str(source))
    if not found.unlike_clip():
        return _clip_of_open_clip(found, activation=activation)
    if activation != "auto":
        raise UserError(
            f"{source}: open_clip's own towers know their activation; auto expected for "
            f"MODEL.CLIP_ACTIVATION, found {activation}"
        )
    return load_open_clip(found)


def _clip_of_open_clip(
    found: Found, lora_rank: int = 0, lora_alpha: float = 1.0, activation: str = "auto"
) -> CLIP:
    """A model of open_clip as ``CLIP``, with its pixels worked into the weights where they differ.

    Raises:
        UserError: ``CLIP`` cannot hold it, or its weights cannot be loaded.
    """
    if reason := found.unlike_clip():
        raise UserError(
            f"{found.source}: {reason}, and here CLIP's vision transformer with a class token and "
            f"heads of width {HEAD_WIDTH} and CLIP's text tower are expected: use it with "
            "MODEL.NAME frame_crop, frame or crop, or take another MODEL.CLIP"
        )
    state = openai_names(create(found).state_dict(), found.source)
    state.pop("logit_bias", None)  # the same for all classes
    state["logit_scale"] = state["logit_scale"].reshape(())
    mean, std = found.pictures.mean, found.pictures.std
    if (mean, std) != (PIXEL_MEAN, PIXEL_STD):
        state = with_clips_pixels(state, mean, std)
    model = clip_from_state_dict(state, lora_rank, lora_alpha, found.source)
    trained = "quick_gelu" if found.quick_gelu else "gelu"
    if isinstance(found.weights, Path) and activation == "auto":
        named = name_activation([found.weights.name, found.weights.absolute().parent.name])
        if named not in (None, trained):
            logger.warning(
                "%s: computed with %s as %s is, though the name of the file is one of weights that "
                "were trained with %s; set MODEL.CLIP_ACTIVATION",
                *(found.source, trained, found.model, named),
            )
    model.use_activation(_choose_activation(activation, trained, found.source))
    return model


def load_xclip(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    frames: int | None = None,
    activation: str = "auto",
) -> XCLIP:
    """Load X-CLIP, in float32 and in eval mode.

    Args:
        name_or_path: a file of its authors or a state dict of ``torch.save``, a file or folder of
            Hugging Face, or one of the published files' names without ``.pth``, such as "k400_16_8"
            (Kinetics-400, patches of 16 pixels, 8 frames) or "zero"; it is downloaded once.
        device: where to.
        frames: T, the number of frames of a video; by default what the weights were trained for.
            Positions are interpolated for another, with a warning: they were not trained for it.
        activation: the function in the MLPs of both towers, quick_gelu or gelu. auto: what a config
            of Hugging Face beside the weights says, else quick_gelu, as in all published weights.

    Raises:
        UserError: the name or the file is unknown, the file is damaged or not X-CLIP's, the
            download fails, ``frames`` is below 1, or the activation is none of these.
    """
    _check_activation(activation)
    source = str(name_or_path)
    if frames is not None and frames < 1:
        raise UserError(f"frames: found {frames}, expected at least 1")
    known = source in xclip_models()
    path = download_xclip(source) if known else _existing(name_or_path, xclip_models(), "X-CLIP")
    path = _file_of_weights(path)
    held = unwrap(read_tensors(path), str(path), XCLIP_EXPECTED)
    state = xclip_names(held, str(path))
    config, recognised = path.with_name("config.json"), "quick_gelu"
    if is_hugging_face(held) and config.is_file():
        recognised = config_activation(read_json(config), str(config), hugging_face=True)
    trained = xclip_sizes(state, source).frames
    if frames is not None and frames != trained:
        warnings.warn(
            f"{source}: trained for videos of {trained} frames; the positions of {frames} "
            "are interpolated: expect lower accuracy",
            stacklevel=2,
        )
        state[POSITIONS] = resize_positions(state[POSITIONS], frames)
    model = xclip_from_state_dict(state, source)
    model.use_activation(_choose_activation(activation, recognised, source))
    return model.to(device)


def xclip_from_state_dict(state: Mapping[str, Tensor], source: str = "state dict") -> XCLIP:
    """Build the X-CLIP that a state dict in the names of ``XCLIP`` holds, in float32 and eval mode.

    Args:
        state: the weights, which are copied.
        source: what error messages call the state dict.

    Raises:
        UserError: weights are missing, unexpected or of the wrong shape.
    """
    with torch.device("meta"):  # nothing is initialised only to be overwritten
        model = XCLIP(xclip_sizes(state, source))
    _fill(model, state, source, "an X-CLIP")
    return model.eval()


def is_xclip(name_or_path: str | Path) -> bool:
    """Whether a name or a file is X-CLIP's: of a file, whether it has multi-frame integration.

    Raises:
        UserError: it is no name of CLIP's or X-CLIP's and no file, or the file cannot be read.
    """
    if is_open_clip(name_or_path):
        return False
    clip, xclip = available_models(), xclip_models()
    if str(name_or_path) in (*clip, *xclip):
        return str(name_or_path) in xclip
    path = _file_of_weights(_existing(name_or_path, [*clip, *xclip], "CLIP or X-CLIP"))
    held = unwrap(read_tensors(path), str(path), "expected CLIP or X-CLIP")
    return any(name.startswith("mit.") for name in held)


def clip_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a file of CLIP weights, whatever its format.

    Args:
        path: OpenAI's TorchScript archive, a state dict of ``torch.save``, safetensors, or a folder
            as open_clip or Hugging Face publish them.

    Returns:
        {OpenAI's name: float32 tensor on the CPU}.

    Raises:
        UserError: the file is missing, damaged, or not CLIP's with a vision transformer.
    """
    return _read_clip(Path(path))[0]


def clip_from_state_dict(
    state: Mapping[str, Tensor],
    lora_rank: int = 0,
    lora_alpha: float = 1.0,
    source: str = "state dict",
    kind: type[CLIP] = CLIP,
) -> CLIP:
    """Build the CLIP that a state dict in OpenAI's names holds, in float32 and in eval mode.

    Args:
        state: the weights, which are copied. Those of LoRA may be absent, all of them; LoRA then
            starts as the identity.
        lora_rank: rank of LoRA on the MLPs of the image tower; 0 leaves it out.
        lora_alpha: LoRA's scale times its rank.
        source: what error messages call the state dict.
        kind: a class of the same arguments.

    Raises:
        UserError: weights are missing, unexpected or of the wrong shape.
    """
    with torch.device("meta"):  # nothing is initialised only to be overwritten
        model = kind(clip_sizes(state, source), lora_rank, lora_alpha)
    lora = {name for name in model.state_dict() if name.endswith((".lora_A", ".lora_B"))}
    optional = lora if lora.isdisjoint(state) else set()  # a part of it would make no sense
    _fill(model, state, source, "a CLIP with a vision transformer", optional)
    if optional:
        for module in model.modules():
            if isinstance(module, LoRALinear):
                module.reset_lora()
    return model.eval()


def config_activation(config: Any, source: str, hugging_face: bool) -> str:
    """The activation function that a model's own config tells of: quick_gelu or gelu.

    The weights themselves show neither it nor the number of heads, which is checked here.

    Args:
        config: a parsed ``config.json`` (Hugging Face) or ``open_clip_config.json``.
        source: what error messages call it.
        hugging_face: which of the two it is.

    Raises:
        UserError: the model uses another activation, two of them, or heads of another width.
    """
    config = config if isinstance(config, dict) else {}
    if hugging_face:  # what transformers takes where a key is absent: quick_gelu
        towers = [_merged(config, f"{tower}_config") for tower in ("vision", "text")]
        named = {str(tower.get("hidden_act", "quick_gelu")) for tower in towers if tower}
        heads = all(
            _is_product(tower["hidden_size"], tower["num_attention_heads"])
            for tower in towers
            if {"hidden_size", "num_attention_heads"} <= tower.keys()
        )
    else:  # what open_clip takes where a key is absent: plain GELU, heads of width 64, 8 heads
        model = _merged(config, "model_cfg")
        named = {"quick_gelu" if model.get("quick_gelu", False) else "gelu"}
        vision, text = _merged(model, "vision_cfg"), _merged(model, "text_cfg")
        text_heads = _is_product(text.get("width", 512), text.get("heads", 8))
        heads = vision.get("head_width", HEAD_WIDTH) == HEAD_WIDTH and text_heads
        mean = _merged(config, "preprocess_cfg").get("mean")
        if mean is not None and str(mean) != str(list(PIXEL_MEAN)):
            logger.warning(
                "%s: trained on pictures normalised with the mean %.40s, and here they are with "
                "OpenAI's, %s: expect lower accuracy",
                *(source, mean, list(PIXEL_MEAN)),
            )
    if len(named) > 1 or not named <= {"quick_gelu", "gelu"}:
        raise UserError(
            f"{source}: found a model with {' and '.join(sorted(named))}, expected quick_gelu or "
            "gelu in both towers: take another model"
        )
    if not heads:
        raise UserError(
            f"{source}: found heads of another width, expected {HEAD_WIDTH} as in OpenAI's models: "
            "take the weights of a ViT-B or ViT-L"
        )
    return next(iter(named), "quick_gelu")


def name_activation(names: Iterable[str]) -> str | None:
    """The activation function that names of models and their files tell of; None: nothing does.

    Args:
        names: such as ``ViT-B-32-quickgelu``, or ``vit_l_14-laion400m_e32-3d133497.pt``.
    """
    for name in names:
        for pattern, activation in _NAMED_ACTIVATIONS:
            if re.search(pattern, name, re.IGNORECASE):
                return activation
    return None


def _is_product(width: Any, heads: Any) -> bool:
    return type(width) is int and type(heads) is int and width == heads * HEAD_WIDTH


def _merged(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A group of a config; older files of transformers have a second one, which wins."""
    groups = (config.get(key), config.get(f"{key}_dict"))
    return {name: value for g in groups if isinstance(g, Mapping) for name, value in g.items()}


def _read_clip(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """What ``clip_state_dict`` gives, and the activation function if anything tells it."""
    path = _file_of_weights(path)
    contents = read_tensors(path)
    state = unwrap(contents, str(path))
    hugging_face = is_hugging_face(state)
    renamed = openai_names(state, str(path))
    config = path.with_name("config.json" if hugging_face else "open_clip_config.json")
    if config.is_file():
        return renamed, config_activation(read_json(config), str(config), hugging_face)
    return renamed, script_activation(path) or name_activation(_names(path, contents))


def _names(path: Path, contents: Any) -> list[str]:
    """What a file of weights, its folder, and a training program call the model."""
    told = contents.get("name") if isinstance(contents, Mapping) else None  # open_clip's
    # Hugging Face keeps downloads in models--<owner>--<name>/snapshots/<commit>/.
    cached = [part for part in path.absolute().parts if part.startswith("models--")]
    return [name for name in (told, path.name, path.absolute().parent.name, *cached) if name]


def _check_activation(activation: str) -> None:
    if activation not in ("auto", *ACTIVATIONS):
        raise UserError(
            f"activation: one of auto, {', '.join(ACTIVATIONS)} expected, found {activation!r}"
        )


def _choose_activation(wanted: str, recognised: str | None, source: str) -> str:
    """The activation function to compute with; a line in the log where that may be wrong."""
    if wanted == "auto" and recognised is None:
        logger.warning(
            "%s: nothing tells whether these weights were trained with QuickGELU (OpenAI's) or "
            "plain GELU (most of open_clip's), and QuickGELU is taken; set MODEL.CLIP_ACTIVATION, "
            "or activation of stclip.load_clip, to quick_gelu or gelu",
            source,
        )
    elif wanted != "auto" and recognised not in (None, wanted):
        logger.warning("%s: computed with %s, but was trained with %s", source, wanted, recognised)
    return (recognised or "quick_gelu") if wanted == "auto" else wanted


def _existing(name_or_path: str | Path, names: list[str], kind: str) -> Path:
    """The path, or an error that names the models that could have been meant."""
    source, path = str(name_or_path), Path(name_or_path).expanduser()
    if not path.exists():
        close = difflib.get_close_matches(source, names, n=1, cutoff=0.6)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(
            f"{source}: no such file or folder, and not the name of a model{hint}; "
            f"expected a file of {kind} weights or one of {', '.join(names)}"
        )
    return path


def _file_of_weights(path: Path) -> Path:
    """The file, also where a folder is given that holds it."""
    if not path.is_dir():
        return path
    held = [path / name for name in _FILES_OF_A_FOLDER if (path / name).is_file()]
    if not held:
        raise UserError(f"{path}: found none of {', '.join(_FILES_OF_A_FOLDER)} in this folder")
    return held[0]


def _fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    kind: str,
    optional: Collection[str] = (),
) -> None:
    """Give a model without values copies of exactly its weights; ``optional`` ones stay empty."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in state and name not in optional]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        found = [f"no {shorten(missing)}"] * bool(missing)
        found += [f"unexpected {shorten(unexpected)}"] * bool(unexpected)
        raise UserError(
            f"{source}: found {' and '.join(found)}; expected exactly the {len(expected)} weights "
            f"of {kind}: is this another model?"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{source}: found {name} of shape {tuple(tensor.shape)}, expected "
                f"{tuple(expected[name].shape)} beside the other weights: is this another model?"
            )
    # The copies become the parameters: what the caller does with the state dict does not matter.
    values = {name: tensor.detach().to(torch.float32, copy=True) for name, tensor in state.items()}
    values.update({name: torch.empty(expected[name].shape) for name in optional})
    model.load_state_dict(values, assign=True)
