import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stclip.config import load_config
from stclip.data.build import build_dataset
from stclip.data.jhmdb_ground_truth import CLASSES
from stclip.data.sample import TEST_VIDEOS, TRAIN_VIDEOS, draw_sample
from stclip.data.sample_figures import HEIGHT, LABELS, WIDTH, draw_video
from stclip.errors import UserError
from tests.helpers import REPOSITORY
from tools import prepare_sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    draw_sample(folder, seed=0)
    return folder


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return whole.hexdigest()


def test_equal_seeds_give_equal_bytes(sample: Path, tmp_path: Path) -> None:
    draw_sample(tmp_path / "again", seed=0)
    draw_sample(tmp_path / "other", seed=1)
    assert digest(tmp_path / "again") == digest(sample) != digest(tmp_path / "other")


def test_files_agree_with_one_another(sample: Path) -> None:
    root = sample / "jhmdb"
    names = (root / "annotations" / "all_label.txt").read_text().split()
    assert tuple(names) == LABELS == CLASSES
    ids = set()
    for part, videos in (("train", TRAIN_VIDEOS), ("test", TEST_VIDEOS)):
        truth = json.loads((root / "annotations" / f"jhmdb_{part}_gt_min.json").read_text())
        movies = {image["movie"] for image in truth["images"]}
        assert len(movies) == videos * len(LABELS)
        for image, annotation in zip(truth["images"], truth["annotations"], strict=True):
            assert annotation["image_id"] == image["id"] not in ids
            ids.add(image["id"])
            label = LABELS[annotation["action_ids"][0] - 1]
            assert image["movie"].startswith(f"drawn_{label}_")
            x1, y1, x2, y2 = annotation["bbox"]
            assert 0 <= x1 < x2 <= WIDTH - 1
            assert 0 <= y1 < y2 <= HEIGHT - 1
            file = root / "videos" / image["movie"] / f"{image['timestamp']}.png"
            assert file.is_file()
    assert len(list((root / "videos").rglob("*.png"))) == len(ids)

    detections = json.loads((root / "jhmdb_faster_RCNN_person.json").read_text())
    assert {type(row["score"]) for row in detections} == {str}
    detected = {row["image_id"] for row in detections}
    tested = {image["id"] for image in truth["images"]}
    assert detected < tested  # some frames have no detection
    assert len(detections) > len(detected)  # and some have two


@pytest.mark.parametrize("label", LABELS)
def test_the_box_holds_the_figure_and_the_figure_moves(label: str) -> None:
    frames = list(draw_video(label, 16, np.random.default_rng(3)))
    pictures = [np.asarray(picture) for picture, _ in frames]
    assert pictures[0].shape == (HEIGHT, WIDTH, 3)
    assert any((picture != pictures[0]).any() for picture in pictures[1:])
    for picture, (_, box) in zip(pictures, frames, strict=True):
        x1, y1, x2, y2 = box
        assert (x2 - x1) * (y2 - y1) > 500
        assert len(np.unique(picture[y1:y2, x1:x2].reshape(-1, 3), axis=0)) > 4


def test_both_parts_load_as_jhmdb(sample: Path) -> None:
    cfg = load_config(
        REPOSITORY / "configs" / "sample" / "split_1.yaml", ["DATASETS.DATA_DIR", str(sample)]
    )
    train, test = build_dataset(cfg, "train"), build_dataset(cfg, "test")
    assert len(train.videos) == 15 * TRAIN_VIDEOS
    assert len(test.videos) == 6 * TEST_VIDEOS
    key = test.keyframes[0].key
    picture = test.videos[key.video].read([key.frame])[0]
    folder = sample / "jhmdb" / "videos" / key.video.split("/")[1]
    assert (picture == np.asarray(Image.open(folder / f"{key.frame:05d}.png"))).all()


def test_the_tool_writes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_sample, "random_clip", fail)
        patch.setattr(prepare_sample, "draw_sample", lambda folder, seed: None)
        with pytest.raises(KeyboardInterrupt):
            prepare_sample.main(["--out", str(tmp_path / "sample")])
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="exists already"):
        prepare_sample.main(["--out", str(tmp_path / "mine")])


def test_the_random_clip_is_the_same_each_time(tmp_path: Path) -> None:
    first = prepare_sample.random_clip(0).state_dict()
    second = prepare_sample.random_clip(0).state_dict()
    assert all((first[name] == second[name]).all() for name in first)
