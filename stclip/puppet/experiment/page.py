"""The quickstart's report: its runs as plain data for the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from stclip.data.build import build_dataset
from stclip.data.labels import read_label_file
from stclip.evaluation.charts import Curve
from stclip.evaluation.report import BarRow, BarTable, Report
from stclip.puppet.experiment.clips import first_clips, view_clip
from stclip.puppet.experiment.outcomes import chance, metric, scored
from stclip.puppet.experiment.plan import BASELINES, CHANCE, OURS, UNTRAINED, Plan, Trial
from stclip.puppet.experiment.runs import Run

CLIPS = 6
TERMS = (
    (
        "frame mAP at 0.5",
        "For each action all person boxes are ranked by the model's score for it; average "
        "precision is high if the people who really do it come first. The mean over the actions, "
        "in percent. A box counts where it overlaps the true one by at least half.",
    ),
    (
        "unseen, seen",
        "Unseen actions had no part in the training; the model knows their names only, through "
        "CLIP's text encoder. Seen actions were trained on, with other clips than those tested.",
    ),
    (CHANCE, "Random scores for the same boxes."),
    (
        "CLIP, frame / crop / frame + crop",
        "CLIP without any training here: the whole picture, the picture of the one person, or both "
        "are compared with the names of the actions.",
    ),
    (
        UNTRAINED,
        "The same network as ST-CLIP, its additions to CLIP as they are initialised.",
    ),
)


def seen_and_unseen(plan: Plan) -> tuple[dict[str, float], dict[str, float]]:
    """The mAP by method, chance included, on unseen and on seen classes."""
    unseen: dict[str, float] = {}
    seen: dict[str, float] = {}
    for trial in plan.trials:
        values = unseen if trial.vocabulary == "unseen" else seen
        values.setdefault(CHANCE, chance(trial.run)[0])
        values[trial.method] = metric(trial.run)[0]
    return unseen, seen


def quickstart_report(
    plan: Plan,
    training: Run,
    facts: Sequence[tuple[str, str]],
    note: str,
    film: BarTable,
    film_page: str,
) -> Report:
    """The page of one split's runs with one seed.

    Args:
        plan: all of its runs are finished.
        training: whose curves are shown.
        facts: how it was made.
        note: what is said beneath the table.
        film: what was found in a film.
        film_page: its address.
    """
    unseen, seen = seen_and_unseen(plan)
    trials = {t.method: t for t in plan.trials if t.vocabulary == "unseen"}
    ours = trials[OURS]
    detections, labels = scored(ours.run)
    dataset = build_dataset(ours.run.cfg(), "test")
    trained_classes = len(read_label_file(training.cfg().TRAIN_LABEL, "TRAIN_LABEL"))
    table = BarTable(
        "method",
        (f"{len(labels)} unseen actions", f"{trained_classes} seen actions"),
        [BarRow(m, (unseen.get(m), seen.get(m)), m == OURS) for m in plan.methods()],
        note,
    )
    return Report(
        title="Naming actions that were never trained on",
        lead=(
            f"ST-CLIP was trained on clips of {trained_classes} actions, and here it names "
            f"{len(labels)} other ones, for every person in videos of drawn people: "
            f"{', '.join(labels)}."
        ),
        methods=table,
        clips=[
            view_clip(dataset, video, detections, labels)
            for video in first_clips(dataset, labels, CLIPS)
        ],
        clips_note=(
            "The first test clip of each unseen action, not chosen by its outcome. Next to every "
            f"person are the true action and the model's two best of the {len(labels)} names, "
            "scores averaged over the clip."
        ),
        film=film,
        film_page=film_page,
        film_note=(
            "A drawn film in which people do the unseen actions one after the other, as a plain "
            "video file without boxes: stclip detect finds the people by a detector for photos, "
            "follows them, and scores them with the model trained here."
        ),
        curves=curves(training.folder / "metrics.jsonl"),
        classes=_class_table(trials, labels),
        facts=facts,
        terms=TERMS,
    )


def curves(path: Path) -> list[Curve]:
    """Loss and accuracy by iteration, out of metrics.jsonl."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record.get("loss") is not None]
    x = [float(record["iteration"]) for record in records]
    return [
        Curve("Loss on the seen actions", x, [float(record["loss"]) for record in records]),
        Curve(
            "Share of persons named correctly in training",
            x,
            [float(record["accuracy"]) for record in records],
            top=1.0,
        ),
    ]


def _class_table(trials: dict[str, Trial], labels: Sequence[str]) -> BarTable:
    by_method: dict[str, dict[str, float | None]] = {
        CHANCE: dict(chance(trials[OURS].run)[1]),
        **{method: metric(trials[method].run)[1] for method in (*BASELINES.values(), OURS)},
    }
    rows = [BarRow(label, [values.get(label) for values in by_method.values()]) for label in labels]
    note = "Average precision at 0.5 of each unseen action, in percent."
    return BarTable("unseen action", list(by_method), rows, note, strong_column=OURS)
