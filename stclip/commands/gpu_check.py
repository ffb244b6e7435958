"""Check on a GPU what tests on a CPU cannot: that results agree, and what a batch costs there.

ST-CLIP with random weights computes one batch on the CPU in float32 and on the device in each
precision, with and without interest tokens, and with X-CLIP's tower; logits and gradients are
compared. Then batches that lie on the device already are timed by their size; synchronisations of
the host with the device, kernels and memory of a batch are counted. Each comparison is a line that
begins with OK or BAD; one BAD makes the exit status 1. In a clone, tools/gpu_report.sh runs this
and the GPU's tests and benchmarks.

Examples:
    stclip gpu-check --json gpu_check.json
    stclip gpu-check --device cpu --model small --keyframes 2
"""

import argparse
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stclip.benchmark.measure import MatrixRate, count_flops, machine
from stclip.benchmark.work import LORA_RANK, MODELS
from stclip.cli import Parser, positive
from stclip.data.windows import window
from stclip.engine.distributed import choose_device
from stclip.engine.optim import build_optimizer
from stclip.engine.precision import autocast
from stclip.engine.train import Trainer
from stclip.errors import UserError
from stclip.files import write_json
from stclip.models.clip import CLIP, CLIPSizes
from stclip.models.fast import FixedWeights
from stclip.models.losses import FocalCriterion, class_scores
from stclip.models.stclip import STCLIP, InterestTokens
from stclip.models.xclip import CrossFrameCLIP
from stclip.structures import ClipBatch, FrameKey

CLASSES, WINDOW = 6, 9
# The most that the norm of a difference may be of the norm of the float32 values.
LIMITS = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 2e-2}
# Of interest tokens, how many must be chosen as on the CPU; 16 bits cannot tell close ones apart.
SAME_TOKENS = {"fp32": 0.99, "fp16": 0.9, "bf16": 0.7}
# Gradients in float16 are scaled, as a training's GradScaler does, to stay off its smallest values.
LOSS_SCALE = 1024.0
# What scaled_dot_product_attention may run on.
BACKENDS = ("flash", "efficient", "cudnn", "math")


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="the device to check"
    )
    parser.add_argument("--model", default="ViT-B/16", choices=list(MODELS), help="sizes of CLIP")
    parser.add_argument(
        "--keyframes", default=8, type=positive, help="keyframes of the compared batch"
    )
    parser.add_argument("--persons", default=3, type=positive, help="persons of each keyframe")
    parser.add_argument(
        "--chunks",
        nargs="+",
        default=[8, 32, 64],
        type=positive,
        help="keyframes of the batches to time",
    )
    parser.add_argument("--repeats", default=10, type=positive, help="timed batches")
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the numbers to this file"
    )
    args = parser.parse_args(argv)
    if args.json is not None and args.json.exists():
        raise UserError(f"{args.json}: exists already; choose another name")
    device = choose_device(args.device)
    print(f"{machine(device)['device']}, torch {torch.__version__}")

    # float16 is too slow on a CPU to be used there.
    precisions = [kind for kind in LIMITS if device.type == "cuda" or kind != "fp16"]
    comparisons: list[dict[str, Any]] = []
    for name, model in variants(args.model).items():
        comparisons += compare(name, model, precisions, args, device)
    # Only ST-CLIP itself is timed; stclip benchmark times the variants.
    model = variants(args.model)["ST-CLIP"].to(device)
    costs = [cost(model, args, chunk, kind, device) for kind in precisions for chunk in args.chunks]
    counted = {kind: count(model, args, kind, device) for kind in precisions}
    passed = all(comparison["ok"] for comparison in comparisons)
    if args.json is not None:
        result = {"model": args.model, "keyframes": args.keyframes, "persons": args.persons}
        result |= {"passed": passed, "comparisons": comparisons, "costs": costs}
        write_json(args.json, result | {"counted": counted, **machine(device)})
    print("all OK" if passed else "some are BAD")
    return 0 if passed else 1


def variants(size: str) -> dict[str, STCLIP]:
    """The models that are compared, with random weights in every part, on the CPU."""
    models = {}
    for name, tower, interest in (
        ("ST-CLIP", CLIP, None),
        ("interest tokens", CLIP, InterestTokens(min(20, _tokens(size)))),
        ("X-CLIP's tower", CrossFrameCLIP, None),
    ):
        torch.manual_seed(0)
        clip = tower(CLIPSizes(**MODELS[size]), lora_rank=LORA_RANK)
        model = STCLIP(clip, interest_tokens=interest, mixing=tower is CLIP)
        for key, parameter in model.named_parameters():
            if key.endswith("lora_B"):  # zero at first, which would hide LoRA and its gradients
                torch.nn.init.normal_(parameter, std=0.01)
        models[name] = model
    return models


