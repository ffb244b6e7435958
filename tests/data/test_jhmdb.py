import io
import json
import logging
import pickle
import re
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from stclip.data import build_dataset
from stclip.data.jhmdb import CLASSES, read_ground_truth
from stclip.errors import UserError
from tests.data.make import (
    VIDEOS,
    box_of,
    image_id,
    jhmdb_json,
    jhmdb_pickle,
    write_frames,
    write_jhmdb,
)
from tests.helpers import REPOSITORY, shared_path


def content(dataset):
    return [(k.key, k.boxes.tolist(), k.labels) for k in dataset.keyframes]


def expected(name, label=None):
    label, count = label or VIDEOS[name][0], VIDEOS[name][1]
    video = f"{VIDEOS[name][0]}/{name}"
    return [((video, f), [box_of(name, f)], ((label,),)) for f in range(1, count + 1)]


@pytest.mark.parametrize("annotations", ["json", "pickle"])
@pytest.mark.parametrize("layout", ["flat", "classes", "avi", "avi in classes"])
def test_every_layout_gives_the_same_dataset(tmp_path, layout, annotations):
    cfg = write_jhmdb(tmp_path, layout, annotations)
    cfg.TEST.BOXES = "ground_truth"
    train, test = build_dataset(cfg, "train"), build_dataset(cfg, "test")
    assert train.name == test.name == "jhmdb"
    assert content(train) == expected("a_run") + expected("b_sit")
    assert content(test) == expected("c_wave")
    assert {k: len(v) for k, v in train.videos.items()} == {"run/a_run": 12, "sit/b_sit": 5}
    assert train.keyframes[0].boxes.dtype == np.float32
    assert train.proposals is test.proposals is None


def test_detections_of_the_keyframes(tmp_path):
    cfg = write_jhmdb(tmp_path)
    dataset = build_dataset(cfg, "test")
    assert len(dataset.keyframes) == 10
    assert {key.frame for key in dataset.proposals} == set(range(1, 11)) - {2}
    first = dataset.proposals["wave/c_wave", 1]
    assert first.boxes.tolist() == [[n, n, 30, 20 + n] for n in range(4)]
    assert first.scores.tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3])


def test_detections_by_lines(tmp_path):
    cfg = write_jhmdb(tmp_path, annotations="pickle")
    row = {"box": [1, 2, 3, 4], "score": 0.5}
    path = tmp_path / "d.jsonl"
    rows = [
        {"video": "wave/c_wave", "frame": 3, **row},
        {"video": "c_wave", "timestamp": 2 / 30, **row},
        {"video": "d_run", "frame": 1, **row},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    cfg.DATASETS.DETECTIONS = str(path)
    dataset = build_dataset(cfg, "test")
    assert {key: len(found) for key, found in dataset.proposals.items()} == {("wave/c_wave", 3): 2}
    for wrong, message in (("wave/c_wav", "did you mean"), ("c_wave", "no frame 11")):
        path.write_text(json.dumps({"video": wrong, "frame": 11, **row}))
        with pytest.raises(UserError, match=f"line 1: .*{message}"):
            build_dataset(cfg, "test")


def test_detections_without_what_they_need(tmp_path):
    cfg = write_jhmdb(tmp_path, annotations="pickle")
    with pytest.raises(UserError, match=r"mean nothing without jhmdb_test_gt_min\.json"):
        build_dataset(cfg, "test")
    (tmp_path / "data/jhmdb/jhmdb_faster_RCNN_person.json").unlink()
    with pytest.raises(UserError, match=r"jhmdb_faster_RCNN_person\.json is not in .*TEST\.BOXES"):
        build_dataset(cfg, "test")


def test_detection_of_an_unknown_image(tmp_path):
    cfg = write_jhmdb(tmp_path)
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"image_id": 77, "bbox": [1, 2, 3, 4], "score": 1}]))
    cfg.DATASETS.DETECTIONS = str(path)
    with pytest.raises(UserError, match=r"d\.json: row 1: image_id 77 is unknown"):
        build_dataset(cfg, "test")


