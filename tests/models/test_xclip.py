"""X-CLIP against its authors' outputs, and against itself taken apart."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stclip
from stclip.errors import UserError
from stclip.models.cross_frame import CrossFrameBlock
from stclip.models.xclip import (
    PIXEL_MEAN,
    PIXEL_STD,
    XCLIP,
    MultiframeIntegration,
    preprocess_video,
    resize_positions,
)
from tests.helpers import GOLDEN, conformance_state

NAMES = (
    *("image_size", "patch_size", "vision_width", "vision_layers", "text_width", "text_layers"),
    *("embed_dim", "frames", "mit_layers", "prompt_layers"),
)
SIZES = [(64, 32, 128, 2, 64, 1, 64, 4, 1, 2), (48, 16, 64, 3, 128, 2, 192, 3, 2, 1)]
TEXTS = ["brush hair", "wave", "shoot bow"]


def tiny_xclip(sizes=SIZES[0], seed: int = 0, **more) -> XCLIP:
    torch.manual_seed(seed)
    model = XCLIP(**{**dict(zip(NAMES, sizes, strict=True)), **more}).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and norms too are to be told apart
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return model.requires_grad_(False)


def videos(count: int = 2, frames: int = 4, size: int = 64) -> Tensor:
    return torch.randn(count, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_equals_the_authors_outputs(tmp_path):
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
    assert XCLIP(*SIZES[0][:7]).prompts_generator.alpha.tolist() == pytest.approx([0.1] * 64)


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
