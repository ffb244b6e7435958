import csv

import pytest
import torch

from stclip.config.defaults import get_cfg_defaults
from stclip.data import (
    build_dataset,
    build_test_loader,
    build_train_loader,
    read_vocabulary,
)
from stclip.errors import UserError
from stclip.structures import ClipBatch
from tests.data.make import write_jhmdb
from tests.helpers import shared_path

SIZE = 16
TENSORS = ("frames", "window", "keyframe", "crops", "owner", "boxes", "det_scores", "labels")


def same(a, b):
    pairs = [(getattr(a, name), getattr(b, name)) for name in TENSORS]
    return a.keys == b.keys and all(
        one is two is None or torch.equal(one, two) for one, two in pairs
    )


def train_batches(cfg, dataset, **arguments):
    return list(build_train_loader(cfg, dataset, ["sit", "run"], SIZE, **arguments))


@pytest.fixture
def cfg(tmp_path):
    cfg = write_jhmdb(tmp_path)
    cfg.SOLVER.MAX_ITER = 6
    return cfg


def test_vocabulary_in_the_order_of_the_file(cfg):
    assert read_vocabulary(cfg, "train") == ["sit", "run"]
    assert read_vocabulary(cfg, "test") == ["wave"]


def test_training_batches(cfg):
    dataset = build_dataset(cfg, "train")  # 12 keyframes of run, 5 of sit
    batches = train_batches(cfg, dataset)
    assert len(batches) == 6
    keys = [key for batch in batches for key in batch.keys]
    assert len(keys) == 48
    every = sorted(keyframe.key for keyframe in dataset.keyframes)
    assert sorted(keys[:17]) == sorted(keys[17:34]) == every
    assert keys[:17] != keys[17:34]
    for batch in batches:
        assert len(batch) == len(batch.boxes) == 8
        expected = [[0, 1] if key.video == "run/a_run" else [1, 0] for key in batch.keys]
        assert batch.labels.tolist() == expected
        assert batch.det_scores.tolist() == [1] * 8


