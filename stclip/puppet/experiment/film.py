"""What was found in a drawn film, compared with what was drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stclip.data.tubes import read_tube_json
from stclip.evaluation.frame_map import Metrics
from stclip.evaluation.report import BarRow, BarTable
from stclip.evaluation.video_map import precision_and_recall, video_map
from stclip.footage.events import EventRule, event_tubes
from stclip.footage.results import read_result

_IOU = (0.2, 0.5)
COLUMNS = ("each moment by itself", "averaged along tracks")


def film_metrics(result: Path, truth: Path) -> dict[str, Metrics]:
    """Precision, recall and video mAP of a film's events.

    Args:
        result: result.json of ``stclip detect``.
        truth: the film's file of tubes.

    Returns:
        Of each of COLUMNS: the metrics without and with voting, all else equal.
    """
    footage, drawn = read_result(result), read_tube_json(truth)
    rule = EventRule(**footage.settings["events"])
    metrics = {}
    for column, window in zip(COLUMNS, (0.0, rule.window), strict=True):
        events = {footage.name: event_tubes(footage, replace(rule, window=window))}
        metrics[column] = {
            **video_map(drawn.tubes, events, footage.actions, _IOU),
            **precision_and_recall(drawn.tubes, events, footage.actions, _IOU),
        }
    return metrics


def film_table(metrics: dict[str, Metrics]) -> BarTable:
    """The same for people."""
    first = next(iter(metrics.values()))
    rows = [
        BarRow(name, [of_column[key] for of_column in metrics.values()])
        for name, key in (
            ("video mAP at 0.5", "video_mAP@0.5"),
            ("video mAP at 0.2", "video_mAP@0.2"),
            ("precision of the events at 0.5", "precision@0.5"),
            ("recall of the acts at 0.5", "recall@0.5"),
        )
    ]
    counts = " and ".join(str(of_column["tubes"]) for of_column in metrics.values())
    note = (
        f"{first['ground_truth_tubes']} acts were drawn; {counts} events were found. An event is "
        "right if its action is, and if its boxes overlap those of the act by at least so much in "
        "space and time."
    )
    return BarTable("in percent", list(metrics), rows, note, strong_column=COLUMNS[1])
