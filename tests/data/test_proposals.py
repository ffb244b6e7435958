import json

import numpy as np
import pytest

from stclip.data.proposals import Proposals, read_coco_detections, read_jsonl_detections
from stclip.errors import UserError
from stclip.structures import FrameKey

ROW = {"image_id": 7, "category_id": 0, "bbox": [1, 2, 3.5, 4], "score": "0.25"}
IDS = {7: FrameKey("run/a", 1), 8: FrameKey("run/a", 2)}


def coco(tmp_path, rows):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(rows))
    return read_coco_detections(path, IDS, "gt.json")


def jsonl(tmp_path, text):
    path = tmp_path / "d.jsonl"
    path.write_text(text)

    def locate(video, seconds, frame):
        if video == "unused":
            return None
        if video != "a":
            raise UserError(f"video {video!r} is unknown")
        return FrameKey("a", frame if seconds is None else round(seconds * 10) + 1)

    return read_jsonl_detections(path, locate)


def test_coco_keeps_the_order_of_the_file_and_reads_scores_as_text_or_number(tmp_path):
    other = {**ROW, "bbox": [0, 0, 9, 9], "score": 0.75}
    found = coco(tmp_path, [ROW, {**ROW, "image_id": 8}, other])
    assert list(found) == [IDS[7], IDS[8]]
    assert found[IDS[7]].boxes.tolist() == [[1, 2, 3.5, 4], [0, 0, 9, 9]]
    assert found[IDS[7]].scores.tolist() == [0.25, 0.75]
    assert found[IDS[7]].boxes.dtype == found[IDS[7]].scores.dtype == np.float32
    assert coco(tmp_path, []) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "row 2: image_id 9 is unknown: gt.json has no such image"),
        ({"image_id": [7]}, r"row 2: image_id \[7\] is unknown"),
        ({"bbox": [1, 2, 3]}, r"row 2: bbox \[1, 2, 3\]: four numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "row 2: bbox .*: four numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, "row 2: bbox .*: four numbers"),
        ({"bbox": None}, "row 2: bbox None: four numbers"),
        ({"bbox": "1234"}, "row 2: bbox '1234': four numbers"),
        ({"bbox": [1, 2, 3, 1e39]}, "row 2: bbox .*: four numbers"),
        ({"bbox": [1, 2, 3, 10**400]}, "row 2: bbox .*: four numbers"),
        ({"bbox": [1, 2, 3, True]}, "row 2: bbox .*: four numbers"),
        ({"score": "1e39"}, "row 2: score '1e39': a number"),
        ({"score": float("inf")}, "row 2: score inf: a number"),
        ({"score": "high"}, "row 2: score 'high': a number"),
        ({"score": None}, "row 2: score None: a number"),
        ({"score": "nan"}, "row 2: score 'nan': a number"),
    ],
)
def test_malformed_coco_rows_are_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as error:
        coco(tmp_path, [ROW, {**ROW, **change}])
    assert str(error.value).startswith(str(tmp_path / "d.json"))
    assert "\n" not in str(error.value)


def test_coco_files_that_are_something_else(tmp_path):
    with pytest.raises(UserError, match=r"a list of .* was expected, this is a dict"):
        coco(tmp_path, {"images": []})
    with pytest.raises(UserError, match="row 1: a JSON object was expected"):
        coco(tmp_path, [[1, 2]])
    with pytest.raises(UserError, match="row 1: has no 'score'"):
        coco(tmp_path, [{"image_id": 7, "bbox": [1, 2, 3, 4]}])
    path = tmp_path / "half.json"
    path.write_text(json.dumps([ROW] * 9)[:100])
    with pytest.raises(UserError, match=r"half\.json: not valid JSON"):
        read_coco_detections(path, IDS, "gt.json")


@pytest.mark.parametrize(
    ("ids", "categories", "kept"),
    [
        ((0, 0, 0), None, 3),  # the released file of J-HMDB
        ((1, 1, None), None, 3),
        ((1, 17, 1), None, 2),  # COCO's own numbers
        ((0, 1, 56), None, 1),  # a network's
        ((1, 3, 0), [{"id": 3, "name": "Person"}, {"id": 1, "name": "dog"}], 1),
    ],
)
def test_of_several_categories_persons_are_read(tmp_path, caplog, ids, categories, kept):
    rows = [{**ROW, "category_id": id_, "score": n / 10} for n, id_ in enumerate(ids)]
    found = coco(
        tmp_path, rows if categories is None else {"annotations": rows, "categories": categories}
    )
    assert len(found[IDS[7]]) == kept
    said = f"{3 - kept} of 3 rows are left out, they are of"
    assert (said in caplog.text) == (kept < 3)


