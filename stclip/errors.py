"""The one exception that a user is meant to read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something outside the program is wrong: a file, a config key, a tensor, an argument.

    The message is one line that names the thing, says what was found and what was expected, and
    how to mend it. The command-line tools print it without a traceback and exit with status 2.
    """


# What a reader does with a mistake that it finds: raise it, or keep it, and the reader goes on.
Report = Callable[[UserError], None]


def fail(error: UserError) -> None:
    """The report that stops at the first mistake."""
    raise error


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Hand a UserError of the block to ``report``."""
    try:
        yield
    except UserError as error:
        report(error)
