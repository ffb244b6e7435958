"""stclip evaluate: video-map, ava and vote, and frame-map on the scores before voting."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stclip.data.ground_truth import read_tube_truth
from stclip.errors import UserError
from stclip.evaluation.frame_map import frame_map
from stclip.evaluation.result_csv import rows_of
from stclip.evaluation.results import write_results
from stclip.evaluation.voting import soft_voting
from tests.evaluation.make import annotated, detections
from tests.helpers import GOLDEN, load_command, shared_path

main = load_command("evaluate").main
VIDEO, AVA = GOLDEN / "video_map", GOLDEN / "ava_eval"
BOX, FAR = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def evaluate(folder: Path, *arguments: Any) -> dict[str, Any]:
    """The json that a command writes."""
    out = folder / "out.json"
    main([*map(str, arguments), "--json", str(out), "--overwrite"])
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def refused(*arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        main([*map(str, arguments)])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- video-map
TUBES = ("video-map", "--ground-truth", VIDEO / "ground_truth_tubes.json")


def test_video_map_conformance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = json.loads((VIDEO / "expected.json").read_text())
    wanted = [name for name in expected if ":" not in name]
    found = ("--detections", VIDEO / "detected_tubes.json", "--iou", *wanted)
    metrics = evaluate(tmp_path, *TUBES, *found)
    for name, value in expected.items():
        assert metrics[f"video_mAP@{name}"] == pytest.approx(value, abs=0.01)
    assert metrics["tubes"] == 61
    table = capsys.readouterr().out
    assert "AP@0.5:0.95" in table
    assert "31.88" in table.splitlines()[-1]
    # Another order of the classes, and some of them only.
    (tmp_path / "some.txt").write_text("wave\nclap\n")
    some = evaluate(tmp_path, *TUBES, *found[:2], "--test-label", tmp_path / "some.txt")
    assert some["per_class"] == {name: metrics["per_class"][name] for name in ("wave", "clap")}


def write_boxes(folder: Path, score: float = 0.5) -> Path:
    """The ground-truth tubes of the golden case as rows of a result csv, with some others."""
    truth = json.loads((VIDEO / "ground_truth_tubes.json").read_text())
    with gzip.open(folder / "result.csv", "wt", newline="") as file:
        writer = csv.writer(file)
        for tube in truth["ground_truth"]:
            label = truth["labels"].index(tube["label"]) + 1
            for frame, *box in tube["boxes"]:
                writer.writerow([tube["video"], f"{int(frame):04d}", *box, label, score])
                writer.writerow([tube["video"], f"{int(frame):04d}", *FAR, label, score / 100])
    return folder / "result.csv"


def test_boxes_are_linked_and_saved(tmp_path: Path) -> None:
    path = write_boxes(tmp_path)
    metrics = evaluate(
        tmp_path, *TUBES, "--detections", path, "--save-tubes", tmp_path / "tubes.json"
    )
    truth = json.loads((VIDEO / "ground_truth_tubes.json").read_text())
    lengths: dict[str, list[int]] = {}
    for tube in truth["ground_truth"]:
        lengths.setdefault(tube["label"], []).append(len(tube["boxes"]))
    assert metrics["tubes"] == sum(n >= 15 for some in lengths.values() for n in some)
    # The far boxes score too little. Two people of one video run, close to each other.
    for name in ("clap", "golf", "wave"):
        share = sum(n >= 15 for n in lengths[name]) / len(lengths[name])
        assert 0 < share < 1
        assert metrics["per_class@0.5:0.95"][name] == pytest.approx(100 * share)
    assert metrics["ground_truth_tubes"] == {
        name: sum(tube["label"] == name for tube in truth["ground_truth"])
        for name in truth["labels"]
    }
    again = evaluate(tmp_path, *TUBES, "--detections", tmp_path / "tubes.json")
    assert again == metrics


@pytest.mark.parametrize(
    ("every", "score", "words"),
    [
        (10, 0.5, "a tube ends after 5 frames without a box, and its frames are 10 apart"),
        (1, 0.001, "tubes that score less than 0.01 are dropped, and its best box has 0.001"),
    ],
)
def test_boxes_that_make_no_tube_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], every: int, score: float, words: str
) -> None:
    path = write_boxes(tmp_path, score)
    with gzip.open(path, "rt", newline="") as file:
        rows = [row for row in csv.reader(file) if int(row[1]) % every == 0]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    metrics = evaluate(tmp_path, *TUBES, "--detections", path)
    assert metrics["video_mAP@0.5"] == 0
    assert f"result.csv: no tube in it: {words}" in capsys.readouterr().err


def test_tubes_in_another_format_are_refused(tmp_path: Path) -> None:
    rows = json.loads((VIDEO / "detected_tubes.json").read_text())
    for tube in rows:
        tube["boxes"] = [[f, x1, y1, x2 - x1, y2 - y1] for f, x1, y1, x2, y2 in tube["boxes"]]
    (tmp_path / "tubes.json").write_text(json.dumps(rows))
    message = refused(*TUBES, "--detections", tmp_path / "tubes.json")
    assert "tubes.json" in message
    assert "boxes have x2 <= x1 or y2 <= y1" in message


def test_videos_cut_both_sides(tmp_path: Path) -> None:
    (tmp_path / "videos.txt").write_text("video_00\nvideo_05\n")
    arguments = (*TUBES, "--detections", VIDEO / "detected_tubes.json")
    metrics = evaluate(tmp_path, *arguments, "--videos", tmp_path / "videos.txt")
    truth = json.loads((VIDEO / "ground_truth_tubes.json").read_text())["ground_truth"]
    found = json.loads((VIDEO / "detected_tubes.json").read_text())
    chosen = ("video_00", "video_05")
    assert sum(metrics["ground_truth_tubes"].values()) == sum(t["video"] in chosen for t in truth)
    assert metrics["tubes"] == sum(t["video"] in chosen for t in found)


def test_real_jhmdb_boxes_make_whole_videos(tmp_path: Path) -> None:
    """The annotated boxes of J-HMDB, linked, are its tubes again; short videos are not dropped."""
    truth = shared_path("annotations/jhmdb/JHMDB-GT.pkl")
    file = read_tube_truth(truth)
    with open(tmp_path / "result.csv", "w", newline="") as out:
        writer = csv.writer(out)
        for video, tubes in file.tubes.items():
            for frame, box in zip(tubes[0].frames, tubes[0].boxes.tolist(), strict=True):
                label = file.labels.index(tubes[0].label) + 1
                writer.writerow([video, f"{frame:04d}", *(f"{v:.5f}" for v in box), label, 0.5])
    metrics = evaluate(
        tmp_path, "video-map", "--ground-truth", truth, "--detections", tmp_path / "result.csv"
    )
    assert sum(metrics["ground_truth_tubes"].values()) == 268
    assert metrics["video_mAP@0.5"] > 95


def test_video_map_mistakes(tmp_path: Path) -> None:
    path = write_boxes(tmp_path)
    labels = tmp_path / "labels.txt"
    labels.write_text("waves\n")
    assert "did you mean 'wave'" in refused(*TUBES, "--detections", path, "--test-label", labels)
    tubes = VIDEO / "detected_tubes.json"
    assert "needs a csv" in refused(*TUBES, "--detections", tubes, "--save-tubes", labels)
    assert "exists already" in refused(*TUBES, "--detections", path, "--save-tubes", labels)
    labels.write_text("video_99\n")
    assert "none of its 1 videos" in refused(*TUBES, "--detections", tubes, "--videos", labels)
    annotations = tmp_path / "annotations.json"
    annotations.write_text('{"labels": [], "videos": [], "keyframes": []}')
    assert "same person's" in refused(
        "video-map", "--ground-truth", annotations, "--detections", tubes
    )


# ---------------------------------------------------------------- ava
GT = ("ava", "--ground-truth", AVA / "gt.csv")
FOUND = ("--detections", AVA / "detections.csv.gz")
EXCLUDED = ("--excluded", AVA / "excluded_timestamps.csv")


def test_ava_conformance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = json.loads((AVA / "expected.json").read_text())
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{number}\n" for number in expected["classes60"]))
    for name, classes in (("ap60", ["--classes", ids]), ("ap80", [])):
        metrics = evaluate(tmp_path, *GT, *FOUND, *EXCLUDED, *classes)
        value = metrics["frame_mAP@0.5"] / 100
        assert value == pytest.approx(expected[name]["mAP@0.5IOU"], abs=1e-4)
        for number, ap in metrics["per_class"].items():
            ap = None if ap is None else ap / 100
            assert ap == pytest.approx(expected[name][number], abs=1e-4)
    assert "mean object: " in capsys.readouterr().out


def test_ava_label_maps_name_and_choose_the_classes(tmp_path: Path) -> None:
    (tmp_path / "map.pbtxt").write_text(
        'item {\n  name: "stand"\n  id: 12\n}\nlabel { name: "sit" label_id: 11 }\n'
    )
    (tmp_path / "names.txt").write_text("".join(f"c{number}\n" for number in range(1, 81)))
    whole = evaluate(tmp_path, *GT, *FOUND, *EXCLUDED)["per_class"]
    metrics = evaluate(tmp_path, *GT, *FOUND, *EXCLUDED, "--label-map", tmp_path / "map.pbtxt")
    assert metrics["per_class"] == {"stand": whole["12"], "sit": whole["11"]}
    assert metrics["class_ids"] == {"stand": 12, "sit": 11}
    (tmp_path / "unseen.txt").write_text("c11\nc12\n")
    named = ("--label-map", tmp_path / "names.txt", "--unseen-label", tmp_path / "unseen.txt")
    metrics = evaluate(tmp_path, *GT, *FOUND, *EXCLUDED, *named)
    assert metrics["per_class"]["c12"] == whole["12"]
    assert metrics["frame_mAP@0.5"] == pytest.approx((whole["11"] + whole["12"]) / 2)
    known = [value for value in whole.values() if value is not None]
    assert metrics["frame_mAP_all@0.5"] == pytest.approx(sum(known) / len(known))


def test_ava_mistakes(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("12\n81\n")
    assert "'81' is not one of the 80" in refused(*GT, *FOUND, "--classes", ids)
    ids.write_text("stand\n")
    assert "'stand' is not one of" in refused(*GT, *FOUND, "--classes", ids)
    ids.write_text("vid00,0902,12,30,100,200,12,0.5\n")
    assert "boxes reach to 200; fractions" in refused(*GT, "--detections", ids)
    rows = [f"vid00,{s},0.6,0.{s % 9},0.1,0.2,12,0.5\n" for s in range(902, 912)]
    ids.write_text("".join(rows))
    assert "of 10 boxes have x2 <= x1 or y2 <= y1" in refused(*GT, "--detections", ids)
    ids.write_text("video_0,0902,0.1,0.1,0.2,0.2,12,0.5\n")
    assert "none of its 1 seconds" in refused(*GT, "--detections", ids)
    ids.write_text("\n")
    assert "no row of any" in refused("ava", "--ground-truth", ids, *FOUND)
    assert "second were expected" in refused(*GT, *FOUND, "--excluded", AVA / "gt.csv")


# ---------------------------------------------------------------- predictions.npz
@pytest.fixture
def tested(tmp_path: Path) -> Path:
    """What a test wrote of three videos and classes, and gt.json beside it."""
    keys = [("a", 1), ("a", 2), ("b", 1), ("c", 1)]
    persons = [
        (0, BOX, 0.9, (0.6, 0.3, 0.1)),
        (1, BOX, 0.8, (0.1, 0.5, 0.4)),
        (1, FAR, 0.7, (0.5, 0.3, 0.2)),
        (2, BOX, 0.9, (0.3, 0.4, 0.3)),
        (3, BOX, 0.6, (0.2, 0.2, 0.6)),
    ]
    labels = ["run", "wave", "sit"]
    found = detections(keys, persons, 3)
    write_results(tmp_path, "mine", labels, found, rows_of(found))
    content = {
        "labels": labels,
        "videos": [{"id": v, "path": v, "size": [320, 240], "fps": 25} for v in "abc"],
        "keyframes": [
            {"video": v, "timestamp": (f - 1) / 25, "boxes": [BOX], "labels": [[name]]}
            for (v, f), name in zip(keys, ("run", "run", "wave", "sit"), strict=True)
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    return tmp_path


def frame_arguments(folder: Path, name: str = "predictions.npz") -> tuple[Any, ...]:
    return (
        "frame-map", "--ground-truth", folder / "gt.json", "--detections", folder / "mine" / name
    )  # fmt: skip


def test_predictions_give_the_numbers_of_the_csv(tested: Path) -> None:
    (tested / "labels.txt").write_text("run\nwave\nsit\n")
    csv_ = evaluate(
        tested, *frame_arguments(tested, "result_mine.csv"), "--test-label", tested / "labels.txt"
    )
    assert evaluate(tested, *frame_arguments(tested)) == csv_
    # Any order and choice of the classes.
    (tested / "labels.txt").write_text("sit\nrun\n")
    some = evaluate(tested, *frame_arguments(tested), "--test-label", tested / "labels.txt")
    assert some["per_class"] == {name: csv_["per_class"][name] for name in ("sit", "run")}


def test_voting_from_the_file(tested: Path) -> None:
    archive = np.load(tested / "mine" / "predictions.npz")
    keys = list(zip(archive["videos"].tolist(), archive["frames"].tolist(), strict=True))
    columns = [archive[name].tolist() for name in ("owner", "boxes", "det_scores", "scores")]
    persons = list(zip(*columns, strict=True))
    voted = soft_voting(detections(keys, persons, 3))
    truth = [
        annotated(*key, (BOX, name))
        for key, name in zip(keys, ("run", "run", "wave", "sit"), strict=True)
    ]
    expected = frame_map(truth, rows_of(voted), archive["labels"].tolist())
    metrics = evaluate(tested, *frame_arguments(tested), "--single-action")
    assert metrics == json.loads(json.dumps(expected))
    assert metrics != evaluate(tested, *frame_arguments(tested))
    vote = ("vote", "--predictions", tested / "mine" / "predictions.npz")
    written = tested / "voted" / "mine"
    truth_file = ("--ground-truth", tested / "gt.json")
    again = evaluate(tested, *vote, "--out", written, *truth_file)
    assert {key: again[key] for key in metrics} == metrics
    assert json.loads((written / "metrics.json").read_text()) == again
    with open(written / "result_mine.csv", newline="") as file:
        rows = list(csv.reader(file))
    mean = np.mean([0.6, 0.1, 0.5])  # video a, class run
    assert [float(row[7]) for row in rows if row[0] == "a" and row[6] == "1"] == [
        pytest.approx(mean * score, abs=1e-5) for score in (0.9, 0.8, 0.7)
    ]
    # The scores before voting are kept, so voting again gives the same.
    npz = ("vote", "--predictions", written / "predictions.npz")
    assert evaluate(tested, *npz, "--out", tested / "twice" / "mine", *truth_file) == again
    assert (tested / "twice/mine/result_mine.csv").read_bytes() == (
        written / "result_mine.csv"
    ).read_bytes()


def test_video_map_of_votes_along_tracks(tmp_path: Path) -> None:
    """Two people who do different things, each now and then taken for the other."""
    keys, persons = [("v", n) for n in range(1, 21)], []
    for n in range(20):
        scores = (0.9, 0.1) if n % 2 else (0.3, 0.7)
        persons += [(n, BOX, 1.0, scores), (n, FAR, 1.0, scores[::-1])]
    found = detections(keys, persons, 2)
    found = replace(found, seconds=torch.arange(20, dtype=torch.float64) / 10)
    write_results(tmp_path, "mine", ["run", "sit"], found, rows_of(found))
    truth = [
        {"video": "v", "label": label, "boxes": [[n, *box] for _, n in keys]}
        for label, box in (("run", BOX), ("sit", FAR))
    ]
    content = {"labels": ["run", "sit"], "nframes": {"v": 20}, "ground_truth": truth}
    (tmp_path / "tubes.json").write_text(json.dumps(content))
    for voting, means in (("track", (0.6, 0.4)), ("video", (0.5, 0.5))):
        vote = ("vote", "--predictions", tmp_path / "mine/predictions.npz", "--voting", voting)
        main([*map(str, vote), "--out", str(tmp_path / voting), "--voting-window", "inf"])
        metrics = evaluate(
            tmp_path, "video-map", "--ground-truth", tmp_path / "tubes.json",
            "--detections", tmp_path / voting / f"result_{voting}.csv",
            "--save-tubes", tmp_path / f"{voting}.json",
        )  # fmt: skip
        scores = [tube["score"] for tube in json.loads((tmp_path / f"{voting}.json").read_text())]
        assert sorted(scores, reverse=True) == pytest.approx([means[0]] * 2 + [means[1]] * 2)
        assert voting == "video" or metrics["video_mAP@0.5"] == 100


def test_voting_without_ground_truth(tested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vote = ("vote", "--predictions", tested / "mine" / "predictions.npz", "--out", tested / "v")
    assert main([*map(str, vote)]) == 0
    assert "no mAP" in capsys.readouterr().out
    assert (tested / "v" / "result_v.csv").exists()
    assert "without --ground-truth" in refused(*vote, "--videos", tested / "gt.json")


def test_means_over_unseen_and_seen(tested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tested / "unseen.txt").write_text("sit\n")
    plain = evaluate(tested, *frame_arguments(tested))
    metrics = evaluate(tested, *frame_arguments(tested), "--unseen-label", tested / "unseen.txt")
    seen = (plain["per_class"]["run"] + plain["per_class"]["wave"]) / 2
    unseen = plain["per_class"]["sit"]
    assert metrics["frame_mAP@0.5"] == unseen
    assert metrics["frame_mAP_seen@0.5"] == pytest.approx(seen)
    assert metrics["frame_mAP_all@0.5"] == plain["frame_mAP@0.5"]
    assert metrics["H"] == pytest.approx(2 * seen * unseen / (seen + unseen))
    assert "sit (unseen)" in capsys.readouterr().out


def test_fewer_classes_as_if_tested_alone(tested: Path) -> None:
    (tested / "two.txt").write_text("sit\nrun\n")
    arguments = (*frame_arguments(tested), "--test-label", tested / "two.txt")
    before, after = evaluate(tested, *arguments), evaluate(tested, *arguments, "--renormalise")
    assert before["ground_truth_boxes"] == after["ground_truth_boxes"]
    # Both times a's first box ranks first in class run; its second, the other hit, comes after
    # three false ones before (0.8 * 0.1), and after two then (0.8 * 0.1 / 0.5; c's is 0.6 * 0.25).
    assert before["per_class"]["run"] == pytest.approx(50 * (1 + 2 / 5))
    assert after["per_class"]["run"] == pytest.approx(50 * (1 + 2 / 4))


def test_mistakes_with_predictions(tested: Path) -> None:
    labels = tested / "labels.txt"
    labels.write_text("run\nwave\nsit\n")
    csv_ = frame_arguments(tested, "result_mine.csv")
    for option in ("--single-action", "--voting track", "--renormalise"):
        message = refused(*csv_, "--test-label", labels, *option.split())
        option = option.split()[0]
        assert message.startswith(option)
        assert "predictions.npz" in message
    assert "--test-label: is needed" in refused(*csv_)
    track = (*frame_arguments(tested), "--voting", "track")
    assert "predictions.npz: it is unknown when the keyframes are shown" in refused(*track)
    assert "--voting-window: above 0 expected, found 0" in refused(*track, "--voting-window", "0")
    message = refused(*track, "--single-action")
    assert "--single-action: not allowed with argument --voting" in message
    labels.write_text("walk\n")
    assert "label 'walk' is not a class of" in refused(
        *frame_arguments(tested), "--test-label", labels
    )
    assert "not a class of the evaluated" in refused(
        *frame_arguments(tested), "--unseen-label", labels
    )
    labels.write_text("run\nwave\nsit\n")
    assert "none is seen" in refused(*frame_arguments(tested), "--unseen-label", labels)
    content = json.loads((tested / "gt.json").read_text())
    content["videos"][0]["id"] = "z"
    content["keyframes"] = content["keyframes"][2:]
    (tested / "gt.json").write_text(json.dumps(content))
    assert "1 of its videos are not in" in refused(*frame_arguments(tested))
    (tested / "mine" / "predictions.npz").write_bytes(b"PK cut short")
    assert "not the predictions" in refused(*frame_arguments(tested))
