import multiprocessing

import numpy as np
import pytest
import torch

from stclip.config.defaults import get_cfg_defaults
from stclip.data.annotations import DetectionDataset, Keyframe, Request
from stclip.data.build import DATASETS, build_dataset, build_test_loader, build_train_loader
from stclip.data.labels import Labels
from stclip.data.loaders import one_keyframe_a_video
from stclip.data.proposals import Proposals
from stclip.data.video import open_video
from stclip.errors import UserError
from stclip.models.build import needs_of
from stclip.structures import ClipBatch, FrameKey, Needs
from tests.data.make import write_frames, write_jhmdb
from tests.data.test_chunks import Counting

NEEDS = Needs(16, 9)
TENSORS = ("frames", "window", "keyframe", "crops", "owner", "boxes", "det_scores", "labels")


def same(a, b):
    pairs = [(getattr(a, name), getattr(b, name)) for name in TENSORS]
    return a.keys == b.keys and all(
        one is two is None or torch.equal(one, two) for one, two in pairs
    )


def train_batches(cfg, dataset, **arguments):
    return list(build_train_loader(cfg, dataset, Labels.read(cfg, "train"), NEEDS, **arguments))


@pytest.fixture
def cfg(tmp_path):
    cfg = write_jhmdb(tmp_path)
    cfg.SOLVER.MAX_ITER = 6
    return cfg


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
        build_train_loader(cfg, dataset, Labels.read(cfg, "train"), NEEDS, world_size=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_frame_is_one_line_from_any_process(cfg, tmp_path, workers):
    path = tmp_path / "data/jhmdb/videos/c_wave/00005.png"
    path.write_bytes(path.read_bytes()[:60])
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_test_loader(cfg, build_dataset(cfg, "test"), NEEDS)
    with pytest.raises(UserError) as error:
        list(loader)
    assert str(error.value).startswith(f"{path}: this picture cannot be decoded")
    assert "\n" not in str(error.value)
    assert not multiprocessing.active_children()  # though the error is still held


def test_test_batches(cfg):
    dataset = build_dataset(cfg, "test")
    cfg.TEST.VIDEOS_PER_BATCH = 4
    loader = build_test_loader(cfg, dataset, NEEDS)
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
        return next(iter(build_test_loader(changed, dataset, NEEDS))).det_scores[:4].tolist()

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
        build_test_loader(cfg, dataset, NEEDS)


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_processes_share_the_test_keyframes(cfg, world_size):
    dataset = build_dataset(cfg, "test")
    cfg.TEST.VIDEOS_PER_BATCH = 2
    seen = [
        key
        for rank in range(world_size)
        for batch in build_test_loader(cfg, dataset, NEEDS, rank, world_size)
        for key in batch.keys
    ]
    assert sorted(seen) == [keyframe.key for keyframe in dataset.keyframes]


# ------------------------------------------------------------------ clips

WHOLE, WINDOW = Needs(16, 4, clips="video"), Needs(16, 4, clips="window")


def test_a_video_is_one_sample_with_each_of_its_labels() -> None:
    def keyframe(video, frame, boxes, labels):
        array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        return Keyframe(FrameKey(video, frame), array, tuple((name,) for name in labels))

    keyframes = [
        keyframe("a", 3, [(0, 0, 0, 9), (0, 0, 5, 5)], ["run", "sit"]),
        keyframe("b", 1, [(1, 1, 2, 2)], ["run"]),
        keyframe("a", 4, [(0, 0, 9, 9), (0, 0, 4, 4)], ["run", "sit"]),
        keyframe("a", 5, [(50, 0, 90, 30), (39, -40, 60, 30)], ["run", "sit"]),  # of 40 x 30
    ]
    videos = {name: Counting(4) for name in "ab"}
    found = one_keyframe_a_video(DetectionDataset("two", videos, keyframes))
    assert [sample.key for sample in found] == [("a", 3), ("b", 1)]
    assert found[0].labels == (("run",), ("sit",))
    assert found[0].boxes.tolist() == [[0, 0, 9, 9], [0, 0, 5, 5]]


def test_training_takes_videos_as_often_as_each_other(cfg):
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.VIDEOS_PER_BATCH = 2
    dataset = build_dataset(cfg, "train")
    for batch in build_train_loader(cfg, dataset, Labels.read(cfg, "train"), WHOLE):
        assert {key.video for key in batch.keys} == {k.key.video for k in dataset.keyframes}
        assert len(batch) == 2
        assert batch.labels.sum(dim=1).tolist() == [1] * len(batch.boxes)
        assert batch.window.shape == (2, 4)


@pytest.mark.parametrize("needs", [WHOLE, WINDOW])
def test_a_test_reads_every_keyframe_once(cfg, needs):
    cfg.TEST.BOXES = "ground_truth"
    dataset = build_dataset(cfg, "test")
    batches = list(build_test_loader(cfg, dataset, needs))
    assert [key for batch in batches for key in batch.keys] == [k.key for k in dataset.keyframes]
    if needs is WHOLE:  # a video is one batch, which is one clip
        videos = [batch.keys[0].video for batch in batches]
        assert len(videos) == len(set(videos))
        assert all(len(batch.frames) <= 4 for batch in batches)
    else:
        assert max(map(len, batches)) <= cfg.TEST.VIDEOS_PER_BATCH


def test_keys_that_clips_do_not_heed_are_named_once(cfg, tmp_path, caplog):
    dataset = build_dataset(cfg, "test")
    build_test_loader(cfg, dataset, WHOLE)
    assert "not used" not in caplog.text
    cfg.DATALOADER.STORE, cfg.DATALOADER.RESIZE = str(tmp_path / "store"), "torch"
    build_test_loader(cfg, dataset, WHOLE)
    warning = (
        f"DATALOADER.STORE {tmp_path}/store, DATALOADER.RESIZE torch: not used with MODEL.NAME"
    )
    assert caplog.text.count(warning) == caplog.text.count("not used") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), Needs(32, 9)),
        (("MODEL.TEMPORAL.STRIDE", 2, "MODEL.TEMPORAL.FRAMES", 5), Needs(32, 5, 2)),
        (("MODEL.TEMPORAL.ENABLED", False), Needs(32, 1)),
        (("MODEL.NAME", "frame_crop"), Needs(32, 1)),
        (("MODEL.NAME", "frame_marked"), Needs(32, 1, frame_boxes=True)),
        (("MODEL.HEAD.MARKED_WEIGHT", 0.5), Needs(32, 9, frame_boxes=True)),
        (("MODEL.NAME", "crop", "MODEL.HEAD.MARKED_WEIGHT", 0.5), Needs(32, 1)),
        (("MODEL.NAME", "xclip", "MODEL.XCLIP.FRAMES", 4), Needs(32, 4, 4, "video")),
        (
            ("MODEL.NAME", "xclip", "MODEL.XCLIP.UNIT", "window", "MODEL.XCLIP.STRIDE", 3),
            Needs(32, 8, 3, "window"),
        ),
    ],
)
def test_what_each_model_looks_at(changes, expected):
    cfg = get_cfg_defaults()
    cfg.merge_from_list(list(changes))
    assert needs_of(cfg, 32) == expected


