"""Measure ways of decoding and resizing pictures, and how far their results are from Pillow's.

    python tools/benchmark_pictures.py
    python tools/benchmark_pictures.py --frames data/jhmdb/videos/VIDEO --size 336 --json out.json

Without --frames the pictures are smooth noise of 320 x 240 pixels. Each is decoded as PNG and as
JPEG (quality 90), by Pillow, torchvision (where its version still can) and OpenCV (where it is
installed); and resized, shorter side to --size, by Pillow and by torch (DATALOADER.RESIZE), bicubic
and antialiased, and by OpenCV, which has no such thing: bicubic without antialiasing, and the mean
over the area. One thread; ms is processor time a picture, the median over the pictures. The
differences are those of 8-bit values. What a difference means for scores: test with
DATALOADER.RESIZE pillow and torch, and compare the two metrics.json.
"""

if __name__ == "__main__":
    import signals  # noqa: F401 (before the imports that take seconds)


import argparse
import io
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image

from stclip.cli import Parser, run
from stclip.data.transforms import preprocess
from stclip.data.video import open_video
from stclip.errors import UserError
from stclip.files import write_json

Picture = NDArray[np.uint8]


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="a folder of frames, or a video file")
    parser.add_argument("--count", type=int, default=20, help="pictures (default: 20)")
    parser.add_argument("--size", type=int, default=224, help="side in pixels (default: 224)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers here")
    args = parser.parse_args(argv)
    if args.count < 1 or args.size < 1:
        raise UserError("--count and --size: numbers from 1 expected")
    if args.json is not None and args.json.exists():
        raise UserError(f"{args.json}: exists already; choose another name")
    torch.set_num_threads(1)
    pictures = noise(args.count) if args.frames is None else read(args.frames, args.count)
    rows: dict[str, dict[str, float]] = {}
    decoders: dict[str, Callable[[Any], Picture]] = {"pillow": by_pillow}
    if find_spec("torchvision.io.image"):  # deprecated, to be removed in some later version
        decoders["torchvision"] = by_torchvision
    if find_spec("cv2"):
        decoders["opencv"] = by_opencv
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 90})):
        files = [encoded(picture, kind, options) for picture in pictures]
        compare(rows, f"decode {kind}", files, decoders)
    methods: dict[str, Callable[[Any], Picture]] = {
        "pillow": lambda picture: preprocess(picture, args.size, "pillow").numpy(),
        "torch": lambda picture: preprocess(picture, args.size, "torch").numpy(),
    }
    if find_spec("cv2"):
        methods["opencv cubic"] = lambda picture: opencv_resize(picture, args.size, "INTER_CUBIC")
        methods["opencv area"] = lambda picture: opencv_resize(picture, args.size, "INTER_AREA")
    compare(rows, "resize", pictures, methods)
    print(f"{'':26}{'ms':>8}{'largest':>10}{'mean difference':>18}")
    for name, row in rows.items():
        print(f"{name:26}{row['ms']:8.3f}{row['largest']:10.0f}{row['mean']:18.5f}")
    if args.json is not None:
        height, width = pictures[0].shape[:2]
        write_json(
            args.json,
            {
                "rows": rows,
                "pictures": len(pictures),
                "width": width,
                "height": height,
                "size": args.size,
                "machine": platform.platform(),
                "pillow": PIL.__version__,
                "torch": torch.__version__,
                "torchvision": version("torchvision"),
            },
        )
    return 0


def compare(
    rows: dict[str, dict[str, float]],
    work: str,
    items: list[Any],
    methods: dict[str, Callable[[Any], Picture]],
) -> None:
    """Add a row for each method; differences are those from the first one."""
    expected = [next(iter(methods.values()))(item) for item in items]
    for name, method in methods.items():
        apart = [
            np.abs(method(item).astype(np.int16) - reference)
            for item, reference in zip(items, expected, strict=True)
        ]
        rows[f"{work}, {name}"] = {
            "ms": round(statistics.median(milliseconds(method, item) for item in items), 4),
            "largest": float(max(difference.max() for difference in apart)),
            "mean": round(float(np.mean([difference.mean() for difference in apart])), 6),
        }


def milliseconds(method: Callable[[Any], Picture], item: Any) -> float:
    """Processor time of one call, the mean of ten."""
    start = time.process_time()
    for _ in range(10):
        method(item)
    return (time.process_time() - start) * 100


def by_pillow(data: bytes) -> Picture:
    """A picture file decoded by Pillow: (h, w, 3) RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_torchvision(data: bytes) -> Picture:
    """The same by torchvision."""
    from torchvision.io import ImageReadMode, decode_image

    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_image(tensor, ImageReadMode.RGB).permute(1, 2, 0).numpy()


def by_opencv(data: bytes) -> Picture:
    """The same by OpenCV."""
    import cv2

    decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None, "just encoded"
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def opencv_resize(picture: Picture, size: int, interpolation: str) -> Picture:
    """Shorter side to ``size``, centre cut out, as ``preprocess`` has it: (3, size, size)."""
    import cv2

    height, width = picture.shape[:2]
    short = min(height, width)
    new_height, new_width = int(size * height / short), int(size * width / short)
    way = getattr(cv2, interpolation)
    resized = cv2.resize(picture, (new_width, new_height), interpolation=way)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    cut = resized[top : top + size, left : left + size]
    return np.ascontiguousarray(cut.transpose(2, 0, 1), dtype=np.uint8)


def encoded(picture: Picture, kind: str, options: dict[str, int]) -> bytes:
    """A picture file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def noise(count: int) -> list[Picture]:
    """Smooth noise, about as hard to compress as a film's frames."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 30, 40, 3), dtype=np.uint8)
    return [
        np.asarray(Image.fromarray(picture).resize((320, 240), Image.Resampling.BICUBIC))
        for picture in coarse
    ]


def read(path: Path, count: int) -> list[Picture]:
    """The first frames of a video."""
    video = open_video(path)
    return video.read(range(1, min(count, len(video)) + 1))


if __name__ == "__main__":
    run(main)
