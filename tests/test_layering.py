"""Policies that the code keeps, read off the code itself."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.helpers import REPOSITORY

SOURCES = sorted([*(REPOSITORY / "stclip").rglob("*.py"), *(REPOSITORY / "tools").glob("*.py")])

# What a layer may import of the package, beside itself.
FOUNDATION = {"errors", "files", "structures"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "structures": {"errors"},
    "tracking": {"errors", "structures"},
    "config": {"errors", "files"},
    "data": FOUNDATION,
    "models": FOUNDATION - {"files"},
    "signals": set(),
    "engine": FOUNDATION | {"models", "signals"},
    "evaluation": FOUNDATION | {"tracking"},
    "footage": FOUNDATION | {"data", "models", "engine", "detector", "tracking"},
    "hub": FOUNDATION | {"config", "data", "models", "engine"},
    "serve": {"errors", "footage", "detector"},
    "cli": {"config", "errors", "signals"},
}
EXCEPTIONS = {
    "stclip/models/weights.py": {"files"},
    "stclip/models/download.py": {"files"},
    "stclip/models/openclip.py": {"files"},
}
# The files of a layer that otherwise sees tensors only that may touch the disk; fast.py sets a
# variable of the environment.
MODELS_ON_DISK = {
    "weights.py", "onnx.py", "onnx_export.py", "openclip.py", "tensor_files.py", "download.py",
    "tokenizer.py", "fast.py",
}  # fmt: skip
STREAMS = ("footage/decoding", "footage/annotated", "puppet/draw/film")
# Open what they have just written.
BENCHMARKS = {"stclip/commands/benchmark.py", "stclip/benchmark/footage.py"}
DISK = {"io", "json", "os", "pathlib", "shutil", "tempfile", "urllib", "safetensors"}


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


def test_layers() -> None:
    for path in SOURCES:
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        if parts[0] == "tools" or parts[1] not in ALLOWED:
            continue  # commands, __init__ and detector put things together
        allowed = ALLOWED[parts[1]] | {parts[1]} | EXCEPTIONS.get(name(path), set())
        for module in imports(path):
            if module.startswith("stclip."):
                assert module.split(".")[1] in allowed, f"{name(path)} imports {module}"


def test_only_commands_know_the_drawn_benchmark() -> None:
    for path in SOURCES:
        if not name(path).startswith(("stclip/commands/", "stclip/puppet/")):
            found = [module for module in imports(path) if module.startswith("stclip.puppet")]
            assert not found, f"{name(path)} imports {found}"


def test_models_and_engine_see_no_config_and_models_no_disk() -> None:
    for path in SOURCES:
        layer = path.relative_to(REPOSITORY).parts[1]
        modules = {module.split(".")[0] for module in imports(path)}
        if layer in ("models", "engine", "evaluation", "structures") and path.name != "build.py":
            assert "yacs" not in modules, name(path)
        if layer == "models" and path.name not in MODELS_ON_DISK:
            assert not modules & DISK, name(path)


def test_only_the_page_knows_gradio_and_only_the_worker_torch() -> None:
    """The queue and its limits are tested without either, and the server needs little memory."""
    users: dict[str, set[str]] = {"gradio": set(), "torch": set()}
    for path in SOURCES:
        if name(path).startswith("stclip/serve/"):
            for module in users.keys() & {module.split(".")[0] for module in imports(path)}:
                users[module].add(path.name)
    assert users == {"gradio": {"page.py"}, "torch": {"analysis.py"}}


def test_data_asks_no_model() -> None:
    for path in SOURCES:
        if name(path).startswith("stclip/data/"):
            assert not [
                n
                for n in ast.walk(tree(path))
                if isinstance(n, ast.Attribute) and n.attr == "MODEL"
            ]


def test_frames_are_opened_in_few_files() -> None:
    opening = re.compile(r"\bImage\.open\(|\bav\.open\(|\bcv2\.(?:imread|VideoCapture)\b")
    found = {name(p) for p in SOURCES if opening.search(p.read_text())} - BENCHMARKS
    # Videos that are gone through once, and those that are written.
    streams = {f"stclip/{path}.py" for path in STREAMS}
    assert found == {"stclip/data/frames.py", "stclip/data/video.py"} | streams


def test_calls_that_are_not_made() -> None:
    for file in SOURCES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call):
                check_call(node, f"{name(file)}:{node.lineno}")


def check_call(node: ast.Call, where: str) -> None:
    call = ast.unparse(node.func)
    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
    if call == "torch.load":
        assert keywords.get("weights_only") == "True", where
    assert call not in ("pickle.load", "pickle.loads", "os.system", "eval", "exec"), where
    assert not call.startswith("torch.jit."), where
    assert keywords.get("shell") != "True", where
    assert keywords.get("strict") != "False" or call == "zip", where
    if call.endswith(".squeeze"):
        assert node.args or node.keywords, f"{where}: squeeze() without a dimension"


def test_no_file_is_long() -> None:
    assert {
        name(path): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 500
    } == {}
