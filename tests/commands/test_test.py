"""stclip test, evaluate and convert on what is not in the reference's case."""

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stclip.config import load_config
from stclip.data.build import build_dataset
from stclip.data.labels import read_label_file
from stclip.engine.checkpoint import read_checkpoint
from stclip.errors import UserError
from stclip.evaluation.results import ScoredParts
from stclip.models.build import build_model
from tests.commands.conftest import CASE
from tests.helpers import load_command


def test_net(config: Path, *pairs: str) -> tuple[Path, dict[str, Any]]:
    """The result folder and the metrics."""
    load_command("test").main(["--config-file", str(config), *pairs])
    (folder,) = (config.parent / "run" / "inference").glob("[!.]*[!0-9]")
    return folder, json.loads((folder / "metrics.json").read_text())


test_net.__test__ = False  # type: ignore[attr-defined]
slow = pytest.mark.slow


@pytest.mark.slow
def test_ground_truth_boxes_next_to_earlier_results(case_config: Path, tested: Path) -> None:
    first = (tested / "inference/jhmdb/result_jhmdb.csv").read_bytes()
    folder, metrics = test_net(case_config, "TEST.BOXES", "ground_truth")
    assert (folder.with_name("jhmdb.old-1") / "result_jhmdb.csv").read_bytes() == first
    assert (folder / "result_jhmdb.csv").read_bytes() != first
    predictions = np.load(folder / "predictions.npz")
    assert (predictions["det_scores"] == 1).all()
    assert len(predictions["boxes"]) == metrics["boxes"] == 33  # one a frame
    assert metrics["keyframes_with_boxes"] == 33


@pytest.mark.parametrize("name", ["frame", pytest.param("crop", marks=slow), "frame_crop"])
def test_baselines(case_config: Path, name: str) -> None:
    """The CLIP in the checkpoint, without training; the frame alone tells no persons apart."""
    folder, metrics = test_net(case_config, "MODEL.NAME", name)
    predictions = np.load(folder / "predictions.npz")
    assert (metrics["model"], metrics["boxes"]) == (name, 80)
    same = predictions["owner"][1:] == predictions["owner"][:-1]
    scores = predictions["scores"]
    equal = np.isclose(scores[1:], scores[:-1], atol=1e-6).all(axis=1)[same]
    assert equal.all() == (name == "frame")


def test_seen_vocabulary(case_config: Path) -> None:
    """Base classes: the same command with the seen labels as the test labels."""
    split = CASE / "data" / "split"
    pairs = ("TEST_LABEL", f"{split}/train_label.txt", "TEST_VIDEO", f"{split}/train_video.txt")
    _, metrics = test_net(case_config, *pairs, "MODEL.NAME", "frame")
    assert sorted(metrics["per_class"]) == ["catch", "golf", "pick"]
    assert metrics["keyframes"] == 27


@pytest.mark.slow
def test_names_that_take_part_and_are_not_reported(
    case_config: Path, shared_test: Path, tmp_path: Path
) -> None:
    (tmp_path / "none.txt").write_text("nothing | a person doing nothing\nwaiting\n")
    key = ("TEST.NONE_OF", str(tmp_path / "none.txt"))
    folder, _ = test_net(case_config, *key)
    found = np.load(folder / "predictions.npz")
    plain = np.load(shared_test / "inference/jhmdb/predictions.npz")
    assert found["labels"].tolist() == plain["labels"].tolist()
    sums = found["scores"].sum(axis=1, keepdims=True)
    assert (sums < 0.999).all()
    np.testing.assert_allclose(found["scores"] / sums, plain["scores"], atol=1e-5)
    (tmp_path / "none.txt").write_text("stand\n")
    with pytest.raises(UserError, match=r"TEST\.NONE_OF .*, line 1: label 'stand' is one of the"):
        test_net(case_config, *key)
    trained, _ = test_net(case_config, "TEST.NONE_OF", "TRAIN_LABEL")
    cfg = load_config(case_config)
    (tmp_path / "none.txt").write_text("\n".join(read_label_file(cfg.TRAIN_LABEL)))
    scores = np.load(trained / "predictions.npz")["scores"]
    folder, _ = test_net(case_config, *key)
    assert (np.load(folder / "predictions.npz")["scores"] == scores).all()
    groups = tmp_path / "groups.txt"
    names = load_config(case_config).ALL_LABEL
    groups.write_text("pose\n" * len(read_label_file(names)))
    with pytest.raises(UserError, match=r"TEST\.NONE_OF: '' expected with ALL_GROUP"):
        test_net(case_config, *key, "ALL_GROUP", str(groups))


