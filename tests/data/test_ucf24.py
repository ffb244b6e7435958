import json
import logging
import pickle
import re
import shutil

import av
import numpy as np
import pytest

from stclip.data import build_dataset, build_test_loader, build_train_loader
from stclip.data.ground_truth import read_evaluation_truth
from stclip.data.labels import Labels
from stclip.data.ucf24 import CLASSES, PROMPTS, read_tube_file, worded
from stclip.errors import UserError
from stclip.structures import Needs
from tests.data.make import number_of
from tests.data.make_ucf24 import (
    LABELS,
    TEST,
    TRAIN,
    VIDEOS,
    act_pickle,
    dump,
    pyannot,
    write_detections,
    write_lists,
    write_ucf24,
)
from tests.helpers import shared_path

SKATING = TEST[0]
JUGGLING = "SoccerJuggling/v_SoccerJuggling_g23_c01"


def content(dataset):
    return [(k.key, k.boxes.tolist(), k.labels) for k in dataset.keyframes]


def left(frame):
    """The skater in frames 2 to 6, and the one in frames 5 to 8."""
    boxes = [[10, 20, 40, 120]] if 2 <= frame <= 6 else []
    return boxes + ([[255 + frame, 20, 285 + frame, 220]] if 5 <= frame <= 8 else [])


def skating(frames):
    return [((SKATING, f), left(f), (("Ice Dancing",),) * len(left(f))) for f in frames]


@pytest.mark.parametrize("annotations", ["pyannot", "act"])
@pytest.mark.parametrize("layout", ["jpg", "avi", "avi flat"])
def test_every_layout_gives_the_same_dataset(tmp_path, layout, annotations, caplog):
    cfg = write_ucf24(tmp_path, layout, annotations)
    cfg.TEST.BOXES = "ground_truth"
    train, test = build_dataset(cfg, "train"), build_dataset(cfg, "test")
    assert train.name == test.name == "ucf24"
    assert content(train) == [
        *(((TRAIN[0], f), [[200, 180, 300, 240]], (("Basketball",),)) for f in (3, 4, 5)),
        *(((TRAIN[1], f), [[10, 20, 40, 59 + f]], (("Skiing",),)) for f in range(1, 7)),
    ]
    assert content(test) == skating(range(2, 9))
    assert test.keyframes[0].boxes.dtype == np.float32
    assert {name: len(video) for name, video in test.videos.items()} == {SKATING: 12}
    assert [number_of(picture) for picture in test.videos[SKATING].read([1, 7])] == [1, 7]
    assert train.proposals is test.proposals is None
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [w.getMessage().partition(":")[0] for w in warnings] == ["TRAIN_LABEL", "TEST_LABEL"]


def test_every_frame_with_detections_is_a_keyframe(tmp_path):
    cfg = write_ucf24(tmp_path)
    dataset = build_dataset(cfg, "test")
    assert content(dataset) == [*skating(range(2, 9)), ((SKATING, 12), [], ())]
    found = {key.frame: rows.boxes.tolist() for key, rows in dataset.proposals.items()}
    assert found == {2: [[12, 20, 40, 118], [200, 20, 240, 118]], 12: [[1, 2, 50, 60]]}
    batches = list(build_test_loader(cfg, dataset, Needs(16, 9)))
    assert [key for batch in batches for key in batch.keys] == [k.key for k in dataset.keyframes]
    assert [float(s) for batch in batches for s in batch.det_scores] == pytest.approx(
        [0.9, 0.8, 0.7]
    )


