"""Every reader on mutated valid files: it reads them, or raises a UserError, and nothing else.

Files are changed byte by byte (flips, cuts, splices, odd tokens), and, where a format has a
structure, node by node (wrong types, absent and repeated members, extreme numbers and texts). The
examples are the same in every run. STCLIP_FUZZ_EXAMPLES is how many each reader gets, for a long
run; more than the default are drawn at random.
"""

import copy
import gzip
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as save_safetensors

from stclip.config import differences, load_config
from stclip.data.ava import read_boxes
from stclip.data.ava_files import read_ava_csv, read_box_csv, read_label_map, read_moments
from stclip.data.class_videos import read_lines
from stclip.data.custom import open_annotations, read_annotations
from stclip.data.cvat import read_cvat
from stclip.data.ground_truth import read_evaluation_truth, read_tube_truth
from stclip.data.jhmdb import CLASSES, read_ground_truth
from stclip.data.labels import read_group_file, read_label_file, read_video_list
from stclip.data.proposals import read_coco_detections
from stclip.data.tracks import Film
from stclip.data.tubes import read_detected_tubes
from stclip.data.ucf24 import read_tube_file
from stclip.data.video import open_video
from stclip.engine.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from stclip.engine.events import lines_up_to
from stclip.errors import UserError
from stclip.evaluation.result_csv import read_ava_rows, read_result_csv
from stclip.evaluation.results import ScoredParts, read_predictions
from stclip.models.weights import load_clip, load_xclip
from stclip.structures import FrameKey
from tests.data import make, make_cvat, make_ucf24
from tests.helpers import tiny_model

EXAMPLES = int(os.environ.get("STCLIP_FUZZ_EXAMPLES", "0"))


class Reader(NamedTuple):
    """A valid file and what reads it.

    Attributes:
        read: gets the path.
        name: the file's name.
        content: its bytes, or the tree that ``dump`` makes them of.
        dump: None for files without a structure.
        examples: by default; slow readers get fewer.
    """

    read: Callable[[Path], Any]
    name: str
    content: Any
    dump: Callable[[Any], bytes] | None = None
    examples: int = 30


# What stands in a text file where something else was expected.
TOKENS = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"9" * 5000, b"1e400", b"1e39", b"nan", b"-1", b"0.5",
    b"12345678901234567890", b'"', b",,,,", b"\n\n", b"\r", b"\\ud800", b"[" * 3000, b"{" * 3000,
    b"x" * 300, b"true", b"null", "\u0663".encode(), b"&a [*a, *a]", b"!!python/object:os.system",
    b"'" * 3,
]  # fmt: skip
# What stands in JSON where a value was.
RAW_JSON = [
    "null", "true", "false", "0", "-1", "0.5", "1e39", "1e400", "-1e400", "NaN", "Infinity",
    "9" * 5000, "1" + "0" * 400, "12345678901234567890", '""', '"1234"', '"\\ud800"',
    '"a\\u0000b"', f'"{"x" * 300}"', "[]", "{}", "[[]]", '["a"]', "[1, 2, 3, 4]", '{"a": 1}',
    "[" * 100_000, "[" * 3000 + "]" * 3000, '"../../x"',
]  # fmt: skip
ODD_OBJECTS: list[Any] = [
    None, True, -1, 0, 2**70, 10**400, 0.5, 1e39, float("nan"), float("inf"), 1j, "", "1234",
    "\ud800", "a\0b", "x" * 300, b"", b"abc", [], {}, (), [[]], ["a"], [1, 2, 3, 4], {"a": 1},
    {1}, np.zeros(0), np.zeros((0, 5)), np.ones((2, 5)), np.full((2, 5), np.nan),
    np.array(["a", "b"]), np.array([1j]), np.float64("nan"), np.int64(-1), np.uint8(200),
    np.array(3.0), np.full((2, 4), 1e39),
]  # fmt: skip
ODD_ARRAYS: list[Any] = [
    np.zeros(0), np.zeros((0, 4), np.float32), np.zeros((3, 4), np.int8), np.array(1.5),
    np.array(["a", "b"]), np.array([b"a", b"b"]), np.array([1j, 2]), np.array([2**63], np.uint64),
    np.array([-5, -6]), np.array([1.5, 2.5]), np.full((2, 2), np.nan), np.array([[1, 2]]),
    np.array([True, False]), np.array([1, None], dtype=object), np.zeros(2, "V8"),
    np.zeros(2, "M8[s]"), np.array([10**6, 1]), np.zeros((2, 2), np.float16),
    np.array(["a\0b", "\ud800"]), np.zeros(2, ">f4"), np.zeros((2, 4), ">f8"),
]  # fmt: skip
ODD_TENSORS: list[Any] = [
    None, 3, "text", [], {}, torch.zeros(0), torch.tensor(1.0), torch.ones(2, 3),
    torch.zeros(1, dtype=torch.int64), torch.zeros(4, dtype=torch.bool), torch.tensor([torch.nan]),
    torch.zeros(2, 2).to_sparse(), torch.zeros(2, dtype=torch.complex64), torch.zeros(2, 0, 3),
    torch.empty(2, 2, device="meta"), torch.zeros(1, 1, 1, 1, 1, 1), b"bytes", {"a": torch.ones(1)},
]  # fmt: skip


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree with each of its keys."""
    keys: Any = ()
    if isinstance(tree, dict):
        keys = list(tree)
    elif isinstance(tree, list):
        keys = range(len(tree))
    for key in keys:
        yield tree, key
        yield from places(tree[key])


def change_tree(draw: Callable[[Any], Any], tree: Any, odd: list[Any]) -> Any:
    """A copy with one or two nodes replaced, taken out, or put in a second time."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        found = list(places(tree))
        if not found:
            break
        number = draw(st.integers(-1, len(found) - 1))
        value = odd[draw(st.integers(0, len(odd) - 1))]
        if number < 0:
            return value
        container, key = found[number]
        how = draw(st.sampled_from(["replace", "replace", "replace", "delete", "again"]))
        if how == "delete":
            del container[key]
        elif how == "replace":
            container[key] = value
        elif isinstance(container, list):
            container.append(container[key])
        else:
            container[str(key) + "2"] = container[key]
            if not isinstance(value, dict | list | set | np.ndarray | torch.Tensor):
                container[value] = container.pop(key)
    return tree


