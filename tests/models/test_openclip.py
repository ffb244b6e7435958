"""Models of open_clip: against open_clip itself, with small random ones in files."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from stclip.config import get_cfg_defaults
from stclip.data.chunks import ChunkKeyframe, make_chunk
from stclip.data.frames import FrameList
from stclip.data.proposals import Proposals
from stclip.detector import Detector
from stclip.engine.compiling import compile_blocks
from stclip.errors import UserError
from stclip.footage.detect import load_model
from stclip.footage.records import Boxes
from stclip.footage.scoring import Scorer
from stclip.footage.source import Frame
from stclip.models.build import build_model
from stclip.models.clip import CLIP
from stclip.models.openclip import OpenCLIP, find
from stclip.models.weights import is_xclip, load_clip, load_towers
from stclip.structures import FrameKey
from tests.helpers import random_batch

open_clip: Any = pytest.importorskip("open_clip", reason="needs open_clip_torch (extra open_clip)")

TEXT = {"context_length": 20, "width": 64, "heads": 1, "layers": 1}
PLAIN = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 128, "layers": 2},
    "text_cfg": {**TEXT, "vocab_size": 49408},
}
# As SigLIP 2 is: timm's tower with pooling by attention, a tokenizer of its own, the last token.
SIGLIP = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none",
    },
    "text_cfg": {
        **TEXT, "context_length": 6, "vocab_size": 16, "no_causal_mask": True, "proj_bias": True,
        "pool_type": "last", "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
        "tokenizer_kwargs": {"clean": "canonicalize"},
    },
}  # fmt: skip
PREPROCESS = {
    "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "resize_mode": "squash",
    "interpolation": "bilinear",
}  # fmt: skip
WORDS = ["[PAD]", "</s>", "[UNK]", "a", "person", "wave", "waving", "sit", "walk"]
LABELS = ["wave | a person waving | waving", "sit", "Walk!"]
BOXES = np.array([[5, 2, 40, 60], [30, 10, 90, 35]], np.float32)


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tiny models that open_clip knows in this test, and no network."""
    siglip = {**SIGLIP["text_cfg"], "hf_tokenizer_name": str(tmp_path / "tokenizer")}
    configs = {"tiny-plain": PLAIN, "tiny-siglip": {**SIGLIP, "text_cfg": siglip}}
    known = {**open_clip.factory._MODEL_CONFIGS, **configs}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", known)
    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)


def no_network(name: str, **options: Any) -> str:
    raise OSError(f"no network\nfor {name}")


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of some words, in Hugging Face's files."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = tokenizers.models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="</s>", unk_token="[UNK]"
    ).save_pretrained(folder)


def write(folder: Path, model: str, quick_gelu: bool = False, **preprocess: Any) -> str:
    """Random weights, with open_clip_config.json if there is something to say; the source."""
    torch.manual_seed(1)
    theirs = open_clip.create_model(model, quick_gelu=quick_gelu)
    for tensor in theirs.state_dict().values():
        tensor += 0.02 * torch.randn(tensor.shape)  # some start as zeros and ones
    path = folder / model / "weights.safetensors"
    path.parent.mkdir()
    if model == "tiny-siglip":
        write_tokenizer(folder / "tokenizer")
    save_file({n: t.contiguous().clone() for n, t in theirs.state_dict().items()}, path)
    if preprocess or quick_gelu:
        told = {"model_cfg": {"quick_gelu": quick_gelu}, "preprocess_cfg": preprocess}
        (path.parent / "open_clip_config.json").write_text(json.dumps(told))
    return f"open_clip:{model}/{path}"


def config(source: str, name: str = "frame_crop", *pairs: Any) -> Any:
    cfg = get_cfg_defaults()
    cfg.merge_from_list(["MODEL.CLIP", source, "MODEL.NAME", name, *pairs])
    return cfg


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 100, 3), dtype=np.uint8)


