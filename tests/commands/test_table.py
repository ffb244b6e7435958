"""stclip table on folders as stclip test leaves them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stclip.errors import UserError
from tests.commands.conftest import CASE
from tests.helpers import load_command

SEEN, UNSEEN = ["run", "sit"], ["wave"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in (1, 2, 3, 4):
        folder = tmp_path / f"labels/split_{split}"
        folder.mkdir(parents=True)
        (folder / "train_label.txt").write_text("\n".join(SEEN))
        (folder / "test_label.txt").write_text("\n".join(UNSEEN))
    return tmp_path


def write_run(
    root: Path,
    name: str,
    value: float | None,
    split: int = 1,
    seen: bool = False,
    metrics: dict[str, Any] | None = None,
    **keys: Any,
) -> Path:
    """The folder of a test; ``keys`` are the config's, with _ for the dot."""
    labels = root / f"labels/split_{split}"
    cfg: dict[str, Any] = {
        "TRAIN_LABEL": str(labels / "train_label.txt"),
        "TEST_LABEL": str(labels / ("train_label.txt" if seen else "test_label.txt")),
        "MODEL": {"WEIGHT": "model.pth"},
        "TEST": {},
        "DATASETS": {},
    }
    for key, setting in keys.items():
        group, leaf = key.split("_", 1)
        if group in ("MODEL", "TEST", "DATASETS") and key != "TEST_LABEL":
            cfg[group][leaf] = setting
        else:
            cfg[key] = setting
    folder = root / "runs" / name / "inference/jhmdb"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(cfg))
    per_class = dict.fromkeys(SEEN if seen else UNSEEN, value)
    content = {"frame_mAP@0.5": value, "per_class": per_class, **(metrics or {})}
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


def table(root: Path, *arguments: object) -> dict[str, dict[str, Any]]:
    """Our rows of the first table with one of ours, by method."""
    out = root / "table.json"
    words = [*map(str, arguments or [root / "runs"]), "--json", str(out), "--overwrite"]
    assert load_command("table").main(words) == 0
    for content in json.loads(out.read_text())["tables"]:
        mine = {row["method"]: row for row in content["rows"] if row["source"] == "ours"}
        if mine:
            return mine
    raise AssertionError("no row of ours")


def write_all(root: Path) -> None:
    """Unseen 70, 72, 78, 80 and seen 60; annotated boxes 80 and 40; voting 90."""
    for split, value in enumerate((70.0, 72.0, 78.0, 80.0), start=1):
        write_run(root, f"unseen{split}", value, split)
        write_run(root, f"seen{split}", 60.0, split, seen=True)
        write_run(root, f"gt{split}", 80.0, split, TEST_BOXES="ground_truth")
        write_run(root, f"gtseen{split}", 40.0, split, seen=True, TEST_BOXES="ground_truth")
        key = "TEST_SINGLE_ACTION" if split % 2 else "TEST_VOTING"
        write_run(root, f"vote{split}", 90.0, split, **{key: True if split % 2 else "video"})


