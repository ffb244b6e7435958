"""CLIP against the published implementations, and against itself taken apart."""

import pytest
import torch
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.models.clip import CLIP, PIXEL_MEAN, PIXEL_STD, VisionTransformer, normalize_pixels
from stclip.models.tokenizer import tokenize

# image size, patch size, vision width, vision layers, text width, text layers, E
SIZES = [(64, 32, 128, 2, 64, 1, 32), (48, 16, 64, 3, 128, 2, 96), (28, 14, 192, 1, 64, 2, 64)]
NAMES = ("image_size", "patch_size", "vision_width", "vision_layers", "text_width", "text_layers")
TEXTS = ["brush_hair", "a photo of a cat, sitting on a wall.", "7", ""]


def tiny_clip(sizes=SIZES[0], seed: int = 0, **more) -> CLIP:
    torch.manual_seed(seed)
    arguments = dict(zip((*NAMES, "embed_dim"), sizes, strict=True))
    model = CLIP(**{**arguments, "vocab_size": 49408, **more}).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and norms too are to be told apart
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return model.requires_grad_(False)


def inputs(size: int, images: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(images, 3, size, size), tokenize(TEXTS)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.slow
def test_equals_open_clip(sizes):
    open_clip = pytest.importorskip("open_clip")
    image_size, patch_size, vision_width, vision_layers, text_width, text_layers, embed_dim = sizes
    vision = open_clip.CLIPVisionCfg(
        layers=vision_layers, width=vision_width, patch_size=patch_size, image_size=image_size
    )
    text = open_clip.CLIPTextCfg(width=text_width, heads=text_width // 64, layers=text_layers)
    theirs = open_clip.model.CLIP(embed_dim, vision, text, quick_gelu=True).eval()
    ours = tiny_clip(sizes)
    theirs.load_state_dict(ours.state_dict())  # strict: the names are the same
    images, tokens = inputs(image_size)
    torch.testing.assert_close(
        ours.encode_image(images), theirs.encode_image(images), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        ours.encode_text(tokens), theirs.encode_text(tokens), atol=1e-5, rtol=1e-5
    )
    logits = theirs.get_logits(images, tokens)[0]
    torch.testing.assert_close(ours(images, tokens), logits, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_lora_changes_image_features_alike_in_both_modes(training):
    model = tiny_clip(lora_rank=4, lora_alpha=2.0)
    images, _ = inputs(64)
    fresh = tiny_clip(lora_rank=4)
    plain = CLIP(**dict(zip((*NAMES, "embed_dim"), SIZES[0], strict=True))).eval()
    plain.load_state_dict({k: v for k, v in fresh.state_dict().items() if "lora_" not in k})
    torch.testing.assert_close(fresh.train(training).encode_image(images), plain.visual(images))
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    expected = model.eval().encode_image(images)
    assert (expected - plain.visual(images)).abs().max() > 1e-3
    torch.testing.assert_close(
        model.train(training).encode_image(images), expected, atol=1e-5, rtol=1e-5
    )


def test_the_steps_of_the_image_tower_make_the_whole():
    model = tiny_clip()
    visual = model.visual
    images, _ = inputs(64)
    patches = visual.patch_embed(images)
    assert patches.shape == (3, 4, 128)
    tokens = visual.add_class_token_and_positions(patches)
    assert tokens.shape == (3, 5, 128)
    encoded = visual.encode(patches)
    assert encoded.shape == (3, 128)
    whole = visual.ln_post(visual.transformer(tokens)[:, 0])
    torch.testing.assert_close(encoded, whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(model.encode_image(images), visual.project(encoded))


@pytest.mark.parametrize("image_size", [64, 70])  # of the second the last 6 pixels are left out
def test_patches_are_those_of_the_convolution(image_size):
    torch.manual_seed(0)
    visual = VisionTransformer(image_size, patch_size=16, width=64, layers=1, embed_dim=32)
    images = torch.randn(3, 3, image_size, image_size)
    expected = visual.conv1(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(visual.patch_embed(images), expected, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(expected.square().sum(), visual.conv1.weight)
    (found,) = torch.autograd.grad(visual.patch_embed(images).square().sum(), visual.conv1.weight)
    torch.testing.assert_close(found, gradient, atol=1e-4, rtol=1e-4)


def test_batched_equals_looped():
    model = tiny_clip()
    images, tokens = inputs(64)
    one_by_one = torch.cat([model.encode_image(image[None]) for image in images])
    torch.testing.assert_close(model.encode_image(images), one_by_one, atol=1e-5, rtol=1e-5)
    one_by_one = torch.cat([model.encode_text(row[None]) for row in tokens])
    torch.testing.assert_close(model.encode_text(tokens), one_by_one, atol=1e-5, rtol=1e-5)


def test_empty_batches():
    model = tiny_clip()
    images, tokens = inputs(64)
    assert model.encode_image(images[:0]).shape == (0, 32)
    assert model.encode_text(tokens[:0]).shape == (0, 32)
    assert model(images[:0], tokens).shape == (0, 4)


def test_what_follows_end_of_text_does_not_matter():
    model = tiny_clip()
    tokens = tokenize(["cat", "a much longer text about a cat"])
    other = tokens.clone()
    other[0, 5:] = 123
    torch.testing.assert_close(model.encode_text(other), model.encode_text(tokens))
    short = tokens[:, :12]
    torch.testing.assert_close(model.encode_text(short), model.encode_text(tokens))


def test_normalize_pixels_equals_torchvision():
    functional = pytest.importorskip("torchvision.transforms.functional")
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    before = pixels.clone()
    expected = functional.normalize(pixels.float().div(255), PIXEL_MEAN, PIXEL_STD)
    assert torch.equal(normalize_pixels(pixels), expected)
    assert torch.equal(pixels, before)
    floats = pixels.float()
    assert torch.equal(normalize_pixels(floats), expected)
    assert torch.equal(floats, before.float())
    assert torch.equal(normalize_pixels(pixels[0]), expected[0])
    assert normalize_pixels(pixels[:0]).shape == (0, 3, 5, 7)


def test_sizes_are_told():
    model = tiny_clip(SIZES[1], text_length=20)
    assert (model.image_size, model.embed_dim, model.text_length) == (48, 96, 20)


def test_wrong_inputs_are_told():
    model = tiny_clip()
    with pytest.raises(UserError, match=r"found torch.float32 of shape \(1, 3, 32, 32\), expected"):
        model.encode_image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"torch.uint8.*normalize_pixels"):
        model.encode_image(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"found shape \(1, 78\), expected .* at most 77"):
        model.encode_text(torch.zeros(1, 78, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_close(dtype):
    model = tiny_clip()
    images, tokens = inputs(64)
    with torch.autocast("cpu", dtype):
        features = model.encode_image(images).float(), model.encode_text(tokens).float()
    expected = model.encode_image(images), model.encode_text(tokens)
    for found, exact in zip(features, expected, strict=True):
        assert torch.cosine_similarity(found, exact).min() > 0.999
