from typing import Any

import pytest
import torch

from stclip.errors import UserError
from stclip.models.reference import PREFIX, from_reference, is_reference, to_reference
from stclip.models.stclip import STCLIP
from tests.helpers import tiny_model


def test_round_trip_of_ours() -> None:
    state = tiny_model().state_dict()
    theirs = to_reference(state)
    assert is_reference(theirs)
    assert not is_reference(state)
    back, unused = from_reference(theirs)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert len(unused) == 6


def test_parallel_prefix() -> None:
    state = tiny_model().state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in to_reference(state).items()}
    back, unused = from_reference(parallel)
    assert back.keys() == state.keys()
    assert all(name.startswith(PREFIX) for name in unused)


@pytest.mark.parametrize("name", ["backbone.weight", PREFIX + "something.else"])
def test_foreign_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=name.split(".")[-1]):
        from_reference({name: torch.zeros(1)})


@pytest.mark.parametrize("part", ["person_tokens.", "context_tokens.", "context_prompting."])
def test_a_model_without_a_part_is_refused(part: str) -> None:
    state = tiny_model().state_dict()
    with pytest.raises(UserError, match=f"no parameters {part}"):
        to_reference({name: t for name, t in state.items() if not name.startswith(part)})


@pytest.mark.parametrize(
    ("depths", "key"),
    [
        ({"temporal_depth": 2}, "MODEL.TEMPORAL.DEPTH"),
        ({"prompt_depth": 2}, "MODEL.PROMPT.DEPTH"),
        ({"prompt_layers": [1]}, "MODEL.PROMPT.LAYERS"),
    ],
)
def test_other_depths_are_refused(depths: dict[str, Any], key: str) -> None:
    state = STCLIP(tiny_model().clip, **depths).state_dict()
    with pytest.raises(UserError, match=f"{key}.* stays in our format"):
        to_reference(state)
