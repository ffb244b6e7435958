"""The program stclip itself, and tools/*.py under the names they always had."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stclip
from stclip.cli import Parser
from stclip.commands import COMMANDS, main
from tests.helpers import REPOSITORY, load_command

TOOLS = {
    "ablate_puppet": "puppet ablate",
    "benchmark": "benchmark",
    "benchmark_puppet": "puppet benchmark",
    "benchmark_table": "table",
    "convert_checkpoint": "convert",
    "detect": "detect",
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


# Newer than tools/.
WITHOUT_A_TOOL = {"convert-annotations", "export", "puppet beyond", "puppet film", "serve"}


def test_every_tool_calls_its_command() -> None:
    called = {
        path.stem: re.findall(r'^    launch\("(.+)"\)$', path.read_text(), flags=re.MULTILINE)
        for path in (REPOSITORY / "tools").glob("*.py")
        if path.stem not in OTHER_TOOLS
    }
    assert called == {tool: [command] for tool, command in TOOLS.items()}
    assert set(TOOLS.values()) | WITHOUT_A_TOOL == set(COMMANDS)


@pytest.mark.slow
def test_a_tool_is_a_script(tmp_path: Path) -> None:
    """From any folder."""
    script = REPOSITORY / "tools" / "convert_checkpoint.py"
    words = [sys.executable, str(script), "--to", "stclip", "absent.pth", "out.pth"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: absent.pth: ")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of the OpenMP of GNU")
@pytest.mark.parametrize(
    ("given", "policy", "spins"),
    [
        ({}, "PASSIVE", "1000"),
        pytest.param({"OMP_WAIT_POLICY": "passive"}, "PASSIVE", "0", marks=pytest.mark.slow),
        pytest.param({"GOMP_SPINCOUNT": "7"}, "PASSIVE", "7", marks=pytest.mark.slow),
    ],
)
def test_threads_that_wait_leave_their_cores_to_others(
    given: dict[str, str], policy: str, spins: str
) -> None:
    """As long as the user does not want it otherwise."""
    words = [sys.executable, "-m", "stclip", "train", "--help"]
    ours = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **given}  # OpenMP tells what it has read
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_commands_are_listed(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *words) == 0
    out = capsys.readouterr().out.partition("\nexit status:\n")[0]
    listed = re.findall(r"^  ((?:puppet )?\S+)  ", out, flags=re.MULTILINE)
    assert listed == list(COMMANDS)


def test_the_commands_of_a_group(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "puppet", "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: stclip puppet COMMAND")
    assert re.findall(r"^  (puppet \w+)  ", out, flags=re.MULTILINE) == [
        name for name in COMMANDS if name.startswith("puppet ")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "--resume"], "'trian' is no command; did you mean train? See stclip --help"),
        (["puppet", "drew"], "'puppet drew' is no command; did you mean puppet draw? See"),
        (["draw"], "'draw' is no command; did you mean puppet draw? See"),
        (["validate_dataset"], "'validate_dataset' is no command; did you mean validate? See"),
        (["--config-file", "a.yaml"], "'--config-file' is no command; see stclip --help"),
    ],
)
def test_an_unknown_command(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


HELPED = [*COMMANDS, *(f"evaluate {name}" for name in ("frame-map", "video-map", "ava", "vote"))]


@pytest.mark.parametrize("command", HELPED)
def test_every_help_has_one_look(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = command if command in COMMANDS else "evaluate"
    monkeypatch.setattr(sys, "argv", [f"stclip {name}"])
    words = command.split()[1:] if name == "evaluate" else []
    with pytest.raises(SystemExit) as stopped:
        load_command(COMMANDS[name][0]).main([*words, "--help"])
    assert stopped.value.code == 0
    usage, text = capsys.readouterr().out.split("\n\n", 1)
    assert usage.startswith(f"usage: stclip {command} ")
    description, examples = re.split(r"^examples?:\n", f"{text}examples:\n", flags=re.MULTILINE)[:2]
    assert max(map(len, f"{usage}\n{description}".splitlines())) <= 80
    assert f"  stclip {command}" in examples or command == "evaluate"
    # Explanations of options, and the second lines of them, begin in one column.
    options = description.partition("\noptions:\n")[2]
    indents = set(map(len, re.findall(r"^ {5,}(?=\S)", options, flags=re.MULTILINE)))
    assert indents <= {24}


def test_defaults_are_shown() -> None:
    parser = Parser(prog="p", description="Text.\n\nMore of it.\n\nExamples:\n    p --count 3\n")
    parser.add_argument("--count", type=int, default=0, help="how many, in %%")
    parser.add_argument("--names", nargs="+", default=["a", "b"], help="who")
    parser.add_argument("--flag", action="store_true", help="off")
    parser.add_argument("--path", type=Path, help="a file (default: none)")
    lines = parser.format_help().splitlines()
    assert lines[0] == "usage: p [OPTIONS]"
    assert lines[2:5] == ["Text.", "", "More of it."]
    assert lines[-2:] == ["examples:", "  p --count 3"]
    assert [line.split(maxsplit=2)[2] for line in lines if line.startswith("  --c")] == [
        "how many, in % (default: 0)"
    ]
    assert "(default: a b)" in parser.format_help()
    assert parser.format_help().count("default") == 3


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"stclip {stclip.__version__}\n"
