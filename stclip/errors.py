"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """Something outside the program is wrong: a file, a config key, a tensor, an argument.

    The message is one line that names the thing, says what was found and what was expected, and
    how to mend it. The command-line tools print it without a traceback and exit with status 2.
    """
