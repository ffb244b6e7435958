"""Reading and writing files that others made, or that others write too."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from stclip.errors import UserError
from stclip.files import parse_json, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        (r'{"a": "x\ud800"}', "half a character"),
        (r'["\udc00\ud800"]', "half a character"),
        ('{"a": 1', "not valid JSON .* cut short"),
        ("", "not valid JSON"),
    ],
)
def test_json_that_cannot_be_used_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"^a\.json: .*{message}"):
        parse_json(text, "a.json")
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"b\.json: "):
        read_json(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9" * 5000, math.inf),
        ("-1" + "0" * 400, -math.inf),
        ("[9223372036854775808]", [2.0**63]),
        ("[9223372036854775807, -9223372036854775808]", [2**63 - 1, -(2**63)]),
        ("0.00012345678901234567", 0.00012345678901234567),
        (r'["\ud83d\ude00"]', ["\N{GRINNING FACE}"]),
        ("1e400", math.inf),
    ],
)
def test_whole_numbers_fit_into_64_bits_or_are_none(text: str, value: Any) -> None:
    found = parse_json(text, "")
    assert found == value
    assert json.dumps(found) == json.dumps(value)
