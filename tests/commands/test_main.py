"""The program stclip itself, and tools/*.py under the names they always had."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import stclip
from stclip.commands import COMMANDS, main
from tests.helpers import REPOSITORY

TOOLS = {
    "ablate_puppet": "puppet ablate",
    "benchmark": "benchmark",
    "benchmark_puppet": "puppet benchmark",
    "benchmark_table": "table",
    "convert_checkpoint": "convert",
    "evaluate": "evaluate",
    "gpu_check": "gpu-check",
    "prepare_puppet": "puppet draw",
    "pretrain_clip": "puppet pretrain",
    "quickstart": "quickstart",
    "test_net": "test",
    "train_net": "train",
    "validate_dataset": "validate",
    "visualize": "visualize",
}
# Made a file of the package once; no user needs it.
OTHER_TOOLS = {"convert_nanodet"}


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit status of ``stclip WORDS``."""
    monkeypatch.setattr(sys, "argv", ["stclip", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_every_tool_calls_its_command() -> None:
    called = {
        path.stem: re.findall(r'^    launch\("(.+)"\)$', path.read_text(), flags=re.MULTILINE)
        for path in (REPOSITORY / "tools").glob("*.py")
        if path.stem not in OTHER_TOOLS
    }
    assert called == {tool: [command] for tool, command in TOOLS.items()}
    assert set(TOOLS.values()) == set(COMMANDS)


def test_a_tool_is_a_script(tmp_path: Path) -> None:
    """From any folder."""
    script = REPOSITORY / "tools" / "convert_checkpoint.py"
    words = [sys.executable, str(script), "--to", "stclip", "absent.pth", "out.pth"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: absent.pth: ")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_commands_are_listed(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *words) == 0
    listed = re.findall(r"^  ((?:puppet )?\S+)  ", capsys.readouterr().out, flags=re.MULTILINE)
    assert listed == list(COMMANDS)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"stclip {stclip.__version__}\n"
