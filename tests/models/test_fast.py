"""What is there for speed alone, against the plain formulas."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models import fast
from stclip.models.clip import CLIP, MLP, CLIPSizes, Linear, QuickGELU
from stclip.models.fast import FixedWeights, _prepared, attend, convolves, fuses, linear
from stclip.models.losses import FocalCriterion
from stclip.models.stclip import CrossAttention, InterestTokens
from stclip.models.xclip import CrossFrameCLIP
from tests.helpers import random_batch, tiny_model

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.01}


@pytest.fixture
def by_convolution(request, monkeypatch):
    """Let every product be a convolution, whatever the processor, and count them; or none."""
    calls: list[Tensor] = []

    def convolve(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        calls.append(rows)
        return original(rows, weight, bias)

    original = fast._convolve
    monkeypatch.setattr(fast, "_convolve", convolve)
    everywhere = getattr(request, "param", True)
    monkeypatch.setattr(fast, "convolves", lambda x: everywhere and fast._on)
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
    found = linear(*inputs)
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
    torch.testing.assert_close(linear(x, weight), expected, rtol=1e-5, atol=1e-5)
    part = torch.randn(4, 9, 48)[..., 10:34]
    found = linear(part, weight)
    torch.testing.assert_close(found, F.linear(part, weight), rtol=1e-5, atol=1e-5)


def test_autocast_computes_in_16_bits_and_gives_the_parameters_their_dtype(by_convolution):
    torch.manual_seed(0)
    inputs = [torch.randn(size, requires_grad=True) for size in ((70, 24), (40, 24), (40,))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear(*inputs)
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
        out = linear(x, weight)
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
        _prepared(weight, "twice", make)
        assert len(made) == 1
        with torch.no_grad():
            first = _prepared(weight, "twice", make)
            assert _prepared(weight, "twice", make) is first
            assert _prepared(weight, "again", make) is not first
    assert len(made) == 3
    with torch.no_grad():
        with fixed:
            assert _prepared(weight, "twice", make) is first
        assert _prepared(weight, "twice", make) is not first
        with FixedWeights():
            assert _prepared(weight, "twice", make) is not first
    with fixed, pytest.raises(ZeroDivisionError):
        _ = 1 / 0
    with torch.no_grad():
        assert _prepared(weight, "twice", make) is not first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_with_fixed_weights_gives_the_same(precision):
    torch.manual_seed(0)
    model = CLIP(CLIPSizes(32, 16, 64, 2, 64, 1, 32, vocab_size=100), lora_rank=4).eval()
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
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
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
    with monkeypatch.context() as intel:
        intel.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
        assert not convolves(many)
        assert not convolves(many.bfloat16())
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not convolves(many)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here"
)
@pytest.mark.parametrize("gelu", [QuickGELU(), nn.GELU()])
def test_where_layers_are_fused(monkeypatch, gelu):
    monkeypatch.setattr(fast, "has_amx", lambda: True)
    x = torch.randn(2, 30, 24)
    first, second = Linear(24, 96), Linear(96, 24)
    exact = second(gelu(first(x)))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = fast.mlp(x, first, gelu, second)
        assert fuses(x.bfloat16())
        assert fast.mlp(x[:0], first, gelu, second).shape == (0, 30, 24)
        assert not fuses(x)
    assert (found.dtype, found.shape) == (torch.bfloat16, x.shape)
    assert (found - exact).norm() <= 0.01 * exact.norm()
    assert not fuses(x.bfloat16())  # it has no gradient


ATTENTION_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}


def written_out(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    scores = torch.einsum("bhqd,bhsd->bhqs", query, key) / query.shape[-1] ** 0.5
    weights = scores.exp() * allowed
    return torch.einsum("bhqs,bhsd->bhqd", weights / weights.sum(dim=-1, keepdim=True), value)


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(dtype, False) for dtype in ATTENTION_TOLERANCE]
    + [(torch.float32, True), (torch.bfloat16, True)],
)
@pytest.mark.parametrize("kind", ["whole", "mask", "causal"])
def test_attention_has_the_values_and_gradients_written_out(dtype, autocast, kind):
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
    tolerance = ATTENTION_TOLERANCE[torch.bfloat16 if autocast else dtype]
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


def random_mlp(dtype: torch.dtype = torch.float64, seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    mlp = MLP(64, lora_rank=3, lora_alpha=2.0).to(dtype).train()
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.1)
    return mlp


def one_by_one(mlp: MLP, x: Tensor) -> Tensor:
    return mlp.c_proj(mlp.gelu(mlp.c_fc(x)))


def test_gradients_equal_finite_differences():
    mlp = random_mlp()
    x = torch.randn(2, 64, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), (x, *mlp.parameters()), fast_mode=True)


def test_an_input_without_gradient_and_frozen_parameters_get_none():
    mlp, x = random_mlp(torch.float32), torch.randn(2, 64)
    mlp(x).sum().backward()
    with_gradient = {name for name, p in mlp.named_parameters() if p.grad is not None}
    assert with_gradient == {f"{c}.lora_{m}" for c in ("c_fc", "c_proj") for m in "AB"}
    assert x.grad is None
    assert not mlp.requires_grad_(False)(x).requires_grad


def test_it_keeps_the_hidden_layer_once():
    mlp, x = random_mlp(torch.float32), torch.randn(100, 64, requires_grad=True)
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mlp(x)
    assert sizes.count(100 * 256) == 1


def test_autocast_computes_in_bfloat16_and_gives_the_parameters_their_dtype():
    mlp, x = random_mlp(torch.float32), torch.randn(50, 64, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mlp(x)
    assert out.dtype == torch.bfloat16
    weight = torch.randn(50, 64)
    inputs = [x, *(p for p in mlp.parameters() if p.requires_grad)]
    found = torch.autograd.grad(out, inputs, weight.bfloat16())
    expected = torch.autograd.grad(one_by_one(mlp, x), inputs, weight)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


VARIANTS = {
    "whole": {},
    "interest tokens": {"interest_tokens": InterestTokens(4)},
    "plain GELU": {"activation": "gelu"},
    "without LoRA": {"lora_rank": 0},
    "X-CLIP's tower": {"kind": CrossFrameCLIP},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("frames", [12, 4])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("by_convolution", [True, False], indirect=True)
def test_the_model_is_the_same_either_way(by_convolution, variant, frames, precision) -> None:
    """Logits of a test, and loss and gradients of a training."""
    options = dict(VARIANTS[variant])
    interest = options.pop("interest_tokens", None)
    activation = options.pop("activation", "quick_gelu")
    batch, text = random_batch([2, 0, 1, 3], frames=frames, classes=5), torch.randn(5, 64)
    results = []
    for on in (True, False):
        model = tiny_model(**options)
        model.interest_tokens = interest
        model.clip.use_activation(activation)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
        with fast.switched(on):
            with torch.inference_mode(), autocast, FixedWeights():
                logits = model.eval()(batch, text).logits
            with autocast:
                output = model.train()(batch, text)
            loss = FocalCriterion()(output.logits, batch.labels)["action"]
            loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        results.append({"logits": logits, "loss": loss.detach()} | gradients)
    quick, plain = results
    assert list(quick) == list(plain)
    for name, expected in plain.items():
        if precision == "fp32":
            torch.testing.assert_close(quick[name], expected, rtol=1e-4, atol=1e-5)
        elif name in ("logits", "loss") and interest is None:  # 16 bits may choose other tokens
            torch.testing.assert_close(quick[name], expected, rtol=0.05, atol=0.3)


SCRIPT = """
import resource, sys
import torch
from stclip.engine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for repeat in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 << 20)  # 64 MB, above what glibc would keep by itself
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


