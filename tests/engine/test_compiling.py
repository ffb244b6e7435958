"""Compiled blocks compute what the others do."""

import shutil
from pathlib import Path

import pytest
import torch

from stclip.engine.compiling import compile_blocks, recompute_activations
from stclip.errors import UserError
from stclip.models.clip import Block
from stclip.models.losses import FocalCriterion
from stclip.models.stclip import PromptBlock
from tests.helpers import random_batch, tiny_model


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_blocks_give_the_same() -> None:
    """In a test, and in training: loss and gradients."""
    batch, vocabulary = random_batch([2, 1], classes=3), torch.randn(3, 64)
    models = tiny_model(), tiny_model(), tiny_model()
    for model in models[1:]:
        compile_blocks(model.clip)
    recompute_activations(models[2], (Block, PromptBlock))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found = []
    for model in models:
        with torch.inference_mode():
            logits = model.eval()(batch, vocabulary).logits
        model.train()
        loss = FocalCriterion()(model(batch, vocabulary).logits, batch.labels)["action"]
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        found.append({"logits": logits, "loss": loss.detach()} | gradients)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    for other in found[1:]:
        assert list(found[0]) == list(other)
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)


def test_compiling_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"MODEL\.COMPILE: no C\+\+ compiler .*install g\+\+"):
        compile_blocks(tiny_model().clip)
