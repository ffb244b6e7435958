"""What a GPU computes and how training goes there; each test also runs on the CPU, in its way."""

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from stclip.data.loaders import BatchLoader
from stclip.engine.compiling import compile_blocks, recompute_activations
from stclip.engine.distributed import (
    barrier,
    broadcast,
    choose_device,
    gather,
    process_group,
    sum_over_ranks,
)
from stclip.engine.infer import infer
from stclip.engine.optim import build_optimizer
from stclip.engine.precision import autocast
from stclip.engine.train import Criterion, Trainer
from stclip.models.clip import MLP, Block
from stclip.models.losses import FocalCriterion, GroupedFocalCriterion
from stclip.models.stclip import STCLIP, InterestTokens, PromptBlock
from stclip.models.xclip import CrossFrameCLIP
from stclip.structures import ClipBatch, RawPictures
from tests.helpers import REPOSITORY, load_command, random_batch, tiny_model

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])]
on_each_device = pytest.mark.parametrize("device", DEVICES, ids=["cpu", "cuda"], indirect=True)
TEXT = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
VARIANTS: dict[str, Callable[[], STCLIP]] = {
    "plain": tiny_model,
    "interest": lambda: STCLIP(tiny_model().clip, interest_tokens=InterestTokens(4)),
    "xclip": lambda: tiny_model(kind=CrossFrameCLIP),
    "marked": lambda: STCLIP(tiny_model().clip, crop_weight=1.0, marked="blur"),
    "bare": lambda: STCLIP(tiny_model().clip, temporal=False, person_tokens=False),
}
# The most that the norm of a difference may be of the norm of the float32 values.
LIMITS = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 3e-2}


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return choose_device(request.param)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.cpu().double() - expected.cpu().double()).norm() / expected.norm())


def gradients(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])


@on_each_device
@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients(device: torch.device, precision: str, variant: str) -> None:
    torch.manual_seed(0)
    model, batch = VARIANTS[variant](), random_batch([1, 0, 3, 2], frames=7, classes=3)
    assert batch.labels is not None
    results = []
    for where, kind in ((CPU, "fp32"), (device, precision)):
        model.to(where).zero_grad(set_to_none=True)
        moved = batch.to(where)
        with autocast(kind, where):
            logits = model(moved, TEXT.to(where)).logits
        assert logits.dtype == torch.float32
        scale = 1024.0 if kind == "fp16" else 1.0
        loss = FocalCriterion()(logits, moved.labels)["action"]
        (scale * loss).backward()
        results.append((logits.detach(), gradients(model) / scale))
    (logits, grads), (found, found_grads) = results
    assert relative(found, logits) <= LIMITS[precision]
    # With so few tokens a chosen one that changes place shows in the gradients.
    factor = 5 if variant == "interest" and precision != "fp32" else 2
    assert relative(found_grads, grads) <= factor * LIMITS[precision]


@on_each_device
@pytest.mark.parametrize("precision", LIMITS)
def test_written_out_gradients_of_the_mlp(device: torch.device, precision: str) -> None:
    torch.manual_seed(0)
    mlp = MLP(64, lora_rank=2)
    torch.nn.init.normal_(mlp.c_fc.lora_B, std=0.1)
    torch.nn.init.normal_(mlp.c_proj.lora_B, std=0.1)
    x = torch.randn(50, 64)

    def plain(rows: torch.Tensor) -> torch.Tensor:
        return mlp.c_proj(mlp.gelu(mlp.c_fc(rows)))

    results = []
    for where, kind, compute in ((CPU, "fp32", plain), (device, precision, mlp)):
        mlp.to(where).zero_grad(set_to_none=True)
        rows = x.clone().to(where).requires_grad_()
        with autocast(kind, where):
            out = compute(rows)
        out.float().square().sum().backward()
        assert rows.grad is not None
        results.append(torch.cat([rows.grad.flatten().cpu(), gradients(mlp)]))
    assert relative(results[1], results[0]) <= LIMITS[precision]


def trainer_of(
    model: STCLIP, device: torch.device, precision: str = "fp32", **options: Any
) -> Trainer:
    model.to(device)
    settings: dict[str, Any] = {
        "criterion": FocalCriterion(),
        "save": lambda iteration, state: None,
        "max_iter": 4,
    }
    return Trainer(
        model=model,
        vocabulary=TEXT.to(device),
        optimizer=build_optimizer(model, 0.05, 0.9, 0.0),
        learning_rate=lambda iteration: 0.05,
        device=device,
        precision=precision,
        **(settings | options),
    )


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().cpu().clone() for n, p in model.named_parameters() if p.requires_grad}


BATCHES = [random_batch([1, 2], classes=3, seed=number) for number in range(4)]


