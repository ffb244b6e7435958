import errno
import subprocess
import sys

import pytest

from stclip.cli import Parser, config_parser, run
from stclip.errors import UserError
from tests.helpers import REPOSITORY


def outcome(main, capsys):
    """Exit status and standard error of a tool."""
    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code, capsys.readouterr().err


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize("status", [0, 1, None])
def test_the_status_of_main_is_passed_on(status, capsys):
    assert outcome(lambda: status, capsys) == (status, "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a.csv: row 3: bad"), "error: a.csv: row 3: bad\n"),
        (UserError("two\n  lines"), "error: two lines\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x.json"),
            "error: x.json: No such file or directory\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
        (OSError("odd"), "error: odd\n"),
        (PermissionError(), "error: PermissionError\n"),
    ],
)
def test_what_is_wrong_outside_is_one_line_and_status_2(error, line, capsys):
    assert outcome(raising(error), capsys) == (2, line)


def test_an_interrupt_is_status_130(capsys):
    assert outcome(raising(KeyboardInterrupt()), capsys) == (130, "interrupted\n")


@pytest.mark.parametrize("error", [ValueError("ours"), AssertionError(), RuntimeError()])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run(raising(error))


def test_argument_errors_are_one_line(capsys):
    def main():
        parser = Parser(prog="tool")
        parser.add_argument("--count", type=int)
        parser.parse_args(["--count", "x"])

    status, err = outcome(main, capsys)
    assert status == 2
    assert err == "error: argument --count: invalid int value: 'x'; see tool --help\n"


def test_a_closed_pipe_ends_quietly():
    code = "from stclip.cli import run\nrun(lambda: print('line\\n' * 200_000))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_config_parser():
    parser = config_parser("text")
    parser.add_argument("--resume", action="store_true")
    pairs = ["SEED", "-1", "MODEL.CLIP", "ViT-B/32"]
    arguments = parser.parse_args(["--config-file", "a.yaml", "--resume", *pairs])
    assert (arguments.config_file, arguments.resume, arguments.opts) == ("a.yaml", True, pairs)
    assert parser.parse_args(["--config-file", "a.yaml"]).opts == []
    with pytest.raises(UserError, match="--config-file"):
        parser.parse_args([])
