import json
import pickle
import re

import numpy as np
import pytest

from stclip.data.ground_truth import read_evaluation_truth
from stclip.errors import UserError
from tests.helpers import load_command, shared_path

SPLIT_1 = ["clap", "sit", "wave", "throw", "pullup", "catch"]


main = load_command("evaluate").main


def row(video, frame, label=1, score=0.9, box="0.00000,0.00000,10.00000,10.00000"):
    return f"{video},{frame:04d},{box},{label},{score:.5f}\r\n"


@pytest.fixture
def case(tmp_path):
    """Two test videos of 'run' and 'wave', one of 'sit' that is not evaluated; all found but one.

    Returns the folder and a function that evaluates in it and returns the json.
    """
    (tmp_path / "labels.txt").write_text("wave\nrun\n")
    labels = ["run", "sit", "wave"]
    box = [0, 0, 10, 10]
    videos = {"run/a": "run", "wave/b": "wave", "sit/c": "sit"}
    annotations = {
        "labels": labels,
        "videos": [
            {"id": name, "path": f"absent/{name}", "size": [320, 240], "fps": 25} for name in videos
        ],
        "keyframes": [
            {"video": name, "timestamp": i / 25, "boxes": [box], "labels": [[label]]}
            for name, label in videos.items()
            for i in range(2)
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(annotations))
    rows = row("run/a", 1, 2) + row("run/a", 2, 2) + row("wave/b", 1, 1)
    (tmp_path / "result.csv").write_text(rows)

    def evaluate(*extra, truth="gt.json"):
        out = tmp_path / "out.json"
        out.unlink(missing_ok=True)
        main([*arguments(tmp_path, truth), "--json", str(out), *map(str, extra)])
        return json.loads(out.read_text())

    return tmp_path, evaluate


def arguments(folder, truth="gt.json"):
    return [
        "frame-map",
        *("--ground-truth", str(folder / truth)),
        *("--detections", str(folder / "result.csv")),
        *("--test-label", str(folder / "labels.txt")),
    ]


def test_numbers_and_table(case, capsys):
    folder, evaluate = case
    metrics = evaluate()
    assert metrics["frame_mAP@0.5"] == 75
    assert metrics["per_class"] == {"wave": 50, "run": 100}
    assert metrics["ground_truth_boxes"] == {"wave": 2, "run": 2}
    assert metrics["iou_thresholds"] == [0.2, 0.5, 0.75]
    assert "AP@0.75" in capsys.readouterr().out
    main(arguments(folder))  # --json may be left out
    assert "75.00" in capsys.readouterr().out


def test_rows_of_a_known_video_of_another_class_are_false_positives(case):
    folder, evaluate = case
    with open(folder / "result.csv", "a") as file:
        file.write(row("sit/c", 1, 2, 0.99))
        file.write(row("sit/c", 99, 1, 0.99))  # no such frame: no ground truth either
    metrics = evaluate()
    assert metrics["per_class"]["wave"] == pytest.approx(25)
    assert metrics["per_class"]["run"] == pytest.approx(50 * (1 / 2 + 2 / 3) + 50 * (2 / 3 - 1 / 2))


def test_people_who_do_something_else(case, capsys):
    folder, evaluate = case
    assert "rejection" not in evaluate()  # there are such people, but no box of theirs
    with open(folder / "result.csv", "a") as file:
        file.write(row("sit/c", 1, 2, 0.99) + row("sit/c", 2, 2, 0.3))
    found = evaluate()["rejection"]
    assert (found["auroc"], found["precision"], found["threshold"]) == (50, 75, 0.9)
    assert "something else (2 of 5 boxes): AUROC 50.00; precision" in capsys.readouterr().out


def test_videos_restricts_boxes_and_rows(case, capsys):
    folder, evaluate = case
    with open(folder / "result.csv", "a") as file:
        file.write(row("sit/c", 1, 2, 0.99))
    (folder / "videos.txt").write_text("a\nwave/b\nelsewhere\n")
    metrics = evaluate("--videos", folder / "videos.txt")
    assert metrics["frame_mAP@0.5"] == 75
    warnings = capsys.readouterr().err
    assert "1 of 3 videos" in warnings
    assert "1 of 4 rows" in warnings
    (folder / "videos.txt").write_text("a\n")
    metrics = evaluate("--videos", folder / "videos.txt")
    assert metrics["per_class"] == {"wave": None, "run": 100}
    assert metrics["frame_mAP@0.5"] == 100


def refused(folder, *extra):
    with pytest.raises(UserError) as caught:
        main([*arguments(folder), *map(str, extra)])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mistakes_are_named(case):
    folder, _ = case
    result = (folder / "result.csv").read_text()
    for text, expected in [
        (row("run/d", 1), "row 4: video 'run/d'"),
        (row("run/a", 1, 3), "row 4: label 3 is outside"),
        ("run/a,0001\n", "row 4: 2 columns"),
        (row("run/a", 1).replace("10.0", "ten", 1), "row 4: x2 is 'ten"),
    ]:
        (folder / "result.csv").write_text(result + text)
        message = refused(folder)
        assert expected in message
        assert "result.csv" in message
    (folder / "result.csv").write_text(result)
    assert "above 0" in refused(folder, "--iou", 50)
    (folder / "videos.txt").write_text("nobody\n")
    assert "none of its 1 videos" in refused(folder, "--videos", folder / "videos.txt")
    (folder / "videos.txt").write_text("c\n")
    assert "has a label of" in refused(folder, "--videos", folder / "videos.txt")
    (folder / "labels.txt").write_text("wave\nrunning\n")
    message = refused(folder)
    assert "labels.txt: label 'running'" in message
    (folder / "gt.json").write_text('{"labels": [')
    assert "gt.json: not valid JSON" in refused(folder)
    (folder / "gt.json").unlink()
    assert "gt.json: cannot be read" in refused(folder)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda f: row("run/a", f, box=f"{90 + f % 2 * 9},0,20,30"), "look like x, y, width, hei"),
        (lambda f: row("run/a", f, box="0.1,0.2,0.9,0.8"), "multiply fractions by the picture's"),
        (lambda f: row("run/a", f, box="30,0,20,9"), "5 of 5 boxes have x2 <= x1 or y2 <= y1"),
    ],
)
def test_boxes_that_are_not_corners_in_pixels_are_refused(case, rows, words):
    folder, evaluate = case
    truth = json.loads((folder / "gt.json").read_text())
    for keyframe in truth["keyframes"]:
        keyframe["boxes"] = [[80, 10, 120, 99]]
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "result.csv").write_text("".join(map(rows, range(1, 6))))
    with pytest.raises(UserError, match=rf"result\.csv: .*{re.escape(words)}") as error:
        evaluate()
    assert "\n" not in str(error.value)