@on_each_device
def test_a_step_in_float16_that_overflows_is_skipped(device: torch.device) -> None:
    trainer = trainer_of(tiny_model(), device, "fp16", max_iter=1)
    if not trainer.scaler.is_enabled():
        pytest.skip("float16 is not scaled here")
    trainer.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**60)
    before = trained(trainer.model)
    trainer.run(BATCHES[:1])
    after = trained(trainer.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert trainer.scaler.get_scale() < 2.0**60


@on_each_device
def test_recomputed_activations_give_the_same_gradients(device: torch.device) -> None:
    results = []
    for recompute in (False, True):
        model = tiny_model().to(device)
        if recompute:
            recompute_activations(model, (Block, PromptBlock))
        model(BATCHES[0].to(device), TEXT.to(device)).logits.square().sum().backward()
        results.append(gradients(model))
    assert relative(results[1], results[0]) < 1e-5


@on_each_device
def test_resuming_goes_on_as_without_the_break(device: torch.device) -> None:
    """Bit for bit on a CPU; some sums on CUDA are taken in any order."""
    file = io.BytesIO()

    def save(iteration: int, state: dict[str, Any]) -> None:
        if iteration == 2:
            torch.save({"state": state, "weights": first.model.state_dict()}, file)

    first = trainer_of(tiny_model(), device, "bf16", save=save, checkpoint_period=2)
    first.run(BATCHES)
    file.seek(0)
    saved = torch.load(file, weights_only=True, map_location="cpu")
    second = trainer_of(tiny_model(seed=5), device, "bf16")
    second.model.load_state_dict(saved["weights"])
    second.load_state(saved["state"])
    second.run(BATCHES[2:])
    whole, parts = trained(first.model), trained(second.model)
    for name in whole:
        if device.type == "cpu":
            assert torch.equal(whole[name], parts[name]), name
        else:
            torch.testing.assert_close(whole[name], parts[name], rtol=1e-3, atol=1e-5)


@on_each_device
def test_several_labels(device: torch.device) -> None:
    criterion: Criterion = GroupedFocalCriterion(["pose", "object", "person"])
    batch = random_batch([2, 1], classes=3)
    batch.labels = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 0]])
    losses = []
    for where in (CPU, device):
        model = tiny_model().to(where)
        moved = batch.to(where)
        assert moved.labels is not None
        parts = criterion(model(moved, TEXT.to(where)).logits, moved.labels)
        losses.append({name: float(value.detach()) for name, value in parts.items()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


class Stored(Dataset[ClipBatch]):
    """Batches that a loader's workers hand on."""

    def __len__(self) -> int:
        return len(BATCHES)

    def __getitem__(self, index: int) -> ClipBatch:
        return BATCHES[index]


@on_each_device
def test_pictures_resized_by_the_device(device: torch.device) -> None:
    chance = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (4, 90, 160, 3), dtype=torch.uint8, generator=chance)
    row, box = torch.tensor([0, 3]), torch.tensor([[5, 6, 60, 80], [0, 0, 159, 20]])
    raw = RawPictures(pictures, row, box, 64)
    for found, expected in zip(
        raw.map(lambda t: t.to(device)).resized(), raw.resized(), strict=True
    ):
        difference = (found.cpu().int() - expected.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3


@on_each_device
def test_a_loader_whose_workers_start_after_the_device_did(device: torch.device) -> None:
    model, vocabulary = tiny_model().eval(), TEXT.to(device)
    expected = infer(model, BATCHES, TEXT, device=CPU)
    model.to(device)
    model(BATCHES[0].to(device), vocabulary)  # the device is in use before workers are forked
    loader = BatchLoader(Stored(), workers=2, pin_memory=device.type == "cuda")
    found = infer(model, loader, vocabulary, device=device)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("train", [False, True])
def test_compiled_blocks(train: bool) -> None:
    device = torch.device("cuda")
    batch, text = BATCHES[0].to(device), TEXT.to(device)
    results = []
    for compiled in (False, True):
        model = tiny_model().train(train).to(device)
        if compiled:
            compile_blocks(model.clip)
        with torch.set_grad_enabled(train):
            logits = model(batch, text).logits
        results.append(logits.detach())
        if train:
            logits.square().sum().backward()
            results[-1] = gradients(model)
    assert relative(results[1], results[0]) < 1e-3


@pytest.mark.gpu
@needs_cuda
def test_a_forward_does_not_wait_for_the_device() -> None:
    device = torch.device("cuda")
    model, text = tiny_model().eval().to(device), TEXT.to(device)
    batch = random_batch([2, 0, 1]).to(device)
    with torch.inference_mode():
        model(batch, text)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model(batch, text)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@on_each_device
def test_one_rank_of_many(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of one: DistributedDataParallel over nccl on CUDA, counts and objects over gloo."""
    plain = trainer_of(tiny_model(), device)
    plain.run(BATCHES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with process_group(device):
        barrier()
        assert (broadcast("word"), gather({"a": 1})) == ("word", [{"a": 1}])
        assert sum_over_ranks(torch.ones(2, device=device)).tolist() == [1, 1]
        grouped = trainer_of(tiny_model(), device)
        grouped.run(BATCHES)
    expected = trained(plain.model)
    for name, value in trained(grouped.model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_check_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cpu", "--model", "small", "--keyframes", "2", "--persons", "2"]
    out = tmp_path / "check.json"
    tool = load_command("gpu_check")
    tool.main([*words, "--chunks", "2", "--repeats", "1", "--json", str(out)])
    result = json.loads(out.read_text())
    assert result["passed"], capsys.readouterr().out
    assert {line["what"].split(", ")[0] for line in result["comparisons"]} == {
        "logits",
        "gradients",
        "chosen tokens",
    }
    assert result["costs"][0]["keyframes_per_second"] > 0


def test_the_report_is_a_script_that_bash_understands() -> None:
    script = REPOSITORY / "tools" / "gpu_report.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    ended = subprocess.run(
        ["bash", str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert ended.returncode == 2
    assert "usage" in ended.stderr.lower()
