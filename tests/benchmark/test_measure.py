import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stclip.benchmark.measure import Clock, Spread, Units, count_flops
from stclip.models import fast
from stclip.models.clip import Linear


class Toy(nn.Module):
    """A linear layer, the same layer as a convolution (as oneDNN computes it), and attention."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8, bias=False)

    def forward(self, x):  # (5, 8)
        x = self.linear(x)
        picture = x.T[None, :, None]  # (1, 8, 1, 5)
        x = F.conv2d(picture, self.linear.weight[:, :, None, None])[0, :, 0].T
        heads = x.view(1, 5, 2, 4).transpose(1, 2)  # (1, 2, 5, 4)
        return F.scaled_dot_product_attention(heads, heads, heads)


LAYER, ATTENTION = 2 * 5 * 8 * 8, 2 * (2 * 2 * 5 * 5 * 4)


def test_operations_by_hand():
    model = Toy()

    def test():
        with torch.inference_mode():
            model(torch.randn(5, 8))

    assert count_flops(model, test) == {
        "linear": LAYER, "towers": LAYER + ATTENTION, "backward": 0,
    }  # fmt: skip
    # The input needs no gradient: one product for the first layer, two for each of the others.
    found = count_flops(model, lambda: model(torch.randn(5, 8)).sum().backward())
    assert found["backward"] == LAYER + 2 * LAYER + 2 * ATTENTION
    assert not model._forward_hooks
    assert not model.linear._forward_pre_hooks


class Listed:
    """Gives values in order, as yardstick or as matrix rate."""

    def __init__(self, *values):
        self.values = list(values)

    def seconds(self):
        return self.values.pop(0)

    flops_per_second = seconds


def test_a_run_counts_in_the_mean_of_the_units_beside_it():
    clock = Clock(Listed(1.0, 1.1, 1.3), Listed(100.0, 200.0, 400.0))
    for _ in range(3):
        clock.take()
    assert clock.around(0) == Units(pytest.approx(1.05), 150.0)
    assert clock.around(1) == Units(pytest.approx(1.2), 300.0)
    assert not clock.steady


def test_spread():
    assert Spread.of([3.0, 1.0, 2.0]).fields("x", 1) == {"x": 2.0, "x_min": 1.0, "x_max": 3.0}


@pytest.mark.parametrize("fused", [True, False])
def test_a_fused_layer_counts(monkeypatch: pytest.MonkeyPatch, fused: bool) -> None:
    monkeypatch.setattr(fast, "fuses", lambda rows: fused)
    layer = Linear(8, 16)

    def run() -> None:
        with torch.no_grad():
            layer(torch.zeros(5, 8))

    assert count_flops(layer, run)["towers"] == 2 * 5 * 8 * 16
