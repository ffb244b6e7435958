"""Person tokens: what CLIP sees in a person's box, adapted (method.md section 2).

N persons, W vision width.
"""

from torch import Tensor, nn

from stclip.models.transformer import MLP, LayerNorm


class PersonTokens(nn.Module):
    """f + Adapter(LayerNorm(f)) for the unprojected CLIP feature f of a person's crop."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.adapter = MLP(width)

    def forward(self, crop_features: Tensor) -> Tensor:
        """Person tokens (N, W) from crop features (N, W): ln_post(class token), not projected."""
        return crop_features + self.adapter(self.norm(crop_features))