def test_training_batches(tmp_path):
    cfg = write_ucf24(tmp_path)
    cfg.SOLVER.MAX_ITER = 1
    labels = Labels.read(cfg, "train")
    (batch,) = build_train_loader(cfg, build_dataset(cfg, "train"), labels, Needs(16, 9))
    columns = [labels.train[row.argmax()] for row in batch.labels]
    assert columns == [key.video.split("/")[0] for key in batch.keys]
    assert batch.labels.sum() == 8
    # as the picture is 320 x 240: x2 at most 319, y2 at most 239
    wide = [box for box, name in zip(batch.boxes.tolist(), columns, strict=True) if name[0] == "B"]
    assert all(box == [200, 180, 300, 239] for box in wide)
    assert wide


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": SKATING, "frame": 13}, r"line 1: .*has 12 frames \(25 a second\), no frame 13"),
        ({"video": SKATING, "timestamp": 0.48}, "no frame 13"),
        ({"video": "v_IceDancing_g01_c02", "frame": 1}, "is not in .*pyannot.pkl; did you mean"),
        ({"video": TEST[1], "frame": 5}, "has 4 frames"),
    ],
)
def test_detections_of_no_such_frame(tmp_path, row, message):
    cfg = write_ucf24(tmp_path)
    path = tmp_path / "other.jsonl"
    cfg.DATASETS.DETECTIONS = str(
        write_detections(path, [{**row, "box": [1, 2, 3, 4], "score": 1}])
    )
    with pytest.raises(UserError, match=message) as error:
        build_dataset(cfg, "test")
    assert str(error.value).startswith(f"{path}: line 1: ")


def test_detections_that_are_not_there(tmp_path, caplog):
    cfg = write_ucf24(tmp_path)
    cfg.DATASETS.DETECTIONS = str(tmp_path / "boxes.json")
    with pytest.raises(UserError, match=r"^DATASETS\.DETECTIONS: .*boxes\.json: .*as \.jsonl"):
        build_dataset(cfg, "test")
    path = write_detections(tmp_path / "d.jsonl", [{"video": TEST[1], "frame": 1,
                                                    "box": [1, 2, 3, 4], "score": 1}])  # fmt: skip
    cfg.DATASETS.DETECTIONS = str(path)
    assert build_dataset(cfg, "test").proposals == {}
    assert "no detection in any of the 1 videos" in caplog.text
    cfg.DATASETS.DETECTIONS = ""
    (tmp_path / "data/ucf24/ucf24_person_detections.jsonl").unlink()
    with pytest.raises(
        UserError, match=r"ucf24_person_detections\.jsonl is not in .*TEST\.BOXES to ground_truth"
    ):
        build_dataset(cfg, "test")


def test_prompts_may_be_edited(tmp_path):
    cfg = write_ucf24(tmp_path)
    cfg.TEST.BOXES = "ground_truth"
    (tmp_path / "test.txt").write_text("skating on ice\n")
    cfg.TEST_LABEL = str(tmp_path / "test.txt")
    cfg.ALL_LABEL = str(tmp_path / "all.txt")
    # One prompt edited; all prompts edited: the order says which class it is.
    for names in (PROMPTS.values(), [f"a video of {name}" for name in CLASSES]):
        edited = ["skating on ice" if "Ice" in name else name for name in names]
        (tmp_path / "all.txt").write_text("\n".join(edited))
        labels = {names for frame in build_dataset(cfg, "test").keyframes for names in frame.labels}
        assert labels == {("skating on ice",)}
    (tmp_path / "all.txt").write_text("\n".join([*edited[:5], "skating on ice"]))
    with pytest.raises(UserError, match=r"ALL_LABEL: the classes of .*pyannot\.pkl are not in it"):
        build_dataset(cfg, "test")
    moved = ["skating on ice" if "Ice" in name else name for name in reversed(PROMPTS.values())]
    (tmp_path / "all.txt").write_text("\n".join(moved))
    with pytest.raises(UserError, match="keep the order"):
        build_dataset(cfg, "test")


@pytest.mark.parametrize("annotations", ["pyannot", "act"])
@pytest.mark.parametrize("names", [CLASSES, tuple(PROMPTS.values())], ids=["classes", "prompts"])
def test_unedited_names_may_stand_in_any_order(tmp_path, annotations, names):
    cfg = write_ucf24(tmp_path, annotations=annotations)
    cfg.TEST.BOXES = "ground_truth"
    (tmp_path / "all.txt").write_text("\n".join(reversed(names)))
    (tmp_path / "test.txt").write_text(names[CLASSES.index("IceDancing")])
    cfg.ALL_LABEL, cfg.TEST_LABEL = str(tmp_path / "all.txt"), str(tmp_path / "test.txt")
    frames = build_dataset(cfg, "test").keyframes
    assert {label for frame in frames for label in frame.labels} == {
        (names[CLASSES.index("IceDancing")],)
    }