RELEASE = """
import torch
from stclip.engine.memory import keep_freed_memory, release_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
keep_freed_memory()
kept = torch.ones(16 << 20)
before = resident()
freed, behind = torch.ones(16 << 20), torch.ones(1)
del freed
held = resident() - before
release_freed_memory()
print(held, resident() - before, kept.sum().item())
"""

only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")


@only_glibc
@pytest.mark.slow
def test_freed_memory_is_used_again():
    clean = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES",)}
    clean["THP_MEM_ALLOC_ENABLE"] = "0"

    def faults(mode: str) -> int:
        words = [sys.executable, "-c", SCRIPT, mode]
        return int(subprocess.run(words, env=clean, check=True, capture_output=True).stdout)

    assert faults("leave") > 16384  # of 5 x 16,384 pages
    assert faults("keep") < 1000


@only_glibc
@pytest.mark.slow
def test_what_is_free_is_released():
    clean = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES",)}
    words = [sys.executable, "-c", RELEASE]
    run = subprocess.run(words, env=clean, check=True, capture_output=True, text=True)
    held, left, total = run.stdout.split()
    assert int(held) > 16000  # of 16,384 pages
    assert int(left) < 1000
    assert float(total) == 16 << 20


@pytest.mark.parametrize("names", [1, 6, 60])
def test_cross_attention_of_few_and_many_names_gives_what_torch_gives(both_ways, names) -> None:
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
    found = module(query, tokens, mask)
    expected, _ = reference(query, tokens, tokens, key_padding_mask=~mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    direction = torch.randn(found.shape)
    ours = torch.autograd.grad(found, [query, tokens, *projections], direction)
    theirs = torch.autograd.grad(expected, [query, tokens, reference.in_proj_weight], direction)
    expected_gradients = (*theirs[:2], *theirs[2].chunk(3))
    torch.testing.assert_close(ours, expected_gradients, rtol=1e-4, atol=1e-4)
