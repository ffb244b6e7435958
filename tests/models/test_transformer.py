"""The parts of a transformer: hand-worked values, PyTorch's own, batched against looped."""

import pytest
import torch
from torch import nn

from stclip.models.transformer import (
    MLP,
    Attention,
    Block,
    LayerNorm,
    QuickGELU,
    Transformer,
    recompute_activations,
)


@pytest.mark.parametrize("causal", [False, True])
def test_key_mask_is_as_if_the_tokens_were_not_there(causal):
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
def test_attention_equals_pytorch(causal):
    torch.manual_seed(0)
    ours, theirs = Attention(128, 2), nn.MultiheadAttention(128, 2, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    x, keep = torch.randn(2, 5, 128), torch.tensor([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1]]).bool()
    later = torch.ones(5, 5).triu(1).bool() if causal else None
    expected = theirs(x, x, x, key_padding_mask=~keep, attn_mask=later, need_weights=False)[0]
    torch.testing.assert_close(ours(x, keep, causal), expected, atol=1e-5, rtol=1e-5)


def test_small_parts():
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


def test_the_first_token_alone_is_the_first_of_all():
    torch.manual_seed(0)
    transformer = Transformer(128, layers=3, heads=2, lora_rank=2).eval()
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 5, 128, requires_grad=True)
    whole, alone = transformer(x)[:, 0], transformer.first(x)
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-5)
    weight = torch.randn(2, 128)
    expected = torch.autograd.grad((whole * weight).sum(), x)[0]
    torch.testing.assert_close(
        torch.autograd.grad((alone * weight).sum(), x)[0], expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("rank", [0, 3])
def test_the_mlp_is_the_same_with_and_without_gradients(rank):
    torch.manual_seed(0)
    mlp = MLP(64, lora_rank=rank, lora_alpha=2.0).eval()
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 3, 64)
    expected = mlp.c_proj(QuickGELU()(mlp.c_fc(x)))
    torch.testing.assert_close(mlp(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rank", [0, 3])
def test_plain_gelu_is_the_formula_and_has_its_gradients(rank):
    torch.manual_seed(0)
    mlp = MLP(64, lora_rank=rank, lora_alpha=2.0).double()
    mlp.gelu = nn.GELU()
    norm = LayerNorm(64).double().requires_grad_(False)
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 3, 64, dtype=torch.float64, requires_grad=True)

    def layer(weights: nn.Module, x: torch.Tensor) -> torch.Tensor:
        out = x @ weights.weight.T + weights.bias
        return out + 2 / 3 * (x @ weights.lora_A.T @ weights.lora_B.T) if rank else out

    hidden = layer(mlp.c_fc, norm(x))
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    expected = layer(mlp.c_proj, hidden)
    found = mlp(x, norm)
    torch.testing.assert_close(found, expected)
    inputs = [x, *(p for p in mlp.parameters() if p.requires_grad)]
    weight = torch.randn_like(x)
    theirs = torch.autograd.grad(expected, inputs, weight)
    for ours, theirs_ in zip(torch.autograd.grad(found, inputs, weight), theirs, strict=True):
        torch.testing.assert_close(ours, theirs_)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x, norm), expected)


def test_layer_norm_of_bfloat16_is_that_of_float32_rounded():
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
        mask = torch.tensor([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1]]).bool()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, numbers=numbers: numbers.append(tensor.numel()) or tensor, lambda t: t
        ):
            out = transformer(x, mask)
        out.square().sum().backward()
        gradients = [p.grad for p in transformer.parameters() if p.requires_grad]
        results.append([out, x.grad, *gradients])
        kept.append(sum(numbers))
    for without, with_ in zip(*results, strict=True):
        assert torch.equal(without, with_)
    assert kept[1] < kept[0] / 10
