"""From config keys and weights to the model that they name."""

import logging
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stclip.config import load_config
from stclip.errors import UserError
from stclip.models import fast
from stclip.models import xclip as of_xclip
from stclip.models.baselines import Baseline
from stclip.models.build import (
    build_model,
    config_of_state,
    cross_frame_clip,
    encode_labels,
    xclip_from,
)
from stclip.models.clip import CLIP, CLIPSizes, normalize_pixels
from stclip.models.stclip import STCLIP
from stclip.models.weights import is_xclip, load_clip
from stclip.models.xclip import XCLIP, CrossFrameCLIP, XCLIPSizes, is_new
from tests.helpers import SMALL_SIZES, random_batch, tiny_model

TEXT = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
OFF = {
    "MODEL.PERSON_TOKENS.ENABLED": "person_tokens.",
    "MODEL.TEMPORAL.ENABLED": "context_tokens.",
    "MODEL.PROMPT.ENABLED": "context_prompting.",
}


@pytest.fixture
def clip_file(tmp_path: Path) -> str:
    path = tmp_path / "clip.safetensors"
    save_file(tiny_model(lora_rank=0).clip.state_dict(), path)
    return str(path)


def build(*pairs: str, state: dict[str, Tensor] | None = None) -> STCLIP | Baseline:
    return build_model(load_config(None, pairs), state)


def test_wordings_of_a_name_are_averaged() -> None:
    model = tiny_model(0).eval()
    one, first, second = encode_labels(model, ["run", "a person runs", "jogging"])
    both, alone = encode_labels(model, ["run | a person runs | jogging", "run"])
    torch.testing.assert_close(alone, one)
    directions = torch.nn.functional.normalize(torch.stack([first, second]), dim=1)
    cosines = directions @ (both / both.norm())
    torch.testing.assert_close(cosines[0], cosines[1])  # half way between the two
    torch.testing.assert_close(both.norm(), (first.norm() + second.norm()) / 2)
    with pytest.raises(UserError, match=r"TEST_LABEL, line 3: label 'jog jog .* tokens"):
        encode_labels(model, [f"run | {'jog ' * 99}"], lambda name: "TEST_LABEL, line 3")


def test_templates_are_averaged_as_wordings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(0).eval()
    worded = ["run | a run | a jog | so run | so jog", "sit | a sit | so sit"]
    expected = encode_labels(model, worded)
    monkeypatch.setattr("stclip.models.build._TEXTS", 4)
    found = encode_labels(model, ["run | run | jog", "sit"], templates=["a {}", "so {}"])
    torch.testing.assert_close(found, expected)
    with pytest.raises(UserError, match=r"label 'jog jog .* tokens"):
        encode_labels(model, ["run"], templates=["jog " * 99 + "{}"])


def test_a_part_that_is_off_has_no_parameters(clip_file: str) -> None:
    whole = build("MODEL.CLIP", clip_file).state_dict().keys()
    for key, prefix in OFF.items():
        model = build("MODEL.CLIP", clip_file, key, "False")
        names = model.state_dict().keys()
        assert names == {name for name in whole if not name.startswith(prefix)}
        again = build(key, "False", state=model.state_dict())
        assert again.state_dict().keys() == names


@pytest.mark.parametrize("key", OFF)
def test_weights_and_config_must_agree_about_the_parts(clip_file: str, key: str) -> None:
    part = build("MODEL.CLIP", clip_file, key, "False").state_dict()
    with pytest.raises(UserError, match=f"{key} is True, but the file .* has False"):
        build(state=part)
    whole = build("MODEL.CLIP", clip_file).state_dict()
    with pytest.raises(UserError, match=f"{key} is False, but the file .* has True"):
        build(key, "False", state=whole)


