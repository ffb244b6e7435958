import pytest

from stclip.config import load_config
from stclip.errors import UserError
from stclip.puppet.experiment.plan import (
    ABLATIONS,
    CEILING,
    OURS,
    Plan,
    first_of_each_class,
    free_folder,
)
from tests.puppet.make_runs import small_benchmark


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path / "out", small_benchmark(tmp_path))


def test_every_method_is_tested_on_the_same_videos(plan, tmp_path):
    plan.add_baselines(1)
    plan.add_untrained(1, 7)
    plan.add_trained(1, 7)
    plan.add_ceiling([1], 7)
    for vocabulary, count in (("unseen", 6), ("seen", 5)):
        trials = [trial for trial in plan.trials if trial.vocabulary == vocabulary]
        assert len(trials) == count
        configs = [trial.run.cfg() for trial in trials]
        assert len({(cfg.TEST_LABEL, cfg.TEST_VIDEO) for cfg in configs}) == 1
        assert configs[0].TEST_VIDEO.endswith(f"split_1_test_{vocabulary}.txt")
    names = [trial.run.cfg().MODEL.NAME for trial in plan.trials if trial.vocabulary == "unseen"]
    assert names == ["frame", "crop", "frame_crop", "stclip", "stclip", "stclip"]
    assert plan.methods()[0] == "chance"
    assert plan.methods()[-2:] == [OURS, CEILING]
    folders = [run.folder for run in plan.runs]
    assert len(set(folders)) == len(folders) == 13


def test_a_training_comes_before_its_tests_and_sees_no_unseen_label(plan):
    training = plan.add_trained(1, 7)
    assert plan.runs[0] is training
    assert [run.training for run in plan.runs[1:]] == [training, training]
    cfg = training.cfg()
    assert cfg.SEED == 7
    assert cfg.TRAIN_LABEL.endswith("train_label.txt")
    assert cfg.TRAIN_VIDEO.endswith("lists/split_1_train_seen.txt")


def test_the_ceiling_is_trained_once_on_all_classes(plan):
    plan.add_ceiling([1], 7)
    training, test = plan.runs
    assert training.cfg().TRAIN_LABEL.endswith("all_label.txt")
    assert training.cfg().TRAIN_VIDEO == ""
    assert test.training is training
    assert test.cfg().TEST_LABEL.endswith("test_label.txt")


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_change_training_and_test_alike(plan, name):
    method, pairs = ABLATIONS[name]
    plan.add_trained(1, 7, method, name, pairs)
    for run in plan.runs:
        model = run.cfg().MODEL
        group, leaf = pairs[0].split(".")[1:]
        assert str(model[group][leaf]) == pairs[1]
        assert model[group][leaf] != load_config().MODEL[group][leaf]


def test_pairs_reach_every_run(plan):
    plan.pairs = ("TEST.MAX_PERSONS", "1")
    plan.add_baselines(1)
    plan.add_trained(1, 7)
    assert all(run.cfg().TEST.MAX_PERSONS == 1 for run in plan.runs)


def test_fewer_clips(tmp_path):
    configs = small_benchmark(tmp_path)
    lists = tmp_path / "data/jhmdb/lists"
    (lists / "split_1_test_unseen.txt").write_text(
        "sit_1\nsit_2\nkick_ball_1\nsit_3\nkick_ball_2\n"
    )
    plan = Plan(tmp_path / "out", configs, unseen_clips=2, seen_clips=0)
    plan.add_untrained(1, 7)
    unseen, seen = plan.runs
    chosen = tmp_path / "out/lists/split_1_unseen.txt"
    assert str(chosen) == unseen.cfg().TEST_VIDEO
    assert chosen.read_text().split() == ["sit_1", "sit_2", "kick_ball_1", "kick_ball_2"]
    assert str(lists / "split_1_test_seen.txt") == seen.cfg().TEST_VIDEO


def test_first_of_each_class():
    videos = ["clap/clap_5001", "clap/clap_5002", "sit/sit_5001"]
    assert first_of_each_class(videos, 1) == ["clap/clap_5001", "sit/sit_5001"]


def test_without_data(tmp_path):
    plan = Plan(tmp_path / "out", small_benchmark(tmp_path), ("DATASETS.DATA_DIR", "nowhere"))
    with pytest.raises(UserError, match=r"nowhere/jhmdb/lists: .*stclip puppet draw"):
        plan.add_baselines(1)


def test_free_folder(tmp_path):
    assert free_folder(tmp_path / "run") == tmp_path / "run-1"
    (tmp_path / "run-1").mkdir()
    assert free_folder(tmp_path / "run") == tmp_path / "run-2"
