"""X-CLIP's image tower in ST-CLIP: against loops over frames, against CLIP, and one by one."""

import pytest
import torch
from torch import Tensor, nn

from stclip.models.clip import CLIP, normalize_pixels
from stclip.models.cross_frame import CrossFrameBlock, CrossFrameCLIP, OtherFrames
from stclip.models.interest_tokens import InterestTokens
from stclip.models.stclip import STCLIP
from stclip.models.transformer import Block
from stclip.structures import ClipBatch
from tests.helpers import random_batch, tiny_model
from tests.models.test_stclip import one_keyframe

TEXT = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
LAYERS = 3


def cross_frame_model(seed: int = 0, **switches) -> STCLIP:
    """Three layers, so that one of them is neither the first nor one of the last two; two heads."""
    sizes = {"vision_layers": LAYERS, "vision_width": 128}
    model = STCLIP(tiny_model(seed, CrossFrameCLIP, **sizes).clip, **switches)
    for name, parameter in model.named_parameters():
        # Messages that matter, attention that is not uniform, and biases that are not zero.
        if ".message_" in name or name.endswith(("in_proj_weight", "out_proj.weight", "bias")):
            nn.init.normal_(parameter, std=0.15)
    return model.eval()


def spotting(**switches) -> STCLIP:
    return cross_frame_model(interest_tokens=InterestTokens(3, include_person=True), **switches)


