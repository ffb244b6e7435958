"""Mistakes of a user's: status 2 and one line that names the thing, never a traceback."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stclip.cli import run
from stclip.errors import UserError
from tests.commands.conftest import CASE
from tests.helpers import load_command

VIDEO = "jhmdb/videos/delta_push_s1"
ANNOTATIONS = "jhmdb/annotations"
TEST_JSON = f"{ANNOTATIONS}/jhmdb_test_gt_min.json"
DETECTIONS = "jhmdb/jhmdb_faster_RCNN_person.json"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CASE / "data", tmp_path / "data"))


@pytest.fixture
def config(case_config: Path, data: Path) -> Path:
    case_config.write_text(case_config.read_text().replace(str(CASE / "data"), str(data)))
    return case_config


def message(capsys: pytest.CaptureFixture[str], tool: str, config: Path, *arguments: str) -> str:
    """The last line on standard error, after checking that the tool failed as it should."""
    main = load_command(tool).main
    with pytest.raises(SystemExit) as stopped:
        run(lambda: main(["--config-file", str(config), *arguments]))
    captured = capsys.readouterr().err
    assert stopped.value.code == 2, captured
    assert "Traceback" not in captured
    errors = [line for line in captured.splitlines() if line.startswith("error: ")]
    assert captured.splitlines()[-1:] == errors
    return errors[0]


def missing_frame(data: Path) -> None:
    (data / VIDEO / "00003.png").unlink()


def missing_video(data: Path) -> None:
    shutil.rmtree(data / VIDEO)


def truncated_png(data: Path) -> None:
    picture = data / VIDEO / "00003.png"
    picture.write_bytes(picture.read_bytes()[:200])


def json_cut_in_half(data: Path) -> None:
    path = data / TEST_JSON
    path.write_text(path.read_text()[: path.stat().st_size // 2])


def detections_cut_in_half(data: Path) -> None:
    path = data / DETECTIONS
    path.write_text(path.read_text()[: path.stat().st_size // 2])


def unknown_image(data: Path) -> None:
    path = data / DETECTIONS
    rows = json.loads(path.read_text())
    rows.append({"image_id": 987654, "bbox": [0, 0, 5, 5], "score": "0.5"})
    path.write_text(json.dumps(rows))


def misspelt_label(data: Path) -> None:
    (data / "split/test_label.txt").write_text("push\nstannd\n")


def long_label(data: Path) -> None:
    (data / "split/test_label.txt").write_text("push\n\nstand\n")
    for name in ("split/test_label.txt", f"{ANNOTATIONS}/all_label.txt"):
        text = (data / name).read_text()
        (data / name).write_text(text.replace("stand\n", "stand " * 90 + "\n"))


def no_labels(data: Path) -> None:
    (data / "split/test_label.txt").write_text("\n")


class Attack:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.marker,)


def pickle_with_code(data: Path) -> None:
    (data / TEST_JSON).unlink()
    with open(data / ANNOTATIONS / "JHMDB-GT.pkl", "wb") as file:
        pickle.dump({"labels": Attack(str(data / "ran"))}, file)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing_frame, ["delta_push_s1", "frame 3", "1 frames of 1 videos"]),
        (missing_video, ["delta_push_s1", "1 of"]),
        (truncated_png, ["delta_push_s1/00003.png"]),
        (json_cut_in_half, ["jhmdb_test_gt_min.json", "not valid JSON"]),
        (detections_cut_in_half, ["jhmdb_faster_RCNN_person.json", "not valid JSON"]),
        (unknown_image, ["jhmdb_faster_RCNN_person.json", "987654", "row"]),
        (misspelt_label, ["TEST_LABEL", "test_label.txt", "stannd", "'stand'"]),
        (long_label, ["TEST_LABEL", "test_label.txt, line 3: label 'stand stand", "92 tokens"]),
        (no_labels, ["TEST_LABEL", "test_label.txt"]),
        (pickle_with_code, ["JHMDB-GT.pkl"]),
    ],
)
def test_data(
    capsys: pytest.CaptureFixture[str],
    config: Path,
    data: Path,
    damage: Callable[[Path], None],
    words: list[str],
) -> None:
    damage(data)
    error = message(capsys, "test", config)
    for word in words:
        assert word in error
    assert not (data / "ran").exists()


@pytest.mark.parametrize("tool", ["train", "test"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SOLVER.MAXITER", "3"], ["SOLVER.MAXITER", "SOLVER.MAX_ITER"]),
        (["SOLVER.MAX_ITER"], ["KEY VALUE"]),
        (["ALL_LABEL", "absent.txt"], ["ALL_LABEL", "absent.txt"]),
        (["ALL_GROUP", "absent.txt"], ["ALL_GROUP", "absent.txt"]),
        (["MODEL.WEIGHT", "absent.pth"], ["absent.pth"]),
        (["MODEL.WEIGHT", "", "MODEL.CLIP", "ViT-B/61"], ["ViT-B/61", "ViT-B/16"]),
        (["DATASETS.TRAIN", "hmdb", "DATASETS.TEST", "hmdb"], ["DATASETS.T", "hmdb", "jhmdb"]),
        (["DATASETS.DATA_DIR", "nowhere"], ["nowhere"]),
        (["MODEL.TEMPORAL.FRAMES", "7"], ["MODEL.TEMPORAL.FRAMES", "7", "9"]),
        (["MODEL.LORA.RANK", "4"], ["MODEL.LORA.RANK", "4", "8"]),
    ],
)
def test_config(
    capsys: pytest.CaptureFixture[str],
    config: Path,
    tool: str,
    arguments: list[str],
    words: list[str],
) -> None:
    error = message(capsys, tool, config, *arguments)
    for word in words:
        assert word in error


def test_nothing_to_train(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    assert "MODEL.NAME" in message(capsys, "train", config, "MODEL.NAME", "crop")
    off = [f"MODEL.{part}.ENABLED" for part in ("PERSON_TOKENS", "TEMPORAL", "PROMPT")]
    pairs = [word for key in off for word in (key, "False")]
    error = message(capsys, "train", config, *pairs, "MODEL.LORA.RANK", "0")
    assert "nothing to train" in error
    assert not (config.parent / "run").exists()


def test_batches_that_cannot_be_split(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    error = message(capsys, "train", config, "SOLVER.ACCUMULATION_STEPS", "2")
    assert "SOLVER.VIDEOS_PER_BATCH" in error
    assert "SOLVER.ACCUMULATION_STEPS" in error


def test_a_checkpoint_of_other_sizes(
    capsys: pytest.CaptureFixture[str], config: Path, reference_checkpoint: Path, tmp_path: Path
) -> None:
    content = torch.load(reference_checkpoint, weights_only=True)
    (name,) = (name for name in content["model"] if name.endswith("ln_person.weight"))
    content["model"][name] = torch.ones(77)
    torch.save(content, tmp_path / "other.pth")
    error = message(capsys, "test", config, "MODEL.WEIGHT", str(tmp_path / "other.pth"))
    assert "person_tokens.norm.weight" in error
    assert "(77,)" in error
    assert "(128,)" in error


@pytest.mark.parametrize("tool", ["train", "test"])
def test_labels_that_overlap_are_a_warning(
    capsys: pytest.CaptureFixture[str], config: Path, data: Path, tool: str
) -> None:
    (data / "split/train_label.txt").write_text("catch\npush\n")
    main = load_command(tool).main
    with pytest.raises(UserError, match=r"absent\.pth"):  # which is read later
        main(["--config-file", str(config), "MODEL.WEIGHT", "absent.pth"])
    assert "not zero-shot: push" in capsys.readouterr().err


def test_converting_does_not_overwrite(
    capsys: pytest.CaptureFixture[str], reference_checkpoint: Path
) -> None:
    main = load_command("convert").main
    with pytest.raises(SystemExit) as stopped:
        run(lambda: main(["--to", "stclip", *[str(reference_checkpoint)] * 2]))
    assert stopped.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