@pytest.mark.slow
def test_wordings_and_templates_of_a_run(case_config: Path, tmp_path: Path) -> None:
    """What they change is what the label files with the same texts change."""
    pairs = ("MODEL.NAME", "crop")
    described = tmp_path / "described.txt"
    described.write_text("stand | standing up | getting up\n")
    templates = ("MODEL.TEMPLATES", "['a person {}']")
    folder, _ = test_net(case_config, *pairs, "ALL_WORDING", str(described), *templates)
    found = np.load(folder / "predictions.npz")
    names = found["labels"].tolist()
    worded = {"stand": "stand | a person standing up | a person getting up"}
    lines = [worded.get(name, f"{name} | a person {name}") for name in names]
    (tmp_path / "test.txt").write_text("\n".join(lines))
    folder, _ = test_net(case_config, *pairs, "TEST_LABEL", str(tmp_path / "test.txt"))
    expected = np.load(folder / "predictions.npz")
    assert expected["labels"].tolist() == names
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-6)


@pytest.mark.slow
def test_single_action(case_config: Path, shared_test: Path) -> None:
    folder, voted = test_net(case_config, "TEST.SINGLE_ACTION", "True")
    raw = np.load(folder / "predictions.npz")  # before voting
    rows = [line.split(",") for line in (folder / "result_jhmdb.csv").read_text().splitlines()]
    in_video = raw["videos"][raw["owner"]] == "stand/foxtrot_stand_s1"
    mean = raw["scores"][in_video].mean(axis=0)
    expected = (raw["det_scores"][in_video, None] * mean).flatten()
    found = [float(row[-1]) for row in rows if row[0] == "stand/foxtrot_stand_s1"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = json.loads((shared_test / "inference/jhmdb/metrics.json").read_text())
    assert plain["frame_mAP@0.5"] != voted["frame_mAP@0.5"]


@pytest.mark.parametrize("boxes", ["detected", "ground_truth"])
def test_voting_along_tracks_in_a_test_and_afterwards(
    case_config: Path, boxes: str, tmp_path: Path
) -> None:
    pairs = ("MODEL.NAME", "crop", "TEST.BOXES", boxes)
    folder, voted = test_net(case_config, *pairs, "TEST.VOTING", "track")
    raw = np.load(folder / "predictions.npz")
    assert np.ptp(raw["seconds"][raw["videos"] == "stand/foxtrot_stand_s1"]) == pytest.approx(
        7 / 30
    )
    out = tmp_path / "again" / "jhmdb"
    vote = ["vote", "--predictions", str(folder / "predictions.npz"), "--out", str(out)]
    load_command("evaluate").main([*vote, "--voting", "track"])
    result = (folder / "result_jhmdb.csv").read_bytes()
    assert (out / "result_jhmdb.csv").read_bytes() == result
    load_command("evaluate").main([*vote, "--voting", "track", "--voting-window", "0.001"])
    plain = (out / "result_jhmdb.csv").read_bytes()
    assert plain != result
    # The same boxes in the same order.
    boxes_of = [[line.split(b",")[:7] for line in text.splitlines()] for text in (result, plain)]
    assert boxes_of[0] == boxes_of[1]
    assert len(boxes_of[0]) == voted["boxes"] * len(raw["labels"])


@pytest.mark.slow
def test_each_annotations_file_needs_a_folder_of_its_own(case_config: Path, tmp_path: Path) -> None:
    """Their results would have one name; the same file may be tested again."""
    videos = CASE / "data/jhmdb/videos"
    for name in ("foxtrot_stand_s1", "charlie_pick_s1"):
        with Image.open(videos / name / "00001.png") as picture:
            size = picture.size
        content = {
            "labels": ["stand"],
            "videos": [{"id": name, "path": str(videos / name), "size": size, "fps": 30}],
            "keyframes": [
                {"video": name, "timestamp": 0, "boxes": [[2, 2, 30, 40]], "labels": [["stand"]]}
            ],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    pairs = ["TEST.BOXES", "ground_truth", "TEST_VIDEO", "", "DATASETS.TEST"]
    first, other = (f"{tmp_path}/{name}.json" for name in ("foxtrot_stand_s1", "charlie_pick_s1"))
    folder, _ = test_net(case_config, *pairs, first)
    test_net(case_config, *pairs, first)
    assert folder.with_name("annotations.old-1").is_dir()
    with pytest.raises(UserError, match=r"OUTPUT_DIR .*foxtrot.*charlie.*another OUTPUT_DIR"):
        test_net(case_config, *pairs, other)
    assert first in (folder / "config.yaml").read_text()


def test_no_box_anywhere(case_config: Path) -> None:
    folder, metrics = test_net(case_config, "TEST.BOX_THRESH", "2")
    assert metrics["boxes"] == metrics["frame_mAP@0.5"] == 0
    assert metrics["keyframes"] == 33
    assert (folder / "result_jhmdb.csv").read_text() == ""


def test_evaluate_gives_the_number_of_the_run(shared_test: Path, tmp_path: Path) -> None:
    folder = shared_test / "inference" / "jhmdb"
    metrics = json.loads((folder / "metrics.json").read_text())
    arguments = ["--ground-truth", CASE / "data/jhmdb/annotations/jhmdb_test_gt_min.json"]
    arguments += ["--detections", folder / "result_jhmdb.csv"]
    arguments += ["--test-label", CASE / "data/split/test_label.txt"]
    arguments += ["--videos", CASE / "data/split/test_video.txt", "--json", tmp_path / "map.json"]
    load_command("evaluate").main(["frame-map", *map(str, arguments)])
    found = json.loads((tmp_path / "map.json").read_text())
    for threshold in ("0.2", "0.5", "0.75"):
        assert found[f"frame_mAP@{threshold}"] == metrics[f"frame_mAP@{threshold}"]


def test_a_video_file_without_ground_truth(case_config: Path, tmp_path: Path) -> None:
    """Somebody's own footage: a video, boxes for two moments, and a list of actions."""
    with av.open(str(tmp_path / "street.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for shade in range(30):
            picture = np.full((64, 96, 3), 8 * shade, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    annotations = {
        "labels": ["walk", "wave"],
        "videos": [{"id": "street", "path": "street.mp4", "size": [96, 64], "fps": 10}],
        "keyframes": [],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    detections = [
        {"video": "street", "timestamp": 1.2, "box": [5, 5, 40, 60], "score": 0.9},
        {"video": "street", "timestamp": 1.2, "box": [50, 5, 90, 60], "score": 0.8},
        {"video": "street", "timestamp": 2.9, "box": [5, 5, 40, 60], "score": 0.7},
    ]
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, detections)))
    (tmp_path / "labels.txt").write_text("walk\nwave\n")
    pairs = ["DATASETS.TEST", str(tmp_path / "annotations.json"), "TEST_VIDEO", ""]
    pairs += ["DATASETS.DETECTIONS", str(tmp_path / "boxes.jsonl"), "TRAIN_LABEL", ""]
    pairs += ["ALL_LABEL", str(tmp_path / "labels.txt"), "TEST_LABEL", str(tmp_path / "labels.txt")]
    folder, metrics = test_net(case_config, *pairs)
    assert metrics["keyframes"] == 2
    assert metrics["boxes"] == 3
    rows = (folder / "result_annotations.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[::2]] == [
        ["street", "0013"],
        ["street", "0013"],
        ["street", "0030"],
    ]


@pytest.mark.parametrize("prefix", [pytest.param("", marks=slow), "module."])
def test_converting_there_and_back(reference_checkpoint: Path, tmp_path: Path, prefix: str) -> None:
    state = torch.load(reference_checkpoint, weights_only=True)["model"]
    state = {prefix + name: tensor for name, tensor in state.items()}
    first, ours, back = (tmp_path / name for name in ("first.pth", "ours.pth", "back.pth"))
    torch.save({"model": state, "iteration": 5}, first)
    convert = load_command("convert").main
    convert(["--to", "stclip", str(first), str(ours)])
    convert(["--to", "reference", str(ours), str(back)])
    found = torch.load(back, weights_only=True)
    assert list(found["model"]) == list(state)
    assert all(torch.equal(found["model"][name], state[name]) for name in state)
    assert found["iteration"] == 5


def test_converting_weights_alone(reference_checkpoint: Path, tmp_path: Path) -> None:
    expected = read_checkpoint(reference_checkpoint).model
    convert = load_command("convert").main
    save_file(expected, tmp_path / "ours.safetensors")
    theirs = torch.load(reference_checkpoint, weights_only=True)["model"]
    save_file(theirs, tmp_path / "theirs.safetensors")
    for name in ("ours", "theirs"):
        out = tmp_path / f"{name}.pth"
        convert(["--to", "stclip", str(tmp_path / f"{name}.safetensors"), str(out)])
        found = read_checkpoint(out).model
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["stclip", "hub"])
def test_a_converted_checkpoint_scores_the_same(
    case_config: Path, reference_checkpoint: Path, tested: Path, tmp_path: Path, form: str
) -> None:
    ours = tmp_path / "ours"
    load_command("convert").main(["--to", form, str(reference_checkpoint), str(ours)])
    first = (tested / "inference/jhmdb/result_jhmdb.csv").read_bytes()
    folder, _ = test_net(case_config, "MODEL.WEIGHT", str(ours))
    assert (folder / "result_jhmdb.csv").read_bytes() == first


def test_an_interrupted_test_goes_on(
    case_config: Path, shared_test: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A frame that cannot be read ends a test; once repaired, the rest is scored."""
    expected = (shared_test / "inference/jhmdb/result_jhmdb.csv").read_bytes()
    data = tmp_path / "data"
    shutil.copytree(CASE / "data/jhmdb", data / "jhmdb")
    pairs = ("DATASETS.DATA_DIR", str(data))
    folder = tmp_path / "run" / "inference"
    last = data / "jhmdb/videos/foxtrot_stand_s1/00008.png"
    content = last.read_bytes()
    last.write_bytes(content[:50])
    with pytest.raises(UserError, match=r"foxtrot_stand_s1.*00008|00008.*foxtrot_stand_s1"):
        test_net(case_config, *pairs)
    assert [path.name for path in folder.iterdir()] == ["jhmdb.partial"]
    last.write_bytes(content)
    _, metrics = test_net(case_config, *pairs)
    before = metrics["keyframes_scored_before"]
    assert 0 < before < 33 == metrics["keyframes"]
    assert f"interrupted after {before} keyframes" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["jhmdb"]
    assert (folder / "jhmdb/result_jhmdb.csv").read_bytes() == expected


@pytest.mark.slow
def test_other_settings_do_not_go_on_with_an_interrupted_test(
    case_config: Path, tmp_path: Path
) -> None:
    folder, _ = test_net(case_config)
    shutil.rmtree(folder)
    parts = ScoredParts(tmp_path / "run/inference/jhmdb.partial", ["x"])
    parts.prepare("of another test")
    _, metrics = test_net(case_config)
    assert metrics["keyframes_scored_before"] == 0
    kept = json.loads((folder.with_name("jhmdb.partial.old-1") / "run.json").read_text())
    assert kept == {"fingerprint": "of another test"}


@pytest.mark.parametrize(
    "pairs",
    [
        ["TEST.MAX_PERSONS", "1"],
        *(
            pytest.param(pairs, marks=pytest.mark.slow)
            for pairs in (
                ["TEST.BOXES", "ground_truth"],
                ["MODEL.PRECISION", "bf16"],
                ["MODEL.HEAD.TEMPERATURE", "0.1"],
                ["SEED", "3", "MODEL.WEIGHT", "", "MODEL.CLIP", "puppet"],
            )
        ),
    ],
)
def test_what_changes_scores_changes_the_fingerprint(case_config: Path, pairs: list[str]) -> None:
    tool = load_command("test")

    def found(*words: str) -> str:
        cfg = load_config(case_config, words)
        torch.manual_seed(cfg.SEED)
        state = read_checkpoint(cfg.MODEL.WEIGHT).model if cfg.MODEL.WEIGHT else None
        model = build_model(cfg, state)
        return tool.fingerprint_of(cfg, build_dataset(cfg, "test"), ["stand"], model)

    base = found()
    assert found("DATALOADER.NUM_WORKERS", "2", "SOLVER.MAX_ITER", "9", "SEED", "9") == base
    assert found(*pairs) != base
