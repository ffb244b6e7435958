import json
import subprocess
from pathlib import Path

import pytest

from stclip.benchmark.report import scale_table
from stclip.benchmark.work import BASE, grow, in_a_process, slope
from stclip.errors import UserError


def test_slope():
    assert slope([1, 10, 100], [3, 30, 300]) == pytest.approx(1)
    assert slope([1, 10, 100], [7, 7, 7]) == pytest.approx(0)
    assert slope([2, 8], [1, 1 / 16]) == pytest.approx(-2)
    assert slope([1, 2, 4], [1, 2, 1]) == pytest.approx(0)  # the best straight line


def measured(sizes):
    """A cost of 2 u a keyframe and person, and memory that no size changes."""
    assert set(sizes) == set(BASE)
    return {
        "u_per_keyframe": 2.0 * sizes["persons"] / sizes["processes"],
        "seconds_per_keyframe": 0.5 * sizes["persons"] / sizes["processes"],
        "peak_memory_mb": 1000.0,
        "steady": True,
    }


CURVES = {"keyframes": (40, 400), "persons": (1, 2, 4), "processes": (1, 2)}


def test_grow():
    keyframes, persons, processes = grow(measured, CURVES)
    assert keyframes["points"][1] == {
        "x": 400, "seconds": 600.0, "u": 2400.0, "memory_mb": 1000.0, "steady": True,
    }  # fmt: skip
    assert [curve["u_slope"] for curve in (keyframes, persons, processes)] == [1, 1, -1]
    assert [curve["memory_mb_each"] for curve in (keyframes, persons, processes)] == [0, 0, 0]


def test_memory_that_grows_shows_beside_a_large_base():
    def measure(sizes):
        result = dict(measured(sizes))
        return result | {"peak_memory_mb": 900 + 0.25 * sizes["keyframes"]}

    (keyframes,) = grow(measure, {"keyframes": (40, 400)})
    assert keyframes["memory_mb_each"] == 0.25
    assert "+0.250 each" in scale_table([keyframes])


def test_table():
    curves = grow(measured, CURVES)
    lines = scale_table(curves).splitlines()
    assert lines[2].split() == ["keyframes", "40", "240.00", "60.00", "1000"]
    assert [line.split()[2] for line in lines if "slope" in line] == ["+1.00", "+1.00", "-1.00"]


def test_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: bool) -> subprocess.CompletedProcess[str]:
        words = command[command.index("benchmark") :]
        if words[words.index("--persons") + 1] == "7":
            return subprocess.CompletedProcess(command, 2, "", "more\nerror: no such thing\n")
        Path(words[words.index("--json") + 1]).write_text(json.dumps({"command": command}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    measure = in_a_process(["--model", "small"], threads=1)
    command = measure({**BASE, "persons": 2})["command"]
    assert command[1:7] == ["-m", "stclip", "benchmark", "infer", "--model", "small"]
    pairs = dict(zip(command[5::2], command[6::2], strict=True))
    assert (pairs["--keyframes"], pairs["--persons"], pairs["--classes"]) == ("200", "2", "6")
    assert pairs["--threads"] == "1"
    with pytest.raises(UserError, match=r"persons 7.*failed: error: no such thing"):
        measure({**BASE, "persons": 7})
