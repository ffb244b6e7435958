"""Linear layers as convolutions, against linear layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models import products
from stclip.models.clip import CLIP
from stclip.models.products import FixedWeights, apply_linear, convolves, prepared

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.01}


@pytest.fixture
def by_convolution(monkeypatch):
    """Let every product be a convolution, whatever the processor, and count them."""
    calls: list[Tensor] = []

    def convolve(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        calls.append(rows)
        return original(rows, weight, bias)

    original = products._convolve
    monkeypatch.setattr(products, "_convolve", convolve)
    monkeypatch.setattr(products, "convolves", lambda x: True)
    return calls


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(70, 24), (3, 30, 24), (1, 1, 24)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_a_linear_layer(by_convolution, dtype, shape, with_bias):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    inputs = [x, torch.randn(40, 24, dtype=dtype, requires_grad=True)]
    if with_bias:
        inputs.append(torch.randn(40, dtype=dtype, requires_grad=True))
    found = apply_linear(*inputs)
    exact = [each.detach().double().requires_grad_() for each in inputs]
    expected = F.linear(*exact)
    assert found.shape == expected.shape
    assert found.is_contiguous()
    assert (found.double() - expected).norm() <= TOLERANCE[dtype] * expected.norm()
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad(found, inputs, weight.to(dtype))
    for gradient, exactly in zip(ours, torch.autograd.grad(expected, exact, weight), strict=True):
        assert (gradient.double() - exactly).norm() <= TOLERANCE[dtype] * exactly.norm()
    assert len(by_convolution) == (2 if dtype == torch.float32 else 1)  # forward, and to x


def test_memory_that_is_laid_out_otherwise(by_convolution):
    torch.manual_seed(0)
    x, weight = torch.randn(24, 9, 4).permute(2, 1, 0), torch.randn(24, 40).T
    expected = F.linear(x, weight)
    torch.testing.assert_close(apply_linear(x, weight), expected, rtol=1e-5, atol=1e-5)
    part = torch.randn(4, 9, 48)[..., 10:34]
    found = apply_linear(part, weight)
    torch.testing.assert_close(found, F.linear(part, weight), rtol=1e-5, atol=1e-5)


def test_autocast_computes_in_16_bits_and_gives_the_parameters_their_dtype(by_convolution):
    torch.manual_seed(0)
    inputs = [torch.randn(size, requires_grad=True) for size in ((70, 24), (40, 24), (40,))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = apply_linear(*inputs)
    assert out.dtype == torch.bfloat16
    for gradient in torch.autograd.grad(out.float().sum(), inputs):
        assert gradient.dtype == torch.float32


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("rows", [70, 7])
def test_only_a_trained_weight_keeps_the_input_and_none_what_it_was_cast_to(
    trained, autocast, rows
):
    x = torch.randn(rows, 24, requires_grad=True)
    weight = torch.randn(40, 24, requires_grad=trained)
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
    ):
        out = apply_linear(x, weight)
    dtype = torch.bfloat16 if autocast else torch.float32
    place = weight.untyped_storage().data_ptr()
    others = [each for each in kept if each.untyped_storage().data_ptr() != place]
    assert len(kept) - len(others) == 1  # the weight itself, or a view of it
    assert [(each.dtype, tuple(each.shape)) for each in others] == [(dtype, (rows, 24))] * trained
    gradient = torch.autograd.grad(out.float().sum(), x)[0]
    expected = weight.detach().sum(dim=0).expand(rows, -1)
    tolerance = {"rtol": 0.02, "atol": 0.1} if autocast else {}
    torch.testing.assert_close(gradient, expected, **tolerance)


def test_fixed_weights_are_prepared_once():
    weight, made = nn.Parameter(torch.randn(4, 3)), []

    def make() -> Tensor:
        made.append(1)
        return weight.detach() * 2

    fixed = FixedWeights()
    with fixed:
        prepared(weight, "twice", make)
        assert len(made) == 1
        with torch.no_grad():
            first = prepared(weight, "twice", make)
            assert prepared(weight, "twice", make) is first
            assert prepared(weight, "again", make) is not first
    assert len(made) == 3
    with torch.no_grad():
        with fixed:
            assert prepared(weight, "twice", make) is first
        assert prepared(weight, "twice", make) is not first
        with FixedWeights():
            assert prepared(weight, "twice", make) is not first
    with fixed, pytest.raises(ZeroDivisionError):
        _ = 1 / 0
    with torch.no_grad():
        assert prepared(weight, "twice", make) is not first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_with_fixed_weights_gives_the_same(precision):
    torch.manual_seed(0)
    model = CLIP(32, 16, 64, 2, 64, 1, 32, vocab_size=100, lora_rank=4).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    images, fixed = torch.randn(3, 3, 32, 32), FixedWeights()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
        expected = model.encode_image(images)
        for _ in range(2):
            with fixed:
                assert torch.equal(model.encode_image(images), expected)


def test_where_the_convolution_is_taken(monkeypatch):
    many, few = torch.zeros(2, 4000, 24), torch.zeros(2, 3, 24)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert convolves(many)
    assert convolves(many.bfloat16())
    assert not convolves(few)
    assert not convolves(torch.zeros(0, 24))
    assert not convolves(many.double())
    assert not convolves(many.half())
    assert not convolves(many.to("meta"))
    with monkeypatch.context() as without:
        without.setattr(torch.backends.mkldnn, "enabled", False)
        assert not convolves(many)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not convolves(many)