def test_a_state_dict_tells_the_config(clip_file: str) -> None:
    pairs = ("MODEL.TEMPORAL.FRAMES", "5", "MODEL.PROMPT.ENABLED", "False", "MODEL.LORA.RANK", "3")
    found = config_of_state(build("MODEL.CLIP", clip_file, *pairs).state_dict())
    assert found == {
        "BACKBONE": "clip",
        "PERSON_TOKENS.ENABLED": True,
        "TEMPORAL.ENABLED": True,
        "TEMPORAL.FRAMES": 5,
        "TEMPORAL.DEPTH": 1,
        "PROMPT.ENABLED": False,
        "LORA.RANK": 3,
    }


ABLATED = ("MODEL.PROMPT.LAYERS", "[2]", "MODEL.PROMPT.DEPTH", "2", "MODEL.TEMPORAL.DEPTH", "3")


def test_prompts_of_some_layers_and_deeper_parts(clip_file: str) -> None:
    model = build("MODEL.CLIP", clip_file, *ABLATED)
    names = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert {name.split(".")[2] for name in names if name.startswith("context_prompting.")} == {"1"}
    assert "context_prompting.prompts.1.decoder.1.norm1" in names
    assert "context_tokens.deeper.1.ln_1" in names
    logits = model.train()(random_batch([2, 1], frames=6), TEXT).logits
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name

    state = model.state_dict()
    found = config_of_state(state)
    keys = ("PROMPT.LAYERS", "PROMPT.DEPTH", "TEMPORAL.DEPTH")
    assert [found[key] for key in keys] == [(2,), 2, 3]
    again = build(*ABLATED, state=state).eval()(random_batch([2, 1], frames=6), TEXT).logits
    torch.testing.assert_close(again, logits)
    with pytest.raises(UserError, match=r"MODEL.TEMPORAL.DEPTH is 1, but the file .* has 3"):
        build(*ABLATED[:4], state=state)
    with pytest.raises(UserError, match=r"MODEL.PROMPT.LAYERS is \(\), but the file .* has \(2,\)"):
        build(*ABLATED[2:], state=state)
    with pytest.raises(UserError, match=r"numbers from 1 to 2 expected.*found \(0, 3\)"):
        build("MODEL.CLIP", clip_file, "MODEL.PROMPT.LAYERS", "(0, 3)")
    every = build("MODEL.CLIP", clip_file, "MODEL.PROMPT.LAYERS", "(2, 1)").state_dict()
    assert every.keys() == build("MODEL.CLIP", clip_file, state=every).state_dict().keys()


def test_the_temporal_embedding_starts_as_the_released_one(clip_file: str) -> None:
    stds = [
        build("MODEL.CLIP", clip_file, *pairs).context_tokens.temporal_embedding.std().item()
        for pairs in ((), ("MODEL.TEMPORAL.INIT_STD", "0.01"))
    ]
    assert stds == pytest.approx([1, 0.01], rel=0.2)


def test_with_everything_off_clip_is_left(clip_file: str) -> None:
    pairs = ["MODEL.CLIP", clip_file, "MODEL.LORA.RANK", "0"]
    pairs += [word for key in OFF for word in (key, "False")]
    model, batch = build(*pairs), random_batch([2, 0, 1])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    frame = build("MODEL.CLIP", clip_file, "MODEL.NAME", "frame")
    with torch.inference_mode():
        found, expected = model(batch, TEXT).logits, frame(batch, TEXT).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    again = build(*pairs, state=model.state_dict())
    assert again.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["frame", "crop", "frame_crop"])
def test_a_baseline_of_a_checkpoint_is_its_clip_without_lora(clip_file: str, name: str) -> None:
    expected = build("MODEL.CLIP", clip_file, "MODEL.NAME", name).state_dict()
    trained = build("MODEL.CLIP", clip_file).state_dict()
    for parameter in trained:
        if ".lora_" in parameter:
            trained[parameter] = torch.randn_like(trained[parameter])
    found = build("MODEL.NAME", name, state=trained)
    assert isinstance(found, Baseline)
    assert not found.training
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in found.state_dict().items())


