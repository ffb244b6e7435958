import logging
import pickle

import numpy as np
import pytest

from stclip.data.ground_truth import read_evaluation_truth
from stclip.data.ucf24 import (
    CLASSES,
    PROMPTS,
    read_ground_truth,
    read_tube_file,
    worded,
)
from stclip.errors import UserError
from tests.data.make import VIDEOS as JHMDB_VIDEOS
from tests.data.make import box_of, jhmdb_pickle
from tests.data.make_ucf24 import TEST, TRAIN, VIDEOS, act_pickle, dump, pyannot, write_lists


@pytest.fixture
def path(tmp_path):
    write_lists(tmp_path)
    return dump(tmp_path / "pyannot.pkl", pyannot())


def read_tubes(path, part="test"):
    file = read_tube_file(path)
    return {video: file.tubes[video] for video in file.videos(part)}


def boxes_by_loop(content, videos):
    """Every annotated (video, frame from 1, label, xyxy), one number after the other."""
    rows = []
    for video in videos:
        for tube in content[video]["annotations"]:
            for frame in range(int(tube["sf"]), int(tube["ef"])):
                x, y, w, h = (int(n) for n in tube["boxes"][frame - int(tube["sf"])])
                label = PROMPTS[CLASSES[int(tube["label"])]]
                rows.append((video, frame + 1, label, x, y, x + w, y + h))
    return sorted(rows)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float64])
def test_keyframes_hold_the_boxes_of_all_tubes(tmp_path, kind):
    rng = np.random.default_rng(0)
    content = {}
    for number, name in enumerate(CLASSES):
        annotations = []
        for _ in range(3):
            first, count = int(rng.integers(0, 200)), int(rng.integers(1, 60))
            boxes = rng.integers(0, 256, (count, 4)).astype(kind)
            annotations.append({"label": number, "sf": first, "ef": first + count, "boxes": boxes})
        entry = {"annotations": annotations, "numf": 260, "label": number}
        content[f"{name}/v_{name}_g01_c01"] = entry
    videos = list(content)
    write_lists(tmp_path, videos[:4], videos[4:])
    path = dump(tmp_path / "pyannot.pkl", content)
    for part, names in (("train", videos[:4]), ("test", videos[4:])):
        truth = read_ground_truth(path, part)
        keyframes = [keyframe for frames in truth.keyframes.values() for keyframe in frames]
        found = [
            (*k.key, *names, *box)
            for k in keyframes
            for names, box in zip(k.labels, k.boxes.tolist(), strict=True)
        ]
        assert sorted(found) == boxes_by_loop(content, names)
        keys = [k.key for k in truth.keyframes[names[0]]]
        assert keys == sorted(set(keys))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_both_pickles_have_the_same_tubes(path, tmp_path, protocol):
    other = tmp_path / "UCF101v2-GT.pkl"
    other.write_bytes(pickle.dumps(act_pickle(), protocol=protocol))
    for part, videos in (("train", TRAIN), ("test", TEST)):
        one, two = read_tubes(path, part), read_tubes(other, part)
        assert list(one) == list(two) == videos
        for video in videos:
            for a, b in zip(one[video], two[video], strict=True):
                assert a.label == b.label == video.split("/")[0]
                assert a.score == b.score == 1
                assert a.frames.tolist() == b.frames.tolist()
                assert a.boxes.dtype == b.boxes.dtype == np.float32
                assert a.boxes.tolist() == b.boxes.tolist()
    skaters = read_tubes(path)[TEST[0]]
    assert [tube.frames.tolist() for tube in skaters] == [[2, 3, 4, 5, 6], [5, 6, 7, 8]]
    assert skaters[1].boxes[-1].tolist() == [263, 20, 293, 220]
    file = read_tube_file(path)
    assert worded(file, None) == PROMPTS
    assert worded(file, CLASSES) == {name: name for name in CLASSES}


def test_tubes_of_jhmdb(tmp_path):
    tubes = read_tubes(dump(tmp_path / "JHMDB-GT.pkl", jhmdb_pickle()))
    assert list(tubes) == ["wave/c_wave", "run/d_run"]
    (tube,) = tubes["wave/c_wave"]
    assert tube.label == "wave"
    assert tube.frames.tolist() == list(range(1, JHMDB_VIDEOS["c_wave"][1] + 1))
    assert tube.boxes.tolist() == [box_of("c_wave", frame) for frame in tube.frames]