def attention(module: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch's own attention with our weights: (S, W) -> (S, W) and the heads' mean (S, S)."""
    width = tokens.shape[1]
    other = nn.MultiheadAttention(width, width // 64, batch_first=True)
    other.load_state_dict(module.state_dict())
    out, weights = other.eval()(tokens[None], tokens[None], tokens[None])
    return out[0], weights[0]


def run_video(blocks, frames: list[Tensor]) -> tuple[list[list[Tensor]], list[Tensor]]:
    """X-CLIP's equations, a frame at a time.

    Returns the tokens of the frames after each block, and what the first frame attends to in each.
    """
    found, looks = [], []
    for block in blocks:
        messages = torch.stack([block.message_fc(frame[0]) for frame in frames])
        messages = messages + attention(block.message_attn, block.message_ln(messages))[0]
        passed = []
        for number, frame in enumerate(frames):
            y = block.ln_1(torch.cat([frame, messages[number : number + 1]]))
            read, weights = attention(block.attn, y)
            if number == 0:
                looks.append(weights)
            frame = frame + read[:-1]
            passed.append(frame + block.mlp(block.ln_2(frame)))
        frames = passed
        found.append(frames)
    return found, looks


def looped(model: STCLIP, batch: ClipBatch, row: int) -> list[Tensor]:
    """The logits of a keyframe's persons, everything one by one."""
    visual, blocks = model.clip.visual, model.clip.visual.transformer.resblocks

    def embed(picture: Tensor) -> Tensor:
        return visual.add_class_token_and_positions(visual.patch_embed(picture[None]))[0]

    def alone(picture: Tensor) -> Tensor:
        return visual.ln_post(run_video(blocks, [embed(picture)])[0][-1][0][0])

    pixels, crops = normalize_pixels(batch.frames), normalize_pixels(batch.crops)
    rows = [i for i, owner in enumerate(batch.owner.tolist()) if owner == row]
    key = batch.keyframe[row].item()
    embedded = embed(pixels[key])
    if model.context_tokens is not None:
        patches = visual.patch_embed(pixels)
        mixed = model.context_tokens(patches, batch.window[row : row + 1])
        embedded = visual.add_class_token_and_positions(mixed)[0]
    persons = [model.person_tokens(alone(crops[i])[None]) for i in rows]
    first = torch.cat([embedded[:1], *persons, embedded[1:]])
    others = [f for f in batch.window[row].tolist() if f not in (key, -1)]
    others = others if model.window_length > 1 else []
    layers, looks = run_video(blocks, [first, *(embed(pixels[f]) for f in others)])
    logits = []
    for number in range(len(rows)):
        text = TEXT[None]
        places = [0, *range(1 + len(rows), len(first))]
        for layer, frames in enumerate(layers):
            tokens = frames[0]
            if model.interest_tokens is not None:
                ranked = sorted(places, key=lambda s: -looks[layer][1 + number, s].item())
                tokens = tokens[[1 + number, *ranked[: model.interest_tokens.top_k]]]
            text = model.context_prompting(layer, text, tokens[None])
        relation = visual.project(visual.ln_post(layers[-1][0][1 + number]))
        feature = relation + visual.project(alone(pixels[key]))
        logits.append(torch.cosine_similarity(feature, text[0], dim=-1) / 0.07)
    return logits


@torch.no_grad()
@pytest.mark.parametrize("make", [cross_frame_model, spotting])
@pytest.mark.parametrize(
    ("frames", "switches"),
    [(12, {}), (4, {}), (12, {"temporal": False}), (12, {"mix_context": True})],
)
def test_equals_the_loop(make, frames: int, switches: dict[str, bool]) -> None:
    """Of the four frames of the short video three are there beside the keyframe."""
    model, batch = make(**switches), random_batch([3, 0, 1, 2], frames=frames)
    expected = [logits for row in (0, 2, 3) for logits in looped(model, batch, row)]
    found = model(batch, TEXT).logits
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("make", [cross_frame_model, spotting])
def test_one_frame_without_messages_is_clip(make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(temporal=False), random_batch([2, 1, 0])
    clip = CLIP(48, 16, 128, LAYERS, 64, 1, 64, lora_rank=2)
    shared = model.clip.state_dict()
    clip.load_state_dict({name: shared[name] for name in clip.state_dict()})
    plain = STCLIP(clip, temporal=False, interest_tokens=model.interest_tokens).eval()
    parts = {n: t for n, t in model.state_dict().items() if not n.startswith("clip.")}
    plain.load_state_dict(plain.state_dict() | parts)
    expected = plain(batch, TEXT)
    assert not torch.allclose(model(batch, TEXT).logits, expected.logits, atol=1e-2)
    # A block that has no message.
    monkeypatch.setattr(
        CrossFrameBlock,
        "forward",
        lambda self, x, mask=None, message=None: Block.forward(self, x, mask),
    )
    monkeypatch.setattr(CrossFrameBlock, "first", lambda self, x: Block.first(self, x))
    spot = InterestTokens.spot
    monkeypatch.setattr(InterestTokens, "spot", lambda self, *args: spot(self, *args[:3]))
    found = model(batch, TEXT)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    if model.interest_tokens is not None:
        assert torch.equal(found.interest_tokens, expected.interest_tokens)


@torch.no_grad()
@pytest.mark.parametrize("make", [cross_frame_model, spotting])
@pytest.mark.parametrize("persons", [[2, 0, 1, 3], [1, 1], [0, 0, 2]])
def test_batched_equals_one_keyframe_at_a_time(make, persons: list[int]) -> None:
    model, batch = make(), random_batch(persons)
    alone = [model(one_keyframe(batch, row), TEXT).logits for row in range(len(persons))]
    torch.testing.assert_close(model(batch, TEXT).logits, torch.cat(alone), rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_two_videos_of_different_lengths_do_not_mix() -> None:
    model = cross_frame_model()
    short = random_batch([1, 2], frames=4, seed=1, video="run/short")
    long = random_batch([3, 1], frames=12, seed=2, video="run/long")
    together = model(ClipBatch.cat([short, long]), TEXT).logits
    apart = torch.cat([model(short, TEXT).logits, model(long, TEXT).logits])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_messages_travel_from_the_frames_of_the_window_only() -> None:
    model = cross_frame_model()
    batch, inside, outside = (random_batch([1], frames=12) for _ in range(3))
    inside.frames[8] = 255 - inside.frames[8]  # the window of keyframe 1 is frames 1 to 9
    outside.frames[9] = 255 - outside.frames[9]
    expected = model(batch, TEXT).logits
    assert torch.equal(model(outside, TEXT).logits, expected)
    assert (model(inside, TEXT).logits - expected).abs().max() > 1e-3
    keyframe_only = cross_frame_model(temporal=False)
    assert keyframe_only.window_length == 1
    found = [keyframe_only(each, TEXT).logits for each in (batch, inside)]
    assert torch.equal(*found)


@torch.no_grad()
@pytest.mark.parametrize("mix_context", [False, True])
def test_only_the_temporal_block_tells_the_order_of_the_frames(mix_context: bool) -> None:
    model, batch, shuffled = cross_frame_model(mix_context=mix_context), *(
        random_batch([2], frames=9) for _ in range(2)
    )  # fmt: skip
    shuffled.frames[1:] = batch.frames[1:].flip(0)  # the keyframe is frame 0
    difference = model(batch, TEXT).logits - model(shuffled, TEXT).logits
    assert (difference.abs().max() > 1e-3) == mix_context


@torch.no_grad()
def test_persons_reach_the_other_frames() -> None:
    """Through the keyframe's message: that of the last block knows of them two blocks earlier."""
    model, sent = cross_frame_model(), []
    blocks = model.clip.visual.transformer.resblocks
    last = blocks[-1]
    last.message_fc.register_forward_hook(lambda module, inputs, output: sent.append(inputs[0]))
    batch, changed = random_batch([1]), random_batch([1])
    changed.crops = torch.zeros_like(changed.crops)
    for each in (batch, changed):
        model(each, TEXT)
    windows = [tokens for tokens in sent if tokens.shape[1] == 9]
    assert len(windows) == 2
    others = (windows[0] - windows[1])[0, 1:]  # keyframe first
    assert (others.abs().amax(dim=1) > 1e-5).all()


def test_no_boxes_at_all_is_legal() -> None:
    assert cross_frame_model()(random_batch([0, 0]), TEXT).logits.shape == (0, 5)


def test_a_keyframe_outside_its_window_takes_part_beside_it() -> None:
    """Near the ends of a video, with frames further than one apart."""
    frames = torch.arange(6.0)[:, None, None]  # the only token of frame f is f
    window = torch.tensor([[0, 2, 4], [1, 3, 5], [1, 4, -1]])
    keyframe = torch.tensor([2, 4, 1])
    others = OtherFrames.of_windows(frames, window, keyframe, blocks=2)
    assert others.tokens[..., 0, 0].tolist() == [[0, 4, 0], [1, 3, 5], [4, 0, 0]]
    present = [[True, True, True, False], [True] * 4, [True, True, False, False]]
    assert others.present.tolist() == present
    alone = OtherFrames.of_windows(frames, window[:1], keyframe[:1], blocks=2)
    assert alone.tokens[..., 0, 0].tolist() == [[0, 4]]
    assert alone.present is None


def gradients(model: STCLIP) -> None:
    model.train()(random_batch([1, 2]), TEXT).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("train_messages", [True, False])
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"mix_context": True},
        {"temporal": False},
        {"person_tokens": False},
        {"prompt": False},
        {"interest_tokens": InterestTokens(3)},
    ],
)
def test_gradients_reach_exactly_what_is_trained(switches, train_messages: bool) -> None:
    model = cross_frame_model(train_messages=train_messages, **switches)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    parts = ("person_tokens.", "context_tokens.", "context_prompting.")
    assert trained == {
        name
        for name, _ in model.named_parameters()
        if name.startswith(parts) or ".lora_" in name or (train_messages and ".message_" in name)
    }
    assert any(name.startswith("context_tokens.") for name in trained) == (
        "mix_context" in switches
    )
    gradients(model)


def test_training_and_evaluation_mode_agree() -> None:
    model, batch = cross_frame_model(), random_batch([1, 2])
    train = model.train()(batch, TEXT).logits
    with torch.inference_mode():  # takes other ways through LoRA's layers
        test = model.eval()(batch, TEXT).logits
    torch.testing.assert_close(train, test, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_under_autocast(dtype: torch.dtype) -> None:
    model, batch = spotting().train(), random_batch([2, 1], frames=4)
    with torch.autocast("cpu", dtype=dtype):
        output = model(batch, TEXT)
    assert output.logits.dtype == torch.float32
    output.logits.square().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    batch = random_batch([1, 0, 2], frames=4)
    for model in (cross_frame_model(), spotting(), cross_frame_model(temporal=False)):
        with torch.inference_mode():
            expected = model(batch, TEXT).logits
            found = model.cuda()(batch.to(torch.device("cuda")), TEXT.cuda()).logits.cpu()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