@torch.no_grad()
def test_marked_persons(clip_file: str) -> None:
    """Without a weight nothing changes, and no boxes are needed."""
    pairs, batch = ("MODEL.CLIP", clip_file), random_batch([2, 0, 1])
    state = build(*pairs).state_dict()
    expected = build(*pairs, state=state)(batch, TEXT).logits
    off = build(*pairs, "MODEL.HEAD.MARKED", "mask", state=state)
    assert torch.equal(off(replace(batch, frame_boxes=None), TEXT).logits, expected)
    logits = []
    for how in ("blur", "mask"):
        keys = ("MODEL.HEAD.MARKED", how, "MODEL.HEAD.MARKED_WEIGHT", "0.5")
        logits.append(build(*pairs, *keys, state=state)(batch, TEXT).logits)
        assert build(*pairs, *keys, "MODEL.NAME", "marked").marked == how
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    assert not torch.allclose(logits[0], expected, atol=1e-3)


def test_a_baseline_of_weights_without_clip(clip_file: str) -> None:
    state = {n: t for n, t in tiny_model().state_dict().items() if not n.startswith("clip.")}
    with pytest.raises(UserError, match=r"MODEL\.WEIGHT: found no visual\.conv1\.weight"):
        build("MODEL.NAME", "crop", state=state)


def test_interest_tokens(clip_file: str) -> None:
    pairs = ("MODEL.CLIP", clip_file, "MODEL.INTEREST_TOKENS.ENABLED", "True")
    key = "MODEL.INTEREST_TOKENS.TOP_K"
    model = build(*pairs, key, "3")
    assert model.interest_tokens.top_k == 3
    assert not model.interest_tokens.include_person  # the figure marks context tokens only
    also = build(*pairs, key, "3", "MODEL.INTEREST_TOKENS.INCLUDE_PERSON", "True")
    assert also.interest_tokens.include_person
    assert build(*pairs, key, "10").interest_tokens.top_k == 10
    with pytest.raises(UserError, match=f"{key}: at most the 10 class and patch tokens .* 11"):
        build(*pairs, key, "11")
    assert build("MODEL.CLIP", clip_file).interest_tokens is None


