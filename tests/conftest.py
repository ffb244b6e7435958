"""For all tests."""

import logging
import os
from collections.abc import Iterator

import pytest

from stclip.models import fast


@pytest.fixture(autouse=True, scope="session")
def unsynced() -> Iterator[None]:
    """Write to the disk when the system likes: no test survives a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    """The loggers that a command sets up are as before at the start of the next test."""
    loggers = [logging.getLogger(name) for name in (None, "stclip")]
    before = [(log, log.level, log.handlers[:], log.propagate) for log in loggers]
    yield
    for log, level, handlers, propagate in before:
        for handler in set(log.handlers) - set(handlers):
            log.removeHandler(handler)
            handler.close()
        log.setLevel(level)
        log.propagate = propagate


@pytest.fixture(autouse=True)
def fast_again() -> Iterator[None]:
    """MODEL.FAST, which a test may turn off for the process, is on at the start of the next."""
    with fast.switched(True):
        yield
