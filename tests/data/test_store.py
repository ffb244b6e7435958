import logging
import multiprocessing
import os

import pytest
import torch

from stclip.config import load_config
from stclip.data import build_dataset, build_test_loader, build_train_loader
from stclip.data.labels import Labels
from stclip.data.store import PictureStore, Stored
from stclip.errors import UserError
from stclip.structures import Needs
from tests.data.make import write_jhmdb
from tests.data.test_build import same

SIZE = 8
NEEDS = Needs(SIZE, 9)


def entry(seed, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator)
    return Stored(pixels, 320 + seed, 240)


def equal(a, b):
    return torch.equal(a.pixels, b.pixels) and (a.width, a.height) == (b.width, b.height)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_comes_out_is_what_went_in(tmp_path):
    store = PictureStore(tmp_path / "a" / "store")
    assert store.get(b"one", SIZE) is None
    store.put(b"one", entry(1))
    store.put(b"one", entry(2), (0, 1, 5, 6))
    store.put(b"two", entry(3))
    store.put(b"one", entry(4, 16))
    again = PictureStore(tmp_path / "a" / "store")  # another run
    assert equal(again.get(b"one", SIZE), entry(1))
    assert equal(again.get(b"one", SIZE, (0, 1, 5, 6)), entry(2))
    assert equal(again.get(b"two", SIZE), entry(3))
    assert equal(again.get(b"one", 16), entry(4, 16))
    assert again.get(b"two", 16) is None
    assert again.get(b"one", SIZE, (0, 1, 5, 7)) is None
    assert len(files(tmp_path)) == 4  # and no temporary one


def test_another_version_of_what_decodes_finds_nothing(tmp_path, monkeypatch):
    store = PictureStore(tmp_path)
    store.put(b"one", entry(1))
    assert PictureStore(tmp_path, method="torch").get(b"one", SIZE) is None
    monkeypatch.setattr("stclip.data.store._METHOD", "another")
    assert store.get(b"one", SIZE) is None


@pytest.mark.parametrize("damage", ["short", "empty", "pixel", "width", "longer", "foreign"])
def test_a_damaged_entry_counts_as_none_and_is_made_anew(tmp_path, caplog, damage):
    store = PictureStore(tmp_path)
    store.put(b"one", entry(1))
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    place = {"pixel": 60, "width": 16, "foreign": 0}
    if damage in place:
        data[place[damage]] ^= 1
    wrong = {"short": data[:-1], "empty": b"", "longer": data + b"0"}
    path.write_bytes(wrong.get(damage, data))
    with caplog.at_level(logging.WARNING):
        assert store.get(b"one", SIZE) is None
    assert f"{path}: this entry of DATALOADER.STORE is damaged and is recreated" in caplog.text
    store.put(b"one", entry(1))
    assert equal(store.get(b"one", SIZE), entry(1))


def _write_all(folder):
    store = PictureStore(folder)
    for _ in range(20):
        for seed in range(5):
            store.put(b"%d" % seed, entry(seed))
            found = store.get(b"%d" % seed, SIZE)
            assert found is not None
            assert equal(found, entry(seed))