@pytest.mark.parametrize(("ids", "words"), [((17, 18), "found 17, 18"), (([1],), "numbers were")])
def test_files_without_a_person_are_refused(tmp_path, ids, words):
    with pytest.raises(UserError, match=rf"d\.json: .*category_id.*{words}"):
        coco(tmp_path, [{**ROW, "category_id": id_} for id_ in ids])


def test_byte_order_marks(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([ROW]), encoding="utf-8-sig")
    assert len(read_coco_detections(path, IDS, "gt.json")[IDS[7]]) == 1
    line = '{"video": "a", "frame": 6, "box": [5, 6, 7, 8], "score": 1}'
    assert list(jsonl(tmp_path, "\ufeff" + line)) == [FrameKey("a", 6)]


def test_lines_by_time_or_frame(tmp_path):
    found = jsonl(
        tmp_path,
        '{"video": "a", "timestamp": 0.5, "box": [1, 2, 3, 4], "score": 0.5}\n\n'
        '{"video": "a", "frame": 6, "box": [5, 6, 7, 8], "score": 1}\r\n'
        '{"video": "unused", "frame": 6, "box": [5, 6, 7, 8], "score": 1}\n',
    )
    assert list(found) == [FrameKey("a", 6)]
    assert found[FrameKey("a", 6)].boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found[FrameKey("a", 6)].scores.tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"video": "a", "fr', "not valid JSON"),
        ("[]", "a JSON object was expected"),
        ('{"video": 1, "frame": 1, "box": [1, 2, 3, 4], "score": 1}', "video 1: a text"),
        ('{"video": "a", "box": [1, 2, 3, 4], "score": 1}', "either timestamp"),
        ('{"video": "a", "timestamp": 0, "frame": 1, "box": [1, 2, 3, 4], "score": 1}', "either"),
        ('{"video": "a", "timestamp": "0", "box": [1, 2, 3, 4], "score": 1}', "timestamp '0'"),
        ('{"video": "a", "timestamp": 1e308, "box": [1, 2, 3, 4], "score": 1}', "timestamp 1e"),
        ('{"video": "a", "timestamp": -1, "box": [1, 2, 3, 4], "score": 1}', "timestamp -1"),
        ('{"video": "a", "frame": 0, "box": [1, 2, 3, 4], "score": 1}', "frame 0"),
        ('{"video": "a", "frame": 1.5, "box": [1, 2, 3, 4], "score": 1}', r"frame 1\.5"),
        ('{"video": "a", "frame": 1, "box": [1, 2, 3], "score": 1}', "four numbers"),
        ('{"video": "a", "frame": 1, "box": [1, 2, 3, 4]}', "has no 'score'"),
        ('{"video": "b", "frame": 1, "box": [1, 2, 3, 4], "score": 1}', "video 'b' is unknown"),
    ],
)
def test_malformed_lines_are_named(tmp_path, line, message):
    good = '{"video": "a", "frame": 1, "box": [1, 2, 3, 4], "score": 1}\n'
    with pytest.raises(UserError, match=r"d\.jsonl: line 3: .*" + message) as error:
        jsonl(tmp_path, good + "\n" + line)
    assert "\n" not in str(error.value)


def test_selection_by_score_then_number():
    proposals = Proposals(
        np.arange(16, dtype=np.float32).reshape(4, 4),
        np.array([0.9, 0.1, 0.5, 0.7], dtype=np.float32),
    )
    assert proposals.select(0.0, 0).scores.tolist() == proposals.scores.tolist()
    assert proposals.select(0.5, 2).boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert len(proposals.select(0.95, 3)) == 0
    assert proposals.are_best(0.0, 0)
    assert proposals.are_best(0.0, 1)
    assert not proposals.are_best(0.0, 2)  # 0.1 before 0.5
    assert not proposals.are_best(0.5, 2)  # 0.5 before 0.7
    assert proposals.are_best(0.6, 2)