def change_bytes(draw: Callable[[Any], Any], content: bytes) -> bytes:
    """A copy with some bytes flipped, cut, repeated, overwritten, or tokens put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 64))
        how = draw(st.sampled_from(["flip", "cut", "end", "splice", "random", "token", "token"]))
        if how == "flip" and data:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[start : start + length]
        elif how == "end":
            del data[start:]
        elif how == "splice":
            other = draw(st.integers(0, max(len(data) - 1, 0)))
            data[start:start] = data[other : other + length]
        elif how == "random":
            data[start : start + length] = draw(st.binary(min_size=1, max_size=16))
        else:
            data[start : start + draw(st.integers(0, 8))] = draw(st.sampled_from(TOKENS))
    return bytes(data)


def dump_json(tree: Any) -> bytes:
    """JSON in which the texts ``raw N`` are RAW_JSON's N-th."""
    text = json.dumps(tree)
    return re.sub(r'"raw (\d+)"', lambda match: RAW_JSON[int(match[1])], text).encode()


def dump_json_lines(rows: Any) -> bytes:
    rows = rows if isinstance(rows, list) else [rows]
    return b"\n".join(map(dump_json, rows))


def dump_npz(arrays: Any) -> bytes:
    file = io.BytesIO()
    arrays = arrays if isinstance(arrays, dict) else {"videos": arrays}
    np.savez_compressed(file, **{str(name): value for name, value in arrays.items()})
    return file.getvalue()