def test_ground_truth_in_another_format_is_refused(tmp_path):
    content = {"images": [], "annotations": []}
    for frame in range(1, 9):
        content["images"].append({"id": frame, "movie": "v", "timestamp": f"{frame:05d}"})
        content["annotations"].append(
            {"image_id": frame, "action_ids": [1], "bbox": [90 + frame % 2 * 9, 50, 40, 120]}
        )
    (tmp_path / "gt.json").write_text(json.dumps(content))
    (tmp_path / "labels.txt").write_text("brush_hair\n")
    (tmp_path / "result.csv").write_text(row("brush_hair/v", 1))
    with pytest.raises(UserError, match=r"gt\.json: 8 of 8 boxes have x2 <= x1 or y2 <= y1"):
        main(arguments(tmp_path))


def test_one_empty_box_counts_as_a_miss_and_is_told_of(case, capsys):
    folder, evaluate = case
    with open(folder / "result.csv", "a") as file:
        file.write(row("wave/b", 2, 1, box="5,5,5,9"))
    assert evaluate()["frame_mAP@0.5"] == 75
    said = capsys.readouterr().err
    assert "1 of 4 boxes are empty and count as misses (first: wave/b 2)" in said


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "the file has no rows"),
        (row("run/a", 1, 2, score=0), "no score is above 0"),
        (row("run/a", 9, 2), "none of its 1 frames is annotated"),
        (row("run/a", 1, 2, box="200,100,240,130"), "in its 1 annotated frames no box overlaps"),
    ],
)
def test_a_map_of_zero_is_explained(case, capsys, rows, words):
    folder, evaluate = case
    evaluate()
    assert not capsys.readouterr().err
    (folder / "result.csv").write_text(rows)
    assert evaluate()["frame_mAP@0.2"] == 0
    assert words in capsys.readouterr().err


def test_json_is_not_overwritten_unasked(case):
    folder, _ = case
    out = folder / "old.json"
    out.write_text("precious")
    assert "--overwrite" in refused(folder, "--json", out)
    assert out.read_text() == "precious"
    assert main([*arguments(folder), "--json", str(out), "--overwrite"]) == 0
    assert "frame_mAP@0.5" in json.loads(out.read_text())


