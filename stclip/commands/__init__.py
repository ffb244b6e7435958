"""The commands of ``stclip``, one file each; ``tools/`` has the same under their older names.

Nothing here imports torch, which takes seconds: the list of commands shows at once, and an
interrupt is answered from the first moment on.
"""

import difflib
import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import stclip

# What follows `stclip`: the module, and what it does.
COMMANDS = {
    "detect": ("detect", "say who does what when in videos of your own"),
    "serve": ("serve", "the same as a web page for everybody"),
    "convert-annotations": ("convert_annotations", "make a dataset of CVAT's annotations"),
    "train": ("train", "train ST-CLIP or a baseline on the seen classes"),
    "test": ("test", "score a dataset zero-shot and report the frame mAP"),
    "evaluate": ("evaluate", "frame mAP, video mAP, AVA's mAP and voting, from result files"),
    "validate": ("validate", "list what is wrong with a dataset before training"),
    "visualize": ("visualize", "draw boxes with names and scores, or interest tokens"),
    "convert": ("convert", "convert checkpoints to and from the published implementation"),
    "export": ("export", "write a model as ONNX, to run it without PyTorch"),
    "table": ("table", "put test results next to the published ones"),
    "benchmark": ("benchmark", "measure speed and memory of tests and training"),
    "gpu-check": ("gpu_check", "compare a GPU's results with the CPU's"),
    "quickstart": ("quickstart", "draw a benchmark, train, test on unseen actions, write a report"),
    "puppet draw": ("draw_puppet", "draw the Puppet benchmark"),
    "puppet film": ("draw_film", "draw a film without boxes, to try stclip detect on"),
    "puppet benchmark": ("benchmark_puppet", "all methods, splits and seeds on Puppet"),
    "puppet ablate": ("ablate_puppet", "train with and without each part of ST-CLIP on Puppet"),
    "puppet beyond": (
        "beyond_puppet",
        "measure on Puppet what goes beyond the paper, step by step",
    ),
    "puppet pretrain": ("pretrain_puppet", "train Puppet's small CLIP"),
}


_STATUSES = """\
exit status:
  0    done
  1    done, and a check failed: validate, gpu-check, quickstart --floor
  2    not done; one line says what is wrong and what to do about it
  130  interrupted; 143: terminated"""


def main() -> NoReturn:
    """The program ``stclip``: the first one or two words name a command, the rest are for it."""
    for count in (1, 2):
        command = " ".join(sys.argv[1 : 1 + count])
        if command in COMMANDS:
            sys.argv = [f"stclip {command}", *sys.argv[1 + count :]]
            launch(command)
    words = sys.argv[1:]
    group = "puppet" if words[:1] == ["puppet"] else ""
    rest = words[1:] if group else words
    if rest in ([], ["-h"], ["--help"], ["help"]):
        print(usage(group))
        sys.exit(0)
    if words == ["--version"]:
        print(f"stclip {stclip.__version__}")
        sys.exit(0)
    chosen = f"{group} {rest[0]}".strip()
    close = difflib.get_close_matches(chosen, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? See" if close else "see"
    print(f"error: {chosen!r:.80} is no command; {hint} stclip --help", file=sys.stderr)
    sys.exit(2)


def usage(group: str = "") -> str:
    """What ``stclip --help`` prints; with a group, what ``stclip puppet --help`` does."""
    listed = {name: text for name, (_, text) in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, listed))
    lines = [f"  {name:{width}}  {text}" for name, text in listed.items()]
    if group:
        summary = "Puppet, a benchmark of drawn people: draw it, and run experiments on it."
    else:
        summary = (stclip.__doc__ or "").partition("\n")[0]
    program = f"stclip {group}".strip()
    return "\n\n".join(
        [
            f"usage: {program} COMMAND [OPTIONS]",
            summary,
            "\n".join(["commands:", *lines]),
            f"{program} COMMAND --help explains a command; stclip --version prints the version.",
            _STATUSES,
        ]
    )


def launch(command: str) -> NoReturn:
    """Run a command with the arguments in ``sys.argv``, and end the process with its status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    _let_waiting_threads_sleep()
    module = importlib.import_module(f"stclip.commands.{COMMANDS[command][0]}")
    from stclip.cli import run

    run(module.main)


def _let_waiting_threads_sleep() -> None:
    """Unless the user says how OpenMP's threads wait; read when torch is imported.

    Threads that spin while they wait hold cores that loader workers and other programs need, and
    all wait for the one that has lost its core: on two cores detection took 1.5 to 10 times as long
    beside busy programs, training with a worker 1.4 times. GNU's OpenMP may spin a little: else a
    quiet machine takes a quarter longer for small layers (benchmarks/2026-11-28-avx2.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End while imports run: nothing has begun, so there is nothing to clean up."""
    os.write(2, b"interrupted\n" if number == signal.SIGINT else b"terminated\n")
    os._exit(128 + number)
