"""Which frames of a video surround a keyframe: pure index arithmetic (method.md section 3)."""


def window(t: int, n: int, length: int, stride: int = 1) -> list[int]:
    """The ``length`` 1-based frames around frame ``t`` of a video of ``n``, ``stride`` apart.

    They are ``t - length // 2 * stride`` onwards, shifted by whole frames, no further than needed,
    so that all stay inside the video. With a stride above 1, ``t`` itself may then not be among
    them. Where they do not fit, the window is the frames of the video that lie a multiple of
    ``stride`` from ``t``: fewer than ``length``; with a stride of 1, the whole video.
    """
    assert 1 <= t <= n, f"frame {t} of a video of {n} frames"
    assert length >= 1, f"a window of {length} frames"
    assert stride >= 1, f"a stride of {stride} frames"
    span = (length - 1) * stride + 1
    if span > n:
        return list(range((t - 1) % stride + 1, n + 1, stride))
    first = max(1, min(t - length // 2 * stride, n - span + 1))
    return list(range(first, first + span, stride))


def spread(n: int, length: int) -> list[int]:
    """The 1-based frames in the middles of ``length`` equal parts of a video of ``n``.

    A video shorter than that gives some of its frames more than once.
    """
    assert n >= 1, f"a video of {n} frames"
    assert length >= 1, f"{length} parts"
    return [(2 * part + 1) * n // (2 * length) + 1 for part in range(length)]
