"""Models as folders."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import stclip
from stclip.config import get_cfg_defaults
from stclip.engine.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from stclip.errors import UserError
from stclip.hub.folder import Training, training_of
from stclip.hub.remote import read_weights
from stclip.models.baselines import Baseline
from stclip.models.stclip import STCLIP, InterestTokens
from stclip.models.xclip import CrossFrameCLIP
from tests.footage.make import drawn_frame, write_film
from tests.helpers import load_command, tiny_model
from tests.hub.make import LABELS, detector, scores

Change = Callable[[dict[str, Any]], Any]


def load(folder: Path) -> stclip.Detector:
    return stclip.load(folder, LABELS, "cpu")


def unusual() -> stclip.Detector:
    """What no weight shows is other than by default."""
    model = STCLIP(
        tiny_model(lora_rank=0, text_length=20).clip,
        temporal=False,
        temperature=0.05,
        interest_tokens=InterestTokens(4, include_person=True),
        prompt_layers=[1],
        prompt_depth=2,
        crop_weight=0.3,
        marked="mask",
        marked_weight=0.2,
    )
    model.clip.use_activation("gelu")
    groups = {"wave": "person", "sit down": "pose"}
    return stclip.Detector(model, LABELS, groups, window_stride=3, templates=["ä {}", "{}"])


def lora(alpha: float) -> stclip.Detector:
    ours = detector(lora_rank=3)
    for part in ours.model.modules():
        if hasattr(part, "lora_A"):
            part.alpha, part.scale = alpha, alpha / 3
    return ours


@pytest.mark.parametrize(
    "make",
    [
        unusual,
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (detector, lambda: detector(kind=CrossFrameCLIP), lambda: lora(0.7))
        ),
    ],
)
def test_there_and_back(make: Callable[[], stclip.Detector], tmp_path: Path) -> None:
    ours = make()
    ours.save_pretrained(tmp_path / "model")
    theirs = load(tmp_path / "model")
    np.testing.assert_array_equal(scores(theirs), scores(ours))
    theirs.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        files = (tmp_path / folder / name for folder in ("model", "again"))
        assert len({path.read_bytes() for path in files}) == 1


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_half_the_size(dtype: str, saved: Path, tmp_path: Path) -> None:
    ours = load(saved)
    ours.save_pretrained(tmp_path, dtype=dtype)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (saved, tmp_path)]
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.01)
    theirs = load(tmp_path)
    assert {tensor.dtype for tensor in theirs.model.state_dict().values()} == {torch.float32}
    np.testing.assert_allclose(scores(theirs), scores(ours), atol=0.02)


def test_what_cannot_be_saved(saved: Path, tmp_path: Path) -> None:
    baseline = Baseline(tiny_model(lora_rank=0).clip, frame=True, crop=False)
    with pytest.raises(UserError, match="found Baseline, expected ST-CLIP"):
        stclip.Detector(baseline, LABELS).save_pretrained(tmp_path)
    ours = load(saved)
    with pytest.raises(UserError, match="dtype: one of float32"):
        ours.save_pretrained(tmp_path, dtype="int8")
    with pytest.raises(UserError, match=r"README\.md: exists already|safetensors: exists already"):
        ours.save_pretrained(saved)
    ours.model.state_dict()["clip.ln_final.bias"][0] = 1e5
    with pytest.raises(UserError, match=r"clip\.ln_final\.bias: is not finite as float16"):
        ours.save_pretrained(tmp_path, dtype="float16")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "README.md").write_text("mine")
    ours.save_pretrained(tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_text() != "mine"


def set_to(*path: str, value: Any) -> Change:
    def change(config: dict[str, Any]) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("format", value="stclip-model/2"), "another version of stclip wrote it"),
        (set_to("format", value=None), "found None: this is no model of stclip"),
        (set_to("weights_file", value="/etc/passwd"), "unknown key 'weights_file'"),
        (lambda config: config.pop("groups"), "the key groups is missing"),
        (set_to("dtype", value=["float32"]), "dtype: found a value"),
        (set_to("activation", value="relu"), "activation: found a value"),
        (set_to("groups", value={"wave": "animal"}), "groups: found a value"),
        (set_to("clip", value=[]), "clip: found a value"),
        (set_to("clip", "vision_layers", value=3), "vision_layers is 3, but .* has 2"),
        (set_to("model", value=7), "model: an object of keys and values expected"),
        (set_to("model", "WEIGHT", value="/x.pth"), "model: unknown key 'WEIGHT'"),
        (lambda config: config["model"].pop("LORA.ALPHA"), r"the key LORA\.ALPHA is missing"),
        (set_to("model", "LORA.ALPHA", value="x"), r"MODEL\.LORA\.ALPHA: float expected"),
        (set_to("model", "HEAD.TEMPERATURE", value=0.0), r"TEMPERATURE: a number above 0"),
        (set_to("model", "HEAD.TEMPERATURE", value=float("nan")), "TEMPERATURE"),
        (set_to("model", "BACKBONE", value="resnet"), r"MODEL\.BACKBONE: one of clip, xclip"),
        (set_to("model", "TEMPORAL.STRIDE", value=10**9), "STRIDE: at most 10000"),
        (set_to("model", "TEMPORAL.FRAMES", value=5), r"TEMPORAL\.FRAMES is 5, but .* has 9"),
        (set_to("model", "TEMPLATES", value=["no place"]), r"MODEL\.TEMPLATES: texts with one"),
        (set_to("training", "clip", value="a\nb"), "training: clip: found a value"),
        (set_to("training", "iterations", value=True), "training: iterations: found a value"),
        (set_to("training", "seen_labels", value=[1]), "training: seen_labels: found a value"),
    ],
)
def test_a_config_that_is_wrong(change: Change, message: str, saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    with pytest.raises(UserError, match=rf"config\.json: .*{message}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("clip.visual.ln_post.bias"), "found no visual.ln_post.bias"),
        (lambda state: state.pop("clip.text_projection"), "found no text_projection"),
        (lambda state: state.pop("person_tokens.norm.bias"), "1 missing .*person_tokens.norm.bias"),
        (set_to("more", value=torch.zeros(1)), r"1 unknown \(first: more\)"),
        (set_to("person_tokens.norm.bias", value=torch.zeros(3)), r"has shape \(3,\)"),
        (set_to("more", value=torch.zeros(1, dtype=torch.long)), "tensors of whole numbers"),
        (
            lambda state: [state.pop(n) for n in list(state) if n.startswith("person_tokens.")],
            r"PERSON_TOKENS\.ENABLED is True, but model\.safetensors has False",
        ),
    ],
)
def test_weights_that_are_wrong(
    change: Callable[[dict[str, torch.Tensor]], Any], message: str, saved: Path, tmp_path: Path
) -> None:
    state = load_file(saved / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").symlink_to(saved / "config.json")
    with pytest.raises(UserError, match=f"^{tmp_path}.*{message}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file; expected next to config.json"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"PK\x03\x04" + bytes(99), "safetensors expected"),
        (b"\x80\x02}q\x00." + bytes(99), "safetensors expected"),
        (b"", "safetensors expected"),
        (bytes([40, 0, 0, 0, 0, 0, 0, 0]) + b'{"a": ', "a damaged file of weights"),
    ],
)
def test_files_that_are_no_weights(
    content: bytes | None, message: str, saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").symlink_to(saved / "config.json")
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=rf"model\.safetensors: .*{message}"):
        load(tmp_path)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no config\.json in this folder; .*name a checkp"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(" " * (2 << 20))
    with pytest.raises(UserError, match="is larger than any config"):
        load(tmp_path)


def test_the_training_cannot_be_scaled(saved: Path) -> None:
    """Its start is not in a folder."""
    cfg = get_cfg_defaults()
    cfg.merge_from_list(["MODEL.SCALE", 0.5, "MODEL.WEIGHT", str(saved)])
    found = read_weights(saved)
    with pytest.raises(UserError, match=r"MODEL\.SCALE: .* does not say how its training started"):
        load_command("test").apply_scale(cfg, found, load(saved).model)


# ---------------------------------------------------------------- what is known of the training
SPLIT = "data/label_splits/jhmdb/split_1"


def trained(state: dict[str, torch.Tensor], *pairs: Any) -> Checkpoint:
    """A checkpoint as a training leaves it."""
    cfg = get_cfg_defaults()
    cfg.merge_from_list(list(pairs))
    return Checkpoint(state, cfg.dump(), {"iteration": 7})


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (
            ("TRAIN_LABEL", f"{SPLIT}/train_label.txt"),
            {"dataset": "jhmdb", "split": "jhmdb/split_1", "clip": "ViT-B/16"},
        ),
        (("DATASETS.TRAIN", "/home/ada/own.json", "MODEL.CLIP", "/home/ada/clip.pt"), {}),
        (
            ("DATASETS.TRAIN", "puppet", "MODEL.CLIP", "puppet", "MODEL.WEIGHT", "/home/ada/a.pth"),
            {"dataset": "puppet", "continued": True},
        ),
        (("TRAIN_LABEL", "/etc/passwd"), {"dataset": "jhmdb", "clip": "ViT-B/16"}),
        (
            ("TRAIN_LABEL", "data/label_splits/../../x/train_label.txt"),
            {"dataset": "jhmdb", "clip": "ViT-B/16"},
        ),
    ],
)
def test_facts_of_a_training(pairs: tuple[str, ...], expected: dict[str, Any]) -> None:
    found = asdict(training_of(trained({}, *pairs)))
    seen = found.pop("seen_labels")
    assert (seen or ())[:2] == (("brush_hair", "pick") if "split" in expected else ())
    nothing = dict.fromkeys(("dataset", "split", "clip"))
    assert found == {**nothing, "continued": False, "iterations": 7, **expected}


def test_nothing_is_known_of_weights_alone() -> None:
    assert training_of(Checkpoint({})) == Training()
    assert training_of(Checkpoint({}, reference={"rest": {"iteration": 5}})).iterations == 5


# ---------------------------------------------------------------- the command, and the model card
RESULTS = {
    "frame_mAP@0.5": 49.625,
    "frame_mAP@0.75": None,
    "per_class@0.5": {"catch": 50.0, "jump": None},
    "keyframes": 3,
    "weight": "output/model_0000007.pth",
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "inference" / "puppet"
    folder.mkdir(parents=True)
    cfg = get_cfg_defaults()
    cfg.merge_from_list(["DATASETS.TEST", "puppet", "TEST_LABEL", f"{SPLIT}/test_label.txt"])
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "metrics.json").write_text(json.dumps(RESULTS))
    return folder


def test_the_command(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert = load_command("convert").main
    source = tmp_path / "model_0000007.pth"
    state = tiny_model(text_length=20).state_dict()
    pairs = ("MODEL.LORA.RANK", 2, "TRAIN_LABEL", f"{SPLIT}/train_label.txt")
    save_checkpoint(source, trained(state, *pairs))
    out = tmp_path / "published"
    words = ["--to", "hub", "--license", "mit", "--results", str(results), str(source), str(out)]
    assert convert([*words, "--name", "ada/stclip-tiny"]) == 0
    assert "model.safetensors: " in capsys.readouterr().out
    np.testing.assert_array_equal(scores(load(out)), scores(load(source)))

    card = huggingface_hub.ModelCard.load(out / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "mit"
    assert (data["library_name"], data["pipeline_tag"]) == ("stclip", "video-classification")
    assert (data["datasets"], data["base_model"]) == (["jhmdb"], "openai/clip-vit-base-patch16")
    (found,) = card.data.eval_results
    assert (found.metric_type, found.metric_value) == ("frame mAP at 0.5", 49.62)
    text = card.content
    assert "# stclip-tiny" in text
    assert "| trained on | J-HMDB, seen classes of split jhmdb/split_1 |" in text
    assert "| iterations | 7 |" in text
    assert "trained on (15; any other name is zero-shot): `brush_hair`, `pick`," in text
    assert "`stclip test` of `model_0000007.pth` on puppet (drawn by stclip), test classes" in text
    assert "| frame mAP at 0.5 | 49.62 |" in text
    assert "each class: `catch` 50.00." in text
    assert "None" not in text
    assert str(tmp_path) not in text

    with pytest.raises(UserError, match="exists already; choose another OUT or add --overwrite"):
        convert(words)
    other = source.rename(tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"are of model_0000007\.pth, expected of other\.pth"):
        convert([*words[:-2], str(other), str(tmp_path / "again")])
    with pytest.raises(UserError, match=r"--license: belongs to --to hub"):
        convert(["--to", "stclip", "--license", "mit", str(other), str(tmp_path / "b.pth")])
    convert(["--to", "stclip", str(out), str(tmp_path / "back.pth")])
    first, second = (read_checkpoint(path).model for path in (other, tmp_path / "back.pth"))
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_results_without_numbers(results: Path, saved: Path, tmp_path: Path) -> None:
    (results / "metrics.json").write_text(json.dumps({**RESULTS, "frame_mAP@0.5": None}))
    with pytest.raises(UserError, match="found no frame mAP"):
        load(saved).save_pretrained(tmp_path / "model", results=results)


def test_a_card_says_nothing_that_is_not_known(saved: Path) -> None:
    text = (saved / "README.md").read_text()
    assert "## Results" not in text
    assert "trained on |" not in text
    assert "started from |" not in text
    assert "license:" not in text
    assert "None" not in text


def test_the_snippet_of_a_card_runs(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"(?ms)^```python\n(.+?)^```", (saved / "README.md").read_text())
    assert f'stclip.load("{saved.name}"' in code
    monkeypatch.chdir(tmp_path)
    (tmp_path / saved.name).symlink_to(saved)
    write_film(tmp_path / "party.mp4", [drawn_frame(240, 160, [(100.0, 30.0, 110.0)])] * 4)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["scores"].shape == (1, 3)
    assert np.isfinite(names["scores"]).all()