@pytest.mark.parametrize(("world_size", "steps"), [(1, 2), (2, 1), (2, 2), (4, 2), (8, 1)])
def test_the_global_batch_does_not_depend_on_how_it_is_split(cfg, world_size, steps):
    dataset = build_dataset(cfg, "train")
    whole = train_batches(cfg, dataset)
    cfg.SOLVER.ACCUMULATION_STEPS = steps
    ranks = [
        train_batches(cfg, dataset, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for iteration, batch in enumerate(whole):
        parts = [
            micro for rank in ranks for micro in rank[iteration * steps : (iteration + 1) * steps]
        ]
        assert len({len(part) for part in parts}) == 1
        assert same(ClipBatch.cat(parts), batch)


def test_a_resumed_run_goes_on_where_it_stopped(cfg):
    dataset = build_dataset(cfg, "train")
    whole = train_batches(cfg, dataset)
    resumed = train_batches(cfg, dataset, start_iteration=4)
    assert len(resumed) == 2
    assert all(same(a, b) for a, b in zip(resumed, whole[4:], strict=True))
    assert train_batches(cfg, dataset, start_iteration=6) == []


def test_workers_change_nothing_and_draw_no_global_random_number(cfg):
    dataset = build_dataset(cfg, "train")
    whole = train_batches(cfg, dataset)
    cfg.DATALOADER.NUM_WORKERS = 2
    state = torch.random.get_rng_state()
    parallel = train_batches(cfg, dataset)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(same(a, b) for a, b in zip(whole, parallel, strict=True))


def test_seeds_differ(cfg):
    dataset = build_dataset(cfg, "train")
    first = train_batches(cfg, dataset)[0]
    cfg.SEED = 3
    assert train_batches(cfg, dataset)[0].keys != first.keys


def test_a_dataset_smaller_than_a_batch(cfg):
    dataset = build_dataset(cfg, "train")
    del dataset.keyframes[3:]
    cfg.SOLVER.MAX_ITER = 1
    (batch,) = train_batches(cfg, dataset)
    assert len(batch) == 8
    assert len(set(batch.keys)) == 3


def test_batches_that_cannot_be_split_name_their_keys(cfg):
    dataset = build_dataset(cfg, "train")
    cfg.SOLVER.ACCUMULATION_STEPS = 3
    with pytest.raises(UserError, match=r"SOLVER\.VIDEOS_PER_BATCH: 8 .*ACCUMULATION_STEPS 3 x 2"):
        build_train_loader(cfg, dataset, ["sit", "run"], SIZE, world_size=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_frame_is_one_line_from_any_process(cfg, tmp_path, workers):
    path = tmp_path / "data/jhmdb/videos/c_wave/00005.png"
    path.write_bytes(path.read_bytes()[:60])
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_test_loader(cfg, build_dataset(cfg, "test"), SIZE)
    with pytest.raises(UserError) as error:
        list(loader)
    assert str(error.value).startswith(f"{path}: this picture cannot be decoded")
    assert "\n" not in str(error.value)


def test_test_batches(cfg):
    dataset = build_dataset(cfg, "test")
    cfg.TEST.VIDEOS_PER_BATCH = 4
    loader = build_test_loader(cfg, dataset, SIZE)
    batches = list(loader)
    assert len(loader) == 3
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [key for batch in batches for key in batch.keys] == [k.key for k in dataset.keyframes]
    assert batches[0].owner.tolist() == [0, 0, 0, 2, 2, 2, 3, 3, 3]  # frame 2 has no detection
    assert batches[0].boxes[:3].tolist() == [[n, n, 30, 20 + n] for n in range(3)]
    assert batches[0].labels is None
    assert [key for batch in loader for key in batch.keys] == [k.key for k in dataset.keyframes]


def test_threshold_number_and_kind_of_test_boxes(cfg):
    dataset = build_dataset(cfg, "test")

    def scores(*changes):
        changed = cfg.clone()
        changed.merge_from_list(list(changes))
        return next(iter(build_test_loader(changed, dataset, SIZE))).det_scores[:4].tolist()

    assert scores() == pytest.approx([0.9, 0.7, 0.5, 0.9])
    assert scores("TEST.MAX_PERSONS", 0) == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert scores("TEST.MAX_PERSONS", 1) == pytest.approx([0.9] * 4)
    assert scores("TEST.BOX_THRESH", 0.6) == pytest.approx([0.9, 0.7, 0.9, 0.7])
    assert scores("TEST.BOXES", "ground_truth") == [1, 1, 1, 1]
    assert scores("TEST.BOXES", "ground_truth", "TEST.BOX_THRESH", 2.0) == [1, 1, 1, 1]


def test_detected_boxes_that_were_not_read(cfg):
    cfg.TEST.BOXES = "ground_truth"
    dataset = build_dataset(cfg, "test")
    cfg.TEST.BOXES = "detected"
    with pytest.raises(UserError, match=r"TEST\.BOXES: 'detected', but no detections"):
        build_test_loader(cfg, dataset, SIZE)


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_processes_share_the_test_keyframes(cfg, world_size):
    dataset = build_dataset(cfg, "test")
    cfg.TEST.VIDEOS_PER_BATCH = 2
    seen = [
        key
        for rank in range(world_size)
        for batch in build_test_loader(cfg, dataset, SIZE, rank, world_size)
        for key in batch.keys
    ]
    assert sorted(seen) == [keyframe.key for keyframe in dataset.keyframes]


def test_conformance_boxes_and_training_keyframes():
    case = shared_path("conformance/jhmdb_tiny")
    cfg = get_cfg_defaults()
    cfg.DATASETS.DATA_DIR = str(case / "data")
    cfg.ALL_LABEL = str(case / "data/jhmdb/annotations/all_label.txt")
    for part in ("TRAIN", "TEST"):
        cfg[f"{part}_LABEL"] = str(case / f"data/split/{part.lower()}_label.txt")
        cfg[f"{part}_VIDEO"] = str(case / f"data/split/{part.lower()}_video.txt")
    cfg.DATALOADER.NUM_WORKERS = 0
    assert len(build_dataset(cfg, "train").keyframes) == 27
    found = [
        [batch.keys[owner].video, f"{batch.keys[owner].frame:04d}", *(f"{x:.5f}" for x in box)]
        for batch in build_test_loader(cfg, build_dataset(cfg, "test"), SIZE)
        for owner, box in zip(batch.owner.tolist(), batch.boxes.tolist(), strict=True)
    ]
    with open(case / "expected" / "result_jhmdb.csv", newline="") as file:
        rows = [row[:6] for row in csv.reader(file)]
    assert len(rows) == 240
    assert found == rows[::3]
