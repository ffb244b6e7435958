"""The model card: README.md of a model's folder, filled from what is known of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from stclip.config import saved_config
from stclip.errors import UserError
from stclip.files import read_json
from stclip.hub.folder import split_of
from stclip.hub.remote import huggingface_hub

# OpenAI's CLIPs as the Hub calls them.
_BASES = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
_DATASETS = {"jhmdb": "J-HMDB", "ucf24": "UCF101-24", "ava": "AVA v2.2"}
_TAGS = ["zero-shot", "action-detection", "spatio-temporal-action-detection", "clip", "st-clip"]


@dataclass(frozen=True)
class Results:
    """What ``stclip test`` found.

    Attributes:
        weight: the name of the file that was tested.
        dataset: DATASETS.TEST; None for a file of the user's own.
        what: the dataset, split and boxes, in words.
        numbers: (metric, percent) for each that was measured.
        per_class: class names with their average precision.
    """

    weight: str
    dataset: str | None
    what: str
    numbers: list[tuple[str, float]]
    per_class: list[str]


def read_results(folder: str | Path) -> Results:
    """The results in a folder of ``stclip test``, OUTPUT_DIR/inference/<dataset>.

    Raises:
        UserError: metrics.json or config.yaml is missing there or damaged, or has no mAP.
    """
    path = Path(folder) / "metrics.json"
    metrics = read_json(path)
    cfg = saved_config(Path(folder) / "config.yaml")
    metrics = metrics if isinstance(metrics, dict) else {}
    numbers = [
        (_metric(key), round(value, 2))
        for key, value in metrics.items()
        if key.startswith(("frame_mAP", "H@")) and _is_number(value)
    ]
    if not numbers:
        raise UserError(f"{path}: found no frame mAP; expected what stclip test writes")
    per_class = metrics.get("per_class@0.5")
    name, split = cfg.DATASETS.TEST, split_of(cfg.TEST_LABEL)
    own = name.endswith(".json")
    what = "videos that are not published here" if own else _called(name)
    what += f", test classes of split {split}" if split else ""
    persons = "annotated" if cfg.TEST.BOXES == "ground_truth" else "detected"
    what += f", {persons} persons"
    if cfg.TEST.VOTING != "none":
        what += f", scores averaged over each {cfg.TEST.VOTING}"
    return Results(
        Path(str(metrics.get("weight"))).name,
        None if own else name,
        what,
        numbers,
        [f"{_code(n)} {v:.2f}" for n, v in (per_class or {}).items() if _is_number(v)],
    )


def make_card(
    config: dict[str, Any],
    parameters: int,
    name: str,
    license: str | None = None,
    results: Results | None = None,
) -> str:
    """The text of README.md.

    Args:
        config: what config.json says.
        parameters: how many the model has.
        name: what ``stclip.load`` is to be called with: USER/NAME, or a folder.
        license: as the Hub abbreviates it, such as mit; None leaves it out.
        results: of ``read_results``.

    Raises:
        UserError: the extra ``hub`` is not installed.
    """
    hub = huggingface_hub(f"{name}: the model card")
    training, dtype = config["training"], config["dtype"]
    clip, dataset = training["clip"], training["dataset"]
    title = name.rstrip("/").rpartition("/")[2]
    data = hub.ModelCardData(
        library_name="stclip",
        pipeline_tag="video-classification",
        tags=_TAGS,
        license=license,
        base_model=_BASES.get(clip),
        datasets=[dataset] if dataset in _DATASETS else None,
        model_name=title,
        eval_results=None if results is None else _eval_results(hub, results),
    )
    card = hub.ModelCard.from_template(
        data,
        template_str=(files("stclip.hub") / "card.jinja").read_text("utf-8"),
        title=title,
        name=name,
        version=config["stclip_version"],
        facts=_facts(config, parameters),
        seen=[_code(label) for label in training["seen_labels"] or ()],
        groups=config["groups"],
        results=results,
        note="" if dtype == "float32" else f" (before the weights were rounded to {dtype})",
        drawn=clip == "puppet",
        openai=clip in _BASES,
        origin="" if clip is None else f", {_code(clip)}",
    )
    return f"{card.content.rstrip()}\n"


def _facts(config: dict[str, Any], parameters: int) -> list[tuple[str, str]]:
    """The rows of the table."""
    clip, model, training = (config[key] for key in ("clip", "model", "training"))
    tower = "X-CLIP" if model["BACKBONE"] == "xclip" else "CLIP"
    side, patch = clip["image_size"], clip["patch_size"]
    size = parameters * (4 if config["dtype"] == "float32" else 2) / 1e6
    facts = [
        (
            "image tower",
            f"{tower}'s, {clip['vision_layers']} blocks of width {clip['vision_width']}, patches "
            f"of {patch} pixels, pictures of {side} x {side}",
        ),
        ("text tower", f"{clip['text_layers']} blocks of width {clip['text_width']}"),
        ("parts", ", ".join(_parts(model))),
        (
            "looks at",
            f"{model['TEMPORAL.FRAMES']} frames, {model['TEMPORAL.STRIDE']} apart"
            if model["TEMPORAL.ENABLED"]
            else "one frame",
        ),
        ("parameters", f"{parameters / 1e6:.1f} M, {size:.0f} MB as {config['dtype']}"),
    ]
    if training["clip"] is not None:
        facts.append(("started from", f"CLIP {_code(training['clip'])}"))
    elif training["continued"]:
        facts.append(("started from", "weights that had been trained before"))
    if training["dataset"] is not None:
        split = training["split"]
        words = f", seen classes of split {split}" if split else ""
        facts.append(("trained on", _called(training["dataset"]) + words))
    if training["iterations"] is not None:
        facts.append(("iterations", str(training["iterations"])))
    return facts


def _parts(model: dict[str, Any]) -> list[str]:
    """The parts of ST-CLIP that it has."""
    layers = model["PROMPT.LAYERS"]
    after = f"blocks {', '.join(map(str, layers))}" if layers else "every block"
    mixing = model["TEMPORAL.ENABLED"] and (
        model["BACKBONE"] == "clip" or model["TEMPORAL.BEFORE_XCLIP"]
    )
    parts = {
        "person tokens": model["PERSON_TOKENS.ENABLED"],
        "context tokens mixed over time": mixing,
        f"context prompting after {after}": model["PROMPT.ENABLED"],
        f"LoRA of rank {model['LORA.RANK']}": model["LORA.RANK"],
        f"{model['INTEREST_TOKENS.TOP_K'] or 'all'} interest tokens": model[
            "INTEREST_TOKENS.ENABLED"
        ],
        f"the crop's feature with weight {model['HEAD.CROP_WEIGHT']:g}": model["HEAD.CROP_WEIGHT"],
        f"the marked keyframe's feature with weight {model['HEAD.MARKED_WEIGHT']:g}": model[
            "HEAD.MARKED_WEIGHT"
        ],
        f"class names read in {len(model['TEMPLATES'])} templates": model["TEMPLATES"],
    }
    return [name for name, there in parts.items() if there] or ["CLIP alone"]


def _eval_results(hub: Any, results: Results) -> list[Any]:
    """The same numbers for the Hub's own pages."""
    return [
        hub.EvalResult(
            task_type="video-classification",
            task_name="Zero-shot action detection",
            dataset_type=results.dataset or "own",
            dataset_name=results.what,
            metric_type=name,
            metric_value=value,
        )
        for name, value in results.numbers
    ]


def _metric(key: str) -> str:
    """``frame_mAP_seen@0.5`` in words."""
    name, _, threshold = key.partition("@")
    words = {"H": "harmonic mean of unseen and seen frame mAP", "frame_mAP": "frame mAP"}
    named = words.get(name, f"frame mAP, {name.removeprefix('frame_mAP_')} classes")
    return f"{named} at {threshold}"


def _called(dataset: str) -> str:
    drawn = dataset.startswith("puppet")
    return f"{dataset} (drawn by stclip)" if drawn else _DATASETS.get(dataset, dataset)


def _code(text: str) -> str:
    """A text that Markdown shows as it is, also in a table."""
    return f"`{text.replace('`', chr(39)).replace('|', '/')}`"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
