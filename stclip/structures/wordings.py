"""One class name in several wordings: ``name | wording | wording``."""

from __future__ import annotations

from stclip.errors import UserError

SEPARATOR = " | "


def split_label(text: str) -> tuple[str, tuple[str, ...]]:
    """The name of a class, and the texts that the text encoder reads for it.

    Args:
        text: a name, which is its own wording; or a name and wordings, with `` | `` between them.

    Raises:
        UserError: the name or a wording next to a `` | `` is empty.
    """
    name, *wordings = text.split(SEPARATOR)
    if wordings and not all(part.strip() for part in (name, *wordings)):
        raise UserError(
            f"label {text!r:.60}: 'name | wording | wording', none of them empty, expected"
        )
    return name, tuple(wordings) or (name,)
