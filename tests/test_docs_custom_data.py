"""Follows DATA.md's "Your own data" and "Annotate in CVAT": every file, command and snippet."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torchvision

from stclip.commands import COMMANDS
from tests.data import make_cvat
from tests.helpers import REPOSITORY, load_command

SIZE = (96, 64)
# Spares the test worker processes and what a GPU would do differently.
SPARING = ("DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu")


def blocks(title: str) -> Iterator[tuple[str, str]]:
    """(language, text) of the code blocks of a section of the page, in their order."""
    page = (REPOSITORY / "DATA.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    for number, part in enumerate(page.split("```")):
        if number % 2:  # fenced
            language, _, text = part.partition("\n")
            yield language, text
            continue
        for paragraph in part.split("\n\n"):  # or indented
            lines = paragraph.strip("\n").splitlines()
            if lines and all(line.startswith("    ") for line in lines):
                text = "".join(line[4:] + "\n" for line in lines)
                yield ("csv" if text.startswith("part,") else "shell"), text


def write_videos(folder: Path) -> None:
    """park.mp4 and street.mp4: two seconds of a square that moves; park.mp4 is stored turned."""
    folder.mkdir(parents=True)
    for name, turns in (("park.mp4", 1), ("street.mp4", 0)):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=12)
            stream.width, stream.height = SIZE[::-1] if turns else SIZE
            stream.pix_fmt = "yuv420p"
            stream.set_display_rotation(90 * turns)
            for number in range(24):
                picture = np.full((SIZE[1], SIZE[0], 3), 90, dtype=np.uint8)
                picture[10:50, 10 + number : 30 + number] = (200, 60, 30)
                stored = np.ascontiguousarray(np.rot90(picture, -turns))
                frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


class Detector(torch.nn.Module):
    """In the place of torchvision's, whose weights are a download: a person and a dog."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        assert weights == "DEFAULT"

    def forward(self, pictures: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        (picture,) = pictures
        assert picture.shape == (3, SIZE[1], SIZE[0])
        assert 0 <= picture.min() <= picture.max() <= 1
        boxes = torch.tensor([[12.0, 5, 45, 61], [50, 20, 90, 60]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 18]), "scores": torch.tensor([0.9, 1])}]


@pytest.mark.slow
def test_the_page_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchvision.models.detection, "fasterrcnn_resnet50_fpn_v2", Detector)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    write_videos(tmp_path / "data/mine/videos")
    commands, last = [], {}
    for language, text in blocks("Your own data"):
        if language == "csv":
            # The page shows three lines; a second later they do the same.
            more = text.split("\n", 1)[1].replace(",0.5,", ",1.5,")
            (tmp_path / "data/mine/boxes.csv").write_text(text + more)
        elif language == "yaml":
            (tmp_path / "data/mine/config.yaml").write_text(text)
        elif language == "python":
            last = run_python(text)
        else:
            commands += run_shell(text)
    assert commands == ["validate", "train", "test", "visualize", "visualize"]
    assert "nothing is wrong" in capsys.readouterr().out
    check(tmp_path)
    assert last["scores"].shape == (1, 3)
    assert last["scores"].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_annotations_of_cvat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside of a clone: the config that is written finds what it starts from in the package."""
    monkeypatch.chdir(tmp_path)
    write_videos(tmp_path / "data/mine/videos")
    commands: list[str] = []
    for language, text in blocks("Annotate in CVAT"):
        if language == "json":
            (label,) = json.loads(text)
            write_exports(tmp_path / "data/mine", label)
        else:
            commands += run_shell(text)
    assert commands == ["convert-annotations", "validate", "train", "test"]
    assert "nothing is wrong" in capsys.readouterr().out
    metrics = json.loads(Path("output/mine/inference/annotations/metrics.json").read_text())
    assert set(metrics["per_class"]) == {"wave"}
    assert metrics["keyframes"] == 4  # of two seconds


def write_exports(folder: Path, label: dict[str, Any]) -> None:
    """What CVAT exports of the two videos, with the label of the page."""
    (attribute,) = label["attributes"]
    names = make_cvat.labels(**{label["name"]: {attribute["name"]: attribute["input_type"]}})
    for video, actions in (("park", ("walk", "sit down")), ("street", ("wave", "none"))):
        people = []
        for number, action in enumerate(actions):
            assert action in attribute["values"]
            corners, values = (2 + 45 * number, 5, 42 + 45 * number, 60), {"action": action}
            boxes = (
                make_cvat.box(corners, values, frame=frame, keyframe=int(frame == 0), outside=0)
                for frame in range(24)
            )
            people.append(make_cvat.track(*boxes, label=label["name"]))
        meta = make_cvat.task(f"{video}.mp4", SIZE, 24, names)
        make_cvat.write(folder / f"{video}.zip", meta, *people)


def run_python(text: str) -> dict[str, Any]:
    """The names that a snippet leaves."""
    names: dict[str, Any] = {}
    exec(compile(text, "DATA.md", "exec"), names)
    return names


def run_shell(text: str) -> list[str]:
    """Run a block's commands, our own in this process. Returns which of these there were."""
    run = []
    for command in text.replace("\\\n", "").splitlines():
        words = shlex.split(command)
        if words[0] == "stclip":
            sparing = SPARING if "--config-file" in words else ()
            assert not load_command(COMMANDS[words[1]][0]).main([*words[2:], *sparing])
            run.append(words[1])
        else:
            subprocess.run(["bash", "-c", command], check=True)
    return run


def check(root: Path) -> None:
    """What the page promises is there."""
    train = json.loads((root / "data/mine/train.json").read_text())
    assert [len(frame["boxes"]) for frame in train["keyframes"]] == [2, 2]
    assert train["videos"] == [
        {"id": "park.mp4", "path": "videos/park.mp4", "size": list(SIZE), "fps": 12.0}
    ]
    rows = (root / "data/mine/persons.jsonl").read_text().splitlines()
    assert [json.loads(row)["frame"] for row in rows] == [7, 19]  # without the dog
    results = root / "output/mine/inference/annotations"
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["per_class"] == {"wave": 100.0}  # one class: the boxes alone decide
    assert (results / "result_annotations.csv").read_text().count("street.mp4") == 2
    pictures = sorted(path.name for path in (root / "output/mine/pictures").iterdir())
    assert pictures == [
        "street.mp4_00007_detections.png",
        "street.mp4_00007_tokens.png",
        "street.mp4_00019_detections.png",
    ]
