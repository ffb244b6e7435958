"""For all tests."""

import logging
import os
from collections.abc import Iterator

import hypothesis
import pytest

from stclip.models import fast

# On a busy machine an example takes as long as it likes.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def unsynced() -> Iterator[None]:
    """Write to the disk when the system likes: no test survives a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def quiet_loggers() -> Iterator[None]:
    """No test finds the loggers as a command of an earlier one has set them up.

    Nor as a fixture for a whole module has, which runs before this one: hence before and after.
    """
    _reset_loggers()
    yield
    _reset_loggers()


@pytest.fixture(autouse=True)
def same_folder() -> Iterator[None]:
    """No test leaves the next ones in another folder, which may be removed under them."""
    here = os.getcwd()
    yield
    assert os.getcwd() == here, "the test has changed the working folder: use monkeypatch.chdir"


def _reset_loggers() -> None:
    """Levels and handlers of a process that has just started."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    for name, log in logging.root.manager.loggerDict.items():
        if isinstance(log, logging.Logger) and name.split(".")[0] == "stclip":
            for handler in log.handlers[:]:
                log.removeHandler(handler)
                handler.close()
            log.setLevel(logging.NOTSET)
            log.propagate = True


@pytest.fixture(autouse=True)
def fast_again() -> Iterator[None]:
    """MODEL.FAST, which a test may turn off for the process, is on at the start of the next."""
    with fast.switched(True):
        yield
