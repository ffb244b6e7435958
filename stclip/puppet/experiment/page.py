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
from stclip.puppet.experiment.outcomes import chance, metric, metric_along_tracks, scored
from stclip.puppet.experiment.plan import BASELINES, CHANCE, OURS, PLUS, UNTRAINED, Plan, Trial
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
    (
        "along tracks",
        "Each box gets the mean of the scores that the same person has within a second to each "
        "side; a tracker says which boxes are the same person's.",
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
    (
        PLUS,
        "Beyond the paper: the trained ST-CLIP, and CLIP's feature of the person's picture added "
        "to its own in the test (MODEL.HEAD.CROP_WEIGHT 1).",
    ),
)


UNSEEN, TRACKED, SEEN = "unseen actions", "unseen, along tracks", "seen actions"


def columns_of(plan: Plan) -> dict[str, dict[str, float]]:
    """For each column of the table the mAP by method, chance included unless scores are voted."""
    columns: dict[str, dict[str, float]] = {UNSEEN: {}, TRACKED: {}, SEEN: {}}
    for trial in plan.trials:
        values = columns[UNSEEN if trial.vocabulary == "unseen" else SEEN]
        values.setdefault(CHANCE, chance(trial.run)[0])
        values[trial.method] = metric(trial.run)[0]
    unseen = [trial for trial in plan.trials if trial.vocabulary == "unseen"]
    tracked = metric_along_tracks([trial.run for trial in unseen])
    for trial, value in zip(unseen, tracked, strict=True):
        columns[TRACKED][trial.method] = value
    return columns


def quickstart_report(
    plan: Plan,
    columns: dict[str, dict[str, float]],
    training: Run,
    facts: Sequence[tuple[str, str]],
    note: str,
    film: BarTable,
    film_page: str,
) -> Report:
    """The page of one split's runs with one seed.

    Args:
        plan: all of its runs are finished.
        columns: of ``columns_of``.
        training: whose curves are shown.
        facts: how it was made.
        note: what is said beneath the table.
        film: what was found in a film.
        film_page: its address.
    """
    trials = {t.method: t for t in plan.trials if t.vocabulary == "unseen"}
    ours = trials[OURS]
    detections, labels = scored(ours.run)
    dataset = build_dataset(ours.run.cfg(), "test")
    trained_classes = len(read_label_file(training.cfg().TRAIN_LABEL, "TRAIN_LABEL"))
    table = BarTable(
        "method",
        (f"{len(labels)} {UNSEEN}", TRACKED, f"{trained_classes} {SEEN}"),
        [
            BarRow(m, [column.get(m) for column in columns.values()], m == OURS)
            for m in plan.methods()
        ],
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
