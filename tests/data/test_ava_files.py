import json

import numpy as np
import pytest

from stclip.data.ava import read_boxes
from stclip.data.ava_files import read_ava_csv, read_box_csv, read_label_map, read_moments
from stclip.errors import UserError
from tests.data.make_ava import write_lines
from tests.helpers import shared_path

NAMES = {1: "bend", 11: "sit", 17: "carry", 80: "watch"}


def annotations(tmp_path, *lines):
    return read_ava_csv(write_lines(tmp_path / "gt.csv", lines), NAMES, "map.pbtxt")


def labels_of(truth):
    return {moment: names for moment, (_, names, _) in truth.items()}


@pytest.mark.parametrize("person", [True, False])
def test_rows_of_one_box_are_one_person(tmp_path, person):
    rows = [
        "v,0902,0.1,0.2,0.3,0.4,17,{}",
        "v,0902,0.5,0.2,0.9,1.000,11,{}",
        "v,0902,0.100,0.20,0.3,0.4,80,{}",  # the first box, written with more digits
        "v,903,0.1,0.2,0.3,0.4,1,{}",
        "w,0902,0,0,1,1,17,{}",
    ]
    ids = (0, 1, 0, 0, 7)
    lines = [row.format(i) if person else row[:-3] for row, i in zip(rows, ids, strict=True)]
    truth = annotations(tmp_path, *lines, "", "w,1000")
    assert labels_of(truth) == {
        ("v", 902): (("carry", "watch"), ("sit",)),
        ("v", 903): (("bend",),),
        ("w", 902): (("carry",),),
        ("w", 1000): (),
    }
    assert truth["v", 902][0].tolist() == [[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.9, 1.0]]
    assert truth["w", 1000][0].shape == (0, 4)
    assert truth["v", 902][2] == (("0", "1") if person else ())


