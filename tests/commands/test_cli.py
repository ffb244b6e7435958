import errno
import os
import signal
import subprocess
import sys

import pytest
import torch

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
        (RecursionError("maximum"), "error: something is nested too deeply; is a file damaged?\n"),
        (
            UnicodeEncodeError("ascii", "\u00e9", 0, 1, "ordinal not in range(128)"),
            "error: the text '\u00e9' cannot be written as ascii; run in a UTF-8 locale "
            "(PYTHONUTF8=1)\n",
        ),
        (UserError("a\ud800b"), "error: a\\ud800b\n"),
    ],
)
def test_what_is_wrong_outside_is_one_line_and_status_2(error, line, capsys):
    assert outcome(raising(error), capsys) == (2, line)


@pytest.mark.parametrize(
    ("error", "beginning"),
    [
        (MemoryError(), "out of memory (MemoryError); use fewer keyframes"),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory (Unable to allocate 3 TiB); use"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1\nat ..."), "["),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to"),
            "CUDA out of memory. Tried to; use",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal"), "a loader process failed"),
    ],
)
def test_what_the_machine_lacks_is_one_line_with_a_remedy(error, beginning, capsys):
    status, err = outcome(raising(error), capsys)
    assert status == 2
    assert err.startswith(f"error: {beginning}")
    assert "DATALOADER.NUM_WORKERS 0" in err
    assert err.count("\n") == 1


def test_a_long_message_keeps_its_file_and_its_remedy(capsys):
    _, err = outcome(raising(UserError(f"a.csv: {'9' * 5000} is too large; mend it")), capsys)
    assert err.startswith("error: a.csv: 999")
    assert err.endswith("is too large; mend it\n")
    assert len(err) < 1020


def test_sigterm_is_status_143(capsys, monkeypatch):
    monkeypatch.setattr("stclip.signals._noted", -1e9)
    assert outcome(lambda: os.kill(os.getpid(), signal.SIGTERM), capsys) == (143, "terminated\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_request_that_comes_twice_does_not_cut_the_tidying_short(capsys, monkeypatch):
    monkeypatch.setattr("stclip.signals._noted", -1e9)
    tidied = []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            tidied.append(True)

    assert outcome(main, capsys) == (130, "interrupted\n")
    assert tidied


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
