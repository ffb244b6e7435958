"""What every command-line tool does around its main function."""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import torch.distributed as dist

from stclip.config.load import shipped_configs
from stclip.errors import UserError, machine_fault

logger = logging.getLogger(__name__)

_LONGEST = 1000  # characters of an error message

# Options of the published implementation's train_net that need nothing here, and why.
_NEEDLESS = {
    "--transfer": "MODEL.WEIGHT always gives the weights alone; --resume continues a training",
    "--adjust-lr": "the SOLVER keys of the config hold after --resume too",
    "--use-tfboard": "TensorBoard events are always written",
    "--tfboard": "TensorBoard events are always written",
    "--skip-final-test": "a training ends without a test; stclip test tests",
    "--skip-test": "a training ends without a test; stclip test tests",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise what ``run`` prints."""
        if "--config-file" in message and (configs := shipped_configs()):
            message += f"; there are {configs}"
        raise UserError(f"{message}; see {self.prog} --help")


def config_parser(description: str | None) -> Parser:
    """The parser of tools that read a config: --config-file FILE [KEY VALUE ...].

    Parsed, these are ``config_file`` and ``opts``, what ``load_config`` takes.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a yaml file")
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="config keys to change, such as SOLVER.BASE_LR 1e-4 SEED 3; "
        "stclip/config/defaults.py explains every key",
    )
    return parser


def add_reference_options(parser: Parser, training: bool) -> None:
    """Take the options of the published implementation's tools as well.

    Args:
        parser: of train_net or test_net.
        training: whether those of train_net are meant; else those of test_net.
    """
    group = parser.add_argument_group("options of the published implementation")
    # torch.distributed.launch adds it, in one of these spellings.
    group.add_argument("--local-rank", "--local_rank", type=int, help="read from the environment")
    if not training:
        return
    group.add_argument("--seed", type=int, metavar="N", help="SEED N")
    group.add_argument("--skip-val-in-train", action="store_true", help="SOLVER.EVAL_PERIOD 0")
    group.add_argument("--no-head", action="store_true", help="needs MODEL.WEIGHT to be empty")
    for option, reason in _NEEDLESS.items():
        group.add_argument(option, action="store_true", help=f"nothing to do: {reason}")


def reference_pairs(args: argparse.Namespace) -> list[str]:
    """The KEY VALUE pairs that the options of ``add_reference_options`` stand for.

    Those that need nothing get a log line each, on the first process.

    Raises:
        UserError: an option cannot be honoured.
    """
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    given = vars(args)
    if os.environ.get("RANK", "0") == "0":
        for option, reason in _NEEDLESS.items():
            if given.get(option.removeprefix("--").replace("-", "_")):
                logger.warning("%s: nothing to do: %s", option, reason)
    pairs = []
    if given.get("seed") is not None:
        pairs += ["SEED", str(args.seed)]
    if given.get("skip_val_in_train"):
        pairs += ["SOLVER.EVAL_PERIOD", "0"]
    return pairs


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call ``main`` and leave the process with its status.

    A UserError, and what the machine is to blame for (memory, disk, a killed loader process),
    becomes one line on standard error and status 2, SIGINT status 130, SIGTERM status 143. Anything
    else is a mistake in this program and keeps its traceback.
    """
    with _raising_signals():
        try:
            status = main()
            sys.stdout.flush()  # a full disk or a closed pipe must show here, not at shutdown
        except BrokenPipeError:
            # Whoever read our output has gone (`| head`). Python flushes standard output once more
            # when it ends, and that must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _leave(1)
        except UserError as error:
            _fail(str(error))
        except Terminated:
            print("terminated", file=sys.stderr)
            _leave(128 + signal.SIGTERM)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            _leave(128 + signal.SIGINT)
        except Exception as error:
            message = machine_fault(error)
            if message is not None:
                _fail(message)
            if not _in_process_group():
                raise
            traceback.print_exc()
            _leave(1)
    sys.exit(status)


class Terminated(BaseException):
    """SIGTERM, on its way to ``run`` through whatever has to be tidied up."""


@contextmanager
def _raising_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM be raised as errors; until now they ended the process at once.

    Under torchrun SIGTERM ends the process at once, as ever: one that waits for other ranks would
    not come to run a handler of Python's.
    """
    term = signal.SIG_DFL if "RANK" in os.environ else _terminate
    previous = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, term),
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _fail(message: str) -> NoReturn:
    line = " ".join(message.split())
    if len(line) > _LONGEST:  # the file stands at the beginning, the remedy at the end
        line = f"{line[: _LONGEST - 305]} ... {line[-300:]}"
    # What standard error cannot show (half a character, another encoding) is escaped.
    encoding = sys.stderr.encoding or "utf-8"
    print("error: " + line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)
    _leave(2)


def _leave(status: int) -> NoReturn:
    """End the process after an error, at once if other ranks of torchrun may wait for it.

    The interpreter's own exit would take the process group down, for which nccl needs all ranks.
    """
    if _in_process_group():
        sys.stdout.flush()
        sys.stderr.flush()
        if "stclip.data.loaders" in sys.modules:  # what else runs when the interpreter ends
            sys.modules["stclip.data.loaders"].end_workers()
        os._exit(status)
    sys.exit(status)


def _in_process_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def positive(text: str) -> int:
    """An option's whole number, from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"1 or more expected, found {text}")
    return number


def numbers(text: str) -> list[int]:
    """An option's list of distinct whole numbers from 0, such as 0,1,2."""
    found = [int(word) for word in text.split(",")]
    if len(set(found)) < len(found) or min(found) < 0:
        raise argparse.ArgumentTypeError(f"distinct numbers from 0 expected, found {text}")
    return found
