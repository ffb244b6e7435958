"""stclip export writes what was checked, and stclip detect --onnx uses it as the checkpoint."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stclip.detector import load
from stclip.engine.checkpoint import Checkpoint, save_checkpoint
from stclip.errors import UserError
from stclip.footage.detect import load_model
from stclip.footage.results import read_result
from stclip.models.onnx import OnnxModel, text_path
from stclip.models.tokenizer import tokenize
from tests.footage.make import drawn_frame, write_film
from tests.helpers import REPOSITORY, load_command, random_batch, tiny_model

SNIPPET = re.compile(
    r"^```python\n(import numpy as np\nimport onnxruntime\n.+?)^```", re.DOTALL | re.MULTILINE
)
NAMES = ["wave | a person waves | greeting", "sit", "walk"]


def export(*words: object) -> int:
    return load_command("export").main([str(word) for word in words])


def detected(film: Path, *words: object) -> Any:
    out = film.parent / "out"
    options = ["--none-of", "stand", "--no-video", "--threshold", "0.2", "--out", out, *words]
    assert load_command("detect").main([str(film), "--actions", *NAMES, *map(str, options)]) == 0
    return read_result(out / film.stem / "result.json")


@pytest.mark.slow
def test_a_checkpoint_and_its_export_find_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    weights, out = tmp_path / "a.pth", tmp_path / "here" / "stclip.onnx"
    config = "MODEL: {TEMPLATES: ['a photo of {}.']}"
    save_checkpoint(weights, Checkpoint(tiny_model().state_dict(), config=config))
    assert export("--weights", weights, "--out", out) == 0
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()[1:3]] == [
        str(out),
        str(text_path(out)),
    ]
    assert float(re.search(r"largest difference from PyTorch's scores: (\S+)", said)[1]) < 1e-5
    assert {path.name for path in out.parent.iterdir()} == {"stclip.onnx", "stclip.text.onnx"}

    exported = OnnxModel(out)
    assert (exported.name, exported.temperature) == ("ST-CLIP", 0.07)
    assert (exported.needs.image_size, exported.needs.frames, exported.needs.stride) == (48, 9, 1)
    assert exported.templates == ("a photo of {}.",)

    frames = (
        drawn_frame(240, 160, [(50.0 + 2 * n, 30.0, 110.0), (200, 40, 90)]) for n in range(30)
    )
    film = write_film(tmp_path / "film.mp4", frames)
    expected, found = detected(film, "--weights", weights), detected(film, "--onnx", out)
    assert found.model == {"name": "ST-CLIP", "onnx": str(out), "wordings": [*NAMES, "stand"],
                           "precision": "fp32"}  # fmt: skip
    assert len(expected.events) > 0
    shown = [[(e.track, e.action, e.start, e.end) for e in r.events] for r in (expected, found)]
    assert shown[0] == shown[1]
    for number, track in expected.tracks.items():
        scores = found.tracks[number].timeline()[1]
        np.testing.assert_allclose(scores, track.timeline()[1], atol=1e-4)

    with pytest.raises(UserError, match="precision: an ONNX file computes in fp32, found bf16"):
        detected(film, "--onnx", out, "--precision", "bf16")

    code = SNIPPET.search((REPOSITORY / "GETTING_STARTED.md").read_text())[1]
    batch = random_batch([3])
    inputs = {"frames": batch.frames[:9].numpy(), "crops": batch.crops.numpy()}
    monkeypatch.chdir(out.parent)
    exec(code, inputs)
    with torch.no_grad():
        model = load(weights, ["wave", "sit"], "cpu").model
        batch.window, batch.keyframe = torch.arange(9)[None], torch.tensor([4])
        vocabulary = model.encode_vocabulary(tokenize(["wave", "sit"]))
        scores = model(batch, vocabulary).logits.softmax(dim=1)
    np.testing.assert_allclose(inputs["scores"], scores, atol=1e-4)

    # What differs too much is not kept; what is there stays.
    before = out.read_bytes()
    with pytest.raises(
        UserError, match=r"stclip\.onnx: exists already; choose another --out or add"
    ):
        export("--weights", weights, "--out", out)
    monkeypatch.setattr("stclip.commands.export.largest_difference", lambda *models: 0.01)
    monkeypatch.setattr("stclip.commands.export.write_graphs", copying(out))
    with pytest.raises(UserError, match=r"scores differ from PyTorch's by 0\.01, at most 0\.0001"):
        export("--weights", weights, "--out", out, "--overwrite")
    assert out.read_bytes() == before
    assert {path.name for path in out.parent.iterdir()} == {"stclip.onnx", "stclip.text.onnx"}

    # Without the file beside it, or with another one.
    text_path(out).write_bytes(text_path(out).read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"stclip\.text\.onnx: is damaged, or of another model"):
        OnnxModel(out)
    text_path(out).unlink()
    with pytest.raises(
        UserError, match=r"stclip\.text\.onnx: there is no such file; stclip export"
    ):
        OnnxModel(out)


def copying(out: Path) -> Any:
    def write_graphs(model, needs, facts, persons: Path, text: Path, *rest) -> None:
        persons.write_bytes(out.read_bytes())
        text.write_bytes(text_path(out).read_bytes())

    return write_graphs


@pytest.mark.slow
def test_clip_without_training(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    out = tmp_path / "stclip.onnx"
    assert export("--clip", "puppet", "--model", "frame_crop", "--out", out, "--opset", 20) == 0
    exported, plain = (
        load_model(["wave", "sit"], **given, device="cpu")[0]
        for given in ({"onnx": out}, {"clip": "puppet"})
    )
    frames = [drawn_frame(240, 160, [(120.0, 30.0, 110.0)])] * 3
    boxes = [[80, 30, 160, 140], [0, 0, 60, 60]]
    np.testing.assert_allclose(exported.score(frames, boxes), plain.score(frames, boxes), atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "stclip.onnx"], "give either --weights or --clip"),
        (["--weights", "a.pth", "--clip", "puppet", "--out", "stclip.onnx"], "give either"),
        (["--weights", "a.pth", "--model", "crop", "--out", "stclip.onnx"], "--model: belongs to"),
        (["--clip", "puppet", "--out", "a.pt"], "ends in .onnx"),
        (["--clip", "puppet", "--out", "a.text.onnx"], "not in .text.onnx, which names the second"),
        (
            ["--clip", "puppet", "--out", "stclip.onnx", "--opset", "7"],
            "--opset: invalid choice: 7",
        ),
    ],
)
def test_calls_that_cannot_be(words: Sequence[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        export(*words)


def graph_file(path: Path, **told: str) -> Path:
    """An ONNX file that gives back what it gets."""
    onnx = pytest.importorskip("onnx")
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["n"]) for name in ("x", "y")]
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.helper.set_model_props(model, {f"stclip.{key}": value for key, value in told.items()})
    path.write_bytes(model.SerializeToString())
    return path


def test_files_that_are_no_exports(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "stclip.onnx"

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            load_model(["wave", "sit"], onnx=path)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)

    refused("there is no such file; stclip export writes one")
    path.write_bytes(b"no graph\n")
    refused("onnxruntime cannot load this .*; is it a whole ONNX file?")
    path.write_bytes(graph_file(path).read_bytes()[:-20])
    refused("onnxruntime cannot load this")
    graph_file(path)
    refused("an ONNX file, but none of stclip export")
    graph_file(path, graph="text")
    refused("reads class names only; give the file")
    graph_file(path, graph="persons", format="9")
    refused("has format 9, this version of stclip reads 1; export it again")
    graph_file(path, graph="persons", format="1", image_size="much")
    refused("its metadata are damaged .*; export it again")


def test_the_packages_are_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        UserError, match=r'onnxruntime, which is not installed: pip install "stclip'
    ):
        OnnxModel("stclip.onnx")


@pytest.mark.parametrize(
    "options", [["--weights", "a.pth"], ["--clip", "puppet"], ["--crop-weight", "1"]]
)
def test_an_onnx_file_stands_alone(options: list[str], tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", [drawn_frame(64, 48, [])] * 2)
    words = [str(film), "--actions", "wave", "sit", "--onnx", "stclip.onnx", *options]
    message = r"stclip\.onnx has its model in it; give either the ONNX file"
    with pytest.raises(UserError, match=message):
        load_command("detect").main(words)