def test_shipped_label_files():
    all_names = (LABELS / "all_label.txt").read_text().splitlines()
    assert all_names == list(PROMPTS.values())
    assert PROMPTS["WalkingWithDog"] == "Walking With Dog"
    assert PROMPTS["Skijet"] == "Skijet"
    tested = []
    for split in range(1, 5):
        files = (LABELS / f"split_{split}" / f"{part}_label.txt" for part in ("train", "test"))
        train, test = (file.read_text().splitlines() for file in files)
        assert (len(train), len(test)) == (18, 6)
        assert sorted(train + test) == sorted(all_names)
        tested += test
    assert sorted(tested) == sorted(all_names)  # every class is unseen once


def test_shipped_label_files_have_the_published_splits():
    facts = json.loads(shared_path("facts/ucf24_classes_and_zs_splits.json").read_text())
    assert facts["classes"] == list(CLASSES)
    for number, split in facts["splits"].items():
        for part in ("train", "test"):
            names = (LABELS / f"split_{number}" / f"{part}_label.txt").read_text().splitlines()
            assert names == [PROMPTS[name] for name in split[f"{part}_labels"]]


def test_the_published_annotations():
    """The real files: what they hold, and what the label splits make of them."""
    folder = shared_path("annotations/ucf24")
    file = read_tube_file(folder / "pyannot.pkl")
    assert len(file.tubes) == 3194
    assert sum(len(tube.boxes) for tubes in file.tubes.values() for tube in tubes) == 573_862
    assert len(file.videos("test")) == 910
    (tube,) = file.tubes[JUGGLING]
    assert (file.labels.index(tube.label), file.lengths[JUGGLING]) == (18, 240)
    assert tube.frames.tolist() == list(range(1, 241))
    # In the file: [135, 55, 64, 124] and [91, 18, 94, 149], in bytes.
    assert tube.boxes[[0, -1]].tolist() == [[135, 55, 199, 179], [91, 18, 185, 167]]
    facts = json.loads(shared_path("facts/ucf24_classes_and_zs_splits.json").read_text())
    for split in facts["splits"].values():
        unseen = [v for v in file.videos("test") if v.split("/")[0] in split["test_labels"]]
        frames = {(v, int(f)) for v in unseen for tube in file.tubes[v] for f in tube.frames}
        boxes = sum(len(tube.boxes) for v in unseen for tube in file.tubes[v])
        assert len(unseen) == split["test_videos_official_test1"]
        assert (len(frames), boxes) == (split["test_annotated_frames"], split["test_boxes"])


@pytest.fixture
def published(tmp_path):
    """A config, and a dataset of the published files and one published video."""
    annotations = shared_path("annotations/ucf24")
    cfg = write_ucf24(tmp_path)
    folder = tmp_path / "data" / "ucf24"
    shutil.rmtree(folder / "rgb-images")
    for name in ("pyannot.pkl", "testlist01.txt"):
        (folder / "splitfiles" / name).unlink()
        (folder / name).symlink_to(annotations / name)
    (folder / "splitfiles" / "trainlist01.txt").write_text(f"{JUGGLING} 19\n")
    (folder / "UCF-101" / "SoccerJuggling").mkdir(parents=True)
    original = shared_path("footage/v_SoccerJuggling_g23_c01.avi")
    (folder / "UCF-101" / f"{JUGGLING}.avi").symlink_to(original)
    return cfg


@pytest.mark.slow
def test_the_published_test_part_is_complete(published, caplog):
    with pytest.raises(UserError, match="229 of 229 videos are missing"):
        build_dataset(published, "test")
    assert not caplog.records  # no warning about the numbers of videos, frames and boxes


