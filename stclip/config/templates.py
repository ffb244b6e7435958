"""Templates: texts in which a class name takes the place of {}, and sets of them with a name."""

from typing import Any

from stclip.config.reference_keys import literal, shown
from stclip.errors import UserError

# They are to fit names of any form: `climb stairs`, `climbing stairs`, `Ice Dancing`.
SETS = {
    "action": (
        "{}",
        "a video of {}",
        "a person {}",
        "someone is {}",
        "a photo of a person {}",
        "a video of a person {}",
        "a video of somebody who is {}",
        "one frame of a video of {}",
        "a frame from a video in which a person is {}",
        "a picture of the action {}",
        "the action {}, as people do it",
        "people and what they do: {}",
        "what this person is doing is {}",
        "a man or a woman {}",
        "a short clip of {}",
        "a person in the middle of {}",
    )
}


def parse_templates(value: Any, where: str) -> tuple[str, ...]:
    """The templates that a config key holds, the names of sets written out.

    Args:
        value: a text or a list of texts, or a text that is such a list in Python; "" for none.
        where: the file and the key, for messages.

    Raises:
        UserError: something else, or a text that is no set and has not exactly one {}.
    """
    if isinstance(value, str) and value.strip()[:1] in ("(", "["):  # not "{}", a dictionary
        value = literal(value)
    if value == "":
        value = []
    found: list[str] = []
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str) and text in SETS:
            found += SETS[text]
        elif isinstance(text, str) and text.count("{}") == 1:
            found.append(text)
        else:
            raise UserError(
                f"{where}: texts with one {{}} in the place of the name, or {' or '.join(SETS)}, "
                f"expected, found {shown(text)}"
            )
    return tuple(dict.fromkeys(found))
