"""From folders that stclip test wrote to the cells of the paper's table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from stclip.config import load_config
from stclip.data.labels import read_label_file
from stclip.errors import UserError
from stclip.evaluation.tables import Outcome, Vocabulary
from stclip.files import read_json
from stclip.models.weights import available_models
from stclip.puppet.experiment.plan import BASELINES, OURS, UNTRAINED

METRICS, CONFIG = "metrics.json", "config.yaml"
_KEY = {"unseen": "frame_mAP@0.5", "seen": "frame_mAP_seen@0.5"}
# Published in this way on these datasets; elsewhere either will do.
_GENERALIZED = {"jhmdb": False, "ucf24": False, "ava": True}
_OLD = re.compile(r".*\.old-\d+")


def find_runs(folder: Path) -> list[Path]:
    """The folders in or below ``folder`` that hold a test's metrics and config.

    Results that a later run moved aside (``<name>.old-1``) count only if they are asked for.

    Raises:
        UserError: there is none.
    """
    if (folder / METRICS).is_file() and (folder / CONFIG).is_file():
        return [folder]
    found = [
        path.parent
        for path in sorted(folder.rglob(METRICS))
        if (path.parent / CONFIG).is_file()
        and not any(_OLD.fullmatch(part) for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise UserError(
            f"{folder}: no {METRICS} with a {CONFIG} in it or in a folder below; name a folder "
            "that stclip test wrote (OUTPUT_DIR/inference/<dataset>, or one above)"
        )
    return found


def read_tests(folder: Path, name: str | None = None) -> list[Outcome]:
    """What a test says: one outcome, or with TEST.GENERALIZED one for unseen and one for seen.

    Args:
        folder: one that ``find_runs`` gave.
        name: of the table's row; None says what was tested.

    Raises:
        UserError: a file cannot be read, or the test is none of the table's.
    """
    cfg = load_config(folder / CONFIG)
    metrics = read_json(folder / METRICS)
    if not isinstance(metrics, dict):
        raise UserError(f"{folder / METRICS}: a JSON object expected; run the test again")
    _check_protocol(folder, cfg)
    split = _split(folder, cfg)
    names = list(metrics.get("per_class", {}))
    vocabularies: Sequence[Vocabulary] = (
        ("unseen", "seen") if cfg.TEST.GENERALIZED else (_vocabulary(folder, cfg, names),)
    )
    tests = []
    for vocabulary in vocabularies:
        key = _KEY[vocabulary] if cfg.TEST.GENERALIZED else _KEY["unseen"]
        value = metrics.get(key)
        if not isinstance(value, int | float):
            raise UserError(
                f"{folder / METRICS}: has no number {key!r}; TEST.IOU_THRESHOLDS must hold 0.5, "
                "and the test videos ground truth of these classes"
            )
        tests.append(
            Outcome(
                source=str(folder),
                dataset=cfg.DATASETS.TEST,
                method=name or _method(cfg),
                split=split,
                vocabulary=vocabulary,
                ground_truth=cfg.TEST.BOXES == "ground_truth",
                single_action=cfg.TEST.SINGLE_ACTION,
                value=float(value),
            )
        )
    return tests


def check_distinct(tests: Sequence[Outcome]) -> None:
    """Check that no two tests belong in one cell.

    Raises:
        UserError: two do; which of them counts is for the user to say.
    """
    cells: dict[tuple[object, ...], Outcome] = {}
    for test in tests:
        other = cells.setdefault(test.place, test)
        if other is not test:
            raise UserError(
                f"{other.source} and {test.source}: both are {test.describe()}; leave one out, or "
                "give one a row of its own: NAME=FOLDER"
            )


def _check_protocol(folder: Path, cfg: CfgNode) -> None:
    data = cfg.DATASETS
    # The two parts of a dataset in our own format are two files.
    other = data.TRAIN != data.TEST and not data.TEST.endswith(".json")
    if cfg.MODEL.NAME in ("stclip", "xclip") and other:
        raise UserError(
            f"{folder}: trained on {data.TRAIN} and tested on {data.TEST}, which is none of the "
            "table's tests; leave it out"
        )
    expected = _GENERALIZED.get(data.TEST, cfg.TEST.GENERALIZED)
    if expected != cfg.TEST.GENERALIZED:
        raise UserError(
            f"{folder}: TEST.GENERALIZED is {cfg.TEST.GENERALIZED}, but the published results on "
            f"{data.TEST} are with {expected}; leave it out, or test again"
        )


def _method(cfg: CfgNode) -> str:
    # Not in the paper: a row of its own, without the single-action assumption.
    return _model(cfg) + (", voted along tracks" if cfg.TEST.VOTING == "track" else "")


def _model(cfg: CfgNode) -> str:
    if cfg.MODEL.NAME == "stclip":
        tower = "" if cfg.MODEL.BACKBONE == "clip" else " with X-CLIP's image tower"
        return (OURS if cfg.MODEL.WEIGHT else UNTRAINED) + tower
    if cfg.MODEL.NAME == "xclip":
        if cfg.MODEL.CLIP in available_models() and not cfg.MODEL.WEIGHT:
            return "X-CLIP, untrained"  # what it adds to CLIP is random
        return "X-CLIP" if cfg.MODEL.WEIGHT else "X-CLIP, not fine-tuned"
    return BASELINES.get(cfg.MODEL.NAME, cfg.MODEL.NAME)


def _split(folder: Path, cfg: CfgNode) -> int:
    """The number in the name of the label files' folder, ``split_<n>``."""
    found = {
        match[-1] if (match := re.findall(r"split_(\d+)", cfg[key])) else None
        for key in ("TRAIN_LABEL", "TEST_LABEL")
    }
    if len(found) != 1 or None in found:
        raise UserError(
            f"{folder}: which split it is does not follow from TRAIN_LABEL {cfg.TRAIN_LABEL!r} and "
            f"TEST_LABEL {cfg.TEST_LABEL!r}; both were expected in a folder split_<n>"
        )
    return int(found.pop() or 0)


def _vocabulary(folder: Path, cfg: CfgNode, names: Sequence[str]) -> Vocabulary:
    """Whether the tested classes are the trained ones, or none of them."""
    if cfg.TEST_LABEL == cfg.TRAIN_LABEL:
        return "seen"
    trained = set(read_label_file(cfg.TRAIN_LABEL, f"{folder / CONFIG}: TRAIN_LABEL"))
    if trained == set(names):
        return "seen"
    if not trained & set(names):
        return "unseen"
    both = len(trained & set(names))
    raise UserError(
        f"{folder}: {both} of its {len(names)} tested classes were trained on; all or none of them "
        "are in the table's tests"
    )
