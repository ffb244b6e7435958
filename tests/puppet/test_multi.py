from stclip.data.jhmdb import CLASSES
from stclip.data.labels import read_group_file, read_label_file
from stclip.puppet.draw.multi import LABELS, annotations, keyframes_of, labels_of
from stclip.structures.groups import GROUPS
from tests.helpers import REPOSITORY

FAR = [(0, 40, 30, 100), (120, 40, 150, 100)]


def test_labels_by_hand():
    assert labels_of(["catch", "run"], FAR) == [["catch", "upright", "use_ball"], ["run"]]
    assert labels_of(["pick", "wave"], FAR) == [["pick", "bend"], ["wave", "upright"]]
    assert labels_of(["golf"], FAR[:1]) == [["golf", "upright", "use_stick"]]


def test_near_is_beside_and_as_far_from_the_camera():
    def near(other):
        return ["near_person" in names for names in labels_of(["run", "run"], [FAR[0], other])]

    assert near((44, 40, 66, 100)) == [True, True]  # 14 pixels apart, 60 high
    assert near((45, 40, 67, 100)) == [False, False]
    assert near((44, 40, 66, 88)) == [False, False]  # stands 12 pixels further back
    assert near((20, 40, 50, 95)) == [True, True]


def test_everyone_has_exactly_one_pose():
    for action in CLASSES:
        (names,) = labels_of([action], FAR[:1])
        assert [LABELS[name] for name in names].count("pose") == 1
        assert action in names
    assert set(LABELS.values()) == {"pose", "object", "person"}


def test_the_label_file_has_the_same_labels():
    folder = REPOSITORY / "data" / "label_splits" / "puppet" / "multi"
    assert read_label_file(folder / "all_label.txt") == list(LABELS)
    assert read_group_file(folder / "all_group.txt", list(LABELS)) == LABELS
    seen = read_label_file(folder / "train_label.txt")
    unseen = read_label_file(folder / "test_label.txt")
    assert sorted(seen + unseen) == sorted(LABELS)
    assert {LABELS[name] for name in unseen} == {LABELS[name] for name in seen} == set(GROUPS)


def test_every_fifth_frame_is_a_keyframe():
    assert list(keyframes_of(15)) == [3, 8, 13]
    content = annotations([("v", ["run"], [[FAR[0]]] * 15)], 160, 120)
    assert [round(row["timestamp"] * 30) + 1 for row in content["keyframes"]] == [3, 8, 13]
    assert content["videos"] == [{"id": "v", "path": "videos/v", "size": [160, 120], "fps": 30}]