def test_missing_videos_and_frames_are_reported_together(tmp_path):
    cfg = write_jhmdb(tmp_path)
    videos = tmp_path / "data" / "jhmdb" / "videos"
    for number in (4, 12):
        (videos / "a_run" / f"{number:05d}.png").unlink()
    (videos / "b_sit").rename(videos / "other")
    with pytest.raises(UserError) as error:
        build_dataset(cfg, "train")
    message = str(error.value)
    assert message.startswith(f"DATASETS.DATA_DIR {tmp_path / 'data'}: 1 of 2 videos are missing, ")
    assert "the first is sit/b_sit; 2 frames of 1 videos are missing, the first is frame 4 of" in (
        message
    )
    assert str(videos / "a_run") in message
    assert "\n" not in message
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"DATASETS\.DATA_DIR .*neither jhmdb_train_gt_min.json"):
        build_dataset(cfg, "train")


def test_an_avi_that_is_too_short_is_reported(tmp_path):
    cfg = write_jhmdb(tmp_path, "avi", "pickle")
    pickled = jhmdb_pickle()
    pickled["nframes"]["run/a_run"] = 14
    (tmp_path / "data/jhmdb/JHMDB-GT.pkl").write_bytes(pickle.dumps(pickled))
    with pytest.raises(UserError, match="2 frames of 1 videos are missing, the first is frame 13"):
        build_dataset(cfg, "train")


def test_lists_of_videos(tmp_path, caplog):
    cfg = write_jhmdb(tmp_path)
    listed = tmp_path / "videos.txt"
    cfg.TRAIN_VIDEO = str(listed)
    for text in ("a_run\n", "run/a_run\n"):
        listed.write_text(text)
        assert content(build_dataset(cfg, "train")) == expected("a_run")
    assert "TRAIN_LABEL: no video of sit" in caplog.text
    caplog.clear()
    listed.write_text("a_run\nd_run\nc_wave\nb_sit\n")
    with caplog.at_level(logging.WARNING):
        assert content(build_dataset(cfg, "train")) == expected("a_run") + expected("b_sit")
    assert "2 of 4 videos are left out, they are not in the train part" in caplog.text
    listed.write_text("d_run\n")
    with pytest.raises(UserError, match=r"TRAIN_VIDEO .*none of its 1 videos is left") as error:
        build_dataset(cfg, "train")
    assert "\n" not in str(error.value)


def test_no_video_of_the_labels(tmp_path):
    cfg = write_jhmdb(tmp_path)
    (tmp_path / "test.txt").write_text("golf\nclap\n")
    with pytest.raises(
        UserError, match=r"TEST_LABEL: .* no test video of any .* 2 labels; .* are run, wave"
    ):
        build_dataset(cfg, "test")


@pytest.mark.parametrize("annotations", ["json", "pickle"])
def test_classes_may_be_worded_differently(tmp_path, annotations):
    cfg = write_jhmdb(tmp_path, annotations=annotations)
    cfg.TEST.BOXES = "ground_truth"
    worded = ["waving a hand" if name == "wave" else name for name in CLASSES]
    (tmp_path / "all.txt").write_text("\n".join(worded))
    (tmp_path / "test.txt").write_text("waving a hand")
    (tmp_path / "data/jhmdb/all_label.txt").write_text("\n".join(CLASSES))
    assert content(build_dataset(cfg, "test")) == expected("c_wave", "waving a hand")
    (tmp_path / "all.txt").write_text("\n".join(reversed(worded)))
    with pytest.raises(UserError, match=r"ALL_LABEL: the classes of .* not in it"):
        build_dataset(cfg, "test")


@pytest.mark.parametrize("annotations", ["json", "pickle"])
def test_the_order_of_all_labels_does_not_matter(tmp_path, annotations):
    cfg = write_jhmdb(tmp_path, annotations=annotations)
    cfg.TEST.BOXES = "ground_truth"
    (tmp_path / "data/jhmdb/all_label.txt").write_text("\n".join(CLASSES))
    (tmp_path / "all.txt").write_text("\n".join(reversed(CLASSES)))
    assert content(build_dataset(cfg, "test")) == expected("c_wave")


def test_class_folders_come_from_the_test_list(tmp_path):
    cfg = write_jhmdb(tmp_path)
    (tmp_path / "data/jhmdb/annotations/testlist.txt").write_text("waves/c_wave/00001.txt\n")
    assert list(build_dataset(cfg, "test").videos) == ["waves/c_wave"]


