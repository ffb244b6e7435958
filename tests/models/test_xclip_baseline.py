import dataclasses

import pytest
import torch
from torch import Tensor

from stclip.config import load_config
from stclip.errors import UserError
from stclip.models.build import build_model, encode_labels
from stclip.models.losses import FocalCriterion
from stclip.models.tokenizer import tokenize
from stclip.models.xclip import XCLIP, normalize_video
from stclip.models.xclip_baseline import XCLIPBaseline
from stclip.structures import ClipBatch
from tests.helpers import random_batch

NAMES = ["run", "brush_hair", "wave", "climb stairs"]
FRAMES = 3


def tiny(frames: int = FRAMES) -> XCLIPBaseline:
    torch.manual_seed(0)
    clip = XCLIP(
        image_size=48,
        patch_size=16,
        vision_width=64,
        vision_layers=2,
        text_width=64,
        text_layers=1,
        embed_dim=64,
        frames=frames,
    )
    return XCLIPBaseline(clip).eval()


def batch_of(persons: list[int], windows: list[list[int]], classes: int = 0) -> ClipBatch:
    batch = random_batch(persons, frames=8, length=FRAMES, classes=classes)
    window = torch.tensor(windows)
    empty = torch.zeros(sum(persons), 3, 0, 0, dtype=torch.uint8)
    keyframe = torch.full_like(batch.keyframe, -1)
    return dataclasses.replace(batch, window=window, crops=empty, keyframe=keyframe)


def looped(model: XCLIPBaseline, batch: ClipBatch) -> Tensor:
    """A person at a time, each with X-CLIP's own forward."""
    rows = []
    for owner in batch.owner.tolist():
        frames = normalize_video(batch.frames[batch.window[owner]])[None]
        rows.append(model.clip(frames, tokenize(NAMES))[0])
    return torch.stack(rows)


@torch.no_grad()
def test_equals_the_loop() -> None:
    model = tiny()
    batch = batch_of([2, 0, 1, 3], [[0, 1, 2], [0, 1, 2], [5, 6, 7], [0, 1, 2]])
    output = model(batch, encode_labels(model, NAMES))
    torch.testing.assert_close(output.logits, looped(model, batch), rtol=1e-5, atol=1e-4)
    assert output.person_features.shape == (6, 64)
    assert output.text_features[output.text_row].shape == (6, 4, 64)
    assert output.logits.softmax(dim=1).std(dim=0).max() > 0  # the two clips differ


@torch.no_grad()
def test_a_clip_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny(), []
    encode = model.clip.encode_frames

    def counting(frames: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(frames))
        return encode(frames)

    monkeypatch.setattr(model.clip, "encode_frames", counting)
    model(batch_of([1, 2, 0], [[0, 1, 2], [0, 1, 2], [3, 4, 5]]), encode_labels(model, NAMES))
    assert seen == [1]


def test_no_boxes_at_all_is_legal() -> None:
    model = tiny()
    output = model(batch_of([0, 0], [[0, 1, 2]] * 2), encode_labels(model, NAMES))
    assert output.logits.shape == (0, 4)


def test_gradients_reach_what_the_recipe_trains() -> None:
    model = tiny().train()
    batch = batch_of([1, 1], [[0, 1, 2], [3, 4, 5]], classes=4)
    output = model(batch, encode_labels(model, NAMES))
    assert batch.labels is not None
    FocalCriterion(gamma=0)(output.logits, batch.labels)["action"].backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    text = ("token_embedding", "positional_embedding", "transformer.", "ln_final", "text_project")
    frozen = {
        name
        for name, _ in model.named_parameters()
        if name.removeprefix("clip.").startswith((*text, "logit_scale"))
    }
    assert reached == {name for name, _ in model.named_parameters()} - frozen
    assert "clip.visual.transformer.resblocks.1.message_fc.weight" in reached
    assert "clip.mit.positional_embedding" in reached
    assert "clip.prompts_generator.alpha" in reached
    assert all(float(p.grad.abs().max()) > 0 for p in model.parameters() if p.grad is not None)


def test_cross_entropy_is_the_focal_loss_without_focus() -> None:
    logits, target = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    labels = torch.nn.functional.one_hot(target, 4).float()
    ours = FocalCriterion(gamma=0)(logits, labels)["action"]
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    torch.testing.assert_close(ours, expected)


def test_a_checkpoint_builds_the_same_model() -> None:
    model, batch = tiny(), batch_of([1], [[0, 3, 6]])
    cfg = load_config(pairs=["MODEL.NAME", "xclip", "MODEL.XCLIP.FRAMES", str(FRAMES)])
    again = build_model(cfg, model.state_dict())
    text = encode_labels(model, NAMES)
    assert torch.equal(again(batch, text).logits, model(batch, text).logits)


def test_checkpoints_of_others_are_refused() -> None:
    pairs = ["MODEL.NAME", "xclip", "MODEL.XCLIP.FRAMES"]
    state = tiny().state_dict()
    with pytest.raises(UserError, match=r"XCLIP\.FRAMES is 8, but the file .* has 3"):
        build_model(load_config(pairs=[*pairs, "8"]), state)
    cfg = load_config(pairs=[*pairs, "3"])
    with pytest.raises(UserError, match=r"found context_tokens\.a.*MODEL\.CLIP"):
        build_model(cfg, {**state, "context_tokens.a": torch.zeros(1)})
    clip = {name: tensor for name, tensor in state.items() if "mit." not in name}
    with pytest.raises(UserError, match=r"found no clip\.mit\.positional_embedding"):
        build_model(cfg, clip)


def test_classes_that_do_not_exclude_each_other_are_refused() -> None:
    with pytest.raises(UserError, match=r"ALL_GROUP: '' expected with MODEL\.NAME xclip"):
        load_config(pairs=["MODEL.NAME", "xclip", "ALL_GROUP", "groups.txt"])


@torch.no_grad()
def test_autocast_is_close_to_float32() -> None:
    model, batch = tiny(), batch_of([1, 1], [[0, 1, 2], [3, 4, 5]])
    text = encode_labels(model, NAMES)
    full = model(batch, text).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(batch, text).logits
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0, atol=0.3)  # of cosines times 14
