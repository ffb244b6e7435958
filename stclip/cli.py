"""What all commands share: one look of --help, errors of one line, exit statuses."""

import argparse
import difflib
import logging
import os
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from stclip.config.load import shipped_configs
from stclip.config.yaml_text import read_yaml
from stclip.errors import UserError, machine_fault
from stclip.signals import is_repeat, note_request

logger = logging.getLogger(__name__)

_LONGEST = 1000  # characters of an error message
_COLUMN = 24  # where the explanations of options begin in --help

# Options of the published implementation's train_net.py that need nothing here, and why.
_NEEDLESS = {
    "--transfer": "MODEL.WEIGHT always gives the weights alone; --resume continues a training",
    "--adjust-lr": "the SOLVER keys of the config hold after --resume too",
    "--use-tfboard": "TensorBoard events are always written",
    "--tfboard": "TensorBoard events are always written",
    "--skip-final-test": "a training ends without a test; stclip test tests",
    "--skip-test": "a training ends without a test; stclip test tests",
}


class HelpFormatter(argparse.HelpFormatter):
    """The look of --help: a short usage line, texts of the terminal's width, every default shown.

    Paragraphs with indented lines are examples and keep their lines.
    """

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 100) - 2
        super().__init__(prog, max_help_position=_COLUMN, width=width)
        self._action_max_length = _COLUMN  # also where all names of options are short

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None,
    ) -> str:
        """Options that may be left out are [OPTIONS]: their list follows right below."""
        actions = list(actions)
        named = [action for action in actions if action.required or not action.option_strings]
        left_out = {action.dest for action in actions} - {action.dest for action in named}
        prog = self._prog
        self._prog += " [OPTIONS]" if left_out - {"help"} else ""
        text = super()._format_usage(usage, named, [], prefix)
        self._prog = prog
        return text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for part in text.strip("\n").split("\n\n"):
            lines = part.splitlines()
            if not any(line.startswith(" ") for line in lines):
                lines = self._split_lines(part, width - len(indent))
            parts.append("\n".join(indent + line for line in lines))
        return "\n\n".join(parts)

    def _split_lines(self, text: str, width: int) -> list[str]:
        words = " ".join(text.split())
        return textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        unset = default is None or default is False or default in ([], argparse.SUPPRESS)
        if unset or not action.option_strings or "default" in text:
            return text
        if isinstance(default, (list, tuple)):
            default = (" " if action.nargs else ",").join(map(str, default))
        default = str(default).replace("%", "%%")  # argparse formats the text with %
        return f"{text} (default: {default})".lstrip()

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        names: dict[Any, str] = {int: "N", positive: "N", numbers: "N,N", float: "X", Path: "PATH"}
        return names.get(action.type) or super()._get_default_metavar_for_optional(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others.

    Args:
        description: the docstring of a command; what follows its line ``Examples:`` stands at the
            end of --help.
        epilog: the end of --help, of a description without examples.
        options: what argparse takes. The formatter is always ``HelpFormatter``.
    """

    def __init__(
        self, *, description: str | None = None, epilog: str | None = None, **options: Any
    ) -> None:
        text, found, examples = (description or "").partition("\nExamples:\n")
        if found:
            epilog = "examples:\n" + textwrap.indent(textwrap.dedent(examples), "  ")
        options["formatter_class"] = HelpFormatter
        super().__init__(description=text, epilog=epilog, **options)
        self._positionals.title = "arguments"

    def error(self, message: str) -> NoReturn:
        """Raise what ``run`` prints."""
        raise UserError(f"{message}; see {self.prog} --help")

    def words_of(self, path: str | Path) -> list[str]:
        """The command line that a yaml file of options stands for.

        Its keys are the names of options without dashes in front: ``score-every: 0.2``, ``actions:
        [walk, "fall down"]``, ``no-video: true``.

        Raises:
            UserError: the file cannot be read, names an option that is not there, or has a value
                that no command line has.
        """
        content = read_yaml(Path(path))
        if not isinstance(content, dict):
            raise UserError(f"{path}: names of options and their values expected ('window: 4')")
        options = {
            option[2:]: action
            for option, action in self._option_string_actions.items()
            if option.startswith("--") and option not in ("--help", "--config-file")
        }
        words: list[str] = []
        for key, value in content.items():
            if key not in options:
                close = difflib.get_close_matches(str(key), options, n=1)
                hint = f"did you mean {close[0]}? See" if close else "see"
                raise UserError(f"{path}: {key!r:.80} is no option; {hint} {self.prog} --help")
            flag, several = options[key].nargs == 0, options[key].nargs == "+"
            values = value if several and isinstance(value, list) else [value]
            expected = bool if flag else (str, int, float)
            if any(not isinstance(v, expected) or isinstance(v, bool) != flag for v in values):
                kind = "true or false" if flag else "a text or number"
                raise UserError(
                    f"{path}: {key}: {kind} expected{' or a list of them' * several}, found "
                    f"{value!r:.80}{'; put it in quotes' * (not flag)}"
                )
            if flag:
                words += [f"--{key}"] if value else []
            elif several:
                words += [f"--{key}", *map(str, values)] if values else []
            else:
                words.append(f"--{key}={value}")
        return words


class _ConfigParser(Parser):
    """A parser with the option --config-file of a config."""

    def error(self, message: str) -> NoReturn:
        if "--config-file" in message and (configs := shipped_configs()):
            message += f"; there are {configs}"
        super().error(message)


def config_parser(description: str | None, required: bool = True) -> Parser:
    """The parser of commands that read a config: --config-file CONFIG [KEY VALUE ...].

    Parsed, these are ``config_file`` and ``opts``, what ``load_config`` takes.
    """
    parser = _ConfigParser(description=description)
    parser.add_argument(
        "--config-file",
        required=required,
        metavar="CONFIG",
        help="a yaml file, or the name of one that comes with stclip, such as jhmdb/split_1",
    )
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="config keys to change, such as SOLVER.BASE_LR 1e-4 SEED 3; "
        "stclip/config/defaults.py explains every key",
    )
    return parser


def add_reference_options(parser: Parser, training: bool) -> None:
    """Take the options of the published implementation as well.

    Args:
        parser: of ``stclip train`` or ``stclip test``.
        training: whether it is that of ``stclip train``.
    """
    text = f"Accepted without effect: {', '.join(_NEEDLESS)}." if training else None
    group = parser.add_argument_group("options of the published implementation", text)
    # torch.distributed.launch writes it in one of these two ways.
    group.add_argument(
        "--local-rank", "--local_rank", type=int, help="added by torch.distributed.launch"
    )
    if not training:
        return
    group.add_argument("--seed", type=int, help="the same as SEED N")
    group.add_argument(
        "--skip-val-in-train", action="store_true", help="the same as SOLVER.EVAL_PERIOD 0"
    )
    group.add_argument("--no-head", action="store_true", help="refused if MODEL.WEIGHT is set")
    for option in _NEEDLESS:
        group.add_argument(option, action="store_true", help=argparse.SUPPRESS)


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
            # The reader of our output is gone (`| head`). Python flushes standard output once more
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
        signal.SIGINT: signal.signal(signal.SIGINT, _interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, term),
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    if not is_repeat():  # else whatever is being tidied up would be cut short
        note_request()
        raise Terminated


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not is_repeat():
        note_request()
        raise KeyboardInterrupt


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
    dist = sys.modules.get("torch.distributed")  # to import torch takes seconds
    return dist is not None and dist.is_available() and dist.is_initialized()


def positive(text: str) -> int:
    """An option's whole number, from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"1 or more expected, found {text}")
    return int(text)


def numbers(text: str) -> list[int]:
    """An option's list of distinct whole numbers from 0, such as 0,1,2."""
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"whole numbers such as 0,1,2 expected, found {text!r}")
    found = [int(word) for word in words]
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"distinct numbers from 0 expected, found {text}")
    return found