def test_frames_without_boxes_are_tested_and_not_trained_on(tmp_path):
    cfg = write_jhmdb(tmp_path)
    for part in ("train", "test"):
        changed = jhmdb_json(part)
        del changed["annotations"][0]  # frame 12 of a_run, frame 10 of c_wave
        path = tmp_path / f"data/jhmdb/annotations/jhmdb_{part}_gt_min.json"
        path.write_text(json.dumps(changed))
    assert content(build_dataset(cfg, "train")) == expected("a_run")[:-1] + expected("b_sit")
    assert content(build_dataset(cfg, "test"))[-1] == (("wave/c_wave", 10), [], ())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images", {"timestamp": "x"}, r"images\[1\]: id, movie and timestamp"),
        ("images", {"movie": None, "id": []}, r"images\[1\]: id, movie and timestamp"),
        ("images", {"timestamp": 2.5}, r"images\[1\]: id, movie and timestamp"),
        ("images", {"id": image_id("c_wave", 10)}, r"images\[1\]: id \d+ is that of frame 10 of"),
        ("annotations", {"image_id": 5}, r"annotations\[1\]: image_id"),
        ("images", {"timestamp": float("inf")}, r"images\[1\]: id, movie and timestamp"),
        ("images", {"width": 0}, r"images\[1\]: width 0, height 30: whole pixels"),
        ("images", {"width": 41}, r"images\[1\]: 41 x 30 pixels, but other frames of c_wave have"),
        ("annotations", {"bbox": "1234"}, r"annotations\[1\]: image_id"),
        ("annotations", {"bbox": [1, 2, 3, 1e39]}, r"annotations\[1\]: image_id"),
        ("annotations", {"action_ids": "12"}, r"annotations\[1\]: image_id"),
        ("annotations", {"bbox": [1, 2]}, r"annotations\[1\]: image_id"),
        ("annotations", {"action_ids": None}, r"annotations\[1\]: image_id"),
        ("annotations", {"action_ids": [2.9]}, r"annotations\[1\]: image_id"),
        ("annotations", {"action_ids": [22]}, r"annotations\[1\]: action_ids \[22\]: numbers"),
        ("annotations", {"action_ids": [0]}, r"annotations\[1\]: action_ids \[0\]: numbers"),
    ],
)
def test_malformed_json_rows_are_named(tmp_path, name, change, message):
    broken = jhmdb_json("test")
    broken[name][1].update(change)
    path = tmp_path / "jhmdb_test_gt_min.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(UserError, match=message) as error:
        read_ground_truth(path, "test")
    assert "\n" not in str(error.value)


