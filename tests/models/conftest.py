from collections.abc import Iterator

import pytest

from stclip.models import fast


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Runs a test with what is there for speed (MODEL.FAST), and in plain formulas."""
    with fast.switched(request.param):
        yield request.param
