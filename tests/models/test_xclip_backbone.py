"""X-CLIP's image tower for ST-CLIP: which weights it starts from, and in which config."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stclip.config import load_config
from stclip.errors import UserError
from stclip.models import xclip as of_xclip
from stclip.models.build import build_model, config_of_state
from stclip.models.clip import normalize_pixels
from stclip.models.cross_frame import CrossFrameCLIP
from stclip.models.stclip import STCLIP
from stclip.models.xclip import XCLIP
from stclip.models.xclip_backbone import cross_frame_clip
from tests.helpers import random_batch, tiny_model

TEXT = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
XCLIP_PAIRS = ("MODEL.BACKBONE", "xclip")


@pytest.fixture
def clip_file(tmp_path: Path) -> str:
    path = tmp_path / "clip.safetensors"
    save_file(tiny_model(lora_rank=0).clip.state_dict(), path)
    return str(path)


@pytest.fixture
def xclip() -> XCLIP:
    torch.manual_seed(0)
    return XCLIP(48, 16, 64, 2, 64, 1, 64, frames=4).eval()


@pytest.fixture
def xclip_file(tmp_path: Path, xclip: XCLIP) -> str:
    path = tmp_path / "xclip.pth"
    torch.save(xclip.state_dict(), path)
    return str(path)


def build(*pairs: str, state: dict[str, torch.Tensor] | None = None) -> STCLIP:
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
        model = build("MODEL.CLIP", clip_file, *extra)
        assert isinstance(model.clip, CrossFrameCLIP)
        again = build(*extra, state=model.state_dict())
        batch = random_batch([1, 2], length=model.window_length)
        with torch.no_grad():
            assert torch.equal(model(batch, TEXT).logits, again(batch, TEXT).logits)
        found = config_of_state(model.state_dict())
        assert found["BACKBONE"] == "xclip"
        assert found["TEMPORAL.BEFORE_XCLIP"] == bool(extra)
        assert "TEMPORAL.ENABLED" not in found


def test_the_temporal_block_is_off_unless_it_is_asked_for(clip_file: str) -> None:
    model = build("MODEL.CLIP", clip_file)
    assert model.context_tokens is None
    assert model.window_length == 9
    assert build("MODEL.CLIP", clip_file, "MODEL.TEMPORAL.ENABLED", "False").window_length == 1
    mixing = build("MODEL.CLIP", clip_file, "MODEL.TEMPORAL.BEFORE_XCLIP", "True")
    assert mixing.context_tokens is not None


def test_messages_are_frozen_if_asked_for(clip_file: str, xclip_file: str) -> None:
    def trained(model: STCLIP) -> int:
        named = model.named_parameters()
        return sum(".message_" in name and p.requires_grad for name, p in named)

    assert trained(build("MODEL.CLIP", clip_file)) == trained(build("MODEL.CLIP", xclip_file)) > 0
    frozen = ("MODEL.TRAIN_MESSAGES", "False")
    model = build("MODEL.CLIP", xclip_file, *frozen)
    assert trained(model) == 0
    assert trained(build(*frozen, state=model.state_dict())) == 0  # as --resume does it
    with pytest.raises(UserError, match=r"MODEL\.TRAIN_MESSAGES: True expected with MODEL\.CLIP"):
        build("MODEL.CLIP", clip_file, *frozen)


def test_weights_and_config_must_agree(clip_file: str) -> None:
    mine = build("MODEL.CLIP", clip_file).state_dict()
    theirs = tiny_model().state_dict()
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE is clip, but the file .* has xclip"):
        build("MODEL.BACKBONE", "clip", state=mine)
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE is xclip, but the file .* has clip"):
        build(state=theirs)
    with pytest.raises(UserError, match=r"BEFORE_XCLIP is True, but the file .* has False"):
        build("MODEL.TEMPORAL.BEFORE_XCLIP", "True", state=mine)
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
