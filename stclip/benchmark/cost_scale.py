"""How time and memory grow: one size changes, the others stay, each point in a fresh process."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from stclip.errors import UserError
from stclip.files import read_json

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
    """Measure every point of every curve.

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
        options: of ``infer``, beside the sizes.
        threads: of each process, the same in all so that several compare with one.
    """

    def measure(sizes: Mapping[str, int]) -> dict[str, Any]:
        with TemporaryDirectory() as folder:
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