def test_from_clip_the_shared_places_hold_clips_weights(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = xclip_from("puppet", frames=3)
    assert "freshly initialised" in caplog.text
    assert model.frames == 3
    assert not model.training
    clip = load_clip("puppet").state_dict()
    state = model.state_dict()
    for name, tensor in clip.items():
        assert torch.equal(state[name], tensor), name
    assert {name for name in state if name not in clip} == {name for name in state if is_new(name)}


def test_the_new_parts_start_as_the_authors_do() -> None:
    torch.manual_seed(0)
    model = xclip_from("puppet", frames=3)
    for name, parameter in model.named_parameters():
        if not is_new(name):
            continue
        if name.endswith("alpha"):
            assert torch.equal(parameter, torch.full_like(parameter, 0.1))
        elif name.startswith(("mit.", "prompts_generator")) and name.endswith("bias"):
            assert not parameter.any(), name
        elif name.startswith(("mit.", "prompts_generator")) and parameter.ndim == 2:
            if "in_proj" not in name:
                assert float(parameter.std()) == pytest.approx(0.02, rel=0.05), name
        elif name.endswith("message_fc.weight"):  # nn.Linear's: uniform up to 1 / sqrt(width)
            assert float(parameter.detach().abs().max()) == pytest.approx(128**-0.5, rel=0.01)
    again = xclip_from("puppet", frames=3)
    assert not torch.equal(again.mit.positional_embedding, model.mit.positional_embedding)


def test_from_xclip_everything_is_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = XCLIP(XCLIPSizes(**SMALL_SIZES, frames=4))
    torch.save(held.state_dict(), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO):
        model = xclip_from(str(tmp_path / "x.pth"), frames=4)
    assert "with all its weights" in caplog.text
    for name, tensor in held.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    with pytest.warns(UserWarning, match="interpolated"):
        assert xclip_from(str(tmp_path / "x.pth"), frames=6).frames == 6


def test_a_file_tells_whose_it_is(tmp_path: Path) -> None:
    torch.save({"model": XCLIP(XCLIPSizes(**SMALL_SIZES)).state_dict()}, tmp_path / "x.pth")
    torch.save(CLIP(CLIPSizes(**SMALL_SIZES)).state_dict(), tmp_path / "clip.pt")
    assert is_xclip(tmp_path / "x.pth")
    assert is_xclip("k400_16_8")
    assert not is_xclip(tmp_path / "clip.pt")
    assert not is_xclip("ViT-B/16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xclip_from(str(tmp_path / "clip.pt"), frames=5).frames == 5


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such file.*CLIP or X-CLIP"):
        xclip_from("nowhere", frames=8)
    with pytest.raises(UserError, match="frames: found 0"):
        xclip_from("puppet", frames=0)
    torch.save(
        CLIP(CLIPSizes(**{**SMALL_SIZES, "embed_dim": 96})).state_dict(), tmp_path / "odd.pt"
    )
    with pytest.raises(UserError, match="joint space of width 96, expected a multiple of 64"):
        xclip_from(str(tmp_path / "odd.pt"), frames=8)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt"):
        xclip_from(str(tmp_path / "other.pt"), frames=8)


XCLIP_PAIRS = ("MODEL.BACKBONE", "xclip")


@pytest.fixture
def xclip() -> XCLIP:
    torch.manual_seed(0)
    return XCLIP(XCLIPSizes(48, 16, 64, 2, 64, 1, 64, frames=4)).eval()


@pytest.fixture
def xclip_file(tmp_path: Path, xclip: XCLIP) -> str:
    path = tmp_path / "xclip.pth"
    torch.save(xclip.state_dict(), path)
    return str(path)


def build_xclip(*pairs: str, state: dict[str, torch.Tensor] | None = None) -> STCLIP:
    model = build_model(load_config(None, [*XCLIP_PAIRS, *pairs]), state)
    assert isinstance(model, STCLIP)
    return model


@torch.no_grad()
def test_from_xclip_with_pixels_as_clips(xclip: XCLIP, xclip_file: str) -> None:
    """X-CLIP's own features, though the pixels come with CLIP's statistics."""
    model = cross_frame_clip(xclip_file, lora_rank=2)
    pixels = torch.randint(256, (3, 3, 48, 48), generator=torch.Generator().manual_seed(2))
    expected = xclip.encode_image(normalize_pixels(pixels, of_xclip.PIXEL_MEAN, of_xclip.PIXEL_STD))
    found = model.encode_image(normalize_pixels(pixels))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(xclip.encode_image(normalize_pixels(pixels)), expected, atol=1e-3)
    changed = {"visual.conv1.weight", "visual.positional_embedding"}
    theirs = xclip.state_dict()
    for name, tensor in model.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(tensor, theirs[name]) == (name not in changed), name
    assert not any(name.startswith(("mit.", "prompts_")) for name in model.state_dict())


def test_from_clip_the_messages_are_fresh(clip_file: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = cross_frame_clip(clip_file, lora_rank=2)
    assert "freshly initialised" in caplog.text
    shared = tiny_model(lora_rank=0).clip.state_dict()
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in shared.items())
    rest = set(state) - set(shared)
    assert all(".message_" in name or ".lora_" in name for name in rest)
    for block in model.visual.transformer.resblocks:
        assert block.message_fc.weight.std().item() == pytest.approx(1 / 3**0.5 / 8, rel=0.1)
        assert not block.message_attn.in_proj_bias.any()
        assert not block.mlp.c_fc.lora_B.any()


def test_a_checkpoint_goes_there_and_back(clip_file: str) -> None:
    pairs = ("MODEL.TEMPORAL.BEFORE_XCLIP", "True", "MODEL.TEMPORAL.FRAMES", "5")
    for extra in ((), pairs):
        model = build_xclip("MODEL.CLIP", clip_file, *extra)
        assert isinstance(model.clip, CrossFrameCLIP)
        again = build_xclip(*extra, state=model.state_dict())
        batch = random_batch([1, 2], length=model.window_length)
        with torch.no_grad():
            assert torch.equal(model(batch, TEXT).logits, again(batch, TEXT).logits)
        found = config_of_state(model.state_dict())
        assert found["BACKBONE"] == "xclip"
        assert found["TEMPORAL.BEFORE_XCLIP"] == bool(extra)
        assert "TEMPORAL.ENABLED" not in found


def test_the_temporal_block_is_off_unless_it_is_asked_for(clip_file: str) -> None:
    model = build_xclip("MODEL.CLIP", clip_file)
    assert model.context_tokens is None
    assert model.window_length == 9
    assert (
        build_xclip("MODEL.CLIP", clip_file, "MODEL.TEMPORAL.ENABLED", "False").window_length == 1
    )
    mixing = build_xclip("MODEL.CLIP", clip_file, "MODEL.TEMPORAL.BEFORE_XCLIP", "True")
    assert mixing.context_tokens is not None


def test_messages_are_frozen_if_asked_for(clip_file: str, xclip_file: str) -> None:
    def trained(model: STCLIP) -> int:
        named = model.named_parameters()
        return sum(".message_" in name and p.requires_grad for name, p in named)

    assert (
        trained(build_xclip("MODEL.CLIP", clip_file))
        == trained(build_xclip("MODEL.CLIP", xclip_file))
        > 0
    )
    frozen = ("MODEL.TRAIN_MESSAGES", "False")
    model = build_xclip("MODEL.CLIP", xclip_file, *frozen)
    assert trained(model) == 0
    assert trained(build_xclip(*frozen, state=model.state_dict())) == 0  # as --resume does it
    with pytest.raises(UserError, match=r"MODEL\.TRAIN_MESSAGES: True expected with MODEL\.CLIP"):
        build_xclip("MODEL.CLIP", clip_file, *frozen)


def test_weights_and_config_must_agree_about_the_tower(clip_file: str) -> None:
    mine = build_xclip("MODEL.CLIP", clip_file).state_dict()
    theirs = tiny_model().state_dict()
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE is clip, but the file .* has xclip"):
        build_xclip("MODEL.BACKBONE", "clip", state=mine)
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE is xclip, but the file .* has clip"):
        build_xclip(state=theirs)
    with pytest.raises(UserError, match=r"BEFORE_XCLIP is True, but the file .* has False"):
        build_xclip("MODEL.TEMPORAL.BEFORE_XCLIP", "True", state=mine)
    with pytest.raises(UserError, match=r"MODEL\.NAME frame: needs CLIP, but the file of"):
        build_model(load_config(None, ["MODEL.NAME", "frame"]), mine)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("MODEL.BACKBONE", "vit"), "MODEL.BACKBONE: one of clip, xclip expected, found 'vit'"),
        (
            ("MODEL.TEMPORAL.BEFORE_XCLIP", "True"),
            "MODEL.TEMPORAL.BEFORE_XCLIP: with it MODEL.BACKBONE xclip expected, found clip",
        ),
        (
            (
                *XCLIP_PAIRS,
                "MODEL.TEMPORAL.BEFORE_XCLIP",
                "True",
                "MODEL.TEMPORAL.ENABLED",
                "False",
            ),
            "BEFORE_XCLIP: with it MODEL.TEMPORAL.ENABLED True expected, found False",
        ),
    ],
)
def test_config_mistakes(pairs: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, pairs)


@pytest.mark.parametrize("on", [True, False])
def test_the_switch_is_a_key(clip_file: str, on: bool) -> None:
    build("MODEL.CLIP", clip_file, "MODEL.FAST", str(on))
    assert fast._on == on