def dump_torch(tree: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def dump_safetensors(tree: Any) -> bytes:
    tensors = {
        str(name): value
        for name, value in (tree.items() if isinstance(tree, dict) else ())
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
    }
    return save_safetensors({name: value.contiguous() for name, value in tensors.items()})


ODD = {
    dump_json: [f"raw {number}" for number in range(len(RAW_JSON))],
    dump_json_lines: [f"raw {number}" for number in range(len(RAW_JSON))],
    pickle.dumps: ODD_OBJECTS,
    dump_npz: ODD_ARRAYS,
    dump_torch: ODD_TENSORS,
    dump_safetensors: ODD_TENSORS,
}


def read_pictures(path: Path) -> None:
    """Everything that is asked of a video."""
    video = open_video(path)
    assert video.size[0] > 0
    video.missing(2)
    video.frame_at(0.1, 25)
    video.fingerprints([1])
    video.read([1, len(video)])


def both(*readers: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Several readers of one file, each of which may refuse it."""

    def read(path: Path) -> None:
        refused = 0
        for reader in readers:
            try:
                reader(path)
            except UserError:
                refused += 1
        if refused == len(readers):
            raise UserError("by all")

    return read


def done_parts(path: Path) -> None:
    parts = ScoredParts(path.parent, ["a", "b"])
    parts.prepare("equal")
    done = parts.resume([FrameKey("v", 1), FrameKey("v", 2)])
    assert len(done) == sum(len(part.keys) for part in parts.detections)


def annotations() -> dict[str, Any]:
    return {
        "labels": ["run", {"name": "wave", "group": "pose"}],
        "videos": [{"id": "v", "path": "frames", "size": [make.WIDTH, make.HEIGHT], "fps": 25}],
        "keyframes": [
            {"video": "v", "id": 7, "timestamp": 0.1, "boxes": [[1, 2, 9, 9]], "labels": [["run"]]},
            {"video": "v", "timestamp": 0, "boxes": [[1, 2, 9, 9]], "labels": [["run", "wave"]]},
        ],
    }  # fmt: skip


def cvat_export() -> bytes:
    boxes = (
        make_cvat.box((1, 2, 9, 9), {"action": "run"}, frame=n, keyframe=1, outside=int(n == 2))
        for n in range(3)
    )
    meta = make_cvat.task(inside=make_cvat.labels(person=make_cvat.ACTION))
    return make_cvat.document(meta, make_cvat.track(*boxes)).encode()


def cvat(path: Path) -> None:
    for annotated in read_cvat(path):
        for track in annotated.tracks(Film("v", path, (10, 10), 25.0, np.arange(5) / 25, 0.0)):
            track.at(track.visible(5))


def tubes() -> dict[str, Any]:
    row = {"video": "v", "label": "run", "boxes": [[1, 0, 0, 5, 5], [2, 0, 0, 5.5, 5]]}
    return {"labels": ["run", "wave"], "nframes": {"v": 40}, "ground_truth": [row]}


def predictions() -> dict[str, Any]:
    return {
        "videos": np.array(["v", "v"]),
        "frames": np.array([1, 2]),
        "owner": np.array([0, 0, 1]),
        "boxes": np.ones((3, 4), np.float32),
        "det_scores": np.ones(3, np.float32),
        "scores": np.full((3, 2), 0.5, np.float32),
        "labels": np.array(["a", "b"]),
    }


def tiny_state() -> dict[str, torch.Tensor]:
    return {n: t for n, t in tiny_model(vocab_size=40).clip.state_dict().items() if "lora" not in n}


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(make.numbered(5, 24, 16)).save(file, kind)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in (1, 2):
            archive.writestr(f"{number:05d}.png", picture("png"))
    return file.getvalue()


def folder_of(path: Path) -> None:
    """The picture is frame 2 of a folder."""
    (path.parent / "00001.png").write_bytes(picture("png"))
    read_pictures(path.parent)


def with_frames(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Beside the file lie the frames of the annotations."""

    def reading(path: Path) -> Any:
        if not (path.parent / "frames").exists():
            make.write_frames(path.parent / "frames", 3)
        return read(path)

    return reading


def rows_of_annotations(path: Path) -> None:
    file = path.parent / "annotations.json"
    file.write_text(json.dumps(annotations()))
    open_annotations(read_annotations(file), None, str(path))


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    folder = tmp_path_factory.mktemp("valid")
    save_checkpoint(
        folder / "model.pth",
        Checkpoint(tiny_state(), "SEED: 3\n", {"iteration": 3, "rng": torch.get_rng_state()}),
    )
    ids = {
        make.image_id(n, f): FrameKey(n, f)
        for n, (_, c) in make.VIDEOS.items()
        for f in range(1, c + 1)
    }
    sizes = {"-val_1": (64, 48)}
    csv = "-val_1,0902,0.25,0.1,0.75,0.9,12,0\n-val_1,0903\n-val_1,0902,0.1,0.1,0.2,0.2,4,1\n"
    boxes = "-val_1,0902,0.250,0.100,0.750,0.900,,0.95\n-val_1,0902,0.0,0.0,0.25,0.5,,0.81\n"
    result = "v,1,1.0,2.0,3.0,4.0,1,0.5\nv,2,1.0,2.0,3.0,4.0,2,0.25\n"
    pbtxt = 'item {\n  name: "run"\n  id: 1\n}\nitem {\n  name: "sit"\n  id: 2\n}\n'
    logged = [{"iteration": n, "loss": 0.5, "lr": 0.1} for n in range(1, 6)]
    yaml = (
        "SEED: 3\nMODEL: {DEVICE: cpu, LORA: {RANK: 2}}\nSOLVER:\n  STEPS: [1, 2]\n  BASE_LR: 0.1\n"
    )
    lists = make_ucf24.TRAIN, make_ucf24.TEST

    def ucf24(path: Path) -> None:
        make_ucf24.write_lists(path.parent, *lists)
        both(read_tube_file, read_tube_truth, read_evaluation_truth)(path)

    def annotated(path: Path) -> None:
        open_annotations(read_annotations(path))

    def ava_json(path: Path) -> None:
        read_boxes(path, path.parent, sizes, 0.0)

    def ava_images(path: Path) -> None:
        row = {"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.9}
        (path.parent / "boxes.json").write_text(json.dumps([row]))
        read_boxes(path.parent / "boxes.json", path.parent, sizes, 0.0)

    def jhmdb_list(path: Path) -> None:
        (path.parent / "gt.json").write_text(json.dumps(make.jhmdb_json("test")))
        read_ground_truth(path.parent / "gt.json", "test")

    detected = [{"video": "v", "label": "run", "score": 0.9, "boxes": [[1, 0, 0, 5, 5]]}]
    lines = [
        {"video": "v", "frame": 2, "box": [1, 2, 3, 4], "score": 0.9},
        {"video": "v", "timestamp": 0.04, "box": [1, 2, 3, 4.5], "score": 0.9},
    ]
    images = {
        "images": [{"id": 7, "movie": "-val_1", "timestamp": "0902", "width": 64, "height": 48}]
    }
    found = {
        "config": Reader(load_config, "a.yaml", yaml.encode()),
        "saved config": Reader(lambda p: differences(load_config(), p), "a.yaml", yaml.encode()),
        "labels": Reader(read_label_file, "a.txt", b"run\nsit\nwave\n", examples=20),
        "groups": Reader(
            lambda p: read_group_file(p, ["a", "b"]), "a.txt", b"pose\nobject\n", examples=20
        ),
        "videos": Reader(read_video_list, "a.txt", b"run/v1\nv2\n", examples=20),
        "label map": Reader(read_label_map, "a.pbtxt", pbtxt.encode()),
        "cvat": Reader(cvat, "a.xml", cvat_export()),
        "annotations": Reader(with_frames(annotated), "a.json", annotations(), dump_json),
        "annotations, for a metric": Reader(
            with_frames(read_evaluation_truth), "a.json", annotations(), dump_json
        ),
        "detections of annotations": Reader(
            with_frames(rows_of_annotations), "a.jsonl", lines, dump_json_lines
        ),
        "detections of annotations, COCO's": Reader(
            with_frames(rows_of_annotations), "b.json",
            [{"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.9}], dump_json,
        ),
        "jhmdb json": Reader(
            both(lambda p: read_ground_truth(p, "test"), read_evaluation_truth),
            "a.json", make.jhmdb_json("test"), dump_json,
        ),
        "jhmdb list": Reader(jhmdb_list, "testlist.txt", b"wave/c_wave/00001.png\n", examples=20),
        "jhmdb pickle": Reader(
            both(
                lambda p: read_ground_truth(p, "test", CLASSES),
                read_evaluation_truth,
                read_tube_truth,
            ),
            "a.pkl", make.jhmdb_pickle(), pickle.dumps,
        ),
        "jhmdb detections": Reader(
            lambda p: read_coco_detections(p, ids, "ids"),
            "a.json", make.detection_rows()[:6], dump_json,
        ),
        "ucf24 pickle": Reader(ucf24, "pyannot.pkl", make_ucf24.pyannot(), pickle.dumps),
        "ucf24 pickle of ACT": Reader(ucf24, "a.pkl", make_ucf24.act_pickle(), pickle.dumps),
        "ucf24 detections": Reader(
            lambda p: read_lines(p, {"v": 5}, 25, ["v"], "truth"), "a.jsonl", lines, dump_json_lines
        ),
        "ava csv": Reader(
            both(
                lambda p: read_ava_csv(p, {4: "a", 12: "b"}, "map"),
                lambda p: read_ava_rows(p, [4, 12], scored=False),
            ),
            "a.csv", csv.encode(),
        ),
        "ava moments": Reader(read_moments, "a.csv", b"v,0902\nv,0903\n", examples=20),
        "ava boxes": Reader(lambda p: read_box_csv(p, sizes, 0.0), "a.csv", boxes.encode()),
        "ava boxes json": Reader(
            ava_json, "a.json",
            [{"image_id": "-val_1,0902", "bbox": [1, 2, 3, 4], "score": 0.9}], dump_json,
        ),
        "ava images json": Reader(ava_images, "ava_val_v2.2_min.json", images, dump_json),
        "result csv": Reader(
            lambda p: read_result_csv(p, ["a", "b"], {"v"}), "a.csv", result.encode()
        ),
        "result csv, gzipped": Reader(
            lambda p: read_result_csv(p, ["a", "b"], {"v"}),
            "a.csv.gz",
            gzip.compress(result.encode() * 20, mtime=0),
        ),
        "tubes": Reader(read_tube_truth, "a.json", tubes(), dump_json),
        "detected tubes": Reader(
            lambda p: read_detected_tubes(p, ["run"], ["v"]), "a.json", detected, dump_json
        ),
        "predictions": Reader(read_predictions, "a.npz", predictions(), dump_npz),
        "scored part": Reader(done_parts, "part-1.npz", predictions(), dump_npz),
        "scored parts": Reader(done_parts, "run.json", {"fingerprint": "equal"}, dump_json),
        "metrics": Reader(lambda p: lines_up_to(p, 3), "metrics.jsonl", logged, dump_json_lines),
        "checkpoint": Reader(
            read_checkpoint, "a.pth",
            torch.load(folder / "model.pth", weights_only=True), dump_torch, 20,
        ),
        "clip weights": Reader(load_clip, "a.pt", tiny_state(), dump_torch, 25),
        "clip safetensors": Reader(load_clip, "a.safetensors", tiny_state(), dump_safetensors, 25),
        "xclip weights": Reader(load_xclip, "a.pt", tiny_state(), dump_torch, 10),
        "frame, png": Reader(folder_of, "00002.png", picture("png")),
        "frame, jpeg": Reader(folder_of, "00002.jpg", picture("jpeg")),
        "frames in a zip file": Reader(read_pictures, "a.zip", zipped()),
    }  # fmt: skip
    for codec, ending in (("mpeg4", "avi"), ("libx264", "mp4"), ("libx264", "mkv")):
        path = make.write_video(folder / f"v.{ending}", range(4), codec)
        found[f"video, {ending}"] = Reader(read_pictures, path.name, path.read_bytes(), None, 15)
    return found


NAMES = [
    "config", "saved config", "labels", "groups", "videos", "label map", "cvat", "annotations",
    "annotations, for a metric", "detections of annotations", "detections of annotations, COCO's",
    "jhmdb json", "jhmdb list", "jhmdb pickle", "jhmdb detections", "ucf24 pickle",
    "ucf24 pickle of ACT", "ucf24 detections", "ava csv", "ava moments", "ava boxes",
    "ava boxes json", "ava images json", "result csv", "result csv, gzipped", "tubes",
    "detected tubes", "predictions",
    "scored part", "scored parts", "metrics", "checkpoint", "clip weights", "clip safetensors",
    "xclip weights", "frame, png", "frame, jpeg", "frames in a zip file", "video, avi",
    "video, mp4", "video, mkv",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_only_user_errors_come_out(
    name: str, readers: dict[str, Reader], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert set(NAMES) == set(readers)
    reader = readers[name]
    valid = reader.content if reader.dump is None else reader.dump(reader.content)
    outcomes = {"read": 0, "refused": 0}

    def attempt(content: bytes) -> None:
        folder = tmp_path / "fuzzed"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            if old.is_file():
                old.unlink()
        path = folder / reader.name
        path.write_bytes(content)
        if reader.name.startswith("part-"):
            (folder / "run.json").write_text('{"fingerprint": "equal"}')
        try:
            reader.read(path)
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1

    attempt(valid)
    assert outcomes["read"] == (name != "xclip weights"), "the file is not valid to begin with"

    @settings(
        max_examples=EXAMPLES or reader.examples,
        database=None,
        derandomize=not EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        if reader.dump is None or data.draw(st.integers(0, 2)) == 0:
            return attempt(change_bytes(data.draw, valid))
        odd = ODD[reader.dump]  # type: ignore[index]
        try:
            content = reader.dump(change_tree(data.draw, reader.content, odd))
        except Exception:  # what cannot be written cannot be met either
            return None
        return attempt(content)

    fuzz()
    with capfd.disabled():
        if EXAMPLES:
            print(f"\n{name}: {outcomes['read']} read, {outcomes['refused']} refused")