@torch.no_grad()
def expected(source: str, quick_gelu: bool, preprocess: dict[str, Any]) -> torch.Tensor:
    """Cosines by open_clip alone, of ``BOXES`` and ``LABELS``."""
    model, _, path = source.removeprefix("open_clip:").partition("/")
    theirs, _, prepare = open_clip.create_model_and_transforms(
        model, path, quick_gelu=quick_gelu,
        **{f"image_{key}": value for key, value in preprocess.items()},
    )  # fmt: skip
    theirs.eval()
    whole = Image.fromarray(picture())
    crops = [whole.crop(tuple(int(side) for side in box)) for box in BOXES]
    images = theirs.encode_image(torch.stack([prepare(one) for one in [whole, *crops]]))
    words = open_clip.get_tokenizer(model)(["a person waving", "waving", "sit", "Walk!"])
    names = F.normalize(theirs.encode_text(words), dim=1)
    names = torch.stack([names[:2].mean(dim=0), *names[2:]])
    return F.cosine_similarity((images[:1] + images[1:])[:, None], names[None], dim=-1)


@pytest.mark.parametrize(
    ("model", "kind", "quick_gelu", "preprocess"),
    [
        ("tiny-plain", CLIP, False, {}),
        ("tiny-plain", CLIP, True, {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}),
        ("tiny-plain", OpenCLIP, True, PREPROCESS),
        ("tiny-siglip", OpenCLIP, False, PREPROCESS),
    ],
)
def test_scores_are_those_of_open_clip(tmp_path, model, kind, quick_gelu, preprocess) -> None:
    source = write(tmp_path, model, quick_gelu, **preprocess)
    baseline = build_model(config(source))
    assert isinstance(baseline.clip, kind)
    detector = Detector(baseline, LABELS)
    assert detector.labels == ["wave", "sit", "Walk!"]
    persons = ChunkKeyframe(FrameKey("", 1), Proposals(BOXES, np.ones(2, np.float32)))
    batch = make_chunk(FrameList([picture()]), [persons], detector.needs)
    scores = (expected(source, quick_gelu, preprocess) / 0.07).softmax(dim=1).numpy()
    np.testing.assert_allclose(detector.score_batch(batch), scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(detector.score_batch(batch, "bf16"), scores, atol=0.05)
    assert np.ptp(scores, axis=0).max() > 1e-3  # else nothing would tell persons apart


def test_own_videos(tmp_path: Path) -> None:
    source = write(tmp_path, "tiny-siglip", **PREPROCESS)
    detector, facts = load_model(LABELS, clip=source, device="cpu")
    assert facts["clip"] == source
    scorer = Scorer(detector, every=0.5, batch=1)
    persons = Boxes(BOXES, np.ones(2, np.float32), np.array([1, 2]))
    (scored,) = scorer.push(Frame(1, 0.0, picture()), persons)
    scores = (expected(source, False, PREPROCESS) / 0.01).softmax(dim=1).numpy()
    np.testing.assert_allclose(scored.scores, scores, atol=1e-4)


def test_stclip_on_a_plain_one(tmp_path: Path) -> None:
    """It is our CLIP with the same weights, and draws the same random numbers."""
    source = write(tmp_path, "tiny-plain")
    models = []
    for name, *pairs in ((source,), (source.partition("/")[2], "MODEL.CLIP_ACTIVATION", "gelu")):
        torch.manual_seed(3)
        models.append(build_model(config(name, "stclip", *pairs)))
    one, other = models
    assert one.clip.activation == other.clip.activation == "gelu"
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    batch, text = random_batch([2, 1], size=32), torch.randn(3, 64)
    assert torch.equal(one(batch, text).logits, other(batch, text).logits)


def test_published_weights_know_their_activation_and_pictures(tmp_path, monkeypatch) -> None:
    path = Path(write(tmp_path, "tiny-plain").partition("/")[2])
    entry = {"hf_hub": "me/tiny/", "quick_gelu": True, "resize_mode": "squash"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-plain", {"mine": entry})
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.extend([name, *allow_patterns])
        path.rename(path.parent / "open_clip_model.safetensors")
        return str(path.parent)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    towers = load_towers("open_clip:tiny-plain/mine")
    assert asked == ["me/tiny", "open_clip_model.safetensors"]
    assert towers.temperature == pytest.approx(0.07, rel=0.1)
    assert (towers.needs.fit, towers.needs.interpolation) == ("squash", "bicubic")
    block = towers.towers.visual.transformer.resblocks[0]
    assert isinstance(block.mlp.gelu, open_clip.transformer.QuickGELU)
    # A file of a model whose trainings all agree is taken to be like them.
    file = path.parent / "open_clip_model.safetensors"
    assert find(f"open_clip:tiny-plain/{file}").pictures.fit == "squash"
    (path.parent / "open_clip_config.json").write_text('{"preprocess_cfg": {"std": [1, 1, 0]}}')
    with pytest.raises(UserError, match=r"open_clip_config\.json: found mean .* std .*above 0"):
        find(f"open_clip:tiny-plain/{file}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-B-16-SigLIP2/webli", r"timm's vit_base_patch16_siglip_224 \(pooling 'map'\)"),
        ("EVA02-B-16/merged2b_s8b_b131k", "timm's eva02_base_patch16_clip_224"),
        ("PE-Core-B-16/meta", "timm's vit_pe_core_base_patch16_224"),
        ("ViT-H-14/laion2b_s32b_b79k", "vision_cfg head_width 80"),
        ("ViT-L-14-CLIPA/datacomp1b", "no_ln_pre True, .*pool_type 'avg'"),
        ("coca_ViT-B-32/laion2b_s13b_b90k", "multimodal_cfg"),
        ("RN50/openai", "ResNet"),
    ],
)
def test_stclip_refuses_what_it_cannot_take_apart(name: str, reason: str) -> None:
    """Before anything is downloaded."""
    with pytest.raises(UserError, match=f"^open_clip:{name}: .*{reason}.*MODEL.NAME frame_crop"):
        build_model(config(f"open_clip:{name}", "stclip"))
    with pytest.raises(UserError, match=r"MODEL\.NAME frame_crop"):
        load_clip(f"open_clip:{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-16-SigLIB2/webli", "no model 'ViT-B-16-SigLIB2'; did you mean ViT-B-16-SigLIP2"),
        ("rhubarb/webli", "no model 'rhubarb'; open_clip.list_models"),
        ("ViT-B-16-SigLIP2", "found nothing, expected one of webli, or a file after"),
        ("ViT-B-16/openia", "'openia', which is neither a .*openai, .*laion"),
        ("tiny-plain/a.pt", "'a.pt', which .* expected a file of weights"),
        ("ViT-B-16/laion2b_s34b_b88k", r"cannot be downloaded .*\(no network for .*HF_HOME.*FILE"),
        ("ViT-B-16-SigLIP2/webli", r"\*\.json, .* of timm/ViT-B-16-SigLIP2 cannot be downloaded"),
    ],
)
def test_mistakes(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_towers(f"open_clip:{name}")
    assert "\n" not in str(caught.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r'open_clip_torch.*pip install "stclip\[open_clip\]"'):
        load_towers("open_clip:ViT-B-16/openai")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(Harmful.path), "w")


