"""CLIP against the published implementations, and against itself taken apart."""

import pytest
import torch
from torch import Tensor, nn

from stclip.engine.compiling import recompute_activations
from stclip.errors import UserError
from stclip.models.clip import (
    CLIP,
    MLP,
    PIXEL_MEAN,
    PIXEL_STD,
    Attention,
    Block,
    CLIPSizes,
    LayerNorm,
    QuickGELU,
    Transformer,
    normalize_pixels,
)
from stclip.models.tokenizer import tokenize

# image size, patch size, vision width, vision layers, text width, text layers, E
SIZES = [(64, 32, 128, 2, 64, 1, 32), (48, 16, 64, 3, 128, 2, 96), (28, 14, 192, 1, 64, 2, 64)]
TEXTS = ["brush_hair", "a photo of a cat, sitting on a wall.", "7", ""]


def tiny_clip(
    sizes=SIZES[0], seed: int = 0, lora_rank: int = 0, lora_alpha: float = 1.0, **more
) -> CLIP:
    torch.manual_seed(seed)
    model = CLIP(CLIPSizes(*sizes, **more), lora_rank, lora_alpha).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and norms too are to be told apart
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return model.requires_grad_(False)


def inputs(size: int, images: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(images, 3, size, size), tokenize(TEXTS)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.slow
def test_equals_open_clip(both_ways, sizes):
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
    plain = CLIP(CLIPSizes(*SIZES[0])).eval()
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


@pytest.mark.parametrize("causal", [False, True])
def test_key_mask_is_as_if_the_tokens_were_not_there(both_ways, causal):
    torch.manual_seed(0)
    block = Block(128, 2).eval()
    x = torch.randn(2, 7, 128)
    key_mask = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    out = block(x, key_mask, causal)
    for row in range(2):
        kept = key_mask[row]
        alone = block(x[row : row + 1, kept], None, causal)
        torch.testing.assert_close(out[row : row + 1, kept], alone, atol=1e-5, rtol=1e-5)
    whole = torch.ones_like(key_mask)
    torch.testing.assert_close(block(x, whole, causal), block(x, None, causal))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_pytorch(both_ways, causal):
    torch.manual_seed(0)
    ours, theirs = Attention(128, 2), nn.MultiheadAttention(128, 2, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    x, keep = torch.randn(2, 5, 128), torch.tensor([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1]]).bool()
    later = torch.ones(5, 5).triu(1).bool() if causal else None
    expected = theirs(x, x, x, key_padding_mask=~keep, attn_mask=later, need_weights=False)[0]
    torch.testing.assert_close(ours(x, keep, causal), expected, atol=1e-5, rtol=1e-5)


def test_small_parts(both_ways):
    x = torch.tensor([-1.0, 0.0, 2.0])
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    norm = LayerNorm(3)
    nn.init.normal_(norm.weight)
    x = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float16)
    torch.testing.assert_close(
        norm(x), nn.functional.layer_norm(x.float(), (3,), norm.weight).half()
    )
    assert norm.half()(x).dtype == torch.float16
    # 300 and its square do not both fit float16, so only a norm in float32 gets this right
    wide = LayerNorm(3)(torch.tensor([[0.0, 300.0, 600.0]], dtype=torch.float16))
    torch.testing.assert_close(wide, torch.tensor([[-1.2247, 0, 1.2247]]).half())


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("mask", [None, [[1, 1, 0, 1, 1], [1, 0, 0, 0, 1]]])
@pytest.mark.parametrize("causal", [False, True])
def test_the_first_outputs_are_the_first_of_all(both_ways, outputs, mask, causal):
    torch.manual_seed(0)
    block, x = Block(128, 2, lora_rank=2).eval(), torch.randn(2, 5, 128)
    key_mask = None if mask is None else torch.tensor(mask).bool()
    whole = block(x, key_mask, causal)
    found = block(x, key_mask, causal, outputs)
    torch.testing.assert_close(found, whole[:, :outputs], rtol=1e-5, atol=1e-5)
    transformer = Transformer(128, layers=3, heads=2, lora_rank=2).eval()
    torch.testing.assert_close(
        transformer.first_token(x), transformer(x)[:, 0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("gelu", [nn.GELU, QuickGELU])
def test_the_mlp_is_the_formula_and_has_its_gradients(both_ways, rank, gelu):
    torch.manual_seed(0)
    mlp = MLP(64, lora_rank=rank, lora_alpha=2.0).double()
    mlp.gelu = gelu()
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 3, 64, dtype=torch.float64, requires_grad=True)

    def layer(weights: nn.Module, x: Tensor) -> Tensor:
        out = x @ weights.weight.T + weights.bias
        return out + 2 / 3 * (x @ weights.lora_A.T @ weights.lora_B.T) if rank else out

    hidden = layer(mlp.c_fc, x)
    if gelu is nn.GELU:
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    else:
        hidden = hidden * torch.sigmoid(1.702 * hidden)
    expected = layer(mlp.c_proj, hidden)
    found = mlp(x)
    torch.testing.assert_close(found, expected)
    inputs = [x, *(p for p in mlp.parameters() if p.requires_grad)]
    weight = torch.randn_like(x)
    theirs = torch.autograd.grad(expected, inputs, weight)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, weight), theirs)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected)


def test_layer_norm_of_bfloat16_is_that_of_float32_rounded(both_ways):
    torch.manual_seed(0)
    norm, x = LayerNorm(256), (torch.randn(300, 256) * 5 + 3).bfloat16()
    nn.init.normal_(norm.weight)
    weight = torch.randn(300, 256).bfloat16()
    for learns in (True, False):
        norm.requires_grad_(learns)
        ours, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
        found = norm(ours)
        expected = nn.functional.layer_norm(plain.float(), (256,), norm.weight, norm.bias)
        torch.testing.assert_close(found, expected.bfloat16(), rtol=2**-7, atol=0)
        assert (found != expected.bfloat16()).float().mean() < 0.001
        found.backward(weight)
        gradients = [p.grad for p in norm.parameters() if learns]
        norm.zero_grad()
        expected.backward(weight.float())
        torch.testing.assert_close(ours.grad, plain.grad, rtol=0.01, atol=0.01)
        torch.testing.assert_close(gradients, [p.grad for p in norm.parameters() if learns])
        norm.zero_grad()


@pytest.mark.parametrize("rank", [0, 2])
def test_recomputed_activations_give_the_same_and_keep_less(rank):
    kept, results = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        transformer = Transformer(64, layers=3, heads=1, lora_rank=rank)
        for parameter in transformer.parameters():
            nn.init.normal_(parameter, std=0.1)
        names = list(transformer.state_dict())
        if recompute:
            recompute_activations(transformer, (Block,))
        assert list(transformer.state_dict()) == names
        x, numbers = torch.randn(2, 5, 64, requires_grad=True), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, numbers=numbers: numbers.append(tensor.numel()) or tensor, lambda t: t
        ):
            out = transformer(x)
        out.square().sum().backward()
        gradients = [p.grad for p in transformer.parameters() if p.requires_grad]
        results.append([out, x.grad, *gradients])
        kept.append(sum(numbers))
    for without, with_ in zip(*results, strict=True):
        assert torch.equal(without, with_)
    assert kept[1] < kept[0] / 10
