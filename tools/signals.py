"""What SIGINT and SIGTERM do while a tool's imports take their seconds: one line, and the status.

A tool imports this before all else; ``stclip.cli.run`` takes over then.
"""

import os
import signal
from types import FrameType


def leave(number: int, frame: FrameType | None) -> None:
    """Nothing has been begun yet, so nothing is to be tidied up."""
    os.write(2, b"interrupted\n" if number == signal.SIGINT else b"terminated\n")
    os._exit(128 + number)


for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, leave)
