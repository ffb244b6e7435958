"""The work that is measured: tests of videos of J-HMDB's size, and training on them."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from stclip.benchmark.measure import Clock, Spread, count_flops, machine, timed
from stclip.config import load_config
from stclip.data.annotations import DetectionDataset
from stclip.data.build import build_test_loader, build_train_loader
from stclip.data.labels import Labels
from stclip.engine.compiling import compile_blocks, recompute_activations
from stclip.engine.distributed import barrier, rank, sum_over_ranks, world_size
from stclip.engine.events import peak_memory_mb
from stclip.engine.infer import stream
from stclip.engine.optim import build_optimizer
from stclip.engine.train import Trainer
from stclip.errors import UserError
from stclip.evaluation.results import ScoredParts
from stclip.files import read_json
from stclip.models.build import encode_labels, needs_of
from stclip.models.clip import CLIP, Block, CLIPSizes
from stclip.models.losses import FocalCriterion
from stclip.models.stclip import STCLIP, InterestTokens, PromptBlock
from stclip.models.xclip import CrossFrameCLIP
from stclip.structures import ClipBatch

# What CLIP's constructor takes; small has the sizes of the puppet CLIP that this package brings.
_B = {"image_size": 224, "vision_width": 768, "vision_layers": 12, "embed_dim": 512}
_B_TEXT = {"text_width": 512, "text_layers": 12}
_L = {"patch_size": 14, "vision_width": 1024, "vision_layers": 24, "embed_dim": 768}
_L_TEXT = {"text_width": 768, "text_layers": 12}
MODELS: dict[str, dict[str, int]] = {
    "ViT-B/32": {"patch_size": 32, **_B, **_B_TEXT},
    "ViT-B/16": {"patch_size": 16, **_B, **_B_TEXT},
    "ViT-L/14": {"image_size": 224, **_L, **_L_TEXT},
    "ViT-L/14@336px": {"image_size": 336, **_L, **_L_TEXT},
    "small": {
        "image_size": 112, "patch_size": 16, "vision_width": 128, "vision_layers": 4,
        "embed_dim": 128, "text_width": 128, "text_layers": 2,
    },
}  # fmt: skip
BACKBONES = {"clip": CLIP, "xclip": CrossFrameCLIP}
LORA_RANK = 8
_NAMES = ["clap", "sit", "wave", "throw", "pullup", "catch"]


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        kind: ``infer`` or ``train``.
        model: a key of MODELS.
        backbone: MODEL.BACKBONE.
        persons: boxes of a keyframe.
        classes: class names.
        keyframes: of a test; of a training's iteration.
        interest_tokens: K; 0 prompts with all tokens of a keyframe, without interest tokens.
        chunk: TEST.VIDEOS_PER_BATCH.
        iterations: of a training, in each run.
        steps: SOLVER.ACCUMULATION_STEPS.
        recompute: SOLVER.ACTIVATION_CHECKPOINTING.
        precision: fp32, bf16 or fp16.
        compiled: torch.compile the vision blocks.
        workers: DATALOADER.NUM_WORKERS.
        resize: DATALOADER.RESIZE.
    """

    kind: str
    model: str = "ViT-B/16"
    backbone: str = "clip"
    persons: int = 1
    classes: int = 6
    keyframes: int = 8
    interest_tokens: int = 0
    chunk: int = 8
    iterations: int = 1
    steps: int = 1
    recompute: bool = False
    precision: str = "fp32"
    compiled: bool = False
    workers: int = 2
    resize: str = "pillow"

    @property
    def all_keyframes(self) -> int:
        """Keyframes of one run."""
        return self.keyframes * (self.iterations if self.kind == "train" else 1)

    @property
    def labels(self) -> list[str]:
        """As many names as there are classes."""
        more = range(len(_NAMES), self.classes)
        return (_NAMES + [f"class {number}" for number in more])[: self.classes]


def build(work: Work, device: torch.device) -> STCLIP:
    """ST-CLIP with the sizes of MODELS and random weights, in evaluation mode on ``device``."""
    torch.manual_seed(0)
    clip = BACKBONES[work.backbone](CLIPSizes(**MODELS[work.model]), lora_rank=LORA_RANK)
    interest = InterestTokens(work.interest_tokens) if work.interest_tokens else None
    mixing = work.backbone == "clip"
    model = STCLIP(clip, interest_tokens=interest, mixing=mixing).eval().to(device)
    if work.compiled:
        compile_blocks(model.clip)
    if work.recompute:
        recompute_activations(model, (Block, PromptBlock))
    return model


