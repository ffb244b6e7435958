import pytest
import torch
from torch import Tensor, nn

from stclip.models.context_tokens import ContextTokens


def looped(module: ContextTokens, patches: Tensor, frames: list[int]) -> Tensor:
    """One keyframe the long way: nn.MultiheadAttention, position by position."""
    width = patches.shape[-1]
    attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
    attention.load_state_dict(module.attn.state_dict())
    attention.eval()
    rows = []
    for position in range(patches.shape[1]):
        x = patches[frames, position] + module.temporal_embedding[: len(frames)]
        y = module.ln_1(x)[None]
        x = x + attention(y, y, y, need_weights=False)[0][0]
        rows.append(x.mean(dim=0))
    return torch.stack(rows)


# Of the 12 frames the first two share few or none, the others many.
@pytest.mark.parametrize(
    "windows",
    [
        [list(range(9)), list(range(3, 12))],
        [[0, 1, 2], [4, 5, 6]],
        [list(range(9)), list(range(1, 10)), list(range(3, 12))],
        [[0, 1, 2], [1, 2, 3, 4], [4, 5, 6]],
    ],
)
def test_equals_the_loop(windows: list[list[int]]) -> None:
    torch.manual_seed(0)
    module = ContextTokens(128, frames=9)
    nn.init.normal_(module.attn.in_proj_bias)
    nn.init.normal_(module.ln_1.weight)
    nn.init.normal_(module.ln_1.bias)
    patches = torch.randn(12, 5, 128)
    padded = torch.tensor([w + [-1] * (9 - len(w)) for w in windows])
    result = module(patches, padded)
    expected = torch.stack([looped(module, patches, frames) for frames in windows])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)

    direction = torch.randn(result.shape)
    shared = [module.temporal_embedding, module.ln_1.weight, module.ln_1.bias]
    gradients = torch.autograd.grad((result * direction).sum(), shared)
    for found, wanted in zip(
        gradients, torch.autograd.grad((expected * direction).sum(), shared), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_short_and_long_videos_share_a_batch() -> None:
    torch.manual_seed(0)
    module = ContextTokens(64, frames=4).eval()
    patches = torch.randn(6, 3, 64)
    window = torch.tensor([[0, 1, -1, -1], [2, 3, 4, 5]])
    both = module(patches, window)
    torch.testing.assert_close(both[:1], module(patches, window[:1]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[1:], module(patches, window[1:]), rtol=1e-5, atol=1e-6)


def test_one_frame_is_itself_plus_attention_to_itself() -> None:
    module = ContextTokens(64, frames=1).eval()
    nn.init.zeros_(module.attn.out_proj.weight)
    patches = torch.randn(1, 3, 64)
    result = module(patches, torch.tensor([[0]]))
    torch.testing.assert_close(result, patches + module.temporal_embedding[0])


@pytest.mark.parametrize("length", [9, 4])
def test_block_by_block_equals_the_fast_form(length: int) -> None:
    torch.manual_seed(0)
    model = ContextTokens(128, init_std=0.5)
    nn.init.normal_(model.ln_1.weight)
    nn.init.normal_(model.ln_1.bias)
    patches = torch.randn(12, 5, 128)
    window = torch.full((4, 9), -1)
    window[:, :length] = torch.arange(length) + torch.arange(4)[:, None]
    expected = model(patches, window)
    present = window >= 0
    share = present / present.sum(dim=1, keepdim=True)
    found = model._block_by_block(patches, window, present, share)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
