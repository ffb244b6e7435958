import logging
import warnings
from pathlib import Path

import pytest
import torch

from stclip.errors import UserError
from stclip.models.clip import CLIP
from stclip.models.weights import is_xclip, load_clip
from stclip.models.xclip import XCLIP
from stclip.models.xclip_start import is_new, xclip_from

SIZES = {
    "image_size": 32,
    "patch_size": 16,
    "vision_width": 64,
    "vision_layers": 2,
    "text_width": 64,
    "text_layers": 1,
    "embed_dim": 64,
}


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
            assert float(parameter.abs().max()) == pytest.approx(128**-0.5, rel=0.01)
    again = xclip_from("puppet", frames=3)
    assert not torch.equal(again.mit.positional_embedding, model.mit.positional_embedding)


def test_of_one_frame_the_image_tower_is_clips_without_messages() -> None:
    """With message values of nothing, a frame's features are those that CLIP gives it."""
    model, clip = xclip_from("puppet", frames=2), load_clip("puppet")
    images = torch.randn(2, 3, clip.image_size, clip.image_size)
    with torch.no_grad():
        for block in model.visual.transformer.resblocks:
            block.message_ln.weight.zero_()
            block.message_fc.weight.zero_()
            block.message_fc.bias.zero_()
        # The message still is one of the keys, so that it is close and not equal.
        features, expected = model.encode_image(images), clip.encode_image(images)
    assert torch.nn.functional.cosine_similarity(features, expected).min() > 0.98


def test_from_xclip_everything_is_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = XCLIP(**SIZES, frames=4)
    torch.save(held.state_dict(), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO):
        model = xclip_from(str(tmp_path / "x.pth"), frames=4)
    assert "with all its weights" in caplog.text
    for name, tensor in held.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    with pytest.warns(UserWarning, match="interpolated"):
        assert xclip_from(str(tmp_path / "x.pth"), frames=6).frames == 6


def test_a_file_tells_whose_it_is(tmp_path: Path) -> None:
    torch.save({"model": XCLIP(**SIZES).state_dict()}, tmp_path / "x.pth")
    torch.save(CLIP(**SIZES).state_dict(), tmp_path / "clip.pt")
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
    torch.save(CLIP(**{**SIZES, "embed_dim": 96}).state_dict(), tmp_path / "odd.pt")
    with pytest.raises(UserError, match="joint space of width 96, expected a multiple of 64"):
        xclip_from(str(tmp_path / "odd.pt"), frames=8)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt"):
        xclip_from(str(tmp_path / "other.pt"), frames=8)
