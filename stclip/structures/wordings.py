"""One class name in several wordings: ``name | wording | wording``."""

from __future__ import annotations

SEPARATOR = " | "


def split_label(text: str) -> tuple[str, tuple[str, ...]]:
    """The name of a class, and the texts that the text encoder reads for it.

    Args:
        text: a name, which is its own wording; or a name and wordings, with `` | `` between them.
    """
    name, *wordings = text.split(SEPARATOR)
    return name, tuple(wordings) or (name,)