class Watched:
    """A loader's batches, the time spent waiting for each, and the boxes in them.

    Args:
        batches: the loader, or an iterator over it that continues from run to run.
    """

    def __init__(self, batches: Iterable[ClipBatch]) -> None:
        self._batches = batches
        self.waits: list[float] = []
        self.boxes = 0

    def __iter__(self) -> Iterator[ClipBatch]:
        """The batches."""
        start = time.perf_counter()
        for batch in self._batches:
            self.waits.append(time.perf_counter() - start)
            self.boxes += len(batch.boxes)
            yield batch
            start = time.perf_counter()
        self.waits.append(time.perf_counter() - start)


@dataclass
class Outcome:
    """One run.

    Attributes:
        seconds: of all of it.
        waits: seconds that this process waited for each batch.
        boxes: persons, over all processes.
        memory_mb: the most that this process held so far.
    """

    seconds: float
    waits: list[float]
    boxes: int
    memory_mb: float

    @property
    def data_share(self) -> float:
        """The part of the time that went into waiting for the loader."""
        return sum(self.waits) / self.seconds

    @property
    def later_data_share(self) -> float:
        """The same without the first batch, which nothing can hide: the share of a long run."""
        if len(self.waits) < 2:
            return 0.0
        return sum(self.waits[1:]) / (self.seconds - self.waits[0])


class Runs:
    """Does the work repeatedly, as the commands do it.

    Args:
        work: what.
        dataset: for it; a test scores all of it.
        device: where.
        repeats: how many runs there will be, after the warm-up.
    """

    def __init__(
        self, work: Work, dataset: DetectionDataset, device: torch.device, repeats: int
    ) -> None:
        self.work, self.dataset, self._device = work, dataset, device
        self.model = build(work, device)
        self._vocabulary = encode_labels(self.model, work.labels)
        iterations = work.iterations * (2 + repeats)  # the warm-up, and a profile
        pairs: list[object] = ["DATALOADER.NUM_WORKERS", work.workers, "TEST.MAX_PERSONS", 0]
        pairs += ["TEST.VIDEOS_PER_BATCH", work.chunk, "SOLVER.MAX_ITER", iterations]
        pairs += ["SOLVER.ACCUMULATION_STEPS", work.steps]
        pairs += ["SOLVER.VIDEOS_PER_BATCH", work.keyframes, "SOLVER.MAX_PERSONS", 1000]
        pairs += ["MODEL.DEVICE", device.type, "DATALOADER.RESIZE", work.resize]
        self._cfg = load_config(None, [str(word) for word in pairs])
        self._needs = needs_of(self._cfg, self.model.clip.image_size)
        self._pin_memory = device.type == "cuda"
        self._batches: Generator[ClipBatch, None, None] | None = (
            None  # of a training, from run to run
        )
        self._run = self._trainer() if work.kind == "train" else self._test

    def close(self) -> None:
        """End the loader's workers, for which the process would wait at its end."""
        if self._batches is not None:
            self._batches.close()

    def warm_up(self) -> int:
        """Do once what is slow the first time: of a test, its first video. Gives the keyframes."""
        if self.work.kind == "train":
            self._run(self.dataset)
            return self.work.all_keyframes
        first = next(iter(self.dataset.videos))
        keyframes = [k for k in self.dataset.keyframes if k.key.video == first]
        self._run(replace(self.dataset, keyframes=keyframes))
        return len(keyframes)

    def once(self) -> Outcome:
        """One run, as long as the slowest process takes."""
        barrier()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        watched: list[Watched] = []

        def run() -> None:
            watched.append(self._run(self.dataset))
            barrier()

        seconds = timed(run, self._device)
        memory = peak_memory_mb(self._device)
        boxes = sum_over_ranks(torch.tensor(watched[0].boxes, device=self._device))
        return Outcome(seconds, watched[0].waits, int(boxes), memory)

    def _test(self, dataset: DetectionDataset) -> Watched:
        """The test of whole videos, loading and the log of the detections included."""
        loader = build_test_loader(
            self._cfg, dataset, self._needs, rank(), world_size(), pin_memory=self._pin_memory
        )
        watched = Watched(loader)
        with tempfile.TemporaryDirectory() as folder:
            parts = ScoredParts(folder, self.work.labels)
            for part in stream(
                self.model,
                watched,
                self._vocabulary,
                device=self._device,
                precision=self.work.precision,
            ):
                parts.add(part)
            parts.flush()
        return watched

    def _trainer(self) -> Callable[[DetectionDataset], Watched]:
        """Iterations, loading included where workers do not hide it."""
        trainer = Trainer(
            model=self.model,
            vocabulary=self._vocabulary,
            criterion=FocalCriterion(),
            optimizer=build_optimizer(self.model, 2.5e-4, 0.9, 1e-7),
            learning_rate=lambda iteration: 2.5e-4,
            device=self._device,
            max_iter=0,
            save=lambda iteration, state: None,
            accumulation_steps=self.work.steps,
            precision=self.work.precision,
        )
        names = tuple(self.work.labels)
        labels, shares = Labels(names, train=names), (rank(), world_size())
        loader = build_train_loader(
            self._cfg, self.dataset, labels, self._needs, 0, *shares, self._pin_memory
        )
        batches = self._batches = (batch for batch in loader)

        def run(dataset: DetectionDataset) -> Watched:
            trainer.max_iter += self.work.iterations
            watched = Watched(batches)
            trainer.run(watched)
            return watched

        return run


