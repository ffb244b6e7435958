"""ST-CLIP and the training-free baselines written as the two ONNX files of onnx.py.

The numbers of frames, keyframes, persons and classes are free, and that of the tokens of a text up
to those that the model reads.

Shape letters: F frames, B keyframes, T frames of a window, N persons, C class names, E joint
embedding width, S side of the frames in pixels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.models import fast
from stclip.models.baselines import Baseline
from stclip.models.clip import CLIP
from stclip.models.onnx import FORMAT, OUTPUT, package
from stclip.models.stclip import STCLIP
from stclip.models.xclip import CrossFrameCLIP
from stclip.structures import ClipBatch, Needs, PersonLayout

OPSETS = range(18, 23)  # from 23 on there is an Attention, whose masks onnxruntime does not widen
_MOST_BYTES = 2**31  # of one message of protobuf

# Of each input: what its rows are, and what it holds. {S} and so on are the model's numbers.
_INPUTS = {
    "frames": (
        "frames",
        "uint8 (frames, 3, {S}, {S}): RGB; every frame that is looked at once, {fit}",
    ),
    "window": (
        "keyframes",
        "int64 (keyframes, {T}): rows of frames, these {stride} apart in the video, around the "
        "keyframe, shifted at the video's ends; -1 behind them where the video is shorter",
    ),
    "keyframe": ("keyframes", "int64 (keyframes): rows of frames"),
    "crops": (
        "persons",
        "uint8 (persons, 3, {S}, {S}): RGB, the persons' boxes cut out of the keyframes, {fit}",
    ),
    "owner": ("persons", "int64 (persons): the row of keyframe that a person is in"),
    "frame_boxes": (
        "persons",
        "float32 (persons, 4): the persons' boxes, x1 y1 x2 y2 in pixels of frames",
    ),
    "vocabulary": (
        "classes",
        "float32 (classes, {E}): of each class name what {text} gives, or the average of several "
        "texts of it",
    ),
}
_FIT = {
    "crop": "the shorter side resized to {S} pixels ({how}, with antialiasing), the centre cut out",
    "squash": "both sides resized to {S} pixels ({how}, with antialiasing)",
}


# ---------------------------------------------------------------- the graphs
class _Batch(ClipBatch):
    """A batch whose layout follows from shapes alone, because graphs have no loop over persons.

    Every keyframe counts as one with persons, and has a column in its sequence for each person of
    the batch; those of the others' are padding. Crops cost much more than these columns.
    """

    def __post_init__(self) -> None:
        persons = self.owner.shape[0]
        self.layout = PersonLayout(
            active=torch.arange(self.keyframe.shape[0]),
            row=self.owner,
            place=torch.arange(persons),
            most=persons,
            padded=True,
            short=True,
        )


class _PersonGraph(nn.Module):
    """The inputs that the model looks at -> cosines (N, C)."""

    def __init__(self, model: STCLIP | Baseline) -> None:
        super().__init__()
        self.model = model
        if isinstance(model, STCLIP):
            used = {"frames", "keyframe", "owner"}
            used |= {"window"} if model.context_tokens is not None else set()
            used |= {"crops"} if model.person_tokens is not None else set()
        else:
            used = {"frames", "keyframe", "owner"} if model.frame or model.marked else set()
            used |= {"crops"} if model.crop else set()
        used |= {"frame_boxes"} if model.marked else set()
        self.inputs = [name for name in _INPUTS if name in used | {"vocabulary"}]

    def forward(self, *tensors: Tensor) -> Tensor:
        """Of ``inputs``, in their order."""
        given = dict(zip(self.inputs, tensors, strict=True))
        pixels = torch.zeros(0, 3, 0, 0, dtype=torch.uint8)
        if "owner" in given:
            owner, keyframe = given["owner"], given["keyframe"]
            crops = given.get("crops", pixels.new_zeros(owner.shape[0], 3, 0, 0))
        else:
            crops = given["crops"]
            owner, keyframe = torch.arange(crops.shape[0]), torch.zeros(0, dtype=torch.long)
        batch = _Batch(
            frames=given.get("frames", pixels),
            window=given.get("window", keyframe[:, None]),
            keyframe=keyframe,
            crops=crops,
            owner=owner,
            boxes=torch.zeros(0, 4),
            det_scores=torch.zeros(0),
            labels=None,
            keys=(),
            frame_boxes=given.get("frame_boxes"),
        )
        return self.model(batch, given["vocabulary"]).logits * self.model.temperature

    def example(self) -> list[Tensor]:
        """Inputs to trace with: no two numbers of rows alike, and none 0 or 1."""
        clip, frames, keyframes, persons = self.model.clip, 5, 3, 4
        pictures = torch.zeros(frames, 3, clip.image_size, clip.image_size, dtype=torch.uint8)
        window = torch.zeros(keyframes, self.model.window_length, dtype=torch.long)
        example = {
            "frames": pictures,
            "window": window,
            "keyframe": window[:, 0].clone(),
            "crops": pictures[:persons].clone(),
            "owner": torch.tensor([0, 1, 1, 2]),
            "frame_boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]] * persons),
            "vocabulary": torch.ones(2, clip.embed_dim),
        }
        return [example[name] for name in self.inputs]


class _TextGraph(nn.Module):
    """Tokens (C, length) -> the vocabulary (C, E)."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, *tensors: Tensor) -> Tensor:
        """The length is at least that of the longest text."""
        return self.clip.encode_all_positions(*tensors)