def test_a_whole_row(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(root)
    row = table(root)["ST-CLIP"]
    assert [row[f"split {split}"] for split in (1, 2, 3, 4)] == [70, 72, 78, 80]
    assert row["avg"] == 75
    assert row["H"] == pytest.approx(2 * 75 * 60 / 135)
    assert row["avg*"] == 80
    assert row["H*"] == pytest.approx(2 * 80 * 40 / 120)
    text = capsys.readouterr().out
    plain, voted = text.split("with the single-action assumption")
    assert "[75.00]" in plain
    assert "[66.67]" in plain
    assert "79.08" in plain  # published
    assert "[90.00]" in voted
    assert "[75.00]" not in voted


def test_markdown(root: Path) -> None:
    write_all(root)
    out = root / "table.md"
    tool = load_command("table")
    tool.main([str(root / "runs"), "--markdown", str(out)])
    lines = out.read_text().splitlines()
    assert lines[0] == "### jhmdb, without the single-action assumption"
    (row,) = (line for line in lines if "(ours)" in line and "**75.00**" in line)
    assert row.startswith("| ST-CLIP (ours) | **70.00** |")
    with pytest.raises(UserError, match=r"table\.md: exists already"):
        tool.main([str(root / "runs"), "--markdown", str(out)])


def test_rows_are_named_by_the_model_or_by_hand(root: Path) -> None:
    first = write_run(root, "first", 50.0)
    second = write_run(root, "second", 51.0)
    write_run(root, "crop", 20.0, MODEL_NAME="crop")
    write_run(root, "untrained", 10.0, MODEL_WEIGHT="")
    write_run(root, "tower", 40.0, MODEL_BACKBONE="xclip")
    write_run(root, "tracks", 25.0, MODEL_NAME="crop", TEST_VOTING="track")
    write_run(root, "xclip", 30.0, MODEL_NAME="xclip")
    write_run(root, "xclip as it is", 15.0, MODEL_NAME="xclip", MODEL_WEIGHT="", MODEL_CLIP="zero")
    write_run(root, "xclip from CLIP", 5.0, MODEL_NAME="xclip", MODEL_WEIGHT="")
    with pytest.raises(UserError, match="both are ST-CLIP on jhmdb, split 1, unseen classes"):
        table(root)
    rows = table(root, root / "runs", f"no LoRA={second}")
    found = {name: row["split 1"] for name, row in rows.items()}
    assert found == {
        "ST-CLIP": 50.0,
        "no LoRA": 51.0,
        "CLIP, crop": 20.0,
        "CLIP, crop, voted along tracks": 25.0,
        "ST-CLIP, untrained": 10.0,
        "ST-CLIP with X-CLIP's image tower": 40.0,
        "X-CLIP": 30.0,
        "X-CLIP, not fine-tuned": 15.0,
        "X-CLIP, untrained": 5.0,
    }
    assert set(table(root, first)) == {"ST-CLIP"}


def test_a_folder_counts_once_and_retired_results_do_not(root: Path) -> None:
    folder = write_run(root, "first", 50.0)
    other = write_run(root, "second", 40.0)
    other.rename(folder.with_name("jhmdb.old-1"))
    assert table(root, root / "runs", folder)["ST-CLIP"]["split 1"] == 50.0
    assert table(root, folder.with_name("jhmdb.old-1"))["ST-CLIP"]["split 1"] == 40.0


def test_ava_has_unseen_and_seen_classes_in_one_test(root: Path) -> None:
    for split, (unseen, seen) in enumerate(((10.0, 20.0), (8.0, 20.0), (3.0, 20.0)), start=1):
        write_run(
            root,
            f"ava{split}",
            unseen,
            split,
            metrics={"frame_mAP_seen@0.5": seen},
            DATASETS_TRAIN="ava",
            DATASETS_TEST="ava",
            TEST_GENERALIZED=True,
        )
    row = table(root)["ST-CLIP"]
    assert row["avg"] == 7
    assert row["H"] == pytest.approx(2 * 7 * 20 / 27)
    assert row["H*"] is None


def test_a_dataset_of_ones_own_in_two_files(root: Path) -> None:
    write_run(root, "mine", 50.0, DATASETS_TRAIN="train.json", DATASETS_TEST="test.json")
    assert table(root)["ST-CLIP"]["split 1"] == 50.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"TEST_GENERALIZED": True}, "TEST.GENERALIZED is True, but the published .* with False"),
        ({"DATASETS_TRAIN": "puppet"}, "trained on puppet and tested on jhmdb"),
        ({"value": None}, r"metrics\.json: has no number 'frame_mAP@0\.5'"),
        ({"TRAIN_LABEL": "labels.txt"}, "which split it is does not follow"),
        ({"metrics": {"per_class": {"wave": 1, "run": 2}}}, "1 of its 2 tested classes"),
    ],
)
def test_tests_that_are_not_of_the_table(root: Path, keys: dict[str, Any], message: str) -> None:
    write_run(root, "first", **{"value": 50.0, **keys})
    with pytest.raises(UserError, match=message):
        table(root)


def test_a_folder_without_results(root: Path) -> None:
    with pytest.raises(UserError, match=r"labels: no metrics\.json with a config\.yaml"):
        table(root, root / "labels")


def test_what_stclip_test_writes(tested: Path, tmp_path: Path) -> None:
    """Its label files copied to a folder that says the split."""
    folder = tmp_path / "split_2"
    folder.mkdir()
    for name in ("train_label.txt", "test_label.txt"):
        (folder / name).write_text((CASE / "data/split" / name).read_text())
    config = tested / "inference/jhmdb/config.yaml"
    config.write_text(config.read_text().replace(f"{CASE}/data/split/t", f"{folder}/t"))
    metrics = json.loads((tested / "inference/jhmdb/metrics.json").read_text())
    assert table(tmp_path, tested)["ST-CLIP"]["split 2"] == metrics["frame_mAP@0.5"]