def measure(runs: Runs, clock: Clock, repeats: int, device: torch.device) -> dict[str, object]:
    """Warm up, take the runs and the units between them; gives the fields of a result.

    Every time is in the units taken before and after it. Memory is the highest of this process so
    far, with the yardstick's own model in it.
    """
    runs.warm_up()
    clock.take()
    outcomes: list[Outcome] = []
    for _ in tqdm(range(repeats), desc=runs.work.kind, unit="run", disable=None, leave=False):
        outcomes.append(runs.once())
        clock.take()
    flops = flops_per_keyframe(runs.work, runs.dataset, device)
    return summary(runs.work, outcomes, flops, clock) | {
        "peak_memory_mb": round(max(outcome.memory_mb for outcome in outcomes), 1),
        "repeats": repeats,
        "processes": world_size(),
        **machine(device),
    }


def flops_per_keyframe(
    work: Work, dataset: DetectionDataset, device: torch.device
) -> dict[str, float]:
    """Operations by part of the model: of the first video in a test, of an iteration in a training.

    A model of the same sizes is counted, after the runs: counting takes time and memory.
    """
    plain = replace(work, iterations=1, workers=0, recompute=False, compiled=False)
    runs = Runs(plain, dataset, device, 0)
    keyframes: list[int] = []
    try:
        counts = count_flops(runs.model, lambda: keyframes.append(runs.warm_up()))
    finally:
        runs.close()
    sums = torch.tensor(list(counts.values()), dtype=torch.float64, device=device)
    totals = sum_over_ranks(sums).tolist()
    return {n: total / keyframes[0] for n, total in zip(counts, totals, strict=True) if total}


