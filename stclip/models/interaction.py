"""Person-context interaction: one sequence per keyframe (method.md section 4).

A keyframes that have persons, N persons, P the most persons of a keyframe (0 without person
tokens), L patch tokens, W width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stclip.structures import PersonLayout


@dataclass
class InteractionLayout:
    """Where each person sits in the padded sequences.

    Attributes:
        row: (N,) long, the sequence of each person.
        column: (N,) long, its position in the sequence [class, person_1..person_P, context].
        persons: P.
        key_mask: (A, 1 + P + L) bool, False for padding; None if nothing is padded.
    """

    row: Tensor
    column: Tensor
    persons: int
    key_mask: Tensor | None


def lay_out(
    context: Tensor, persons: Tensor | None, layout: PersonLayout
) -> tuple[Tensor, InteractionLayout]:
    """Put the persons of each keyframe between its class token and its context tokens.

    Args:
        context: (A, 1 + L, W), class token first, after ln_pre.
        persons: (N, W) person tokens; they get no positional embedding. None puts nothing there,
            and the class token stands for every person.
        layout: of the persons; its active keyframes are the rows of ``context``.

    Returns:
        The sequences (A, 1 + P + L, W), with zeros where a keyframe has fewer than P persons, and
        their layout.
    """
    row, most = layout.row, layout.most
    if persons is None:
        return context, InteractionLayout(row, torch.zeros_like(row), persons=0, key_mask=None)
    padded = persons.new_zeros(len(context), most, persons.shape[1])
    padded = padded.index_put((row, layout.place), persons)
    sequence = torch.cat([context[:, :1], padded.to(context.dtype), context[:, 1:]], dim=1)
    key_mask = None
    if layout.padded:  # without padding attention takes its faster path
        key_mask = torch.ones(sequence.shape[:2], dtype=torch.bool, device=sequence.device)
        key_mask[:, 1 : 1 + most] = False
        # A number in place of this tensor would make the host wait for a GPU.
        key_mask.index_put_((row, 1 + layout.place), key_mask.new_ones(()))
    return sequence, InteractionLayout(row, 1 + layout.place, persons=most, key_mask=key_mask)
