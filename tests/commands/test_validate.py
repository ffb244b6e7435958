"""stclip validate: what it prints and its exit status."""

import json
import shutil
from pathlib import Path

import pytest

from stclip.cli import run
from stclip.data import findings as kinds
from stclip.errors import UserError
from tests.commands.conftest import CASE
from tests.data.make import HEIGHT, WIDTH, write_frames
from tests.helpers import load_command


def validate(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The exit status, and what was printed."""
    main = load_command("validate").main
    with pytest.raises(SystemExit) as stopped:
        run(lambda: main([str(word) for word in arguments]))
    return stopped.value.code, capsys.readouterr().out


def row_of(text: str, name: str) -> list[str]:
    """The columns of a table's row."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}  "))
    return line.removeprefix(name).split()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A config of one's own: run is seen, wave is not; a video for each part."""
    for part, label in (("train", "run"), ("test", "wave")):
        write_frames(tmp_path / "videos" / part, 4)
        content = {
            "labels": ["run", "wave"],
            "videos": [{"id": part, "path": f"videos/{part}", "size": [WIDTH, HEIGHT], "fps": 10}],
            "keyframes": [
                {"video": part, "timestamp": 0.1, "boxes": [[1, 2, 20, 28]], "labels": [[label]]}
            ],
        }
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
        (tmp_path / f"{part}.txt").write_text(f"{label}\n")
    (tmp_path / "all.txt").write_text("run\nwave\n")
    row = {"video": "test", "timestamp": 0.1, "box": [1, 2, 21, 28], "score": 0.9}
    (tmp_path / "persons.jsonl").write_text(json.dumps(row) + "\n")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
ALL_LABEL: {tmp_path}/all.txt
TRAIN_LABEL: {tmp_path}/train.txt
TEST_LABEL: {tmp_path}/test.txt
DATASETS:
  TRAIN: {tmp_path}/train.json
  TEST: {tmp_path}/test.json
  DETECTIONS: {tmp_path}/persons.jsonl
"""
    )
    return config


def test_a_good_dataset(capsys: pytest.CaptureFixture[str], mine: Path) -> None:
    status, text = validate(capsys, "--config-file", mine, "--decode", "all")
    assert status == 0
    assert text.endswith("nothing is wrong\n")
    assert row_of(text, "videos") == ["1", "1"]
    assert row_of(text, "those that training uses") == ["1", "-"]
    assert row_of(text, "detections") == ["0", "1"]
    assert row_of(text, "recall of all detections at IoU 0.5") == ["-", "100.0%"]
    assert row_of(text, "frames decoded") == ["4", "4"]
    assert row_of(text, "run") == ["seen", "1", "0"]
    assert row_of(text, "wave") == ["unseen", "0", "1"]


def test_what_a_test_uses_of_the_detections(capsys: pytest.CaptureFixture[str], mine: Path) -> None:
    status, text = validate(capsys, "--config-file", mine, "TEST.BOX_THRESH", "0.95")
    assert status == 0
    assert row_of(text, "recall of those that a test uses") == ["-", "0.0%"]


def test_parts_that_share_a_class_and_a_video(
    capsys: pytest.CaptureFixture[str], mine: Path, tmp_path: Path
) -> None:
    (tmp_path / "test.txt").write_text("wave\nrun\n")
    shutil.copy(tmp_path / "train.json", tmp_path / "test.json")
    pairs = ("TEST.BOXES", "ground_truth")
    status, text = validate(capsys, "--config-file", mine, *pairs)
    assert status == 1
    assert "classes that are trained on and tested as unseen: 1\n    'run'\n" in text
    assert "videos that are both trained on and tested: 1\n" in text
    assert "test: 'wave'" in text  # without any box
    assert text.endswith("problems: 3\n")


def test_labels_outside_of_the_vocabulary(
    capsys: pytest.CaptureFixture[str], mine: Path, tmp_path: Path
) -> None:
    (tmp_path / "all.txt").write_text("runs\nwave\n")
    status, text = validate(capsys, "--config-file", mine)
    assert status == 1
    assert "train: 'run' of 1 boxes; did you mean 'runs'?" in text
    assert "train.txt: 'run' is not in ALL_LABEL" in text


def test_names_that_are_worded_or_scored_beside_the_tested_ones(
    capsys: pytest.CaptureFixture[str], mine: Path, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("wave | a person who waves\njump | a person who jumps\n")
    worded = ("ALL_WORDING", tmp_path / "words.txt")
    status, text = validate(capsys, "--config-file", mine, *worded)
    assert status == 1
    assert f"ALL_WORDING {tmp_path}/words.txt, line 2: label 'jump' is not in ALL_LABEL" in text
    (tmp_path / "words.txt").write_text("wave | a person who waves\n")
    beside = ("TEST.NONE_OF", tmp_path / "test.txt")
    status, text = validate(capsys, "--config-file", mine, *worded, *beside)
    assert status == 1
    assert f"TEST.NONE_OF {tmp_path}/test.txt, line 1: label 'wave' is one of the tested" in text
    beside = ("TEST.NONE_OF", "TRAIN_LABEL")
    assert validate(capsys, "--config-file", mine, *worded, *beside)[0] == 0
    assert validate(capsys, "--config-file", mine, *worded, "TEST_LABEL", "")[0] == 0


def test_one_part_only(capsys: pytest.CaptureFixture[str], mine: Path) -> None:
    status, text = validate(capsys, "--config-file", mine, "TRAIN_LABEL", "")
    assert status == 0
    assert text.startswith("TRAIN_LABEL has no label")
    assert row_of(text, "videos") == ["1"]


def test_annotations_alone(capsys: pytest.CaptureFixture[str], mine: Path, tmp_path: Path) -> None:
    files = ("--annotations", tmp_path / "test.json", "--detections", tmp_path / "persons.jsonl")
    status, text = validate(capsys, *files)
    assert status == 0
    assert row_of(text, "recall of all detections at IoU 0.5") == ["100.0%"]
    with open(tmp_path / "persons.jsonl", "a") as file:
        file.write("{\n" * 8)
    status, text = validate(capsys, *files, "--show", 2)
    assert status == 1
    assert text.count("persons.jsonl: line") == 2
    assert "... and 6 more" in text


def test_detections_that_are_not_named(capsys: pytest.CaptureFixture[str], mine: Path) -> None:
    status, text = validate(capsys, "--config-file", mine, "DATASETS.DETECTIONS", "")
    assert status == 1
    assert "DATASETS.DETECTIONS: is empty" in text
    assert row_of(text, "videos") == ["1", "1"]


def test_other_datasets(
    capsys: pytest.CaptureFixture[str], case_config: Path, tmp_path: Path
) -> None:
    """The small J-HMDB: some of its detections are outside of the pictures on purpose."""
    status, text = validate(capsys, "--config-file", case_config, "--decode", "all")
    assert status == 1
    assert row_of(text, "videos") == ["3", "3"]
    assert row_of(text, "keyframes") == ["27", "33"]
    assert row_of(text, "push") == ["unseen", "0", "15"]
    assert f"problem: {kinds.OUTSIDE.name}: 25\n    test, detected: " in text
    data = shutil.copytree(CASE / "data", tmp_path / "data")
    shutil.rmtree(data / "jhmdb/videos/delta_push_s1")
    status, text = validate(capsys, "--config-file", case_config, "DATASETS.DATA_DIR", data)
    assert status == 1
    assert "1 of 3 videos are missing" in text
    assert row_of(text, "videos") == ["3", "2"]  # what is there was looked at


def test_all_mistakes_in_the_files_of_other_datasets(
    capsys: pytest.CaptureFixture[str], case_config: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(CASE / "data", tmp_path / "data")
    for part in ("train", "test"):
        path = data / f"jhmdb/annotations/jhmdb_{part}_gt_min.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["bbox"] = [1, 2, 3]
        content["annotations"][4]["action_ids"] = [99]
        path.write_text(json.dumps(content))
    path = data / "jhmdb/jhmdb_faster_RCNN_person.json"
    rows = json.loads(path.read_text())
    for index in (2, 5, 7):
        rows[index]["score"] = "high"
    path.write_text(json.dumps(rows))
    shutil.rmtree(data / "jhmdb/videos/alpha_catch_s1")
    status, text = validate(
        capsys, "--config-file", case_config, "--show", 20, "DATASETS.DATA_DIR", data
    )
    assert status == 1
    # The test reads the training file too, for its image ids: nothing is counted twice.
    assert f"problem: {kinds.FILES.name}: 8\n" in text
    for part in ("train", "test"):
        for place in ("annotations[0]: image_id", "annotations[4]: action_ids [99]: numbers"):
            assert text.count(f"jhmdb_{part}_gt_min.json: {place}") == 1
    assert [text.count(f"person.json: row {n}: score 'high'") for n in (3, 6, 8)] == [1, 1, 1]
    assert "1 of 3 videos are missing, the first is catch/alpha_catch_s1" in text
    assert row_of(text, "videos") == ["2", "3"]


def test_warnings_become_notes(
    capsys: pytest.CaptureFixture[str], mine: Path, tmp_path: Path
) -> None:
    (tmp_path / "videos.txt").write_text("test\nabsent\n")
    status, text = validate(capsys, "--config-file", mine, "TEST_VIDEO", tmp_path / "videos.txt")
    assert status == 0
    assert "note: warnings while reading: 1\n" in text
    assert "first: absent" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config-file or --annotations"),
        (("--config-file", "x.yaml", "--detections", "a.jsonl"), "goes with --annotations"),
        (("--annotations", "a.json", "SEED", "3"), "SEED: KEY VALUE pairs need --config-file"),
        (("--annotations", "a.json", "--decode", "some"), "a number or all expected"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_command("validate").main(list(arguments))


def test_a_file_that_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, text = validate(capsys, "--annotations", tmp_path / "a.json")
    assert status == 1
    assert "cannot be read" in text


def test_boxes_that_a_test_would_choose_badly_are_noted(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"video": "test", "timestamp": 0.1, "box": [1, 2, 21, 28], "score": score}
        for score in (0.5, 0.9)
    ]
    (mine.parent / "persons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, text = validate(capsys, "--config-file", mine, "TEST.MAX_PERSONS", 1)
    assert status == 0
    assert "TEST.MAX_PERSONS 1: takes the first" in text
    status, text = validate(capsys, "--config-file", mine, "TEST.BOX_THRESH", 0.95)
    assert "TEST.BOX_THRESH 0.95: no box of DATASETS.DETECTIONS" in text


def test_one_empty_box_among_six_is_one_empty_box(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mine.parent / "train.json"
    content = json.loads(path.read_text())
    boxes = [[1, 2, 20, 28]] * 5 + [[9, 9, 9, 12]]
    content["keyframes"][0].update(boxes=boxes, labels=[["run"]] * 6)
    path.write_text(json.dumps(content))
    status, text = validate(capsys, "--config-file", mine)
    assert status == 1
    assert "annotated boxes that are empty: 1" in text
    assert "look like" not in text