def profile(runs: Runs, device: torch.device, rows: int = 25) -> str:
    """One more run, watched by torch's profiler: its operations by their own time, as a table."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    order = "self_cpu_time_total"
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
        order = "self_cuda_time_total"
    with torch.profiler.profile(activities=kinds) as profiler:
        runs.once()
    return profiler.key_averages().table(sort_by=order, row_limit=rows)


def _of_training(work: Work) -> dict[str, object]:
    return {
        "iterations": work.iterations,
        "accumulation": work.steps,
        "recompute": work.recompute,
    }


def summary(
    work: Work, outcomes: list[Outcome], flops: dict[str, float], clock: Clock
) -> dict[str, object]:
    """The numbers of a result that come from its runs, and from the operations of a keyframe."""
    keyframes = work.all_keyframes
    units = [clock.around(run) for run in range(len(outcomes))]
    seconds = [outcome.seconds / keyframes for outcome in outcomes]
    ratios = [value / unit.yardstick for value, unit in zip(seconds, units, strict=True)]
    shares = [
        sum(flops.values()) / (value * unit.matrix_rate * world_size())
        for value, unit in zip(seconds, units, strict=True)
    ]
    median = Spread.of(seconds).median
    return {
        "work": work.kind,
        "model": work.model,
        "backbone": work.backbone,
        "persons": work.persons,
        "classes": work.classes,
        "keyframes": work.keyframes,
        "interest_tokens": work.interest_tokens,
        **({"chunk": work.chunk} if work.kind == "infer" else _of_training(work)),
        "precision": work.precision,
        "compile": work.compiled,
        "workers": work.workers,
        "resize": work.resize,
        **Spread.of(ratios).fields("u_per_keyframe", 5),
        "yardstick_s": [round(unit.yardstick, 4) for unit in clock.moments],
        "steady": clock.steady,
        **Spread.of(seconds).fields("seconds_per_keyframe", 5),
        "keyframes_per_second": round(1 / median, 3),
        "boxes_per_second": round(outcomes[0].boxes / keyframes / median, 3),
        "gflop_per_keyframe": round(sum(flops.values()) / 1e9, 6),
        "gflop_by_part": {name: round(v / 1e9, 6) for name, v in flops.items()},
        "matrix_gflop_per_s": [round(unit.matrix_rate / 1e9, 1) for unit in clock.moments],
        **Spread.of(shares).fields("matrix_share", 4),
        **Spread.of([outcome.data_share for outcome in outcomes]).fields("data_share", 4),
        "later_data_share": round(Spread.of([o.later_data_share for o in outcomes]).median, 4),
    }


# What grows, and through which values. Of processes the time of the same work is looked at.
CURVES: dict[str, tuple[int, ...]] = {
    "keyframes": (40, 200, 1000, 4000),
    "persons": (1, 2, 4, 8, 12),
    "classes": (6, 25, 100, 400),
    "processes": (1, 2),
}
# The sizes that stay.
BASE = {"keyframes": 200, "persons": 3, "classes": 6, "processes": 1}

# Takes the sizes and gives the result of ``stclip benchmark infer``.
Measure = Callable[[Mapping[str, int]], Mapping[str, Any]]


def grow(
    measure: Measure,
    curves: Mapping[str, Sequence[int]] = CURVES,
    base: Mapping[str, int] = BASE,
) -> list[dict[str, Any]]:
    """Measure every point of every curve: one size changes, the others stay.

    Returns:
        For each curve its name, its points (x; seconds and u of the whole run; memory_mb, of one
        process if there are several), the slope of u over x, both logarithmic (1 is linear, 0
        constant), and memory_mb_each: what each unit of x adds from the first point to the last.
    """
    found = []
    total = sum(len(values) for values in curves.values())
    with tqdm(total=total, desc="scale", unit="point", disable=None) as progress:
        for name, values in curves.items():
            points = []
            for value in values:
                progress.set_postfix_str(f"{name} {value}")
                sizes = {**base, name: value}
                result = measure(sizes)
                keyframes = sizes["keyframes"]
                points.append(
                    {
                        "x": value,
                        "seconds": round(result["seconds_per_keyframe"] * keyframes, 3),
                        "u": round(result["u_per_keyframe"] * keyframes, 3),
                        "memory_mb": result["peak_memory_mb"],
                        "steady": result["steady"],
                    }
                )
                progress.update()
            xs = [point["x"] for point in points]
            # Not a slope of logarithms: most of a process's memory is there before any data.
            more = points[-1]["memory_mb"] - points[0]["memory_mb"]
            found.append(
                {
                    "name": name,
                    "points": points,
                    "u_slope": round(slope(xs, [point["u"] for point in points]), 3),
                    "memory_mb_each": round(more / (xs[-1] - xs[0]), 4),
                }
            )
    return found


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the straight line that fits log y over log x best; values above 0."""
    logs = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True)]
    mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    over = sum((a - mean_x) * (b - mean_y) for a, b in logs)
    return over / sum((a - mean_x) ** 2 for a, _ in logs)


def in_a_process(options: Sequence[str], threads: int) -> Measure:
    """Measures by ``stclip benchmark infer`` with ``options``, in one or several new processes.

    Args:
        options: of ``infer``, without the sizes.
        threads: of each process, the same in all so that several compare with one.
    """

    def measure(sizes: Mapping[str, int]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "point.json"
            command = [sys.executable]
            processes = sizes["processes"]
            if processes > 1:
                command += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
                command += ["--standalone"]
            command += ["-m", "stclip", "benchmark", "infer", *options, "--json", str(out)]
            for name in ("keyframes", "persons", "classes"):
                command += [f"--{name}", str(sizes[name])]
            command += ["--threads", str(threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
                lines = errors or done.stderr.strip().splitlines() or ["no message"]
                where = ", ".join(f"{name} {value}" for name, value in sizes.items())
                raise UserError(f"scale: the run with {where} failed: {lines[-1]}")
            return dict(read_json(out))

    return measure
