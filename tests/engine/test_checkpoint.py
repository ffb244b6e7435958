import argparse
import os
import pickle
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stclip.config import load_config
from stclip.detector import load
from stclip.engine.checkpoint import (
    Checkpoint,
    checkpoint_path,
    latest_checkpoint,
    read_checkpoint,
    save_checkpoint,
    save_reference_checkpoint,
)
from stclip.errors import UserError
from stclip.models.build import build_model
from stclip.models.reference import to_reference
from tests.helpers import tiny_model


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_ours_round_trips(tmp_path: Path) -> None:
    state = tiny_model().state_dict()
    training = {"iteration": 3, "rng": {"cpu": torch.get_rng_state()}}
    groups = {"sit": "pose", "wave": "person"}
    checkpoint = Checkpoint(state, config="SEED: 2\n", training=training, groups=groups)
    save_checkpoint(tmp_path / "a.pth", checkpoint)
    back = read_checkpoint(tmp_path / "a.pth")
    assert equal(back.model, state)
    assert back.config == "SEED: 2\n"
    assert back.groups == groups
    assert back.training is not None
    assert back.training["iteration"] == 3


@pytest.mark.parametrize("prefix", ["", "module."])
def test_reference_to_ours_and_back_keeps_every_bit(tmp_path: Path, prefix: str) -> None:
    state = {prefix + k: v for k, v in to_reference(tiny_model().state_dict()).items()}
    for name, tensor in state.items():
        if "temporalModelling.resblocks.0.mlp" in name:
            torch.nn.init.normal_(tensor)  # unused, and kept all the same
    extra = {"optimizer": {"state": {0: torch.ones(2)}}, "iteration": 7}
    torch.save({"model": state, **extra}, tmp_path / "reference.pth")
    save_checkpoint(tmp_path / "ours.pth", read_checkpoint(tmp_path / "reference.pth"))
    save_reference_checkpoint(tmp_path / "back.pth", read_checkpoint(tmp_path / "ours.pth"))
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back["model"]) == list(state)
    assert equal(back["model"], state)
    assert back["iteration"] == 7
    assert torch.equal(back["optimizer"]["state"][0], torch.ones(2))


def test_sizes_follow_from_the_shapes(tmp_path: Path) -> None:
    model = tiny_model(vision_width=128, text_width=128, embed_dim=128)
    cfg = load_config(None, ["MODEL.LORA.RANK", "2"])
    built = build_model(cfg, model.state_dict())
    assert equal(built.state_dict(), model.state_dict())


NAMES = {"ours": dict, "reference": to_reference}
FORMS = ["bare", "state_dict", "module", "compiled", "both", "average", "safetensors", "scale"]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_weights_alone_are_read(tmp_path: Path, names: str, form: str) -> None:
    state = tiny_model().state_dict()
    named, path = NAMES[names](state), tmp_path / "weights.pth"
    prefixes = {"module": "module.", "compiled": "_orig_mod.", "both": "module._orig_mod."}
    content: Any = {prefixes.get(form, "") + name: tensor for name, tensor in named.items()}
    if form == "state_dict":
        content = {"state_dict": content, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    elif form == "average":
        zeros = {name: torch.zeros_like(tensor) for name, tensor in named.items()}
        content = {"model": zeros, "state_dict_ema": content, "optimizer": None}
    elif form == "scale":
        (scale,) = (name for name in content if name.endswith("logit_scale"))
        content[scale] = content[scale].reshape(1)
    if form == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    found = read_checkpoint(path)
    assert equal(found.model, state)
    assert build_model(load_config(None, ["MODEL.LORA.RANK", "2"]), found.model)
    if names == "reference":  # and it can be written in that format again
        save_reference_checkpoint(tmp_path / "back.pth", found)
        assert equal(read_checkpoint(tmp_path / "back.pth").model, state)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.uint8])
@pytest.mark.parametrize("names", NAMES)
def test_weights_of_whole_numbers_are_refused(tmp_path: Path, names: str, dtype: Any) -> None:
    state = NAMES[names](tiny_model().state_dict())
    (name,) = (name for name in state if name.endswith("resblocks.1.ln_2.weight"))
    torch.save({"model": state | {name: state[name].to(dtype)}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"a\.pth: .* whole numbers \({name}\) as {dtype}"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("config", 3),
        ("training", {}),
        ("training", {"iteration": "5"}),
        ("training", [1]),
        ("reference", {"order": 3}),
        ("reference", "x"),
        ("groups", {"sit": 3}),
        ("activation", "relu"),
        ("format", "stclip/2"),
    ],
)
def test_parts_of_another_form_are_refused(tmp_path: Path, part: str, value: Any) -> None:
    content = {"format": "stclip/1", "model": tiny_model().state_dict(), part: value}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"a\.pth: .*found {'.*' if part == 'format' else part}"):
        read_checkpoint(tmp_path / "a.pth")


