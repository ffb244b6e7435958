"""A precision that the processor is slow in."""

import pytest
import torch

from stclip.engine import precision
from stclip.engine.precision import autocast

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def first_time():
    precision._warn_if_slow.cache_clear()
    yield
    precision._warn_if_slow.cache_clear()


def processor(monkeypatch, bf16, fp16):
    for name, has in (("bf16", bf16), ("fp16", fp16)):
        function = f"_is_mkldnn_{name}_supported"
        monkeypatch.setattr(torch.ops.mkldnn, function, lambda has=has: has, raising=False)


def test_a_processor_without_16_bits_is_named_once(monkeypatch, caplog):
    processor(monkeypatch, bf16=False, fp16=False)
    for name in ("fp32", "bf16", "bf16", "fp16"):
        with autocast(name, CPU):
            pass
    bf16, fp16 = caplog.messages
    assert bf16.startswith("bf16: ")
    assert "bfloat16" in bf16
    assert "choose fp32" in bf16
    assert fp16.startswith("fp16: ")


def test_one_with_them_is_not(monkeypatch, caplog):
    processor(monkeypatch, bf16=True, fp16=False)
    with autocast("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert not caplog.messages