@pytest.mark.parametrize("content", ["code", "others", "nothing"])
def test_files_that_are_no_weights(tmp_path: Path, content: str) -> None:
    path, Harmful.path = tmp_path / "bad.pt", tmp_path / "was_run"
    if content == "nothing":
        path.write_bytes(b"")
    else:
        others = {"visual.proj": torch.ones(2)}
        torch.save({"a": Harmful()} if content == "code" else others, path)
    with pytest.raises(UserError, match=r"bad\.pt: open_clip cannot load .*tiny-plain") as caught:
        load_towers(f"open_clip:tiny-plain/{path}")
    assert "\n" not in str(caught.value)
    assert not Harmful.path.exists()


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    source = write(tmp_path, "tiny-siglip", **PREPROCESS)
    baseline = build_model(config(source, "crop"))
    assert Detector(baseline, ["a person wave wave wave", "sit"]).labels  # six with the end
    with pytest.raises(UserError, match=r"label 'a person .* the model reads 6; shorten it"):
        Detector(baseline, ["a person wave wave wave wave", "sit"])
    with pytest.raises(UserError, match=r"MODEL\.COMPILE: False expected .*tiny-siglip"):
        compile_blocks(baseline.clip)
    with pytest.raises(UserError, match=r"auto expected for MODEL\.CLIP_ACTIVATION, found gelu"):
        build_model(config(source, "crop", "MODEL.CLIP_ACTIVATION", "gelu"))
    assert not is_xclip(source)
