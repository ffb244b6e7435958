"""Policies that the code keeps, read off the code itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

SOURCES = sorted([*(REPOSITORY / "stclip").rglob("*.py"), *(REPOSITORY / "tools").glob("*.py")])

# What a layer may import of the package, beside itself.
FOUNDATION = {"errors", "files", "structures"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "structures": {"errors"},
    "config": {"errors", "files"},
    "data": FOUNDATION,
    "models": FOUNDATION - {"files"},
    "engine": FOUNDATION | {"models"},
    "evaluation": FOUNDATION,
    "cli": {"config", "errors"},
}
EXCEPTIONS = {
    "stclip/models/weights.py": {"files"},
    "stclip/models/download.py": {"files"},
}
# The files of a layer that otherwise sees tensors only that may touch the disk.
MODELS_ON_DISK = {"weights.py", "tensor_files.py", "download.py", "tokenizer.py"}
DISK = {"io", "json", "os", "pathlib", "shutil", "tempfile", "urllib", "safetensors"}


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_layers(path: Path) -> None:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    if parts[0] == "tools" or parts[1] not in ALLOWED:
        return  # tools, __init__ and detector put things together
    allowed = ALLOWED[parts[1]] | {parts[1]} | EXCEPTIONS.get(name(path), set())
    for module in imports(path):
        if module.startswith("stclip."):
            assert module.split(".")[1] in allowed, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_only_tools_know_the_drawn_benchmark(path: Path) -> None:
    if not name(path).startswith(("tools/", "stclip/puppet/")):
        assert not [module for module in imports(path) if module.startswith("stclip.puppet")]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_models_and_engine_see_no_config_and_models_no_disk(path: Path) -> None:
    layer = path.relative_to(REPOSITORY).parts[1]
    modules = {module.split(".")[0] for module in imports(path)}
    if layer in ("models", "engine", "evaluation", "structures") and path.name != "build.py":
        assert "yacs" not in modules
    if layer == "models" and path.name not in MODELS_ON_DISK:
        assert not modules & DISK


def test_frames_are_opened_in_two_files() -> None:
    opening = re.compile(r"\bImage\.open\(|\bav\.open\(|\bcv2\.(?:imread|VideoCapture)\b")
    found = {name(p) for p in SOURCES if p.parts[-2] != "tools" and opening.search(p.read_text())}
    assert found == {"stclip/data/picture_files.py", "stclip/data/video_file.py"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_calls_that_are_not_made(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        where = f"{name(path)}:{node.lineno}"
        if call == "torch.load":
            assert keywords.get("weights_only") == "True", where
        assert call not in ("pickle.load", "pickle.loads", "os.system", "eval", "exec"), where
        assert not call.startswith("torch.jit."), where
        assert keywords.get("shell") != "True", where
        assert keywords.get("strict") != "False" or call == "zip", where
        if call.endswith(".squeeze"):
            assert node.args or node.keywords, f"{where}: squeeze() without a dimension"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
