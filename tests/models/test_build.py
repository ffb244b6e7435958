"""From config keys to the model that they name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stclip.config import load_config
from stclip.errors import UserError
from stclip.models.baselines import Baseline
from stclip.models.build import build_model, config_of_state
from stclip.models.stclip import STCLIP
from tests.helpers import random_batch, tiny_model

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
