from collections.abc import Iterator

import pytest
from av.video.frame import VideoFrame

from stclip.data.video import Decoder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[VideoFrame]:
    """Every picture that comes out of a decoder, wanted or not, also after it has sought."""
    found: list[VideoFrame] = []
    frames: dict[int, Iterator[VideoFrame]] = {}

    def counted(pictures: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        for picture in pictures:
            found.append(picture)
            yield picture

    def assign(self: Decoder, pictures: Iterator[VideoFrame]) -> None:
        frames[id(self)] = counted(pictures)

    monkeypatch.setattr(
        Decoder, "_frames", property(lambda self: frames[id(self)], assign), raising=False
    )
    return found
