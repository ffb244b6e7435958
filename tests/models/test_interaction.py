import torch

from stclip.models.interaction import lay_out
from stclip.structures import PersonLayout


def layout_of(owner: list[int]) -> PersonLayout:
    return PersonLayout.of(torch.tensor(owner), torch.zeros(2, 1))


def test_persons_stand_between_class_and_context() -> None:
    context = torch.arange(2 * 4).reshape(2, 4, 1).float()
    persons = torch.tensor([[10.0], [20.0], [21.0]])
    sequence, layout = lay_out(context, persons, layout_of([0, 1, 1]))
    assert sequence[..., 0].tolist() == [[0, 10, 0, 1, 2, 3], [4, 20, 21, 5, 6, 7]]
    assert layout.key_mask is not None
    assert layout.key_mask.tolist() == [[True, True, False, True, True, True], [True] * 6]
    assert sequence[layout.row, layout.column, 0].tolist() == [10, 20, 21]
    assert layout.persons == 2


def test_no_mask_without_padding() -> None:
    _, layout = lay_out(torch.zeros(2, 3, 1), torch.zeros(4, 1), layout_of([0, 0, 1, 1]))
    assert layout.key_mask is None


def test_without_person_tokens_the_class_token_stands_for_all() -> None:
    context = torch.arange(2 * 4).reshape(2, 4, 1).float()
    sequence, layout = lay_out(context, None, layout_of([0, 1, 1]))
    assert torch.equal(sequence, context)
    assert sequence[layout.row, layout.column, 0].tolist() == [0, 4, 4]
    assert layout.key_mask is None
