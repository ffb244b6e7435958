"""Tables of costs, and what may be said of two results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stclip.errors import UserError
from stclip.evaluation.tables import format_table
from stclip.files import read_json

# The fields that say what was done, and where.
SETTINGS = (
    "work", "model", "backbone", "persons", "classes", "keyframes", "interest_tokens", "chunk",
    "iterations", "accumulation", "recompute", "precision", "compile", "workers", "resize", "size",
    "processes", "threads", "device", "torch",
)  # fmt: skip


def work_table(result: Mapping[str, Any]) -> str:
    """The result of ``infer`` or ``train``, a quantity a line."""
    units, rates = result["yardstick_s"], result["matrix_gflop_per_s"]
    rows = [
        ["", "median", "min", "max"],
        _spread("u per keyframe", result, "u_per_keyframe", ".2f"),
        _spread("seconds per keyframe", result, "seconds_per_keyframe", ".4g"),
        ["keyframes per second", f"{result['keyframes_per_second']:.4g}", "", ""],
        ["boxes per second", f"{result['boxes_per_second']:.4g}", "", ""],
        ["GFLOP per keyframe", f"{result['gflop_per_keyframe']:.1f}", "", ""],
        _spread("share of the matrix rate", result, "matrix_share", ".1%"),
        _spread("share waiting for data", result, "data_share", ".1%"),
        ["  after the first batch", f"{result['later_data_share']:.1%}", "", ""],
        ["peak memory (MB)", f"{result['peak_memory_mb']:.0f}", "", ""],
        ["yardstick u (s)", "", f"{min(units):.4g}", f"{max(units):.4g}"],
        ["matrix rate (GFLOP/s)", "", f"{min(rates):.0f}", f"{max(rates):.0f}"],
    ]
    settings = ", ".join(f"{name} {result[name]}" for name in SETTINGS[1:] if name in result)
    return f"{result['work']}: {settings}\n{format_table(rows)}"


def data_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of ``data``."""
    cells = [["ms per keyframe", "workers", "median", "min", "max", "u"]]
    steps = [["processor ms", "decode", "frames", "crops"]]
    for row in rows:
        times = [f"{row['ms_per_keyframe' + end]:.2f}" for end in ("", "_min", "_max")]
        cells.append([row["source"], str(row["workers"]), *times, f"{row['u_per_keyframe']:.3f}"])
        if "decode_ms" in row:
            names = ("decode_ms", "preprocess_ms", "crop_ms")
            steps.append([row["source"], *(f"{row[name]:.2f}" for name in names)])
    return f"{format_table(cells)}\n\n{format_table(steps)}"


def detect_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of ``detect``: seconds a second of video."""
    parts = list(rows[0]["parts"])
    cells = [["persons", *parts, "all", "all but the model", "MB"]]
    for row in rows:
        times = [f"{row['parts'][part]:.3f}" for part in parts]
        whole = [f"{row['real_time']:.2f}", f"{row['other_share']:.0%}"]
        cells.append([str(row["persons"]), *times, *whole, f"{row['peak_memory_mb']:.0f}"])
    return f"seconds a second of video\n{format_table(cells)}"


def scale_table(curves: Sequence[Mapping[str, Any]]) -> str:
    """The curves of ``scale``: every point, and the slopes."""
    cells = [["", "", "u", "seconds", "memory (MB)"]]
    for curve in curves:
        for point in curve["points"]:
            values = [f"{point['u']:.2f}", f"{point['seconds']:.2f}", f"{point['memory_mb']:.0f}"]
            cells.append([curve["name"], str(point["x"]), *values])
        slopes = [f"{curve['u_slope']:+.2f}", "", f"{curve['memory_mb_each']:+.3f} each"]
        cells.append(["  slope, log-log", "", *slopes])
    return format_table(cells)


def compare(paths: Sequence[Path]) -> str:
    """Results side by side, each in the units of its own process.

    Seconds of different processes say nothing about each other, so none are shown, and no number is
    computed from two files: of the cost in u only whether the runs of a file all lie above or below
    those of the first.

    Raises:
        UserError: a file is no result of ``infer`` or ``train``, or of other work than the first;
            or its yardstick was not steady.
    """
    results = [_read_result(path) for path in paths]
    first = results[0]
    for path, result in zip(paths, results, strict=True):
        if result["work"] != first["work"]:
            raise UserError(
                f"{path}: is a result of {result['work']}, and {paths[0]} one of {first['work']}; "
                "compare results of the same work"
            )
    rows = [["", *(path.name for path in paths)]]
    for name in SETTINGS[1:]:
        values = [str(result.get(name, "-")) for result in results]
        if len(set(values)) > 1:
            rows.append([name, *values])
    for end, title in (("", "u per keyframe"), ("_min", "  min"), ("_max", "  max")):
        values = [f"{result['u_per_keyframe' + end]:.2f}" for result in results]
        rows.append([title, *values])
    rows.append(["  against the first", "-", *(_against(first, other) for other in results[1:])])
    for name, title in (
        ("matrix_share", "share of the matrix rate"),
        ("data_share", "share waiting for data"),
    ):
        rows.append([title, *(f"{result[name]:.1%}" for result in results)])
    rows.append(["peak memory (MB)", *(f"{result['peak_memory_mb']:.0f}" for result in results)])
    return format_table(rows)


def _against(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if other["u_per_keyframe_max"] < first["u_per_keyframe_min"]:
        return "lower"
    if other["u_per_keyframe_min"] > first["u_per_keyframe_max"]:
        return "higher"
    return "overlap"


def _read_result(path: Path) -> dict[str, Any]:
    result = read_json(path)
    spread = [f"u_per_keyframe{end}" for end in ("", "_min", "_max")]
    needed = ["work", "steady", "matrix_share", "data_share", "peak_memory_mb", *spread]
    missing = [name for name in needed if not isinstance(result, dict) or name not in result]
    if missing or result["work"] not in ("infer", "train"):
        raise UserError(
            f"{path}: no result of stclip benchmark infer or train"
            f"{f' (it has no {missing[0]!r})' if missing else ''}; make one with --json"
        )
    if not result["steady"]:
        raise UserError(
            f"{path}: the yardstick changed by over 15 % during its runs, so its ratios are not to "
            "be compared; measure again on a quiet machine"
        )
    return dict(result)


def _spread(title: str, result: Mapping[str, Any], name: str, form: str) -> list[str]:
    return [title, *(format(result[name + end], form) for end in ("", "_min", "_max"))]
