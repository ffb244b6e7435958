"""Interest tokens: what a person attends to prompts that person's text (method.md section 6).

A keyframes that have persons, N persons, P the most persons of a keyframe, L patch tokens,
S = 1 + P + L, K interest tokens, W vision width, D width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stclip.models.cross_frame import with_message
from stclip.models.interaction import InteractionLayout
from stclip.models.products import apply_linear
from stclip.models.transformer import Attention, Block


@dataclass(frozen=True)
class InterestTokens:
    """Chooses the tokens that prompt a person's text; it has no parameters.

    Attributes:
        top_k: K, at most 1 + L; 0 takes all class and patch tokens.
        include_person: whether the person's own token prompts too.
    """

    top_k: int = 0
    include_person: bool = False

    @torch.no_grad()  # which tokens are chosen has no gradient; what they say has
    def spot(
        self,
        block: nn.Module,
        x: Tensor,
        layout: InteractionLayout,
        message: Tensor | None = None,
    ) -> Tensor:
        """The class and patch tokens that each person attends to most.

        Args:
            block: the vision block that ``x`` is about to enter.
            x: (A, S, W), its input.
            layout: where the persons sit in ``x``.
            message: (A, W), what else each keyframe's tokens attend to in X-CLIP's blocks; it is
                never chosen.

        Returns:
            (N, K) long, most attended first: 0 is the class token, 1 + l is patch l.
        """
        assert isinstance(block, Block)
        persons = layout.persons
        context = x.shape[1] - persons  # 1 + L
        assert self.top_k <= context, f"{self.top_k} interest tokens of {context} tokens"
        if self.top_k == 0:
            return torch.arange(context, device=x.device).expand(len(layout.row), -1)
        # The queries of a keyframe's persons stand side by side, so no key is copied.
        queries = slice(1, 1 + persons)
        key_mask = layout.key_mask
        if message is not None:
            x, key_mask = with_message(x, message, key_mask)
        weights = attention_weights(block.attn, block.ln_1(x), queries, key_mask)
        weights = weights[layout.row, layout.column - 1]  # (A, P, S) -> (N, S)
        patches = weights[:, 1 + persons : persons + context]
        candidates = torch.cat([weights[:, :1], patches], dim=1)  # (N, 1 + L)
        return candidates.topk(self.top_k, dim=1).indices

    def gather(self, x: Tensor, layout: InteractionLayout, spotted: Tensor) -> Tensor:
        """Each person's interest tokens.

        Args:
            x: (A, S, W), the output of the block.
            layout: where the persons sit in ``x``.
            spotted: (N, K) from ``spot``.

        Returns:
            (N, K, W), or (N, 1 + K, W) with the person's own token in front; nothing is padded.
        """
        columns = spotted + layout.persons * (spotted > 0)  # the persons stand behind the class
        if self.include_person:
            columns = torch.cat([layout.column[:, None], columns], dim=1)
        return x[layout.row[:, None], columns]


def attention_weights(
    attention: Attention, x: Tensor, queries: slice, key_mask: Tensor | None = None
) -> Tensor:
    """How much some tokens attend to each token of their sequence, the mean over the heads.

    Args:
        attention: the self-attention.
        x: (A, S, W), its input.
        queries: which Q of the S tokens ask.
        key_mask: (A, S) bool, False for tokens that none may attend to.

    Returns:
        (A, Q, S) float32; rows sum to 1.
    """
    width = x.shape[-1]
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    query = apply_linear(x[:, queries], weight[:width], bias[:width])
    key = apply_linear(x, weight[width : 2 * width], bias[width : 2 * width])
    query = query.unflatten(-1, (attention.heads, -1)).transpose(1, 2)  # (A, heads, Q, D)
    key = key.unflatten(-1, (attention.heads, -1)).permute(0, 2, 3, 1)  # (A, heads, D, S)
    scores = (query @ key).float() * query.shape[-1] ** -0.5  # (A, heads, Q, S)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None, :], -torch.inf)
    return scores.softmax(dim=-1).mean(dim=1)
