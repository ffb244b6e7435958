"""Requests to end, which the system may deliver several times.

A terminal or a batch system signals every process of a group, and ``torchrun``, ``timeout`` and
``make``, which are in the group too, pass on what they get: a process receives one request twice,
within milliseconds on a quiet machine. What comes so soon is not a second request.
"""

import time

SAME_REQUEST = 5.0  # seconds after a signal in which others are the same request
_noted = -float("inf")  # when the last request came


def is_repeat() -> bool:
    """Whether a signal that comes now belongs to the request that was noted last."""
    return time.monotonic() - _noted < SAME_REQUEST


def note_request() -> None:
    """Take what comes next for the same request."""
    global _noted
    _noted = time.monotonic()