def test_stored_pictures_of_one_preprocessing_are_not_those_of_another(cfg, tmp_path):
    dataset = build_dataset(cfg, "test")
    cfg.DATALOADER.NUM_WORKERS = 0
    crop, squash = Needs(16), Needs(16, fit="squash", interpolation="bilinear")
    without = [next(iter(build_test_loader(cfg, dataset, needs))) for needs in (crop, squash)]
    cfg.DATALOADER.STORE = str(tmp_path / "store")
    stored = [next(iter(build_test_loader(cfg, dataset, needs))) for needs in (crop, squash) * 2]
    assert all(map(same, without * 2, stored))
    assert not torch.equal(without[0].crops, without[1].crops)


# ------------------------------------------------------------------ a dataset of a stranger


def build_squares(request: Request) -> DetectionDataset:
    """One video of six pictures for each label, found by nothing but the folder's name."""
    root = request.data_dir / "squares"
    labels = {folder.name: {folder.name} for folder in root.iterdir()}
    videos = {name: open_video(root / name, name) for name in request.choose(labels, str(root))}
    box = np.array([[2, 3, 30, 25]], np.float32)
    keyframes = [
        Keyframe(FrameKey(name, frame), box, ((name,),)) for name in videos for frame in (2, 5)
    ]
    dataset = DetectionDataset("squares", videos, keyframes)
    if request.detections is None:
        return dataset
    found = {keyframe.key: Proposals.annotated(keyframe.boxes) for keyframe in keyframes}
    return dataset.with_proposals(found, root)


def test_a_new_dataset_is_one_function_and_one_entry(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "squares", build_squares)
    for name in ("run", "sit", "wave"):
        write_frames(tmp_path / "squares" / name, 6)
    for part, names in (("all", "run\nsit\nwave"), ("train", "run\nsit"), ("test", "wave")):
        (tmp_path / f"{part}.txt").write_text(names)
    cfg = get_cfg_defaults()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = "squares"
    cfg.DATASETS.DATA_DIR = str(tmp_path)
    for part in ("ALL", "TRAIN", "TEST"):
        cfg[f"{part}_LABEL"] = str(tmp_path / f"{part.lower()}.txt")
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.VIDEOS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = 3, 4, 0
    labels = Labels.read(cfg, "train")
    loader = build_train_loader(cfg, build_dataset(cfg, "train", labels), labels, NEEDS)
    for batch in loader:
        assert {key.video for key in batch.keys} == {"run", "sit"}
        assert batch.labels.sum(dim=0).tolist() == [2, 2]
    (batch,) = build_test_loader(cfg, build_dataset(cfg, "test"), NEEDS)
    assert batch.keys == (("wave", 2), ("wave", 5))
    assert batch.boxes.tolist() == [[2, 3, 30, 25]] * 2
    cfg.DATASETS.TEST = "circles"
    with pytest.raises(UserError, match=r"DATASETS\.TEST: 'circles' .*squares.*or the path"):
        build_dataset(cfg, "test")
