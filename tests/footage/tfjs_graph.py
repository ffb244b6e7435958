"""Executes a graph model of TensorFlow.js with torch, one operation at a time, as it is written."""

import base64
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Attributes = dict[str, Any]


def execute(graph: dict[str, Any], constants: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The graph's outputs Identity, Identity_1, ... for its one input."""
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    values: dict[str, list[Tensor]] = {name: [tensor] for name, tensor in constants.items()}
    for name, node in nodes.items():
        if node["op"] == "Placeholder":
            values[name] = [image]

    def value(reference: str) -> Tensor:
        name, _, place = reference.partition(":")
        if name not in values:
            node = nodes[name]
            inputs = [value(other) for other in node["input"]]
            values[name] = OPERATIONS[node["op"]](node.get("attr", {}), *inputs)
        return values[name][int(place or 0)]

    outputs = sorted(name for name, node in nodes.items() if node["op"] == "Identity")
    return [value(name) for name in outputs]


def four(attributes: Attributes, key: str) -> list[int]:
    return [int(number) for number in attributes[key]["list"]["i"]]


def pad(attributes: Attributes, x: Tensor, paddings: Tensor, fill: Tensor | None = None) -> Tensor:
    widths = paddings.flip(0).flatten().tolist()  # torch counts axes from the last
    return functional.pad(x, widths, value=0.0 if fill is None else float(fill))


def check_window(attributes: Attributes) -> None:
    assert base64.b64decode(attributes["padding"]["s"]) == b"VALID"
    assert base64.b64decode(attributes["data_format"]["s"]) == b"NHWC"


def conv2d(attributes: Attributes, x: Tensor, kernel: Tensor) -> Tensor:
    check_window(attributes)
    assert four(attributes, "dilations") == [1, 1, 1, 1]
    strides = four(attributes, "strides")[1:3]
    moved = kernel.permute(3, 2, 0, 1)
    return functional.conv2d(x.permute(0, 3, 1, 2), moved, stride=strides).permute(0, 2, 3, 1)


def max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    check_window(attributes)
    size, strides = four(attributes, "ksize")[1:3], four(attributes, "strides")[1:3]
    return functional.max_pool2d(x.permute(0, 3, 1, 2), size, strides).permute(0, 2, 3, 1)


def resize_bilinear(attributes: Attributes, x: Tensor, size: Tensor) -> Tensor:
    """By its definition: a pixel's centre is at a half."""
    assert attributes["half_pixel_centers"]["b"]
    assert not attributes["align_corners"]["b"]
    for axis, length in zip((1, 2), size.tolist(), strict=True):
        old = x.shape[axis]
        place = (torch.arange(length, dtype=torch.float64) + 0.5) * (old / length) - 0.5
        low = place.floor()
        shape = [-1 if other == axis else 1 for other in range(4)]
        weight = (place - low).to(x.dtype).reshape(shape)
        first = x.index_select(axis, low.long().clamp(0, old - 1))
        second = x.index_select(axis, (low.long() + 1).clamp(0, old - 1))
        x = first * (1 - weight) + second * weight
    return x


def sparse_to_dense(
    attributes: Attributes, indices: Tensor, size: Tensor, values: Tensor, default: Tensor
) -> Tensor:
    dense = default.expand(size.tolist()).clone()
    for index, number in zip(indices.tolist(), values, strict=True):
        dense[tuple(index)] = number
    return dense


def one(operation: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
    return lambda attributes, *inputs: [operation(attributes, *inputs)]


OPERATIONS: dict[str, Callable[..., list[Tensor]]] = {
    "Add": one(lambda a, x, y: x + y),
    "AddV2": one(lambda a, x, y: x + y),
    "ConcatV2": one(lambda a, *x: torch.cat(x[:-1], dim=int(x[-1]))),
    "Conv2D": one(conv2d),
    "Identity": one(lambda a, x: x),
    "LeakyRelu": one(lambda a, x: torch.where(x > 0, x, x * a["alpha"]["f"])),
    "MaxPool": one(max_pool),
    "Pad": one(pad),
    "PadV2": one(pad),
    "Reshape": one(lambda a, x, shape: x.reshape(shape.tolist())),
    "ResizeBilinear": one(resize_bilinear),
    "Sigmoid": one(lambda a, x: 1 / (1 + torch.exp(-x))),
    "SparseToDense": one(sparse_to_dense),
    "SplitV": lambda a, x, sizes, axis: list(x.split(sizes.tolist(), dim=int(axis))),
    "Transpose": one(lambda a, x, order: x.permute(order.tolist())),
}