def test_processes_that_write_the_same_entries_do_not_meet(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_all, args=(tmp_path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(files(tmp_path)) == 5


def test_a_limit_is_kept_to(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    share = 500  # bytes in each of the 256 subfolders; two entries of 216 fit
    store = PictureStore(tmp_path, limit_gb=256 * share / 1e9)
    for seed in range(700):
        store.put(b"%d" % seed, entry(seed))
    assert caplog.text.count("DATALOADER.STORE_GB 0.000128 is reached") == 1
    sizes = [sum(f.stat().st_size for f in folder.iterdir()) for folder in tmp_path.iterdir()]
    assert max(sizes) <= share
    assert sum(sizes) > 0.7 * 256 * share
    assert any(store.get(b"%d" % seed, SIZE) is None for seed in range(700))
    for seed in range(700):
        found = store.get(b"%d" % seed, SIZE)
        assert found is None or equal(found, entry(seed))


def _fill_one_subfolder(folder, first):
    store = PictureStore(folder, limit_gb=256 * 50 * 216 / 1e9)
    path = store._path
    store._path = lambda *what: folder / "00" / path(*what).name
    for seed in range(first, first + 60):
        store.put(b"%d" % seed, entry(seed))
    assert not store._full


def test_processes_that_write_up_to_a_limit_do_not_meet(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=_fill_one_subfolder, args=(tmp_path, 60 * number))
        for number in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert 50 <= len(files(tmp_path)) <= 52  # each may see room for one before the others write


def test_what_is_unfinished_or_just_gone_takes_no_room(tmp_path):
    store = PictureStore(tmp_path, limit_gb=256 * 216 / 1e9)
    folder = store._path(b"one", SIZE, None).parent
    folder.mkdir()
    (folder / ".tmp-killed").write_bytes(bytes(216))
    (folder / ".tmp-long-ago").write_bytes(bytes(216))
    os.utime(folder / ".tmp-long-ago", (0, 0))
    (folder / "gone").symlink_to(folder / "nowhere")  # is listed, and cannot be looked at
    store.put(b"one", entry(1))
    assert equal(store.get(b"one", SIZE), entry(1))
    assert [path.name for path in folder.glob(".tmp-*")] == [".tmp-killed"]  # may be in the making


def test_a_limit_that_keeps_nothing_is_refused(tmp_path):
    cfg = write_jhmdb(tmp_path)
    cfg.DATALOADER.STORE = str(tmp_path / "store")
    cfg.DATALOADER.STORE_GB = 0.038
    dataset = build_dataset(cfg, "test")
    message = r"DATALOADER\.STORE_GB: 0\.038 keeps nothing in .*store.* need 0\.039 at least"
    with pytest.raises(UserError, match=message):
        build_test_loader(cfg, dataset, Needs(224, 9))
    cfg.DATALOADER.STORE_GB = 0.039
    build_test_loader(cfg, dataset, Needs(224, 9))
    store = PictureStore(tmp_path / "store", 0.039)
    store.put(b"one", entry(1, 224))
    assert equal(store.get(b"one", 224), entry(1, 224))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"DATALOADER\.STORE .*file/store: this folder cannot be"):
        PictureStore(tmp_path / "file" / "store")


def test_a_full_disk_is_said_once_and_stops_nothing(tmp_path, monkeypatch, caplog):
    def full(source, target):
        raise OSError(28, "No space left on device")

    store = PictureStore(tmp_path)
    monkeypatch.setattr("os.replace", full)
    with caplog.at_level(logging.WARNING):
        store.put(b"one", entry(1))
        store.put(b"two", entry(2))
    assert caplog.text.count("cannot be written (No space left on device)") == 1
    assert files(tmp_path) == []


def test_a_limit_below_zero_is_refused():
    with pytest.raises(UserError, match=r"DATALOADER\.STORE_GB: a number not below 0"):
        load_config(None, ["DATALOADER.STORE_GB", "-1"])


@pytest.mark.parametrize("layout", ["flat", "avi"])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_are_the_same_with_a_store(tmp_path, monkeypatch, layout, workers):
    cfg = write_jhmdb(tmp_path, layout=layout)
    cfg.SOLVER.MAX_ITER = 3
    cfg.TEST.VIDEOS_PER_BATCH = 3
    cfg.DATALOADER.NUM_WORKERS = workers
    train, test = build_dataset(cfg, "train"), build_dataset(cfg, "test")

    def batches():
        yield from build_train_loader(cfg, train, Labels.read(cfg, "train"), NEEDS)
        yield from build_test_loader(cfg, test, NEEDS)

    without = list(batches())
    cfg.DATALOADER.STORE = str(tmp_path / "store")
    first = list(batches())
    made = files(tmp_path / "store")
    decoded = []
    for kind in ("frames._Pictures", "video.VideoFile"):
        monkeypatch.setattr(
            f"stclip.data.{kind}._decode", lambda self, frames: decoded.extend(frames) or []
        )
    second = list(batches())  # nothing is decoded, in any worker: what comes back is no picture
    assert decoded == []
    assert files(tmp_path / "store") == made
    for one, two, three in zip(without, first, second, strict=True):
        assert same(one, two)
        assert same(one, three)


def test_an_entry_follows_the_content_not_the_name(tmp_path):
    cfg = write_jhmdb(tmp_path)
    cfg.DATALOADER.STORE = str(tmp_path / "store")
    dataset = build_dataset(cfg, "test")

    def frames():
        return torch.cat([batch.frames for batch in build_test_loader(cfg, dataset, NEEDS)])

    before = frames()
    made = files(tmp_path / "store")
    folder = next((tmp_path / "data").rglob("c_wave"))
    one, two = (folder / f"0000{number}.png" for number in (1, 2))
    swapped = one.read_bytes(), two.read_bytes()
    one.write_bytes(swapped[1])
    two.write_bytes(swapped[0])
    after = frames()
    assert torch.equal(after[[1, 0]], before[:2])
    assert torch.equal(after[2:9], before[2:9])
    # The frames were there; the persons' boxes lie in other pictures now.
    assert {path.name for path in made} < {path.name for path in files(tmp_path / "store")}
