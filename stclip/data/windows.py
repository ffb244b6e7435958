"""Which frames of a video surround a keyframe: pure index arithmetic (method.md section 3)."""


def window(t: int, n: int, length: int) -> list[int]:
    """The ``length`` consecutive 1-based frames around frame ``t`` of a video of ``n`` frames.

    They are ``t - length // 2`` onwards, shifted so that they stay inside the video. A video
    shorter than ``length`` gives all its frames, so the result can have fewer than ``length``.
    """
    assert 1 <= t <= n, f"frame {t} of a video of {n} frames"
    assert length >= 1, f"a window of {length} frames"
    first = max(1, min(t - length // 2, n - length + 1))
    return list(range(first, min(first + length - 1, n) + 1))
