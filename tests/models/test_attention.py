"""Attention in every precision, against float64 written out."""

import pytest
import torch
from torch import Tensor

from stclip.models.attention import attend

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}


def written_out(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    scores = torch.einsum("bhqd,bhsd->bhqs", query, key) / query.shape[-1] ** 0.5
    weights = scores.exp() * allowed
    return torch.einsum("bhqs,bhsd->bhqd", weights / weights.sum(dim=-1, keepdim=True), value)


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(dtype, False) for dtype in TOLERANCE] + [(torch.float32, True), (torch.bfloat16, True)],
)
@pytest.mark.parametrize("kind", ["whole", "mask", "causal"])
def test_values_and_gradients(dtype, autocast, kind):
    torch.manual_seed(0)
    shape = (2, 3, 7, 16)
    inputs = [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3)]
    exact = [each.detach().double().requires_grad_() for each in inputs]
    mask, allowed = None, torch.ones(7, 7)
    if kind == "mask":
        mask = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0]]).bool()[:, None, None]
        allowed = mask
    if kind == "causal":
        allowed = torch.ones(7, 7).tril()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = attend(*inputs, mask, causal=kind == "causal")
    expected = written_out(*exact, allowed)
    tolerance = TOLERANCE[torch.bfloat16 if autocast else dtype]
    assert (found.double() - expected).norm() < tolerance * expected.norm()
    weight = torch.randn(shape, dtype=torch.float64)
    ours = torch.autograd.grad(found, inputs, weight.to(found.dtype))
    for gradient, exactly in zip(ours, torch.autograd.grad(expected, exact, weight), strict=True):
        assert (gradient.double() - exactly).norm() < tolerance * max(exactly.norm(), 1)


def test_one_query_in_bfloat16():
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 1, 16).bfloat16(), torch.randn(2, 3, 7, 16).bfloat16()
    expected = written_out(query.double(), key.double(), key.double(), torch.ones(1, 7))
    found = attend(query, key, key)
    assert found.shape == (2, 3, 1, 16)
    assert (found.double() - expected).norm() < 0.02 * expected.norm()
