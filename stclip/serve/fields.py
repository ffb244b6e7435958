"""What the fields of the page stand for, checked: a browser may send anything."""

from __future__ import annotations

import math
from pathlib import Path

from stclip.errors import UserError
from stclip.serve.jobs import Request
from stclip.serve.worker import Offer

NONE_OF = "standing, sitting, walking, nothing special"  # unless the user says otherwise
# As detector_threshold of Settings and keep of EventRule, which are not imported: torch is large.
LEAST_BOX, KEEP = 0.2, 0.7
_MOST_NAMES, _LONGEST_NAME = 40, 120


def video_of(
    path: str | None, address: str, offer: Offer, uploads: Path
) -> tuple[Path | None, str]:
    """The uploaded file, None if an address is given; and what the user calls it."""
    if path:
        file = Path(path).resolve()
        if not file.is_relative_to(uploads.resolve()) or not file.is_file():
            raise UserError("the video is gone; please upload it again")
        return file, _clean(file.name)
    if offer.addresses and address.strip():
        return None, _clean(address.strip().partition("?")[0].rsplit("/", 1)[-1] or "video")
    raise UserError("There is no video yet: drop one into the field at 1, or take an example.")


def _clean(name: str) -> str:
    return "".join(letter for letter in name if letter.isprintable())[-100:]


def request_of(
    offer: Offer, name: str, address: str, actions: str, none_of: str, model: str, detector: str,
    track_threshold: float, start: float | None, end: float | None, score_every: float,
    window: float, threshold: float, min_seconds: float,
) -> Request:  # fmt: skip
    """What the fields of the page stand for.

    Raises:
        UserError: one of them cannot be; in words for somebody who sees the page.
    """
    wanted = names(actions or "")
    asked = [action.partition("|")[0].strip().lower() for action in wanted]
    others = [name for name in names(none_of or "") if name.lower() not in asked]
    if none_of == NONE_OF:  # nobody asked for it to compete with "walk" by "walking"
        others = [name for name in others if not any(_alike(name, action) for action in asked)]
    if not wanted:
        raise UserError("Say what you look for in the field at 2, such as: waving a hand")
    if len(wanted) + len(others) > _MOST_NAMES:
        raise UserError(f"{len(wanted) + len(others)} actions; at most {_MOST_NAMES} are compared")
    long = [name for name in (*wanted, *others) if len(name) > _LONGEST_NAME]
    if long:
        raise UserError(f"{long[0][:40]}...: at most {_LONGEST_NAME} letters for one action")
    if len(wanted) + len(others) == 1:
        raise UserError(
            "One action alone cannot be told from anything: name another one, or what else people "
            'may do under "More options".'
        )
    if model not in offer.models or detector not in offer.detectors:
        raise UserError("Choose a model and a person detector of the lists.")
    begin, stop = _number(start), _number(end) or math.inf
    if not 0 <= begin < stop:
        raise UserError(f"From second {begin:g} to {stop:g}: the second must be the larger one.")
    return Request(
        name, tuple(wanted), tuple(others), model, detector, begin, stop,
        _within("How often to look", score_every, 0.1, 1),
        _within("Average over", window, 0.5, 4),
        _within("Report from a score of", threshold, 0, 1),
        _within("Leave out what is shorter", min_seconds, 0, 5),
        address.strip(),
        _within("Follow people from a score of", track_threshold, LEAST_BOX, 1),
    )  # fmt: skip


def _alike(name: str, action: str) -> bool:
    """Whether both begin with the same verb: sitting, sit down."""
    one, other = (text.partition(" ")[0].removesuffix("ing") for text in (name, action))
    return bool(one and other) and (one.startswith(other) or other.startswith(one))


def _number(value: float | None) -> float:
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else 0.0


def _within(name: str, value: float, least: float, most: float) -> float:
    if not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{name}: {least:g} to {most:g} expected, found {value!r:.20}")
    return float(value)


def names(text: str) -> list[str]:
    """Names that somebody typed, one a line or between commas, each once."""
    found = (" ".join(name.split()) for name in text.replace("\n", ",").split(","))
    return list(dict.fromkeys(name for name in found if name))