@pytest.mark.parametrize("name", ["pyannot.pkl", "UCF101v2-GT.pkl"])
def test_truth_for_evaluation(path, name):
    if name != path.name:
        path = dump(path.with_name(name), act_pickle())
    truth = read_evaluation_truth(path)
    assert truth.labels == tuple(PROMPTS.values())
    assert {video: len(frames) for video, frames in truth.keyframes.items()} == {
        TEST[0]: 7,
        TEST[1]: 4,
    }
    assert truth.keyframes[TEST[0]][3].labels == (("Ice Dancing",),) * 2
    assert read_evaluation_truth(path, all_names=CLASSES).labels == CLASSES
    with pytest.raises(UserError, match="has the official splits 1 to 1, not 2"):
        read_evaluation_truth(path, official_split=2)


def test_lists_as_they_come_with_ucf101(path, tmp_path):
    """All 101 classes, .avi, a class number in the train list, Windows' line ends."""
    train = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", *(f"{v}.avi 9" for v in TRAIN)]
    test = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", *(f"{v}.avi" for v in TEST)]
    (tmp_path / "trainlist01.txt").write_text("\r\n".join(train))
    (tmp_path / "testlist01.txt").write_text("\r\n".join(test))
    assert list(read_ground_truth(path, "train").keyframes) == TRAIN
    assert list(read_ground_truth(path, "test").keyframes) == TEST


@pytest.mark.parametrize(
    "places",
    [
        ("splitfiles", "splitfiles"),
        ("", "annotations"),
        ("annotations", ""),
        ("annotations", "splitfiles"),
    ],
)
def test_places_of_the_lists(tmp_path, places):
    path = dump(tmp_path / places[0] / "pyannot.pkl", pyannot())
    write_lists(tmp_path / places[1])
    assert read_tube_file(path).videos("test") == TEST


def test_mistakes_in_the_lists(path, tmp_path):
    (tmp_path / "trainlist01.txt").unlink()
    assert list(read_ground_truth(path, "test").keyframes) == TEST
    with pytest.raises(UserError, match=r"does not say .* train videos.*trainlist01\.txt"):
        read_ground_truth(path, "train")
    write_lists(tmp_path, [*TRAIN, TEST[1]])
    for part in ("train", "test"):
        with pytest.raises(
            UserError, match=f"1 videos are train and test videos at once, the first is {TEST[1]}"
        ):
            read_ground_truth(path, part)
    (tmp_path / "testlist01.txt").write_text("v_IceDancing_g01_c01\n")
    with pytest.raises(UserError, match=r"testlist01\.txt: none of its 1 videos .* class/video"):
        read_ground_truth(path, "test")
    changed = act_pickle()
    changed["train_videos"] = [[*TRAIN, TEST[0]]]
    other = dump(tmp_path / "UCF101v2-GT.pkl", changed)
    with pytest.raises(UserError, match="at once, the first is IceDancing"):
        read_ground_truth(other, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 24}, "label 24: 0 to 23 were expected"),
        ({"sf": -1}, "sf -1: frames count from 0"),
        ({"label": 2.9}, "2.9: a whole number was expected"),
        ({"sf": 0.5}, "0.5: a whole number was expected"),
        ({"ef": 3.5}, "3.5: a whole number was expected"),
        ({"boxes": np.zeros((5, 3), np.uint8)}, r"boxes of shape \(5, 3\)"),
        ({"boxes": np.full((5, 4), np.nan)}, r"boxes of shape \(5, 4\): .* finite"),
        ({"boxes": "none"}, "ValueError"),
        ({"ef": None}, "TypeError"),
    ],
)
def test_malformed_tubes_are_named(tmp_path, change, message):
    content = pyannot()
    content[TEST[0]]["annotations"][0].update(change)
    path = dump(tmp_path / "pyannot.pkl", content)
    with pytest.raises(UserError, match=message) as error:
        read_tube_file(path)
    assert str(error.value).startswith(f"{path}: {TEST[0]}: not in the format of pyannot.pkl (")
    assert "\n" not in str(error.value)


def test_malformed_pickles(tmp_path):
    content = pyannot()
    del content[TEST[1]]["numf"]
    with pytest.raises(UserError, match=f"{TEST[1]}: not in the format .*numf"):
        read_tube_file(dump(tmp_path / "a.pkl", content))
    for broken in ([], {}, {"labels": list(CLASSES)}, {**act_pickle(), "test_videos": [["x/y"]]}):
        with pytest.raises(UserError, match=r"a\.pkl: not in the format of JHMDB-GT\.pkl"):
            read_tube_file(dump(tmp_path / "a.pkl", broken))