def test_files_of_another_format(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[]")
    with pytest.raises(UserError, match="'images' is missing or not a list"):
        read_ground_truth(path, "test")
    path.write_text(json.dumps(jhmdb_json("test"))[:500])
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        read_ground_truth(path, "test")
    path = tmp_path / "a.pkl"
    for broken in ([], {"labels": ["run"]}, {**jhmdb_pickle(), "gttubes": {}}):
        path.write_bytes(pickle.dumps(broken))
        with pytest.raises(UserError, match=r"a\.pkl: not in the format of JHMDB-GT\.pkl") as error:
            read_ground_truth(path, "test")
        assert "\n" not in str(error.value)


# Videos and frames of each zero-shot split: train, then test.
SPLITS = {
    1: (464, 15590, 78, 2651),
    2: (486, 17190, 73, 2444),
    3: (468, 16224, 78, 2590),
    4: (474, 16045, 76, 2731),
}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The released annotations, with archives of one picture in the place of the frames."""
    picture = io.BytesIO()
    Image.new("L", (320, 240)).save(picture, "png")
    source = shared_path("annotations/jhmdb")
    folder = tmp_path_factory.mktemp("data") / "jhmdb"
    (folder / "videos").mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    for part in ("train", "test"):
        truth = read_ground_truth(source / "JHMDB-GT.pkl", part)
        for video, length in truth.lengths.items():
            with ZipFile(folder / "videos" / f"{video.split('/')[1]}.zip", "w") as archive:
                for number in range(1, length + 1):
                    archive.writestr(f"{number:05d}.png", picture.getvalue())
    return folder.parent


@pytest.mark.slow
@pytest.mark.parametrize("split", list(SPLITS))
def test_released_annotations_give_the_counts_of_every_split(released, split, tmp_path, caplog):
    cfg = write_jhmdb(tmp_path)
    cfg.DATASETS.DATA_DIR = str(released)
    labels = REPOSITORY / "data" / "label_splits" / "jhmdb"
    cfg.ALL_LABEL = str(labels / "all_label.txt")
    cfg.TRAIN_LABEL = str(labels / f"split_{split}" / "train_label.txt")
    cfg.TEST_LABEL = str(labels / f"split_{split}" / "test_label.txt")
    train, test = build_dataset(cfg, "train"), build_dataset(cfg, "test")
    counts = (len(train.videos), len(train.keyframes), len(test.videos), len(test.keyframes))
    assert counts == SPLITS[split]
    assert len(test.proposals) > 0.98 * len(test.keyframes)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_drawn_datasets_have_the_same_layout(tmp_path, caplog):
    cfg = write_jhmdb(tmp_path)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = "puppet_crowd"
    cfg.TRAIN_VIDEO = str(tmp_path / "data/puppet_crowd/lists/absent.txt")
    folder = tmp_path / "data" / "puppet_crowd"
    command = f"stclip puppet draw --setting crowd --out {folder}"
    # Before the list: that is drawn too.
    with pytest.raises(UserError, match=rf"^DATASETS\.TRAIN puppet_crowd: .*{re.escape(command)}$"):
        build_dataset(cfg, "train")
    (tmp_path / "data" / "jhmdb").rename(folder)
    cfg.TRAIN_VIDEO = ""
    assert build_dataset(cfg, "train").name == build_dataset(cfg, "test").name == "puppet_crowd"
    cfg.TEST.BOXES = "ground_truth"
    many = jhmdb_json("test")
    many["images"] = [
        {"id": number, "movie": f"v{number}", "timestamp": "00001"} for number in range(200)
    ]
    many["annotations"] = [
        {"image_id": number, "action_ids": [CLASSES.index("wave") + 1], "bbox": [1, 2, 3, 4]}
        for number in range(200)
    ]
    (folder / "annotations" / "jhmdb_test_gt_min.json").write_text(json.dumps(many))
    with pytest.raises(UserError, match=rf"200 of 200 videos are missing.*{re.escape(command)}$"):
        build_dataset(cfg, "test")
    assert not caplog.records  # of counts that only the real J-HMDB has


@pytest.mark.slow
def test_released_json_and_pickle_agree():
    folder = shared_path("annotations/jhmdb")
    a = read_ground_truth(folder / "jhmdb_test_gt_min.json", "test")
    b = read_ground_truth(folder / "JHMDB-GT.pkl", "test")
    assert a.lengths == b.lengths
    for video, frames in a.keyframes.items():
        for one, other in zip(frames, b.keyframes[video], strict=True):
            assert (one.key, one.labels) == (other.key, other.labels)
            assert np.array_equal(one.boxes, other.boxes)


@pytest.mark.slow
def test_a_nearly_whole_release_is_warned_of(released, tmp_path, caplog):
    cfg = write_jhmdb(tmp_path)
    folder = tmp_path / "data" / "jhmdb" / "annotations"
    cut = json.loads((released / "jhmdb" / "jhmdb_test_gt_min.json").read_text())
    gone = cut["images"].pop()["id"]
    cut["annotations"] = [row for row in cut["annotations"] if row["image_id"] != gone]
    (folder / "jhmdb_test_gt_min.json").write_text(json.dumps(cut))
    cfg.TEST.BOXES = "ground_truth"
    with pytest.raises(UserError, match="videos are missing"):
        build_dataset(cfg, "test")
    assert "268 test videos with 9138 frames; split 1 of J-HMDB has 268 with 9139" in caplog.text


@pytest.mark.slow
def test_detections_that_cover_less_than_the_release_are_warned_of(released, tmp_path, caplog):
    cfg = write_jhmdb(tmp_path)
    cfg.DATASETS.DATA_DIR = str(tmp_path / "whole")
    folder = tmp_path / "whole" / "jhmdb"
    folder.mkdir(parents=True)
    for path in (released / "jhmdb").iterdir():
        (folder / path.name).symlink_to(path)
    detections = folder / "jhmdb_faster_RCNN_person.json"
    rows = json.loads(detections.read_text())
    gone = rows[0]["image_id"]
    detections.unlink()
    detections.write_text(json.dumps([row for row in rows if row["image_id"] != gone]))
    labels = REPOSITORY / "data" / "label_splits" / "jhmdb"
    cfg.ALL_LABEL = str(labels / "all_label.txt")
    cfg.TRAIN_LABEL = str(labels / "split_1" / "train_label.txt")
    cfg.TEST_LABEL = str(labels / "split_1" / "test_label.txt")
    build_dataset(cfg, "test")
    message = "detections for 9113 of the 9139 test frames; the released file has them for 9114"
    assert message in caplog.text


@pytest.mark.parametrize("annotations", ["json", "pickle"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_pictures_of_another_size_than_the_annotations_say(tmp_path, annotations, part):
    cfg = write_jhmdb(tmp_path, annotations=annotations)
    cfg.TEST.BOXES = "ground_truth"
    for name in VIDEOS:
        write_frames(tmp_path / "data/jhmdb/videos" / name, VIDEOS[name][1], (80, 60))
    words = r"of [12] of [12] videos have \(first: 40 x 30 it says, 80 x 60 has .*videos/"
    with pytest.raises(UserError, match=words) as error:
        build_dataset(cfg, part)
    assert "\n" not in str(error.value)


def rewrite_detections(tmp_path, change):
    path = tmp_path / "data/jhmdb/jhmdb_faster_RCNN_person.json"
    rows = json.loads(path.read_text())
    for number, row in enumerate(rows):
        row["bbox"] = change(number, *row["bbox"])
    path.write_text(json.dumps(rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n, x1, y1, x2, y2: [x1 + n % 2 * 15, y1, 9, 9], "look like x, y, width, height"),
        (lambda n, x1, y1, x2, y2: [x1 / 40, y1 / 30, x2 / 40, y2 / 30], "as shares"),
        (lambda n, x1, y1, x2, y2: [x2, y1, x1, y2], "x2 <= x1 or y2 <= y1"),
    ],
)
def test_detections_that_are_not_corners_in_pixels_are_refused(tmp_path, change, words):
    cfg = write_jhmdb(tmp_path)
    rewrite_detections(tmp_path, change)
    where = r"^DATASETS\.DETECTIONS .*jhmdb_faster_RCNN_person\.json: "
    with pytest.raises(UserError, match=where + f".*{words}") as error:
        build_dataset(cfg, "test")
    assert "\n" not in str(error.value)


def test_what_makes_a_test_poor_is_told_of(tmp_path, caplog):
    cfg = write_jhmdb(tmp_path)
    cfg.TEST.MAX_PERSONS = 1
    build_dataset(cfg, "test")
    assert not caplog.records

    def change(number, x1, y1, x2, y2):
        return [35, 25, 30, 26] if number == 4 else [36, 26, 39, 29]

    rewrite_detections(tmp_path, change)
    path = tmp_path / "data/jhmdb/jhmdb_faster_RCNN_person.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    cfg.TEST.BOX_THRESH = 0.95
    build_dataset(cfg, "test")
    messages = caplog.text
    assert "TEST.BOX_THRESH 0.95: no box of" in messages
    assert "1 of 36 boxes are empty within their picture and are left out (first: fr" in messages
    assert "only 0.0% of the annotated boxes overlap a detection" in messages
    assert "TEST.MAX_PERSONS" not in messages
    cfg.TEST.BOX_THRESH = 0.0
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "score": 100 * float(row["score"])} for row in rows]))
    build_dataset(cfg, "test")
    assert "are not the best in 9 of 9 frames" in caplog.text
    assert "36 of 36 scores are not from 0 to 1 (30 to 90)" in caplog.text


def test_training_without_a_box_in_a_picture_is_refused(tmp_path):
    cfg = write_jhmdb(tmp_path)
    path = tmp_path / "data/jhmdb/annotations/jhmdb_train_gt_min.json"
    content = jhmdb_json("train")
    for row in content["annotations"]:
        row["bbox"] = [50, 5, 60, 20]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN .*none of its boxes lies in its picture"):
        build_dataset(cfg, "train")


def test_files_with_byte_order_marks(tmp_path):
    cfg = write_jhmdb(tmp_path)
    before = build_dataset(cfg, "test")
    (tmp_path / "data/jhmdb/annotations/testlist.txt").write_text("wave/c_wave/00001.txt\n")
    for path in (tmp_path / "data/jhmdb").rglob("*.[jt][sx]*"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    after = build_dataset(cfg, "test")
    assert content(after) == content(before)
    assert list(after.proposals) == list(before.proposals)