def test_the_order_of_a_reference_file_must_fit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_model().state_dict(), reference={"order": ["a"]})
    with pytest.raises(UserError, match="the stored order of tensors"):
        save_reference_checkpoint(tmp_path / "a.pth", checkpoint)


def test_the_activation_travels(tmp_path: Path) -> None:
    model = tiny_model()
    state = model.state_dict()
    save_checkpoint(tmp_path / "a.pth", Checkpoint(state, activation="gelu"))
    found = read_checkpoint(tmp_path / "a.pth")
    rank = ["MODEL.LORA.RANK", "2"]
    built = build_model(load_config(None, rank), found.model, found.activation)
    assert built.clip.activation == "gelu"
    assert load(tmp_path / "a.pth", ["sit"], "cpu").model.clip.activation == "gelu"
    images = torch.randn(2, 3, 48, 48)
    before = model.clip.encode_image(images)
    model.clip.use_activation("gelu")
    expected = model.clip.encode_image(images)
    assert torch.equal(built.clip.encode_image(images), expected)
    assert not torch.allclose(before, expected, atol=1e-4)
    wanted = [*rank, "MODEL.CLIP_ACTIVATION", "quick_gelu"]
    with pytest.raises(UserError, match=r"MODEL\.CLIP_ACTIVATION is quick_gelu, but .* has gelu"):
        build_model(load_config(None, wanted), found.model, found.activation)
    with pytest.raises(UserError, match="gelu: the reference computes every CLIP with quick_gelu"):
        save_reference_checkpoint(tmp_path / "b.pth", found)
    older = build_model(load_config(None, rank), state)  # from before files told it
    assert older.clip.activation == "quick_gelu"


def drop(state: dict[str, torch.Tensor]) -> None:
    del state["person_tokens.norm.weight"]


def add(state: dict[str, torch.Tensor]) -> None:
    state["extra.weight"] = torch.zeros(1)


def reshape(state: dict[str, torch.Tensor]) -> None:
    state["person_tokens.norm.weight"] = torch.zeros(7)


def only_clip(state: dict[str, torch.Tensor]) -> None:
    for name in [n for n in state if not n.startswith("clip.")]:
        del state[name]


def shorter_window(state: dict[str, torch.Tensor]) -> None:
    state["context_tokens.temporal_embedding"] = torch.zeros(7, 64)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, "1 missing .first: person_tokens.norm.weight"),
        (add, "1 unknown .first: extra.weight"),
        (reshape, r"person_tokens.norm.weight has shape \(7,\)"),
        (only_clip, "MODEL.CLIP"),
        (shorter_window, "MODEL.TEMPORAL.FRAMES is 9, but the file .* has 7"),
    ],
)
def test_weights_that_do_not_fit(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    state = dict(tiny_model().state_dict())
    damage(state)
    with pytest.raises(UserError, match=message):
        build_model(load_config(None, ["MODEL.LORA.RANK", "2"]), state)


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": {"a": Attack(tmp_path / "ran")}}, tmp_path / "bad.pth")
    with open(tmp_path / "bare.pth", "wb") as file:
        pickle.dump(Attack(tmp_path / "ran"), file, protocol=2)
    for name in ("bad.pth", "bare.pth"):
        with pytest.raises(UserError, match=name) as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"plain text"])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.pth") as caught:
        read_checkpoint(tmp_path / "bad.pth")
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", Checkpoint(tiny_model().state_dict()))
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.pth"):
        read_checkpoint(tmp_path / "a.pth")


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", Checkpoint({"a": torch.arange(4.0)}, config="SEED: 1"))
    whole = bytearray((tmp_path / "a.pth").read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 8):
            damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / "bad.pth").write_bytes(damaged)
        with suppress(UserError):  # anything else would be a traceback to the user
            read_checkpoint(tmp_path / "bad.pth")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, tmp_path / "resnet.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "bare.pth")
    for name in ("resnet.pth", "bare.pth"):
        with pytest.raises(UserError, match=name):
            read_checkpoint(tmp_path / name)


def test_latest(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for iteration in (500, 12000, 1000):
        checkpoint_path(tmp_path, iteration).touch()
    (tmp_path / "model_best.pth").touch()
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 12000)


FULL_DISK = """
import resource, sys, torch
from stclip.engine.checkpoint import Checkpoint, save_checkpoint
from stclip.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(sys.argv[1], Checkpoint({"a": torch.zeros(1_000_000)}))
except UserError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
@pytest.mark.slow
def test_no_space_left_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, Checkpoint({"a": torch.ones(3)}))
    before = path.read_bytes()
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert "a.pth" in run.stdout
    assert len(run.stdout.splitlines()) == 1
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]