@pytest.mark.parametrize("number", [-1, 24])
def test_labels_of_act_count_from_0(tmp_path, number):
    content = act_pickle()
    content["gttubes"][TEST[0]] = {number: [np.array([[1, 0, 0, 1, 1]], np.float32)]}
    path = dump(tmp_path / "a.pkl", content)
    with pytest.raises(UserError, match=f"{TEST[0]}: .*label {number}: 0 to 23 were expected"):
        read_tube_file(path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1, 2, 3, 4]], r"rows of shape \(1, 4\); \(n, 5\) was expected"),
        ([[2, 0, 0, 1, 1], [7, 0, 0, 1, 1], [2, 0, 0, 2, 2]], "two boxes in frame 2"),
        ([[0, 0, 0, 1, 1]], r"\[0.0, .*\]: whole frames from 1"),
        ([[1, 0, 0, 1, 1], [2.5, 0, 0, 1, 1]], r"\[2.5, .*\]: whole frames from 1"),
        ([[1, 0, 0, 1, 1], [1e30, 0, 0, 1, 1]], r"\[1e\+30, .*\]: whole frames from 1"),
        ([[1, 0, np.nan, 1, 1]], "nan, .* finite numbers were expected"),
    ],
)
def test_malformed_tubes_of_act_are_named(tmp_path, table, message):
    content = act_pickle()
    good = np.array([[1, 0, 0, 1, 1]], np.float32)
    content["gttubes"][TEST[0]] = {10: [good, np.array(table, np.float64)]}
    path = dump(tmp_path / "a.pkl", content)
    with pytest.raises(UserError, match=message) as error:
        read_tube_file(path)
    start = f"{path}: {TEST[0]}: not in the format of JHMDB-GT.pkl (ValueError: tube 2 of "
    assert str(error.value).startswith(start)


def test_tubes_with_more_or_fewer_boxes_than_frames(path, caplog):
    content = pyannot()
    content[TEST[1]]["annotations"][0]["ef"] = 3  # four boxes
    content[TRAIN[0]]["annotations"][0]["ef"] = 9  # three boxes, from frame 3
    content[TRAIN[1]]["annotations"][0]["ef"] = 0  # no frame
    dump(path, content)
    with caplog.at_level(logging.WARNING):
        file = read_tube_file(path)
    assert "3 tubes have more or fewer boxes than frames" in caplog.text
    assert [tube.frames.tolist() for tube in file.tubes[TEST[1]]] == [[1, 2, 3]]
    assert [tube.frames.tolist() for tube in file.tubes[TRAIN[0]]] == [[3, 4, 5]]
    assert file.tubes[TRAIN[1]] == []
    assert list(read_ground_truth(path, "train").keyframes) == [TRAIN[0]]
    assert file.lengths == VIDEOS


def test_rows_of_a_tube_in_any_order(tmp_path):
    content = act_pickle()
    rows = content["gttubes"][TEST[0]][CLASSES.index("IceDancing")]
    rows[0] = rows[0][::-1]
    file = read_tube_file(dump(tmp_path / "a.pkl", content))
    assert file.tubes[TEST[0]][0].frames.tolist() == [2, 3, 4, 5, 6]


def test_mistakes_are_collected_video_by_video(tmp_path):
    tubes = act_pickle()
    for video in TEST:
        tubes["gttubes"][video] = {99: [[[1, 0, 0, 1, 1]]]}
    found = []
    file = read_tube_file(dump(tmp_path / "a.pkl", tubes), found.append)
    assert [str(error).split(": ")[1] for error in found] == TEST
    assert [len(file.tubes[video]) for video in (*TEST, TRAIN[0])] == [0, 0, 1]

    corrected = pyannot()
    corrected[TEST[1]]["annotations"][0]["label"] = 24
    del corrected[TRAIN[1]]["numf"]
    found = []
    file = read_tube_file(dump(tmp_path / "pyannot.pkl", corrected), found.append)
    assert [str(error).split(": ")[1] for error in found] == [TRAIN[1], TEST[1]]
    assert file.tubes[TRAIN[1]] == file.tubes[TEST[1]] == []
    assert len(file.tubes[TEST[0]]) == 2
