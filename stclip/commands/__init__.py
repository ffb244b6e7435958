"""The commands of ``stclip``, one file each; ``tools/`` has the same under their older names.

Nothing here imports torch, which takes seconds: the list of commands shows at once, and an
interrupt is answered from the first moment on.
"""

import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import stclip

# What follows `stclip`: the module, and what it does.
COMMANDS = {
    "train": ("train", "train ST-CLIP or a baseline on the seen classes"),
    "test": ("test", "score a dataset zero-shot and report the frame mAP"),
    "evaluate": ("evaluate", "frame mAP, video mAP, AVA's mAP and voting, from result files"),
    "validate": ("validate", "list what is wrong with a dataset before training"),
    "visualize": ("visualize", "draw boxes with names and scores, or interest tokens"),
    "convert": ("convert", "convert checkpoints to and from the published implementation"),
    "table": ("table", "put test results next to the published ones"),
    "benchmark": ("benchmark", "measure speed and memory of tests and training"),
    "gpu-check": ("gpu_check", "compare a GPU's results with the CPU's"),
    "quickstart": ("quickstart", "draw a benchmark, train, test on unseen actions, write a report"),
    "puppet draw": ("draw_puppet", "draw the Puppet benchmark"),
    "puppet benchmark": ("benchmark_puppet", "all methods, splits and seeds on Puppet"),
    "puppet ablate": ("ablate_puppet", "train with and without each part of ST-CLIP on Puppet"),
    "puppet pretrain": ("pretrain_puppet", "train Puppet's small CLIP"),
}


def main() -> NoReturn:
    """The program ``stclip``: the first one or two words name a command, the rest are for it."""
    for count in (1, 2):
        command = " ".join(sys.argv[1 : 1 + count])
        if command in COMMANDS:
            sys.argv = [f"stclip {command}", *sys.argv[1 + count :]]
            launch(command)
    words = sys.argv[1:]
    if words in ([], ["-h"], ["--help"], ["help"], ["puppet"], ["puppet", "--help"]):
        print(usage())
        sys.exit(0)
    if words == ["--version"]:
        print(f"stclip {stclip.__version__}")
        sys.exit(0)
    chosen = " ".join(words[:2] if words[0] == "puppet" else words[:1])
    print(f"error: {chosen!r:.80} is no command; see stclip --help", file=sys.stderr)
    sys.exit(2)


def usage() -> str:
    """What ``stclip --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command:{width}}  {text}" for command, (_, text) in COMMANDS.items()]
    summary = (stclip.__doc__ or "").partition("\n")[0]
    more = "stclip COMMAND --help explains a command; stclip --version prints the version."
    parts = ["usage: stclip COMMAND [OPTIONS]", summary, "\n".join(["commands:", *lines]), more]
    return "\n\n".join(parts)


def launch(command: str) -> NoReturn:
    """Run a command with the arguments in ``sys.argv``, and end the process with its status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    module = importlib.import_module(f"stclip.commands.{COMMANDS[command][0]}")
    from stclip.cli import run

    run(module.main)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End while imports run: nothing has begun, so there is nothing to clean up."""
    os.write(2, b"interrupted\n" if number == signal.SIGINT else b"terminated\n")
    os._exit(128 + number)