def test_two_persons_of_one_box_stay_two(tmp_path):
    truth = annotations(tmp_path, "v,902,0,0,1,1,17,0", "v,902,0,0,1,1,11,1", "v,902,0,0,1,1,11,1")
    assert labels_of(truth) == {("v", 902): (("carry",), ("sit",))}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("v,902,0,0,1,1", "6 columns; video_id, second"),
        ("v,902.5,0,0,1,1,17", "second '902.5': a whole number"),
        ("v,12345678901234567890,0,0,1,1,17", "second 12345678901234567890: no video"),
        ("v,-1,0,0,1,1,17", "second -1: no video"),
        ("v,902,0,0,1,x,17", "box 'x': a number"),
        ("v,902,0,0,1,nan,17", "box 'nan': a number"),
        ("v,902,0,0,1.2,1,17", r"box 0, 0, 1.2, 1: x1 <= x2 and y1 <= y2 within \[0, 1\]"),
        ("v,902,0.5,0,0.4,1,17", "x1 <= x2"),
        ("v,902,0,0,1,1,12", "action_id '12' is not in map.pbtxt, which has 4 classes"),
        ("v,902,0,0,1,1,sit", "action_id 'sit' is not in"),
    ],
)
def test_bad_annotations(tmp_path, row, message):
    with pytest.raises(UserError, match=message) as error:
        annotations(tmp_path, "v,902,0,0,1,1,17", row)
    assert f"{tmp_path / 'gt.csv'}: row 2: " in str(error.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        read_ava_csv(tmp_path / "none.csv", NAMES, "map")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a csv file in UTF-8"):
        read_moments(tmp_path / "binary.csv")


def test_excluded_timestamps(tmp_path):
    path = write_lines(tmp_path / "excluded.csv", ["v,0917", "w,1000"])
    assert read_moments(path) == {("v", 917), ("w", 1000)}
    with pytest.raises(UserError, match="row 1: 3 columns; video_id and second"):
        read_moments(write_lines(path, ["v,0917,1"]))


@pytest.mark.parametrize(
    "text",
    [
        'item {\n  name: "sit"\n  id: 11\n}\nitem {\n  name: "talk to (e.g., self)"\n  id: 79\n}\n',
        'label {\n  name: "sit"\n  label_id: 11\n  label_type: PERSON_MOVEMENT\n}\n'
        "label { label_id: 79 name: 'talk to (e.g., self)' }",
    ],
)
def test_label_maps(tmp_path, text):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    assert read_label_map(path) == {11: "sit", 79: "talk to (e.g., self)"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no item"),
        ('item { name: "sit" }', "item 1: name and id or label_id"),
        ('item { name: "a" id: 1 } item { name: "b" id: 1 }', "item 2: id 1 occurs twice"),
        ('item { name: "a" id: 1 } item { name: "b" id', "after its 1 items .* cut short"),
        ('item { name: "a" id: 1 } }', "after its 1 items .* cut short"),
        (f'item {{ name: "a" id: {"9" * 5000} }}', "item 1: id 9{20}: at most 6 digits"),
    ],
)
def test_bad_label_maps(tmp_path, text, message):
    (tmp_path / "map.pbtxt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_label_map(tmp_path / "map.pbtxt")


def test_person_boxes(tmp_path):
    path = write_lines(
        tmp_path / "boxes.csv",
        [
            "v,0902,0.1,0.2,0.3,0.4,,0.9",
            "v,0902,0.5,-0.01,0.9,1.02,,0.85",
            "v,0902,0.1,0.2,0.3,0.4,80,0.95",  # once for each label
            "v,0903,0.1,0.2,0.3,0.4,,0.79",
            "w,0902,0.1,0.2,0.3,0.4,,0.9",
        ],
    )
    found = read_box_csv(path, {"v"}, 0.8)
    assert list(found) == [("v", 902)]
    boxes, scores = found["v", 902]
    assert boxes.tolist() == [[0.1, 0.2, 0.3, 0.4], [0.5, -0.01, 0.9, 1.02]]
    assert scores.tolist() == [0.95, 0.85]
    for row, message in {
        "v,902,0,0,1,1,0.9": "row 1: 7 columns; video, second",
        "v,902,0,0,1,1,,high": "score 'high': a number",
        "v,902,0,0,1,1,,nan": "score 'nan': a number",
        "v,902,0,0,1,1,,1e39": "score '1e39': a number",
        "v,902,0,0,200,100,,0.9": r"within \[0, 1\]",
    }.items():
        with pytest.raises(UserError, match=message):
            read_box_csv(write_lines(path, [row]), {"v"}, 0.8)


def boxes_of(tmp_path, rows, images=None):
    (tmp_path / "ava_val_det_person_bbox.json").write_text(json.dumps(rows))
    if images is not None:
        (tmp_path / "ava_val_v2.2_min.json").write_text(json.dumps({"images": images}))
    return read_boxes(
        tmp_path / "ava_val_det_person_bbox.json",
        tmp_path,
        {"v,1": (200, 100), "v": (200, 100)},
        0.8,
    )


def test_boxes_of_coco_files_are_corner_and_size_in_pixels(tmp_path):
    rows = [
        {"image_id": "v,1,0902", "bbox": [10, 20, 30, 40], "score": "0.9", "category_id": 1},
        {"image_id": "v/1000.jpg", "bbox": [0, 0, 200, 100], "score": 0.8},
        {"image_id": "v,0902", "bbox": [0, 0, 200, 100], "score": 0.7},
        {"image_id": "other,0902", "bbox": [0, 0, 9999, 100], "score": 0.9},
    ]
    found = boxes_of(tmp_path, rows)
    assert sorted(found) == [("v", 1000), ("v,1", 902)]
    assert found["v,1", 902].boxes.tolist() == [[10, 20, 40, 60]]
    assert np.allclose(found["v,1", 902].scores, [0.9])


def test_numbered_images_and_pictures_of_another_size(tmp_path):
    rows = [{"image_id": 20902, "bbox": [10, 20, 30, 40], "score": 0.9}]
    with pytest.raises(UserError, match=r"image_id 20902 is unknown: ava_val_v2\.2_min\.json, wh"):
        boxes_of(tmp_path, rows)
    image = {"id": 20902, "movie": "v", "timestamp": "0902", "width": 400, "height": 400}
    found = boxes_of(tmp_path, rows, [image])
    assert found["v", 902].boxes.tolist() == [[5, 5, 20, 15]]
    with pytest.raises(UserError, match=r"images\[0\]: id, movie, timestamp, width and height"):
        boxes_of(tmp_path, rows, [{**image, "width": 0}])
    with pytest.raises(UserError, match=r"images\[0\]: id, movie, timestamp, width and height"):
        boxes_of(tmp_path, rows, [{**image, "width": float("inf")}])


def test_bad_boxes(tmp_path):
    rows = [{"image_id": "v,0902", "bbox": [10, 20, 300, 40], "score": 0.9}]
    with pytest.raises(UserError, match="video v, second 902 lies outside the picture of 200"):
        boxes_of(tmp_path, rows)
    with pytest.raises(UserError, match=r"reach to 1 only; .* in pixels"):
        boxes_of(tmp_path, [{**rows[0], "bbox": [0.1, 0.2, 0.3, 0.4]}])
    with pytest.raises(UserError, match="image_id 'frame7' is unknown"):
        boxes_of(tmp_path, [{**rows[0], "image_id": "frame7"}])
    with pytest.raises(UserError, match=r"b\.pkl: AVA's person boxes are a \.csv or a \.json"):
        read_boxes(tmp_path / "b.pkl", tmp_path, {}, 0.8)


def test_files_of_the_conformance_case():
    folder = shared_path("conformance/ava_eval")
    names = {number: str(number) for number in range(1, 81)}
    truth = read_ava_csv(folder / "gt.csv", names, "map")
    rows = (folder / "gt.csv").read_text().split()
    assert sum(len(names) for _, labels, _ in truth.values() for names in labels) == len(rows)
    assert len(read_moments(folder / "excluded_timestamps.csv")) == 5


def test_mistakes_are_collected_row_by_row(tmp_path):
    found = []
    lines = ["v,902,0,0,1,1,17", "v,902,0,0,1", "v,903,0,0,1,1,5", "v,x,0,0,1,1,17", "w,902"]
    path = write_lines(tmp_path / "gt.csv", lines)
    truth = read_ava_csv(path, NAMES, "map.pbtxt", found.append)
    assert [str(error).split(": ")[1] for error in found] == ["row 2", "row 3", "row 4"]
    assert labels_of(truth) == {
        ("v", 902): (("carry",),),
        ("w", 902): (),
    }

    found = []
    lines = ["v,902,0,0,1,1,,0.9", "v,902,0,0,1,3,,0.9", "v,903,0,0,1,1,,high", "v,904,0,0,1,1,,1"]
    path = write_lines(tmp_path / "boxes.csv", lines)
    boxes = read_box_csv(path, ["v"], 0.5, found.append)
    assert [str(error).split(": ")[1] for error in found] == ["row 2", "row 3"]
    assert list(boxes) == [("v", 902), ("v", 904)]
