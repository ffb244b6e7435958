"""For all tests."""

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
def fast_again() -> Iterator[None]:
    """MODEL.FAST, which a test may turn off for the process, is on at the start of the next."""
    with fast.switched(True):
        yield
