import pytest
import torch
from torch.nn import functional as F

from stclip.models.context_prompting import (
    ContextPrompt,
    ContextPrompting,
    CrossAttention,
    projects_names,
)


def by_hand(prompt: ContextPrompt, text: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Section 5 for one keyframe with one head of 64: text (C, 64), tokens (S, 64)."""
    block = prompt.decoder[0]
    cross = block.cross_attn
    v = prompt.norm(tokens)
    q, k, value = (
        cross.q_proj(block.norm1(text)),
        cross.k_proj(v),
        cross.v_proj(v),
    )
    attention = (q @ k.T / 8).softmax(dim=-1)
    h = text + cross.proj(attention @ value)
    hidden = block.mlp.c_fc(block.norm3(h))
    h = h + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
    return text + prompt.alpha * h


def test_equals_the_formula() -> None:
    torch.manual_seed(0)
    prompt = ContextPrompt(64)
    for parameter in prompt.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    text, tokens = torch.randn(2, 5, 64), torch.randn(2, 7, 64)
    result = prompt(text, tokens)
    for row in range(2):
        expected = by_hand(prompt, text[row], tokens[row])
        torch.testing.assert_close(result[row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("names", [1, 6, 60])
def test_few_and_many_names_give_what_torch_gives(names: int) -> None:
    torch.manual_seed(0)
    module, width = CrossAttention(128, heads=2), 128
    torch.nn.init.normal_(module.proj.bias)
    reference = torch.nn.MultiheadAttention(width, 2, batch_first=True)
    projections = (module.q_proj.weight, module.k_proj.weight, module.v_proj.weight)
    reference.in_proj_weight.data = torch.cat(projections).detach()
    reference.out_proj.load_state_dict(module.proj.state_dict())
    query = torch.randn(3, names, width, requires_grad=True)
    tokens = torch.randn(3, 50, width, requires_grad=True)
    mask = torch.rand(3, 50) < 0.7
    assert projects_names(names, 50, 2, width) == (names < 60)

    found = module(query, tokens, mask)
    expected, _ = reference(query, tokens, tokens, key_padding_mask=~mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    direction = torch.randn(found.shape)
    for one, other in zip(
        torch.autograd.grad((found * direction).sum(), [query, tokens, *projections]),
        [
            *torch.autograd.grad((expected * direction).sum(), [query, tokens], retain_graph=True),
            *torch.autograd.grad((expected * direction).sum(), reference.in_proj_weight)[0].chunk(
                3
            ),
        ],
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_initial_values_are_the_papers() -> None:
    prompt = ContextPrompt(512)
    assert torch.equal(prompt.alpha, torch.full((512,), 0.2))
    weight = prompt.decoder[0].mlp.c_fc.weight
    assert 0.019 < weight.std() < 0.021
    assert not prompt.decoder[0].cross_attn.proj.bias.any()
    wider = (
        ContextPrompting(range(2), 64, 512, init_std=0.15).prompts["1"].decoder[0].mlp.c_fc.weight
    )
    assert 0.14 < wider.std() < 0.16


def test_masked_tokens_do_not_count() -> None:
    torch.manual_seed(0)
    prompting = ContextPrompting(layers=range(2), width=64, embed_dim=128)
    text, tokens = torch.randn(1, 3, 128), torch.randn(1, 6, 64)
    mask = torch.tensor([[True, True, False, True, False, True]])
    kept = prompting(1, text, tokens[:, mask[0]])
    torch.testing.assert_close(prompting(1, text, tokens, mask), kept, rtol=1e-5, atol=1e-6)


def test_each_layer_has_its_own_weights() -> None:
    prompting = ContextPrompting(layers=range(2), width=64, embed_dim=64)
    text, tokens = torch.randn(1, 3, 64), torch.randn(1, 6, 64)
    assert not torch.allclose(prompting(0, text, tokens), prompting(1, text, tokens))


def test_text_without_visual_influence_keeps_its_residual() -> None:
    prompt = ContextPrompt(64)
    torch.nn.init.zeros_(prompt.decoder[0].cross_attn.proj.weight)
    torch.nn.init.zeros_(prompt.decoder[0].mlp.c_proj.weight)
    text = F.normalize(torch.randn(1, 4, 64), dim=-1)
    torch.testing.assert_close(prompt(text, torch.randn(1, 6, 64)), 1.2 * text)
