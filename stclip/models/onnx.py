"""Models that ``stclip export`` has written as ONNX, run by onnxruntime (extra ``onnx``).

    NAME.onnx       compares the persons of some keyframes with every class name
    NAME.text.onnx  reads class names, which need not be known when the files are made

The inputs are the tensors of ``ClipBatch`` that the model looks at. Metadata of NAME.onnx say all
that is needed to use the files, and which NAME.text.onnx belongs to it; onnx_export.py makes both.

Shape letters: N persons, C class names, T positions of a text, E joint embedding width.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.models.stclip import STCLIPOutput
from stclip.structures import ClipBatch, Needs

FORMAT = "1"  # of the metadata
OUTPUT = "cosines"
EXTRA = 'pip install "stclip[onnx]"'

_IN_JSON = (
    "image_size", "window_length", "window_stride", "temperature", "text_length", "groups",
    "templates",
)  # fmt: skip


def text_path(path: Path) -> Path:
    """Where the file lies that reads the class names of ``path``."""
    return path.with_suffix(f".text{path.suffix}")


class OnnxText(nn.Module):
    """The text tower of the files, with what ``encode_labels`` asks of a CLIP.

    Args:
        session: onnxruntime's, of the file that reads class names.
        text_length: the most tokens of a text.
        image_size: of the pictures.
    """

    def __init__(self, session: Any, text_length: int, image_size: int) -> None:
        super().__init__()
        self._session = session
        self.text_length, self.image_size = text_length, image_size

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text features, not normalised: (C, T) token ids from ``tokenize`` -> (C, E)."""
        used = int(tokens.argmax(dim=1).max()) + 1  # no token sees a later one
        return _run(self._session, {"tokens": tokens[:, :used]})


class OnnxModel(nn.Module):
    """Both files, in the place of the model that they were made of; computes on the CPU.

    Args:
        path: NAME.onnx.
        text: NAME.text.onnx; None: beside the other one.

    Attributes:
        name: of the model.
        temperature: cosines are divided by it.
        groups: the groups of class names that the weights were trained with, or None.
        templates: texts with one {} each, in which class names are read.
        needs: the pictures that the model takes.
        window_length: frames of a window.

    Raises:
        UserError: onnxruntime is missing, or the files are not there, not ONNX, not of ``stclip
            export``, or do not belong together.
    """

    def __init__(self, path: str | Path, text: str | Path | None = None) -> None:
        super().__init__()
        path = Path(path)
        self._session = _session(path)
        told = self._session.get_modelmeta().custom_metadata_map
        _check_kind(path, told)
        try:
            facts = {key: json.loads(told[f"stclip.{key}"]) for key in _IN_JSON}
            self.name, digest = told["stclip.model"], told["stclip.text_sha256"]
            self.needs = Needs(
                image_size=int(facts["image_size"]),
                frames=int(facts["window_length"]),
                stride=int(facts["window_stride"]),
                frame_boxes="stclip.input.frame_boxes" in told,
                fit=told["stclip.fit"],
                interpolation=told["stclip.interpolation"],
            )
            self.temperature = float(facts["temperature"])
            self.groups: dict[str, str] | None = facts["groups"]
            self.templates = tuple(facts["templates"])
            length = int(facts["text_length"])
            self._inputs = [one.name for one in self._session.get_inputs()]
            for name in self._inputs:
                told[f"stclip.input.{name}"]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path}: its metadata are damaged ({error}); export it again"
            ) from error
        self.window_length = self.needs.frames

        text = text_path(path) if text is None else Path(text)
        if not text.is_file():
            raise UserError(
                f"{text}: there is no such file; stclip export wrote it together with {path.name}, "
                "put it beside"
            )
        if hashlib.sha256(text.read_bytes()).hexdigest() != digest:
            raise UserError(
                f"{text}: is damaged, or of another model than {path.name}; put the one beside it "
                "that stclip export wrote together with it"
            )
        self.clip = OnnxText(_session(text), length, self.needs.image_size)

    def encode_vocabulary(self, tokens: Tensor) -> Tensor:
        """Features of class names: tokens (C, text_length) -> (C, E)."""
        return self.clip.encode_text(tokens)

    def forward(self, batch: ClipBatch, vocabulary: Tensor) -> STCLIPOutput:
        """The logits of a batch, as the model's; of the features there are none."""
        if len(batch.crops) == 0:
            return STCLIPOutput.empty(batch, vocabulary)
        layout = batch.layout
        tensors = {**vars(batch), "owner": layout.row, "vocabulary": vocabulary}
        # Keyframes without persons would be computed.
        for name in ("window", "keyframe"):
            tensors[name] = tensors[name][layout.active]
        cosines = _run(self._session, {name: tensors[name] for name in self._inputs})
        none = vocabulary[:0]
        logits = cosines / self.temperature
        return STCLIPOutput(logits, none, none[None], torch.zeros_like(batch.owner))


def package(*names: str) -> Any:
    """The first of some packages of the extra; all of them must be installed."""
    try:
        first, *_ = [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise UserError(
            f"ONNX: needs the package {error.name}, which is not installed: {EXTRA}"
        ) from error
    return first


def _session(path: Path) -> Any:
    runtime = package("onnxruntime")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; stclip export writes one")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised too
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's have no class in common
        raise UserError(
            f"{path}: onnxruntime cannot load this ({_reason(error)}); is it a whole ONNX file?"
        ) from error


def _run(session: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """The one output."""
    try:
        (output,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    except Exception as error:  # onnxruntime's have no class in common
        raise UserError(
            f"ONNX: onnxruntime cannot run the file ({_reason(error)}); export it again, perhaps "
            "with another --opset"
        ) from error
    return torch.from_numpy(output)


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]


def _check_kind(path: Path, told: Mapping[str, str]) -> None:
    kind, version = told.get("stclip.graph"), told.get("stclip.format")
    if kind == "text":
        raise UserError(
            f"{path}: reads class names only; give the file that stclip export wrote beside it"
        )
    if kind != "persons":
        raise UserError(f"{path}: an ONNX file, but none of stclip export; give one of those")
    if version != FORMAT:
        raise UserError(
            f"{path}: has format {version}, this version of stclip reads {FORMAT}; export it again"
        )
