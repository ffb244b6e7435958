"""X-CLIP, its image tower in ST-CLIP, and the baseline: against the authors' outputs and loops."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stclip
from stclip.config import load_config
from stclip.errors import UserError
from stclip.models.build import build_model, encode_labels
from stclip.models.clip import CLIP, CLIPSizes, normalize_pixels
from stclip.models.losses import FocalCriterion
from stclip.models.stclip import STCLIP, InterestTokens
from stclip.models.tokenizer import tokenize
from stclip.models.xclip import (
    PIXEL_MEAN,
    PIXEL_STD,
    XCLIP,
    CrossFrameBlock,
    CrossFrameCLIP,
    MultiframeIntegration,
    XCLIPBaseline,
    XCLIPSizes,
    normalize_video,
    other_frames,
    preprocess_video,
    resize_positions,
)
from stclip.structures import ClipBatch
from tests.helpers import GOLDEN, conformance_state, random_batch, tiny_model
from tests.models.test_stclip import one_keyframe

SIZES = [(64, 32, 128, 2, 64, 1, 64, 4, 1, 2), (48, 16, 64, 3, 128, 2, 192, 3, 2, 1)]
TEXTS = ["brush hair", "wave", "shoot bow"]


def tiny_xclip(sizes=SIZES[0], seed: int = 0, **more) -> XCLIP:
    torch.manual_seed(seed)
    *clip, frames, mit_layers, prompt_layers = sizes
    model = XCLIP(
        XCLIPSizes(*clip, frames=frames, mit_layers=mit_layers, prompt_layers=prompt_layers, **more)
    ).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and norms too are to be told apart
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return model.requires_grad_(False)


def videos(count: int = 2, frames: int = 4, size: int = 64) -> Tensor:
    return torch.randn(count, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_equals_the_authors_outputs(both_ways, tmp_path):
    expected = np.load(GOLDEN / "xclip" / "expected.npz")
    path = tmp_path / "xclip.pth"
    torch.save({"model": conformance_state(GOLDEN / "xclip" / "state_dict_shapes.json")}, path)
    model = stclip.load_xclip(path).requires_grad_(False)
    assert (model.frames, model.image_size, model.embed_dim) == (8, 224, 512)
    tokens = stclip.tokenize(list(expected["labels"]))
    assert np.array_equal(tokens, expected["tokens"])
    small = torch.from_numpy(expected["small"])
    frames = small.repeat_interleave(16, dim=-1).repeat_interleave(16, dim=-2)
    for found, name in (
        (model.encode_text(tokens), "text_features"),
        (model.encode_video(frames), "video_features"),
        (model(frames, tokens), "logits"),
    ):
        assert found.shape == expected[name].shape
        assert relative_error(found, torch.from_numpy(expected[name])) < 1e-5, name


def test_the_block_token_by_token():
    torch.manual_seed(0)
    block = CrossFrameBlock(128, heads=2).eval().requires_grad_(False)
    x = torch.randn(2, 3, 5, 128)
    found = block.videos(x)
    for video, tokens in enumerate(x):
        messages = torch.stack([block.message_fc(frame[0]) for frame in tokens])
        messages = messages + block.message_attn(block.message_ln(messages)[None])[0]
        for number, frame in enumerate(tokens):
            longer = torch.cat([frame, messages[number : number + 1]])
            frame = frame + block.attn(block.ln_1(longer)[None])[0, :-1]
            frame = frame + block.mlp(block.ln_2(frame))
            torch.testing.assert_close(found[video, number], frame, atol=1e-5, rtol=1e-5)


def test_integration_without_blocks_is_the_mean_of_twice_the_frames_and_their_positions():
    mit = MultiframeIntegration(64, frames=2, layers=0).requires_grad_(False)
    mit.positional_embedding[0, 0], mit.positional_embedding[0, 1] = 1.0, 3.0
    features = torch.tensor([1.0, 5.0])[None, :, None].expand(1, 2, 64)
    assert torch.equal(mit(features), torch.full((1, 64), 8.0))  # ((1+1+1) + (5+5+3)) / 2


def test_logits_are_the_steps_put_together():
    model, frames, tokens = tiny_xclip(), videos(), stclip.tokenize(TEXTS)
    features, patches = model.encode_frames(frames)
    assert features.shape == (2, 4, 64)
    assert patches.shape == (2, 4, 4, 128)
    expected = torch.empty(2, 3)
    for b in range(2):
        video = model.mit(features[b : b + 1])[0]
        each = [model.prompts_visual_ln(frame) @ model.prompts_visual_proj for frame in patches[b]]
        context = torch.stack(each).mean(dim=0)[None]
        for c in range(3):
            text = model.encode_text(tokens[c : c + 1])[None]
            prompted = model.prompts_generator(text, context)[0, 0]
            cosine = torch.dot(video, prompted) / video.norm() / prompted.norm()
            expected[b, c] = model.logit_scale.exp() * cosine
    torch.testing.assert_close(model(frames, tokens), expected, atol=1e-4, rtol=1e-5)


def test_prompts_start_from_a_tenth():
    assert XCLIP(XCLIPSizes(*SIZES[0][:7])).prompts_generator.alpha.tolist() == pytest.approx(
        [0.1] * 64
    )


@pytest.mark.parametrize("sizes", SIZES)
def test_batched_equals_one_video_at_a_time(sizes):
    model, frames = tiny_xclip(sizes), videos(3, sizes[7], sizes[0])
    tokens = stclip.tokenize(TEXTS)
    looped = torch.cat([model(video[None], tokens) for video in frames])
    torch.testing.assert_close(model(frames, tokens), looped, atol=1e-4, rtol=1e-5)
    looped = torch.cat([model.encode_video(video[None]) for video in frames])
    torch.testing.assert_close(model.encode_video(frames), looped, atol=1e-5, rtol=1e-5)


def test_frames_see_each_other_and_their_order_matters():
    model, frames = tiny_xclip(), videos()
    changed = frames.clone()
    changed[0, 3] = -changed[0, 3]
    features, altered = (model.encode_frames(x)[0] for x in (frames, changed))
    assert (features[0, 0] - altered[0, 0]).abs().max() > 1e-3
    assert torch.equal(features[1], altered[1])  # another video
    # Only the integration knows the order of the frames.
    torch.testing.assert_close(
        model.encode_frames(frames.flip(1))[0].flip(1), features, atol=1e-5, rtol=1e-5
    )
    difference = model.encode_video(frames.flip(1)) - model.encode_video(frames)
    assert difference.abs().max() > 1e-4


def test_a_picture_is_a_video_of_one_frame():
    model, images = tiny_xclip(), videos()[0]
    features = model.encode_image(images)
    assert features.shape == (4, 64)
    looped = torch.cat([model.encode_frames(image[None, None])[0][0] for image in images])
    torch.testing.assert_close(features, looped, atol=1e-5, rtol=1e-5)


def test_no_videos_and_no_names_are_legal():
    model, tokens = tiny_xclip(), stclip.tokenize(TEXTS)
    assert model(videos(0), tokens).shape == (0, 3)
    assert model(videos(2), tokens[:0]).shape == (2, 0)


def test_gradients_reach_every_part():
    model = tiny_xclip().requires_grad_(True).train()
    target = torch.tensor([0, 2])
    F.cross_entropy(model(videos(), stclip.tokenize(TEXTS)), target).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (videos(2, 3), r"found 3 a video, expected 4: .* load the model with frames=3"),
        (videos(2, 4, 32), r"shape \(2, 4, 3, 32, 32\), expected .*\(B, T, 3, 64, 64\): .*prepr"),
        (videos()[0], r"shape \(4, 3, 64, 64\), expected"),
        (videos().to(torch.uint8), "found torch.uint8 of"),
    ],
)
def test_other_frames_are_refused(frames, message):
    with pytest.raises(UserError, match=message):
        tiny_xclip()(frames, stclip.tokenize(TEXTS))


def test_preprocessing_keeps_the_middle():
    # 7 x 14 pixels in columns of one value; the shorter side to 256, and the centre of 512 columns.
    columns = torch.arange(14, dtype=torch.float32) * 10
    frames = columns.expand(2, 3, 7, 14)
    found = preprocess_video(frames)
    assert found.shape == (2, 3, 224, 224)
    x = (np.arange(224) + (512 - 224) // 2 + 0.5) * 14 / 512 - 0.5
    values = np.interp(x, np.arange(14), columns) / 255
    for channel, (mean, std) in enumerate(zip(PIXEL_MEAN, PIXEL_STD, strict=True)):
        expected = torch.from_numpy((values - mean) / std).float().expand(2, 224, 224)
        torch.testing.assert_close(found[:, channel], expected, atol=1e-5, rtol=1e-5)
    eight_bit = frames.to(torch.uint8)
    torch.testing.assert_close(preprocess_video(eight_bit), found)
    assert eight_bit.equal(frames.to(torch.uint8))


@pytest.mark.parametrize("shape", [(1, 3, 5, 300), (1, 3, 400, 30), (1, 3, 256, 256)])
@pytest.mark.parametrize("size", [224, 336, 32])
def test_preprocessing_gives_what_the_model_takes(shape, size):
    found = preprocess_video(torch.full(shape, 255, dtype=torch.uint8), size)
    assert found.shape == (1, 3, size, size)
    torch.testing.assert_close(found[0, 0], torch.full((size, size), (1 - 0.485) / 0.229))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8, 3), (0, 3, 8, 8), (1, 3, 0, 8)])
def test_preprocessing_refuses_other_shapes(shape):
    with pytest.raises(UserError, match=r"frames: found shape .*expected \(T, 3, h, w\)"):
        preprocess_video(torch.zeros(shape))


def test_positions_are_interpolated():
    positions = torch.tensor([0.0, 2.0, 4.0, 6.0])[None, :, None]
    assert resize_positions(positions, 4).equal(positions)
    # the middles of two halves, and of eight eighths; the ends are held
    assert resize_positions(positions, 2).flatten().tolist() == [1.0, 5.0]
    found = resize_positions(positions, 8).flatten().tolist()
    assert found == [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.0]


TEXT = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
LAYERS = 3


def cross_frame_model(seed: int = 0, **switches) -> STCLIP:
    """Three layers, so that one of them is neither the first nor one of the last two; two heads."""
    sizes = {"vision_layers": LAYERS, "vision_width": 128}
    clip = tiny_model(seed, CrossFrameCLIP, **sizes).clip
    clip.train_messages = switches.pop("train_messages", True)
    model = STCLIP(clip, mixing=switches.pop("mixing", False), **switches)
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
    [(12, {}), (4, {}), (12, {"temporal": False}), (12, {"mixing": True})],
)
def test_the_tower_equals_the_loop(both_ways, make, frames: int, switches: dict[str, bool]) -> None:
    """Of the four frames of the short video three are there beside the keyframe."""
    model, batch = make(**switches), random_batch([3, 0, 1, 2], frames=frames)
    expected = [logits for row in (0, 2, 3) for logits in looped(model, batch, row)]
    found = model(batch, TEXT).logits
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("make", [cross_frame_model, spotting])
def test_one_frame_without_messages_is_clip(make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(temporal=False), random_batch([2, 1, 0])
    clip = CLIP(CLIPSizes(48, 16, 128, LAYERS, 64, 1, 64), lora_rank=2)
    shared = model.clip.state_dict()
    clip.load_state_dict({name: shared[name] for name in clip.state_dict()})
    plain = STCLIP(clip, temporal=False, interest_tokens=model.interest_tokens).eval()
    parts = {n: t for n, t in model.state_dict().items() if not n.startswith("clip.")}
    plain.load_state_dict(plain.state_dict() | parts)
    expected = plain(batch, TEXT)
    assert not torch.allclose(model(batch, TEXT).logits, expected.logits, atol=1e-2)
    # A block that has no message.
    monkeypatch.setattr(
        CrossFrameBlock, "_with_message", lambda self, x, message, key_mask: (x, key_mask)
    )
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
@pytest.mark.parametrize("mixing", [False, True])
def test_only_the_temporal_block_tells_the_order_of_the_frames(mixing: bool) -> None:
    model, batch, shuffled = cross_frame_model(mixing=mixing), *(
        random_batch([2], frames=9) for _ in range(2)
    )  # fmt: skip
    shuffled.frames[1:] = batch.frames[1:].flip(0)  # the keyframe is frame 0
    difference = model(batch, TEXT).logits - model(shuffled, TEXT).logits
    assert (difference.abs().max() > 1e-3) == mixing


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
    window = torch.tensor([[0, 2, 4], [1, 3, 5], [1, 4, -1]])
    rows, present = other_frames(window, torch.tensor([2, 4, 1]))
    assert rows.tolist() == [[0, 4, 0], [1, 3, 5], [4, 0, 0]]
    assert present is not None
    assert present.tolist() == [[True, True, True, False], [True] * 4, [True, True, False, False]]
    rows, present = other_frames(window[:1], torch.tensor([2]))
    assert rows.tolist() == [[0, 4]]
    assert present is None


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
        {"mixing": True},
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
    assert any(name.startswith("context_tokens.") for name in trained) == ("mixing" in switches)
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


NAMES = ["run", "brush_hair", "wave", "climb stairs"]
FRAMES = 3


def tiny(frames: int = FRAMES) -> XCLIPBaseline:
    torch.manual_seed(0)
    clip = XCLIP(XCLIPSizes(48, 16, 64, 2, 64, 1, 64, frames=frames))
    return XCLIPBaseline(clip).eval()


def batch_of(persons: list[int], windows: list[list[int]], classes: int = 0) -> ClipBatch:
    batch = random_batch(persons, frames=8, length=FRAMES, classes=classes)
    window = torch.tensor(windows)
    empty = torch.zeros(sum(persons), 3, 0, 0, dtype=torch.uint8)
    keyframe = torch.full_like(batch.keyframe, -1)
    return dataclasses.replace(batch, window=window, crops=empty, keyframe=keyframe)


def baseline_looped(model: XCLIPBaseline, batch: ClipBatch) -> Tensor:
    """A person at a time, each with X-CLIP's own forward."""
    rows = []
    for owner in batch.owner.tolist():
        frames = normalize_video(batch.frames[batch.window[owner]])[None]
        rows.append(model.clip(frames, tokenize(NAMES))[0])
    return torch.stack(rows)


@torch.no_grad()
def test_the_baseline_equals_the_loop(both_ways) -> None:
    model = tiny()
    batch = batch_of([2, 0, 1, 3], [[0, 1, 2], [0, 1, 2], [5, 6, 7], [0, 1, 2]])
    output = model(batch, encode_labels(model, NAMES))
    torch.testing.assert_close(output.logits, baseline_looped(model, batch), rtol=1e-5, atol=1e-4)
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


def test_the_baseline_without_boxes() -> None:
    model = tiny()
    output = model(batch_of([0, 0], [[0, 1, 2]] * 2), encode_labels(model, NAMES))
    assert output.logits.shape == (0, 4)


def test_gradients_of_the_baseline_reach_what_the_recipe_trains() -> None:
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
def test_the_baseline_under_autocast_is_close_to_float32() -> None:
    model, batch = tiny(), batch_of([1, 1], [[0, 1, 2], [3, 4, 5]])
    text = encode_labels(model, NAMES)
    full = model(batch, text).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(batch, text).logits
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0, atol=0.3)  # of cosines times 14
