"""What runs for days must not grow: ten thousand keyframes, a thousand iterations."""

import os
import re
from contextlib import closing
from pathlib import Path

import pytest
import torch

from stclip.benchmark.work import MODELS, Runs, Work, build
from stclip.commands.benchmark import FRAMES, draw_dataset
from stclip.config import load_config
from stclip.data.build import build_test_loader
from stclip.engine.infer import stream
from stclip.evaluation.results import ScoredParts
from stclip.models.build import encode_labels, needs_of
from tests.helpers import SMALL_SIZES, children

CPU = torch.device("cpu")
MOST_MB = 5  # of growth: what 10,000 keyframes leave behind if each leaves a tensor


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", SMALL_SIZES)


def memory_mb():
    """Of this process and the loader's workers."""
    total = 0
    for pid in (os.getpid(), *children(os.getpid())):
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
    return total / 1024


@pytest.mark.slow
def test_of_ten_thousand_keyframes(tmp_path):
    dataset = draw_dataset(tmp_path, 1, 10_000, "clap", size=(64, 48))
    work = Work("infer", model="tiny", keyframes=10_000)
    model = build(work, CPU)
    pairs = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "2", "TEST.VIDEOS_PER_BATCH", "8"]
    cfg = load_config(None, pairs)
    loader = build_test_loader(cfg, dataset, needs_of(cfg, model.clip.image_size))
    scored, held = 0, []
    parts = ScoredParts(tmp_path / "scored", work.labels)
    for part in stream(model, loader, encode_labels(model, work.labels), device=CPU):
        parts.add(part)
        before, scored = scored, scored + len(part.keys)
        if before // 2500 < scored // 2500:
            held.append(memory_mb())
    parts.flush()
    assert scored == 10_000
    assert held[-1] - held[0] < MOST_MB, held


@pytest.mark.slow
def test_of_a_thousand_iterations(tmp_path):
    dataset = draw_dataset(tmp_path, 1, FRAMES, "clap", size=(64, 48))
    work = Work("train", model="tiny", keyframes=2, iterations=250, workers=1)
    with closing(Runs(work, dataset, CPU, repeats=4)) as runs:
        held = []
        for _ in range(4):
            runs.once()
            held.append(memory_mb())
    assert held[-1] - held[0] < MOST_MB, held
