import torch

from stclip.models.person_tokens import PersonTokens


def test_adapter_is_added_to_the_feature() -> None:
    tokens = PersonTokens(64)
    features = torch.randn(3, 64)
    normed = torch.nn.functional.layer_norm(features, (64,))
    hidden = normed @ tokens.adapter.c_fc.weight.T + tokens.adapter.c_fc.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    expected = features + hidden @ tokens.adapter.c_proj.weight.T + tokens.adapter.c_proj.bias
    torch.testing.assert_close(tokens(features), expected)


def test_no_persons() -> None:
    assert PersonTokens(64)(torch.zeros(0, 64)).shape == (0, 64)