def write_graphs(
    model: nn.Module,
    needs: Needs,
    facts: Mapping[str, Any],
    persons: Path,
    text: Path,
    text_name: str,
    opset: int = OPSETS[0],
) -> None:
    """Write both files of a model; what stands there is replaced.

    Args:
        model: an ``STCLIP`` or ``Baseline`` on CLIP, on the CPU in float32.
        needs: the pictures that it takes.
        facts: what else the metadata are to say.
        persons: where the first file goes.
        text: where the second one goes.
        text_name: of the second file when it is in its place.
        opset: one of ``OPSETS``, the version of ONNX's operations.

    Raises:
        UserError: the package onnx is missing, the model has parts that no graph can have, is too
            large for a file, or torch cannot write it in this opset.
    """
    clip = _exportable(model)
    assert isinstance(model, STCLIP | Baseline)
    graph = _PersonGraph(model)
    free = {name: {0: _INPUTS[name][0]} for name in graph.inputs}
    free[OUTPUT] = {0: "persons", 1: "classes"}
    proto = _traced(graph, graph.example(), free, opset)

    tokens = torch.zeros(3, min(7, clip.text_length), dtype=torch.long)
    free = {"tokens": {0: "texts", 1: "length"}, "vocabulary": {0: "texts"}}
    read = _traced(_TextGraph(clip), [tokens], free, opset, {"length": clip.text_length})
    read.metadata_props.add(key="stclip.graph", value="text")
    content = read.SerializeToString()
    text.write_bytes(content)

    how = {"S": needs.image_size, "how": needs.interpolation}
    words = {
        "S": needs.image_size,
        "T": model.window_length,
        "stride": needs.stride,
        "fit": _FIT[needs.fit].format(**how),
        "E": clip.embed_dim,
        "text": text_name,
    }
    told = {
        "graph": "persons",
        "format": FORMAT,
        "image_size": needs.image_size,
        "window_length": model.window_length,
        "window_stride": needs.stride,
        "fit": needs.fit,
        "interpolation": needs.interpolation,
        "temperature": model.temperature,
        "text_length": clip.text_length,
        "text_sha256": hashlib.sha256(content).hexdigest(),
        **facts,
        **{f"input.{name}": _INPUTS[name][1].format(**words) for name in graph.inputs},
        f"output.{OUTPUT}": "float32 (persons, classes); divided by temperature they are logits, "
        "whose softmax over the classes is the scores (with groups: over the poses, and a sigmoid "
        "for every other class)",
        "text": f"{text_name}: tokens int64 (texts, length) -> vocabulary; a row is CLIP's start "
        f"of text, the text, end of text and zeros, {clip.text_length} at most",
    }
    for key, value in told.items():
        value = value if isinstance(value, str) else json.dumps(value)
        proto.metadata_props.add(key=f"stclip.{key}", value=value)
    persons.write_bytes(proto.SerializeToString())


def _exportable(model: nn.Module) -> CLIP:
    """The CLIP of a model that can be exported."""
    clip = getattr(model, "clip", None)
    if not isinstance(clip, CLIP):
        raise UserError(
            f"export: the model has open_clip's own towers ({getattr(clip, 'name', '?')}), whose "
            "tokenizer is not this package's; choose a CLIP that stclip.load_clip takes"
        )
    if isinstance(clip, CrossFrameCLIP):
        raise UserError(
            "export: the model has X-CLIP's image tower, in which the number of frames that go "
            "through it follows from what the windows hold, which no graph can; choose weights of "
            "MODEL.BACKBONE clip"
        )
    size = sum(
        parameter.numel() * parameter.element_size()
        for name, parameter in model.named_parameters()
        if name.startswith("clip.visual.") or not name.startswith("clip.")
    )
    if size >= _MOST_BYTES:
        raise UserError(
            f"export: the model's weights take {size / 1e9:.2f} GB, an ONNX file holds at most "
            f"{_MOST_BYTES / 1e9:.2f}; choose a smaller CLIP"
        )
    return clip


def _traced(
    graph: nn.Module,
    example: Sequence[Tensor],
    free: Mapping[str, Mapping[int, str]],
    opset: int,
    most: Mapping[str, int] = MappingProxyType({}),
) -> Any:
    """The message that a file of ONNX is.

    Args:
        graph: takes the example's tensors as they come (``*tensors``).
        example: inputs.
        free: of each input, and of the output behind them, the name of every size that may change.
        opset: version of ONNX's operations.
        most: the largest of these sizes, where there is one.
    """
    package("onnx", "onnxscript")
    *inputs, output = free
    names = {name for shape in free.values() for name in shape.values()}
    sizes = {name: torch.export.Dim(name, min=1, max=most.get(name)) for name in names}
    shapes = tuple({axis: sizes[size] for axis, size in free[name].items()} for name in inputs)
    with fast.switched(False), torch.no_grad(), _quiet():
        try:
            # Strict: elsewhere len() of a tensor is a number of the example.
            program = torch.export.export(
                graph.eval(), tuple(example), dynamic_shapes=(shapes,), strict=True
            )
            written: Any = torch.onnx.export(
                program, input_names=inputs, output_names=[output], opset_version=opset,
                dynamo=True, verbose=False,
            )  # fmt: skip
        except Exception as error:  # of torch, of onnxscript
            first = next(iter(str(error).splitlines()), "")
            raise UserError(
                f"export: torch {torch.__version__} cannot write this model with opset {opset} "
                f"({type(error).__name__}: {first:.200}); try another --opset, or a newer torch"
            ) from error
    proto = written.model_proto
    # What is said of where in the code something comes from has paths of this machine.
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]
    del proto.graph.value_info[:]  # sizes in between, by other names
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in free[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling of its own affairs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