def _tokens(size: str) -> int:
    return 1 + (MODELS[size]["image_size"] // MODELS[size]["patch_size"]) ** 2


def make_batch(
    model: STCLIP, keyframes: int, persons: int, several: bool = False, video: int = 40
) -> ClipBatch:
    """Neighbouring keyframes of one video of noise, on the CPU, with labels.

    Args:
        model: for it.
        keyframes: from the first frame on.
        persons: of each keyframe.
        several: every second keyframe has one fewer, so that the model has to pad.
        video: frames of the video at least.
    """
    generator = torch.Generator().manual_seed(0)
    frames = max(video, keyframes)
    rows = [window(number, frames, WINDOW) for number in range(1, keyframes + 1)]
    needed = max(max(row) for row in rows)
    counts = torch.full((keyframes,), persons)
    if several:
        counts[1::2] = max(1, persons - 1)
    owner = torch.repeat_interleave(torch.arange(keyframes), counts)
    side, total = model.clip.image_size, len(owner)
    labels = torch.randint(CLASSES, (total,), generator=generator)

    def pixels(number: int) -> Tensor:
        shape = (number, 3, side // 8, side // 8)
        coarse = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)

    return ClipBatch(
        frames=pixels(needed),
        window=torch.tensor(rows) - 1,
        keyframe=torch.arange(keyframes),
        crops=pixels(total),
        owner=owner,
        boxes=torch.zeros(total, 4),
        det_scores=torch.ones(total),
        labels=torch.nn.functional.one_hot(labels, CLASSES).float(),
        keys=tuple(FrameKey("walk/noise", number) for number in range(1, keyframes + 1)),
    )


def compare(
    name: str,
    model: STCLIP,
    precisions: list[str],
    args: argparse.Namespace,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Logits and gradients of a model in float32 on the CPU against those on the device."""
    batch = make_batch(model, args.keyframes, args.persons, several=True)
    vocabulary = torch.randn(
        CLASSES, model.clip.embed_dim, generator=torch.Generator().manual_seed(1)
    )
    expected = both(model, batch, vocabulary, "fp32")
    model.to(device)
    found = []
    for precision in precisions:
        limit = LIMITS[precision]
        logits, gradients, tokens = both(model, batch.to(device), vocabulary.to(device), precision)
        for what, left, right in (
            ("logits", logits, expected[0]),
            ("gradients", gradients, expected[1]),
        ):
            value = float((left - right).norm() / right.norm())
            found.append(_line(f"{what}, {name}, {precision}", value, limit, value <= limit))
        if tokens is not None and expected[2] is not None:
            share = _same(tokens, expected[2])
            least = SAME_TOKENS[precision]
            found.append(_line(f"chosen tokens, {name}, {precision}", share, least, share >= least))
    return found


def both(
    model: STCLIP, batch: ClipBatch, vocabulary: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits of a test, gradients of a training step, and interest tokens; on the CPU."""
    device = vocabulary.device
    with torch.inference_mode(), autocast(precision, device), FixedWeights():
        output = model.eval()(batch, vocabulary)
    model.train().zero_grad(set_to_none=True)
    with autocast(precision, device):
        trained = model(batch, vocabulary)
    assert batch.labels is not None
    loss = FocalCriterion()(trained.logits, batch.labels)["action"] / len(batch.owner)
    scale = LOSS_SCALE if precision == "fp16" else 1.0
    (loss * scale).backward()
    parts = [p.grad.flatten().cpu().double() for p in model.parameters() if p.grad is not None]
    tokens = None if output.interest_tokens is None else output.interest_tokens.cpu()
    return output.logits.cpu(), torch.cat(parts) / scale, tokens


def _same(left: Tensor, right: Tensor) -> float:
    """The share of tokens (R, N, K) that are in both choices, in whatever order."""
    equal = (left[..., :, None] == right[..., None, :]).any(dim=-1)
    return float(equal.double().mean())


def _line(what: str, value: float, limit: float, ok: bool) -> dict[str, Any]:
    print(f"{'OK ' if ok else 'BAD'}  {what}: {value:.2e} (limit {limit:g})", flush=True)
    return {"what": what, "value": value, "limit": limit, "ok": ok}


def cost(
    model: STCLIP, args: argparse.Namespace, chunk: int, precision: str, device: torch.device
) -> dict[str, Any]:
    """Time and memory of the test of one batch that is on the device already."""
    batch = make_batch(model, chunk, args.persons).to(device)
    vocabulary = torch.randn(CLASSES, model.clip.embed_dim, device=device)
    model.eval()
    fixed = FixedWeights()

    def once() -> None:
        with torch.inference_mode(), autocast(precision, device), fixed:
            class_scores(model(batch, vocabulary).logits)

    flops = sum(count_flops(model, once).values())
    rows = 512 if device.type == "cpu" else None  # some CPUs have no fast bfloat16
    rate = MatrixRate(device, precision, rows).flops_per_second()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    once()
    seconds = statistics.median(seconds_of(once, device) for _ in range(args.repeats))
    result: dict[str, Any] = {
        "precision": precision,
        "chunk": chunk,
        "seconds": round(seconds, 6),
        "keyframes_per_second": round(chunk / seconds, 1),
        "tflops": round(flops / seconds / 1e12, 2),
        "matrix_tflops": round(rate / 1e12, 2),
        "matrix_share": round(flops / seconds / rate, 3),
    }
    if device.type == "cuda":
        result["allocated_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6)
        result["reserved_mb"] = round(torch.cuda.max_memory_reserved(device) / 1e6)
    print("    ", "  ".join(f"{key} {value}" for key, value in result.items()), flush=True)
    return result


def seconds_of(function: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call; on CUDA those between two of its events."""
    if device.type != "cuda":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record()
    function()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1000


def count(
    model: STCLIP, args: argparse.Namespace, precision: str, device: torch.device
) -> dict[str, Any]:
    """What a test batch and a training iteration make the host and the device do."""
    batch = make_batch(model, args.keyframes, args.persons, several=True)
    vocabulary = torch.randn(CLASSES, model.clip.embed_dim, device=device)
    fixed = FixedWeights()
    on_device = batch.to(device)

    def test() -> None:
        with torch.inference_mode(), autocast(precision, device), fixed:
            class_scores(model.eval()(on_device, vocabulary).logits)

    trainer = Trainer(
        model=model,
        vocabulary=vocabulary,
        criterion=FocalCriterion(),
        optimizer=build_optimizer(model, 0.0, 0.9, 0.0),
        learning_rate=lambda iteration: 0.0,
        device=device,
        max_iter=0,
        checkpoint_period=10**9,
        save=lambda iteration, state: None,
        precision=precision,
    )
    source = batch.pin_memory() if device.type == "cuda" else batch

    def train() -> None:
        trainer.max_iter += 1
        trainer.run([source])

    result: dict[str, Any] = {}
    for name, work in (("test", test), ("training", train)):
        work()  # what happens the first time does not count
        waits = synchronisations(work, device)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as profiler:
            work()
        events = profiler.events() or []
        operations = Counter(event.name for event in events)
        attention = {
            backend: sum(
                number
                for operation, number in operations.items()
                if operation.startswith("aten::_scaled_dot_product")
                and backend in operation
                and "backward" not in operation
            )
            for backend in BACKENDS
        }
        launches = sum(
            number for operation, number in operations.items() if "LaunchKernel" in operation
        )
        result[name] = {
            "synchronisations": sum(waits.values()),
            "synchronised_at": dict(waits),
            "kernels": launches,
            "attention": {backend: number for backend, number in attention.items() if number},
        }
        print(
            f"     {name} {precision}: {sum(waits.values())} synchronisations, {launches} kernels, "
            f"attention {result[name]['attention']}",
            flush=True,
        )
        for place, number in waits.items():
            print(f"       {number} x {place}", flush=True)
    return result


def synchronisations(work: Callable[[], None], device: torch.device) -> Counter[str]:
    """How often the host waits for the device, by the line of this project that makes it."""
    places: Counter[str] = Counter()
    if device.type != "cuda":
        return places
    shown = warnings.showwarning

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if "synchroniz" not in str(message):
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and "/stclip/" not in frame.f_code.co_filename:
            frame = frame.f_back
        file = Path(frame.f_code.co_filename)
        places[f"{file.parent.name}/{file.name}:{frame.f_lineno}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = shown
    return places
