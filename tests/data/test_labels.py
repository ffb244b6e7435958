import logging
import time
from pathlib import Path

import pytest

from stclip.config.defaults import get_cfg_defaults
from stclip.data.labels import (
    Labels,
    read_group_file,
    read_label_file,
    read_video_list,
    read_wordings,
)
from stclip.errors import UserError
from stclip.structures.wordings import split_label
from tests.helpers import REPOSITORY, shared_path


def write(tmp_path, content):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    return path


def test_text_is_kept_and_only_line_ends_go(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbfbrush_hair\r\n\r\n Ice Dancing \n  \nrun")
    assert read_label_file(path) == ["brush_hair", " Ice Dancing ", "run"]


def test_wordings(cfg, tmp_path):
    (tmp_path / "test.txt").write_text("wave | waving a hand | greeting\n")
    assert read_label_file(tmp_path / "test.txt") == ["wave"]
    labels = Labels.read(cfg, "test")
    assert labels.vocabulary("test") == ["wave"]
    assert labels.wordings("test") == ["wave | waving a hand | greeting"]
    assert labels.wordings("train") == ["sit", "run"]
    assert split_label("wave | waving a hand | greeting") == ("wave", ("waving a hand", "greeting"))
    assert split_label("a|b") == ("a|b", ("a|b",))


def test_wordings_of_a_whole_dataset(cfg, tmp_path):
    path = tmp_path / "described.txt"
    path.write_text("sit | sitting down\nwave | waving\n")
    (tmp_path / "train.txt").write_text("sit | taking a seat\nrun")
    (tmp_path / "none.txt").write_text("sit\nrest\n")
    cfg.ALL_WORDING, cfg.TEST.NONE_OF = str(path), str(tmp_path / "none.txt")
    labels = Labels.read(cfg, "test")
    assert labels.vocabulary("test") == ["wave"]
    assert labels.wordings("test") == ["wave | waving", "sit | sitting down", "rest"]
    assert labels.wordings("train") == ["sit | taking a seat", "run"]  # its own come first
    assert labels.place("test", "wave") == f"ALL_WORDING {path}, line 2"
    path.write_text("sit\nwav | waving\n")
    with pytest.raises(
        UserError, match=r"^ALL_WORDING .*, line 2: label 'wav' is not in ALL_LABEL; .* 'wave'"
    ):
        Labels.read(cfg, "test")


@pytest.mark.parametrize("dataset", ["jhmdb", "ucf24", "ava"])
def test_descriptions_are_of_all_classes(dataset):
    folder = REPOSITORY / "data" / "label_splits" / dataset
    lines = read_wordings(folder / "described.txt")
    assert [split_label(line)[0] for line in lines] == read_label_file(folder / "all_label.txt")
    wordings = [wording for line in lines for wording in split_label(line)[1]]
    assert all(len(split_label(line)[1]) in (2, 3) for line in lines)
    assert all(wording == wording.strip() and len(wording) < 80 for wording in wordings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"run | running\nrun | jogging", "'run' occurs twice"),
        (
            b"run | \n",
            r"line 1: label 'run \| ': .*, none of them empty, expected",
        ),
        (b"", "no label in it"),
        (b"\n \n", "no label in it"),
        (b"run\nsit\nrun\n", "'run' occurs twice"),
        (b"\xff\xfe\x00", "not a UTF-8 text file"),
    ],
)
def test_bad_label_files(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as error:
        read_label_file(path, "TEST_LABEL")
    assert str(error.value).startswith(f"TEST_LABEL {path}: ")
    assert "\n" not in str(error.value)


def test_unset_and_absent_files_name_the_key(tmp_path):
    with pytest.raises(UserError, match=r"^TEST_LABEL: is empty"):
        read_label_file("", "TEST_LABEL")
    with pytest.raises(UserError, match=r"^TEST_LABEL .*none\.txt: cannot be read: No such file"):
        read_label_file(tmp_path / "none.txt", "TEST_LABEL")


@pytest.fixture
def cfg(tmp_path):
    """run and sit are seen, wave is not."""
    cfg = get_cfg_defaults()
    for part, names in (("all", "run\nsit\nwave\n"), ("train", "sit\n\nrun"), ("test", "wave")):
        (tmp_path / f"{part}.txt").write_text(names)
        cfg[f"{part.upper()}_LABEL"] = str(tmp_path / f"{part}.txt")
    return cfg


def test_the_label_files_of_a_run(cfg, tmp_path):
    (tmp_path / "group.txt").write_text("pose\npose\nperson\n")
    cfg.ALL_GROUP = str(tmp_path / "group.txt")
    labels = Labels.read(cfg, "train")
    assert labels.vocabulary("train") == ["sit", "run"]
    assert labels.vocabulary("test") == ["wave"]
    assert labels.groups_of("test") == ["person"]
    assert labels.unseen == {"wave"}
    assert labels.place("train", "run") == f"TRAIN_LABEL {tmp_path}/train.txt, line 3"
    cfg.TEST.GENERALIZED, cfg.ALL_GROUP, cfg.TRAIN_LABEL = True, "", ""
    labels = Labels.read(cfg, "test")
    assert labels.vocabulary("test") == ["run", "sit", "wave"]
    assert (labels.groups, labels.groups_of("test"), labels.train) == (None, None, ())
    assert labels.place("test", "wave") == f"ALL_LABEL {tmp_path}/all.txt, line 3"
    with pytest.raises(UserError, match=r"^TRAIN_LABEL: is empty; set it to a text file"):
        labels.vocabulary("train")
    with pytest.raises(UserError, match=r"^TRAIN_LABEL: is empty; set it to a text file"):
        Labels.read(cfg, "train")


def test_every_label_file_is_read_once(cfg, monkeypatch):
    read = []
    monkeypatch.setattr("stclip.data.labels.shipped", lambda path: read.append(path) or Path(path))
    Labels.read(cfg, "test")
    assert sorted(read) == sorted([cfg.ALL_LABEL, cfg.TRAIN_LABEL, cfg.TEST_LABEL])


@pytest.mark.parametrize(("name", "hint"), [("golff", "'golf'"), ("zzz", "choices: golf, run")])
def test_a_label_outside_all_labels_names_key_file_label_and_choices(cfg, tmp_path, name, hint):
    (tmp_path / "all.txt").write_text("golf\nrun\n")
    (tmp_path / "test.txt").write_text(f"run\n{name}\n")
    message = f"TEST_LABEL {tmp_path}/test.txt: label {name!r} is not in ALL_LABEL; .*{hint}"
    with pytest.raises(UserError, match=message):
        Labels.read(cfg, "test")
    (tmp_path / "test.txt").write_text("run")
    assert Labels.read(cfg, "test").train == ("sit", "run")  # may be another dataset's
    with pytest.raises(UserError, match=r"TRAIN_LABEL .*: label 'sit' is not in ALL_LABEL"):
        Labels.read(cfg, "train")


def test_video_list_drops_repetitions_and_blanks(tmp_path):
    assert read_video_list(write(tmp_path, b"run/a\n\nb \nrun/a\n")) == ["run/a", "b"]
    with pytest.raises(UserError, match="no video in it"):
        read_video_list(write(tmp_path, b"\n"), "TEST_VIDEO")


def test_overlap_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        Labels((), ("run", "sit"), ("wave",)).warn_overlap()
        assert not caplog.records
        Labels((), ("run", "sit"), ("sit", "wave")).warn_overlap()
    assert "not zero-shot: sit" in caplog.text


@pytest.mark.parametrize("split", [1, 2, 3, 4])
def test_the_label_splits_of_the_repository_are_disjoint_and_whole(split):
    folder = REPOSITORY / "data" / "label_splits" / "jhmdb"
    everything = read_label_file(folder / "all_label.txt")
    assert everything == sorted(everything)
    assert len(everything) == 21
    train = read_label_file(folder / f"split_{split}" / "train_label.txt")
    test = read_label_file(folder / f"split_{split}" / "test_label.txt")
    assert (len(train), len(test)) == (15, 6)
    assert sorted(train + test) == everything


def test_all_labels_are_those_of_the_released_annotations():
    released = shared_path("annotations/jhmdb/all_label.txt")
    ours = REPOSITORY / "data" / "label_splits" / "jhmdb" / "all_label.txt"
    assert read_label_file(ours) == read_label_file(released)


def test_groups_of_the_classes_in_order(tmp_path):
    path = tmp_path / "group.txt"
    path.write_text("object\n pose \r\n\nperson\n")
    assert read_group_file(path, ["b", "a", "c"]) == {"b": "object", "a": "pose", "c": "person"}
    assert list(read_group_file(path, ["b", "a", "c"])) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pose\n", "1 groups for the 2 names of ALL_LABEL"),
        ("pose\nobject\nperson\n", "3 groups for the 2 names"),
        ("pose\nPerson\n", "'Person', number 2 of its groups: one of pose, object, person"),
        ("", "0 groups"),
    ],
)
def test_what_is_wrong_with_a_group_file_is_named(tmp_path, text, message):
    path = tmp_path / "group.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_group_file(path, ["a", "b"], "ALL_GROUP")
    assert str(error.value).startswith(f"ALL_GROUP {path}: ")
    with pytest.raises(UserError, match=r"ALL_GROUP .*absent.*cannot be read"):
        read_group_file(tmp_path / "absent.txt", ["a"], "ALL_GROUP")


@pytest.mark.slow
def test_many_labels_take_no_longer_than_their_number(tmp_path):
    names = [f"does thing number {n}" for n in range(100_000)]
    path = write(tmp_path, "\n".join(names).encode())
    cfg = get_cfg_defaults()
    cfg.ALL_LABEL = cfg.TRAIN_LABEL = cfg.TEST_LABEL = str(path)
    start = time.process_time()
    labels = Labels.read(cfg, "test")
    labels.warn_overlap()
    assert time.process_time() - start < 5  # minutes, if each name was looked for in a list
    assert labels.place("test", names[7]) == f"TEST_LABEL {path}, line 8"