@pytest.mark.slow
def test_a_published_video_with_the_published_annotations(published):
    cfg = published
    cfg.TRAIN_LABEL = str(LABELS / "split_2" / "train_label.txt")
    cfg.TEST_LABEL = str(LABELS / "split_2" / "test_label.txt")
    dataset = build_dataset(cfg, "train")
    assert [keyframe.key for keyframe in dataset.keyframes] == [
        (JUGGLING, frame) for frame in range(1, 241)
    ]
    assert {keyframe.labels for keyframe in dataset.keyframes} == {(("Soccer Juggling",),)}
    video = dataset.videos[JUGGLING]
    assert (len(video), video.size, video.missing()) == (240, (320, 240), [])
    with av.open(str(video.path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = [1, 2, 121, 240]
    for frame, picture in zip(frames, video.read(frames), strict=True):
        np.testing.assert_array_equal(picture, pictures[frame - 1])
    cfg.SOLVER.MAX_ITER = 1
    labels = Labels.read(cfg, "train")
    (batch,) = build_train_loader(cfg, dataset, labels, Needs(32, 9))
    assert batch.crops.shape == (8, 3, 32, 32)
    assert {labels.train[row.argmax()] for row in batch.labels} == {"Soccer Juggling"}


def test_what_is_missing_is_reported_together(tmp_path):
    cfg = write_ucf24(tmp_path)
    images = tmp_path / "data" / "ucf24" / "rgb-images"
    (images / TRAIN[1]).rename(images / "other")
    (images / TRAIN[0] / "00005.jpg").unlink()
    for number in range(6, 10):  # past the tube: not needed
        (images / TRAIN[0] / f"{number:05d}.jpg").unlink()
    with pytest.raises(UserError) as error:
        build_dataset(cfg, "train")
    message = str(error.value)
    assert (
        "1 of 2 videos are missing, the first is Skiing/v_Skiing_g09_c02; 1 frames of 1 " in message
    )
    assert (
        f"the first is frame 5 of {images / TRAIN[0]}; looked for [class/]video/00001.jpg"
        in message
    )
    assert "\n" not in message


def test_damaged_and_short_video_files(tmp_path):
    cfg = write_ucf24(tmp_path, "avi")
    videos = tmp_path / "data" / "ucf24" / "UCF-101"
    damaged = videos / f"{TRAIN[1]}.avi"
    damaged.write_bytes(b"not a video")
    (videos / f"{TRAIN[0]}.avi").write_bytes((videos / f"{TEST[1]}.avi").read_bytes())
    with pytest.raises(UserError) as error:
        build_dataset(cfg, "train")
    assert "1 frames of 1 videos are missing, the first is frame 5" in str(error.value)
    assert f"1 videos cannot be read, the first is {damaged}: this video cannot" in str(error.value)


def test_videos_of_another_length_than_annotated_are_warned_of(tmp_path, caplog):
    cfg = write_ucf24(tmp_path)
    for number in (9, 10, 11, 12):
        (tmp_path / "data/ucf24/rgb-images" / SKATING / f"{number:05d}.jpg").unlink()
    cfg.TEST.BOXES = "ground_truth"
    assert content(build_dataset(cfg, "test")) == skating(range(2, 9))
    assert re.search(r"1 of 1 videos have another number of frames .*has 8, not 12", caplog.text)
    cfg.TEST.BOXES = "detected"  # in frame 12, which is not there now
    with pytest.raises(UserError, match="has 8 frames"):
        build_dataset(cfg, "test")


def test_no_annotations(tmp_path):
    cfg = write_ucf24(tmp_path)
    (tmp_path / "data/ucf24/splitfiles/pyannot.pkl").unlink()
    with pytest.raises(
        UserError, match=r"neither UCF101v2-GT\.pkl nor pyannot\.pkl is in"
    ) as error:
        build_dataset(cfg, "train")
    for place in ("", "/annotations", "/splitfiles"):
        assert f"{tmp_path}/data/ucf24{place}" in str(error.value)


def test_a_nearly_whole_release_is_warned_of(tmp_path, caplog):
    cfg = write_ucf24(tmp_path)
    annotation = pyannot()[SKATING]
    names = [f"IceDancing/v_IceDancing_g{number:03d}_c01" for number in range(909)]
    folder = tmp_path / "data" / "ucf24" / "splitfiles"
    dump(folder / "pyannot.pkl", {**pyannot(), **dict.fromkeys(names, annotation)})
    write_lists(folder, TRAIN, names)
    with pytest.raises(UserError, match="909 of 909 videos are missing"):
        build_dataset(cfg, "test")
    assert "909 test videos; split 1 of UCF101-24 has 910" in caplog.text


def test_a_whole_release_with_other_boxes_is_warned_of(tmp_path, caplog):
    cfg = write_ucf24(tmp_path)
    annotation = pyannot()[SKATING]
    names = [f"IceDancing/v_IceDancing_g{number:03d}_c01" for number in range(910)]
    folder = tmp_path / "data" / "ucf24" / "splitfiles"
    dump(folder / "pyannot.pkl", {**pyannot(), **dict.fromkeys(names, annotation)})
    write_lists(folder, TRAIN, names)
    tubes = annotation["annotations"]
    frames = set().union(*(range(tube["sf"], tube["ef"]) for tube in tubes))
    boxes = sum(len(tube["boxes"]) for tube in tubes)
    with pytest.raises(UserError, match="910 of 910 videos are missing"):
        build_dataset(cfg, "test")
    found = f"{910 * len(frames)} annotated frames with {910 * boxes} boxes in the test videos"
    assert f"{found}; split 1 of UCF101-24 has 138527 with 170580" in caplog.text


def test_a_video_list_and_videos_without_tubes(tmp_path):
    cfg = write_ucf24(tmp_path)
    cfg.TEST.BOXES = "ground_truth"
    folder = tmp_path / "data" / "ucf24"
    changed = act_pickle()
    changed["gttubes"][SKATING] = {}
    dump(folder / "UCF101v2-GT.pkl", changed)  # is read before pyannot.pkl
    (tmp_path / "test.txt").write_text("Golf Swing\nIce Dancing\n")
    cfg.TEST_LABEL = str(tmp_path / "test.txt")
    assert list(build_dataset(cfg, "test").videos) == [TEST[1]]
    (folder / "UCF101v2-GT.pkl").unlink()
    assert list(build_dataset(cfg, "test").videos) == [TEST[1], SKATING]
    (tmp_path / "videos.txt").write_text("v_IceDancing_g01_c01\n")
    cfg.TEST_VIDEO = str(tmp_path / "videos.txt")
    assert list(build_dataset(cfg, "test").videos) == [SKATING]
    assert set(VIDEOS) == {*TRAIN, *TEST}


def test_pictures_of_another_size_than_the_annotations_say(tmp_path):
    cfg = write_ucf24(tmp_path, annotations="act")
    cfg.TEST.BOXES = "ground_truth"
    content = act_pickle()
    content["resolution"] = dict.fromkeys(content["resolution"], (256, 340))
    dump(tmp_path / "data/ucf24/UCF101v2-GT.pkl", content)
    with pytest.raises(UserError, match=r"UCF101v2-GT\.pkl.*340 x 256 it says, 320 x 240 has"):
        build_dataset(cfg, "test")


# ------------------------------------------------------------------ the annotation files


def read_tubes(path, part="test"):
    file = read_tube_file(path)
    return {video: file.tubes[video] for video in file.videos(part)}


def read_ground_truth(path, part):
    file = read_tube_file(path)
    annotated = [video for video in file.videos(part) if file.tubes[video]]
    return file.ground_truth(annotated, worded(file, None))


@pytest.fixture
def path(tmp_path):
    write_lists(tmp_path)
    return dump(tmp_path / "pyannot.pkl", pyannot())


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
