"""Models by name, against a server on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

import stclip
from stclip.errors import UserError
from stclip.footage.detect import load_model
from stclip.hub.remote import is_name
from tests.helpers import REPOSITORY
from tests.hub.make import LABELS, NAME, detector, scores
from tests.hub.server import Hub


def load(name: str = NAME) -> stclip.Detector:
    return stclip.load(name, LABELS, "cpu")


@pytest.mark.parametrize("elsewhere", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_model_is_fetched_once(
    elsewhere: bool, hub: Hub, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.publish(NAME, saved)
    hub.elsewhere = elsewhere
    expected = scores(load(str(saved)))
    np.testing.assert_array_equal(scores(load()), expected)
    assert sorted(hub.fetched()) == ["config.json", "model.safetensors"]
    np.testing.assert_array_equal(scores(load()), expected)
    assert len(hub.fetched()) == 2
    assert not caplog.records
    hub.unplug()
    _, facts = load_model(LABELS, weights=NAME, device="cpu")
    commit = hub.refs[NAME]["main"]
    assert facts == {"name": "ST-CLIP", "weights": NAME, "commit": commit}
    np.testing.assert_array_equal(scores(load()), expected)
    assert "ada/tiny: taken from the cache" in caplog.text


def test_offline(
    hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"config\.json is not in the cache .* HF_HUB_OFFLINE"):
        load()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hub.publish(NAME, saved)
    load()
    count = len(hub.requests)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load()
    assert len(hub.requests) == count
    assert not caplog.records


@pytest.mark.slow
def test_a_revision(hub: Hub, saved: Path, tmp_path: Path) -> None:
    old = hub.publish(NAME, saved)
    other = detector(seed=1)
    other.save_pretrained(tmp_path / "other")
    hub.publish(NAME, tmp_path / "other")
    hub.publish(NAME, saved, "v1.0")
    expected = scores(load(str(saved)))
    np.testing.assert_array_equal(scores(load()), scores(other))
    for revision in ("v1.0", old):
        np.testing.assert_array_equal(scores(load(f"{NAME}@{revision}")), expected)


def test_a_path_comes_first(hub: Hub, saved: Path, tmp_path: Path) -> None:
    detector(seed=1).save_pretrained(tmp_path / NAME)
    hub.publish(NAME, saved)
    np.testing.assert_array_equal(scores(load()), scores(detector(seed=1)))
    assert not hub.requests


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada/tiny", True),
        ("ada/tiny-1.0@refs/pr/1", True),
        ("ada/tiny.pth", False),
        ("./ada/tiny", False),
        ("/ada/tiny", False),
        ("../tiny", False),
        ("a/b/c", False),
        ("tiny", False),
        ("ada/tiny@", False),
        ("ada/ti ny", False),
    ],
)
def test_names(text: str, expected: bool) -> None:
    assert is_name(text) == expected


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("ada/absent", None, "no such file or folder, and no such model on http"),
        (f"{NAME}@v2", {}, "has no such revision"),
        (NAME, {}, r"has no config\.json: it was not saved by stclip"),
        (NAME, {"config.json": None}, r"has no model\.safetensors: it was not saved by stclip"),
        (NAME, {"config.json": b'{"model_type": "clip"}', "model.safetensors": b""}, "no model of"),
        (NAME, {"config.json": b"{", "model.safetensors": b""}, "not valid JSON"),
        (NAME, {"config.json": None, "model.safetensors": b"x" * 99}, "safetensors expected"),
    ],
)
def test_what_is_not_there(
    name: str, files: dict[str, bytes | None] | None, message: str, hub: Hub, saved: Path
) -> None:
    if files is not None:
        held = {file: data or (saved / file).read_bytes() for file, data in files.items()}
        hub.commit(NAME, {"README.md": b"", **held})
    with pytest.raises(UserError, match=f"^{name}: .*{message}") as raised:
        load(name)
    assert "\n" not in str(raised.value)
    if message in ("no model of", "not valid JSON"):  # found before the weights are fetched
        assert hub.fetched() == ["config.json"]


def test_a_gated_model(hub: Hub) -> None:
    hub.gated = True
    with pytest.raises(UserError, match=r"^ada/tiny: .* ask on its page, and log in"):
        load()


def test_no_network(hub: Hub) -> None:
    hub.unplug()
    with pytest.raises(UserError, match=r"^ada/tiny: .*config\.json cannot be fetched from http"):
        load()


@pytest.mark.slow
def test_a_transfer_that_breaks_off_goes_on(
    hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.publish(NAME, saved)
    hub.cut = 1
    np.testing.assert_array_equal(scores(load()), scores(load(str(saved))))
    assert hub.fetched().count("model.safetensors") == 2


def test_a_file_that_is_cut_short_is_not_kept(hub: Hub, saved: Path) -> None:
    hub.publish(NAME, saved)
    hub.short = True
    with pytest.raises(UserError, match=r"^ada/tiny: .*cannot be fetched .*Consistency check"):
        load()
    hub.short = False
    load()


@pytest.mark.slow
def test_pushing(hub: Hub) -> None:
    ours = detector()
    assert ours.push_to_hub(NAME, license="mit") == f"{hub.url}/{NAME}"
    np.testing.assert_array_equal(scores(load()), scores(ours))
    card = hub.commits[hub.refs[NAME]["main"]]["README.md"].decode()
    assert f'stclip.load("{NAME}"' in card
    with pytest.raises(UserError, match=r"^ada/tiny: has README\.md, config\.json, .* already"):
        ours.push_to_hub(NAME)
    other = detector(seed=1)
    other.push_to_hub(NAME, overwrite=True)
    np.testing.assert_array_equal(scores(load()), scores(other))


def test_pushing_without_a_network(hub: Hub) -> None:
    hub.unplug()
    with pytest.raises(UserError, match=r"^ada/tiny: cannot be uploaded .* log in"):
        detector().push_to_hub(NAME)
    with pytest.raises(UserError, match="USER/NAME"):
        detector().push_to_hub("tiny")


def test_without_the_package(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    load(str(saved))  # needs no hub
    extra = r'pip install "stclip\[hub\]"'
    with pytest.raises(UserError, match=f"^ada/tiny: .*{extra}"):
        load()
    with pytest.raises(UserError, match=extra):
        detector().save_pretrained(tmp_path / "folder")


@pytest.mark.slow
def test_another_process(hub: Hub, saved: Path, tmp_path: Path) -> None:
    """With nothing but the environment; what it has fetched is there for others."""
    hub.publish(NAME, saved)
    code = (
        "import json, stclip; from tests.hub.make import *; "
        f"print(json.dumps(scores(stclip.load({NAME!r}, LABELS, 'cpu')).tolist()))"
    )
    cache = {"HF_HUB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **cache, "HF_ENDPOINT": hub.url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    hub.unplug()
    expected = scores(load(str(saved)))
    assert json.loads(found) == expected.tolist()
    np.testing.assert_array_equal(scores(load()), expected)
