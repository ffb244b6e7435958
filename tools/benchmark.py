"""Measure the cost of testing and training, in units of a yardstick taken in the same process.

    python tools/benchmark.py infer --json infer.json
    python tools/benchmark.py train --precision bf16

The yardstick u is the median time of one forward of torchvision's vit_b_16 without weights, in
float32, batch 1, 224 x 224; it is taken before and after every run of the work, with the same
threads, and a run is counted in the mean of the two beside it. The work
is a video of the size of J-HMDB's (40 frames of 320 x 240, stored as PNG files) and ST-CLIP with
the sizes of ViT-B/16 and random weights. Absolute times say little about another machine; ratios
taken in one run do.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.models import vit_b_16

from stclip.cli import Parser, run
from stclip.config import load_config
from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.build import build_test_loader, build_train_loader
from stclip.data.proposals import Proposals
from stclip.data.video import open_video
from stclip.engine.distributed import choose_device
from stclip.engine.events import peak_memory_mb
from stclip.engine.infer import infer
from stclip.engine.memory import keep_freed_memory
from stclip.engine.optim import build_optimizer
from stclip.engine.train import Trainer
from stclip.errors import UserError
from stclip.files import write_json
from stclip.models.build import encode_labels
from stclip.models.clip import CLIP
from stclip.models.losses import FocalCriterion
from stclip.models.stclip import STCLIP
from stclip.structures import FrameKey

FRAMES, HEIGHT, WIDTH = 40, 240, 320
LABELS = ["clap", "sit", "wave", "throw", "pullup", "catch"]
VIDEO = "clap/benchmark"


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("infer", "train"))
    parser.add_argument("--persons", type=int, help="boxes a keyframe; 3 for infer, 1 for train")
    parser.add_argument("--repeats", type=int, default=3, help="counted runs, after a warm-up")
    parser.add_argument("--chunk", type=int, default=8, help="TEST.VIDEOS_PER_BATCH")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--threads", type=int, help="torch threads; all cores by default")
    parser.add_argument("--workers", type=int, default=2, help="DATALOADER.NUM_WORKERS")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers here")
    args = parser.parse_args(argv)
    if args.repeats < 1 or (args.persons or 1) < 1:
        raise UserError("--repeats and --persons: numbers from 1 expected")
    if args.json is not None and args.json.exists():
        raise UserError(f"{args.json}: exists already; choose another name")
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = choose_device(args.device)
    torch.manual_seed(0)
    persons = args.persons or (3 if args.work == "infer" else 1)
    yardstick = Yardstick(device)
    with tempfile.TemporaryDirectory() as folder:
        dataset = draw_dataset(Path(folder) / "benchmark", persons)
        work = inference if args.work == "infer" else training
        once = work(args, dataset, device)
        once()
        units, runs = [yardstick.seconds()], []
        for _ in range(args.repeats):
            runs.append(timed(once, device))
            units.append(yardstick.seconds())
    keyframes = FRAMES if args.work == "infer" else 8
    seconds = [value / keyframes for value in runs]
    ratios = [run / statistics.mean(units[i : i + 2]) for i, run in enumerate(seconds)]
    result: dict[str, Any] = {
        "work": args.work,
        "persons": persons,
        "precision": args.precision,
        "u_per_keyframe": round(statistics.median(ratios), 3),
        "u_per_keyframe_min": round(min(ratios), 3),
        "u_per_keyframe_max": round(max(ratios), 3),
        "yardstick_s": [round(unit, 4) for unit in units],
        "seconds_per_keyframe": round(statistics.median(seconds), 4),
        "keyframes_per_second": round(1 / statistics.median(seconds), 3),
        "peak_memory_mb": round(peak_memory_mb(device), 1),
        "repeats": args.repeats,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))
    if args.json is not None:
        write_json(args.json, result)
    if max(units) > 1.15 * min(units):
        print("warning: the yardstick changed by over 15 % during the runs", file=sys.stderr)
    return 0


def timed(function: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call, the device's work included."""
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class Yardstick:
    """One float32 forward of torchvision's vit_b_16, batch 1."""

    def __init__(self, device: torch.device) -> None:
        self._model = vit_b_16(weights=None).eval().to(device)
        self._image = torch.randn(1, 3, 224, 224, device=device)
        self._device = device

    @torch.inference_mode()
    def seconds(self) -> float:
        """Median of nine, after one that is not counted."""
        values = [timed(lambda: self._model(self._image), self._device) for _ in range(10)]
        return statistics.median(values[1:])


def draw_dataset(folder: Path, persons: int) -> DetectionDataset:
    """A video of smooth noise as PNG files, with the same boxes in every frame."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, FRAMES + 1):
        coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:05d}.png")
    left = np.linspace(10, WIDTH - 110, persons, dtype=np.float32)
    boxes = np.stack([left, left * 0 + 20, left + 100, left * 0 + 220], axis=1)
    keyframes = [
        Keyframe(FrameKey(VIDEO, number), boxes, tuple((LABELS[0],) for _ in boxes))
        for number in range(1, FRAMES + 1)
    ]
    proposals = {keyframe.key: Proposals.annotated(boxes) for keyframe in keyframes}
    return DetectionDataset("benchmark", {VIDEO: open_video(folder)}, keyframes, proposals)


def vit_b_16_stclip(device: torch.device) -> STCLIP:
    """ST-CLIP with the sizes of ViT-B/16 and random weights."""
    clip = CLIP(
        image_size=224,
        patch_size=16,
        vision_width=768,
        vision_layers=12,
        text_width=512,
        text_layers=12,
        embed_dim=512,
        lora_rank=8,
    )
    return STCLIP(clip).eval().to(device)


def inference(
    args: argparse.Namespace, dataset: DetectionDataset, device: torch.device
) -> Callable[[], None]:
    """The test of one whole video, loading included."""
    pairs = ["TEST.VIDEOS_PER_BATCH", str(args.chunk), "TEST.MAX_PERSONS", "0"]
    cfg = load_config(None, [*pairs, "DATALOADER.NUM_WORKERS", str(args.workers)])
    model = vit_b_16_stclip(device)
    vocabulary = encode_labels(model, LABELS)

    def once() -> None:
        loader = build_test_loader(cfg, dataset, model.clip.image_size)
        infer(model, loader, vocabulary, device=device, precision=args.precision)

    return once


def training(
    args: argparse.Namespace, dataset: DetectionDataset, device: torch.device
) -> Callable[[], None]:
    """One iteration of 8 keyframes, loading included where workers do not hide it."""
    iterations = 1 + args.repeats
    pairs = ["SOLVER.MAX_ITER", str(iterations), "DATALOADER.NUM_WORKERS", str(args.workers)]
    cfg = load_config(None, pairs)
    model = vit_b_16_stclip(device)
    trainer = Trainer(
        model=model,
        vocabulary=encode_labels(model, LABELS),
        criterion=FocalCriterion(),
        optimizer=build_optimizer(model, 2.5e-4, 0.9, 1e-7),
        learning_rate=lambda iteration: 2.5e-4,
        device=device,
        max_iter=0,
        save=lambda iteration, state: None,
        precision=args.precision,
    )
    batches = iter(build_train_loader(cfg, dataset, LABELS, model.clip.image_size))

    def once() -> None:
        trainer.max_iter += 1
        trainer.run(batches)

    return once


def cpu_name() -> str:
    """The processor's name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    run(main)