def test_a_new_folder_is_made(case):
    folder, _ = case
    out = folder / "new" / "out.json"
    assert main([*arguments(folder), "--iou", "0.5", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["frame_mAP@0.5"] == 75


@pytest.mark.parametrize("extra", [[], ["frame-map"], ["frame-map", "--iou", "x"], ["other"]])
def test_argument_errors_are_one_line(extra):
    with pytest.raises(UserError, match="--help") as caught:
        main(extra)
    assert "\n" not in str(caught.value)


def write_pickle(path, test_lists):
    videos = {"sit/c": 0, "run/a": 1, "wave/b": 2}
    frames = np.array([[i, 0, 0, 10, 10] for i in (1, 2)], dtype=np.float32)
    names = ["sit", "run", "wave"]
    content = {
        "labels": names,
        "train_videos": [[v for v in videos if v not in test] for test in test_lists],
        "test_videos": test_lists,
        "nframes": dict.fromkeys(videos, 2),
        "resolution": dict.fromkeys(videos, (240, 320)),
        "gttubes": {video: {label: [frames]} for video, label in videos.items()},
    }
    path.write_bytes(pickle.dumps(content, protocol=2))


def test_official_splits_of_the_pickle(tmp_path):
    path = tmp_path / "gt.pkl"
    write_pickle(path, [["run/a", "wave/b"], ["sit/c", "run/a"], ["wave/b"]])
    expected = [{"run/a", "wave/b"}, {"sit/c", "run/a"}, {"wave/b"}]
    for number, videos in enumerate(expected, 1):
        truth = read_evaluation_truth(path, number)
        assert set(truth.keyframes) == videos
        for frames in truth.keyframes.values():
            assert [keyframe.key.frame for keyframe in frames] == [1, 2]
    for number in (0, 4):
        with pytest.raises(UserError, match="1 to 3"):
            read_evaluation_truth(path, number)


@pytest.mark.parametrize("content", ["[]", '{"labels": [], "ground_truth": []}'])
def test_json_that_is_no_ground_truth_of_frames(tmp_path, content):
    (tmp_path / "tubes.json").write_text(content)
    with pytest.raises(UserError, match=r"tubes\.json: neither J-HMDB's json, .*'keyframes'"):
        read_evaluation_truth(tmp_path / "tubes.json")


@pytest.mark.parametrize("command", ["frame-map", "video-map"])
@pytest.mark.parametrize("name", ["ava_val_v2.2.csv", "ava.csv.gz"])
def test_a_csv_of_ground_truth_is_for_ava(case, command, name):
    words = arguments(case[0])
    words[0] = command
    words[words.index("--ground-truth") + 1] = name
    with pytest.raises(UserError, match=f"--ground-truth {name}: a csv, .* the command ava"):
        main(words)


def test_ground_truth_may_have_csv_inside_its_name(case):
    folder, evaluate = case
    (folder / "gt.json").rename(folder / "mine.csv.json")
    assert evaluate(truth="mine.csv.json")["frame_mAP@0.5"] == 75


def test_a_file_named_as_another_kind_is_refused(tmp_path):
    write_pickle(tmp_path / "gt.json", [["run/a"]])
    with pytest.raises(UserError, match=r"name J-HMDB's pickle \.pkl"):
        read_evaluation_truth(tmp_path / "gt.json")


def test_frames_of_a_video_file_are_found_by_their_own_times(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            picture = np.zeros((32, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    keyframe = {"video": "v", "timestamp": 0.5, "boxes": [], "labels": []}
    video = {"id": "v", "path": "v.mp4", "size": [32, 32], "fps": 20}  # really 10
    content = {"labels": ["run"], "videos": [video], "keyframes": [keyframe]}
    (tmp_path / "gt.json").write_text(json.dumps(content))
    truth = read_evaluation_truth(tmp_path / "gt.json")
    assert [frame.key for frame in truth.keyframes["v"]] == [("v", 6)]


@pytest.mark.parametrize(
    "name", ["JHMDB-GT.pkl", pytest.param("jhmdb_test_gt_min.json", marks=pytest.mark.slow)]
)
def test_conformance_on_real_jhmdb(tmp_path, name):
    truth = shared_path("annotations/jhmdb") / name
    folder = shared_path("conformance/jhmdb_frame_map")
    expected = json.loads((folder / "expected.json").read_text())
    (tmp_path / "labels.txt").write_text("\n".join(SPLIT_1))
    out = tmp_path / "out.json"
    main(
        [
            "frame-map",
            *("--ground-truth", str(truth)),
            *("--detections", str(folder / "split1_detections.csv.gz")),
            *("--test-label", str(tmp_path / "labels.txt")),
            *("--iou", "0.2", "0.5", "0.75"),
            *("--json", str(out)),
        ]
    )
    metrics = json.loads(out.read_text())
    assert metrics["rows"] == 37_698
    for threshold, values in expected.items():
        assert metrics[f"frame_mAP@{threshold}"] == pytest.approx(values.pop("mAP"), abs=0.01)
        assert metrics[f"per_class@{threshold}"] == pytest.approx(values, abs=0.01)


def test_conformance_on_the_tiny_dataset(tmp_path):
    folder = shared_path("conformance/jhmdb_tiny")
    expected = json.loads((folder / "expected" / "frame_map.json").read_text())
    out = tmp_path / "out.json"
    main(
        [
            "frame-map",
            *("--ground-truth", str(folder / "data/jhmdb/annotations/jhmdb_test_gt_min.json")),
            *("--detections", str(folder / "expected/result_jhmdb.csv")),
            *("--test-label", str(folder / "data/split/test_label.txt")),
            *("--videos", str(folder / "data/split/test_video.txt")),
            *("--json", str(out)),
        ]
    )
    metrics = json.loads(out.read_text())
    for threshold, values in expected.items():
        assert metrics[f"frame_mAP@{threshold}"] == pytest.approx(values.pop("mAP"), abs=0.01)
        assert metrics[f"per_class@{threshold}"] == pytest.approx(values, abs=0.01)
