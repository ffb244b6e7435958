"""Annotations as CVAT writes them, by hand."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

ACTION = {"action": "select"}
Facts = Mapping[str, object]


def labels(**of_label: Mapping[str, str]) -> str:
    """The labels of a task or project: for each its attributes, and how these are entered."""
    text = ""
    for label, attributes in of_label.items():
        inside = "".join(
            f"<attribute><name>{name}</name><mutable>True</mutable><input_type>{kind}</input_type>"
            "</attribute>"
            for name, kind in attributes.items()
        )
        text += f"<label><name>{label}</name><attributes>{inside}</attributes></label>"
    return f"<labels>{text}</labels>"


def task(
    source: str = "film.mp4",
    size: tuple[int, int] | None = (128, 32),
    frames: int = 40,
    inside: str = "",
    **facts: object,
) -> str:
    """A task of a film: ``inside`` are its labels, ``facts`` more of what CVAT notes."""
    facts = {"id": 1, "name": "a task", "size": frames, "start_frame": 0, **facts}
    text = "".join(f"<{name}>{value}</{name}>" for name, value in facts.items()) + inside
    if size is not None:
        text += f"<original_size><width>{size[0]}</width><height>{size[1]}</height></original_size>"
    return f"<task>{text}{f'<source>{source}</source>' if source else ''}</task>"


def box(
    corners: tuple[float, float, float, float], attributes: Facts | None = None, **facts: object
) -> str:
    """A box: of a track with ``frame``, ``keyframe``, ``outside``."""
    named = dict(zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True)) | facts
    text = " ".join(f'{name}="{value}"' for name, value in named.items())
    inside = "".join(
        f'<attribute name="{n}">{value}</attribute>' for n, value in (attributes or {}).items()
    )
    return f"<box {text}>{inside}</box>"


def track(*boxes: str, label: str = "person", **facts: object) -> str:
    """A track of boxes."""
    text = "".join(f' {name}="{value}"' for name, value in facts.items())
    return f'<track id="3" label="{label}" source="manual"{text}>{"".join(boxes)}</track>'


def document(meta: str, *content: str) -> str:
    """The whole file."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        f"<meta>{meta}<dumped>2026</dumped></meta>\n{''.join(content)}</annotations>\n"
    )


def write(path: Path, meta: str, *content: str) -> Path:
    """Write the file, in a zip if its name says so."""
    text = document(meta, *content)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("annotations.xml", text)
    else:
        path.write_text(text, encoding="utf-8")
    return path
