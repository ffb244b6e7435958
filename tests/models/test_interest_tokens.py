import pytest
import torch
from torch import Tensor, nn

from stclip.models.clip import normalize_pixels
from stclip.models.interaction import lay_out
from stclip.models.interest_tokens import InterestTokens, attention_weights
from stclip.models.stclip import STCLIP
from stclip.structures import ClipBatch, PersonLayout
from tests.helpers import random_batch, tiny_model

CONTEXT = 1 + 9  # class token and patches of the tiny model
TEXT = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))


def spotting_model(top_k: int, include_person: bool = True, seed: int = 0) -> STCLIP:
    model = tiny_model(seed, vision_width=128)  # two heads, so that their mean matters
    # Attention that is far from uniform, and prompts that change the text a lot.
    for name, parameter in model.named_parameters():
        if name.endswith(("in_proj_weight", "cross_attn.proj.weight", "q_proj.weight")):
            nn.init.normal_(parameter, std=0.2)
    model.interest_tokens = InterestTokens(top_k, include_person)
    return model.eval()


def looped(model: STCLIP, batch: ClipBatch, row: int) -> tuple[Tensor, Tensor]:
    """Section 6 for one keyframe, a person at a time: texts (n, C, E) and tokens (R, n, K)."""
    visual, interest = model.clip.visual, model.interest_tokens
    assert interest is not None
    persons = [i for i, owner in enumerate(batch.owner.tolist()) if owner == row]
    crops = visual.encode(visual.patch_embed(normalize_pixels(batch.crops[persons])))
    patches = visual.patch_embed(normalize_pixels(batch.frames))
    context = model.context_tokens(patches, batch.window[row : row + 1])
    context = visual.add_class_token_and_positions(context)[0]
    x = torch.cat([context[:1], model.person_tokens(crops), context[1:]])
    places = [0, *range(1 + len(persons), len(x))]  # of class and patch tokens
    texts = [TEXT for _ in persons]
    found = []
    for layer, block in enumerate(visual.transformer.resblocks):
        width = x.shape[1]
        attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
        attention.load_state_dict(block.attn.state_dict())
        y = block.ln_1(x)[None]
        weights = attention.eval()(y, y, y)[1][0]  # (S, S), the mean over heads
        x = block(x[None])[0]
        for person in range(len(persons)):
            ranked = sorted(places, key=lambda s: -weights[1 + person, s].item())
            chosen = ranked[: interest.top_k]
            found.append([places.index(s) for s in chosen])
            own = [1 + person] if interest.include_person else []
            tokens = x[own + chosen][None]
            texts[person] = model.context_prompting(layer, texts[person][None], tokens)[0]
    layers = len(visual.transformer.resblocks)
    return torch.stack(texts), torch.tensor(found).view(layers, len(persons), -1)


@torch.no_grad()
@pytest.mark.parametrize("include_person", [True, False])
@pytest.mark.parametrize("top_k", [1, 3, CONTEXT])
def test_equals_the_loop(top_k: int, include_person: bool) -> None:
    model = spotting_model(top_k, include_person)
    batch = random_batch([3, 0, 1, 2])
    output = model(batch, TEXT)
    parts = [looped(model, batch, row) for row in (0, 2, 3)]
    assert output.text_row.tolist() == list(range(6))
    assert output.interest_tokens is not None
    assert torch.equal(output.interest_tokens, torch.cat([found for _, found in parts], dim=1))
    expected = torch.cat([texts for texts, _ in parts])
    torch.testing.assert_close(output.text_features, expected, rtol=1e-5, atol=1e-5)
    assert output.logits.shape == (6, 5)


@torch.no_grad()
@pytest.mark.parametrize("top_k", [0, CONTEXT])
@pytest.mark.parametrize("persons", [[1], [1, 1, 1]])
def test_all_tokens_and_one_person_are_section_5(top_k: int, persons: list[int]) -> None:
    model, batch = spotting_model(top_k), random_batch(persons)
    spotted = model(batch, TEXT)
    model.interest_tokens = None
    shared = model(batch, TEXT)
    torch.testing.assert_close(spotted.logits, shared.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(spotted.text_features, shared.text_features, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_of_other_keyframes_does_not_matter() -> None:
    """The single person of keyframe 1 is padded beside the four of keyframe 2."""
    model = spotting_model(3)
    alone, crowded = random_batch([1]), random_batch([1, 4])
    crowded.crops[:1] = alone.crops
    alone.frames = crowded.frames
    expected = model(alone, TEXT)
    found = model(crowded, TEXT)
    torch.testing.assert_close(found.logits[:1], expected.logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.interest_tokens[:, :1], expected.interest_tokens)


@torch.no_grad()
def test_persons_of_a_keyframe_get_their_own_text() -> None:
    text = spotting_model(2)(random_batch([2]), TEXT).text_features
    assert text.shape == (2, 5, 64)
    assert not torch.allclose(text[0], text[1], atol=1e-3)


@torch.no_grad()
def test_no_persons_are_spotted() -> None:
    """Only class and patch tokens are interest tokens, however much persons attend to persons."""
    model, batch = spotting_model(CONTEXT), random_batch([4, 1])
    found = model(batch, TEXT).interest_tokens
    assert torch.equal(found.sort(dim=-1).values, torch.arange(CONTEXT).expand(2, 5, -1))


@torch.no_grad()
def test_gathering_takes_the_tokens_that_were_spotted() -> None:
    context = torch.arange(2 * 4).reshape(2, 4, 1).float()
    persons = torch.tensor([[10.0], [20.0], [21.0]])
    layout = PersonLayout.of(torch.tensor([0, 1, 1]), torch.zeros(2, 1))
    x, layout = lay_out(context, persons, layout)
    spotted = torch.tensor([[0, 3], [1, 2], [3, 0]])
    with_person = InterestTokens(2, include_person=True).gather(x, layout, spotted)[..., 0]
    assert with_person.tolist() == [[10, 0, 3], [20, 5, 6], [21, 7, 4]]
    without = InterestTokens(2).gather(x, layout, spotted)[..., 0]
    assert without.tolist() == [[0, 3], [5, 6], [7, 4]]


@torch.no_grad()
def test_attention_weights_are_a_distribution_over_what_is_there() -> None:
    model = spotting_model(1)
    x = torch.randn(2, 6, 128)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 3:] = False
    attention = model.clip.visual.transformer.resblocks[0].attn
    weights = attention_weights(attention, x, slice(1, 3), mask)
    assert weights.shape == (2, 2, 6)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2))
    assert not weights[1, :, 3:].any()
    short = attention_weights(attention, x[1:, :3], slice(1, 3))
    torch.testing.assert_close(weights[1:, :, :3], short, rtol=1e-5, atol=1e-6)


def test_gradients_reach_what_they_reach_without() -> None:
    model, batch = spotting_model(2).train(), random_batch([1, 3])
    model(batch, TEXT).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_under_autocast(dtype: torch.dtype) -> None:
    """Choosing tokens without gradients must not leave weights behind that have none."""
    model, batch = spotting_model(2).train(), random_batch([2])
    with torch.autocast("cpu", dtype=dtype):
        output = model(batch, TEXT)
    output.logits.square().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_no_boxes_at_all() -> None:
    output = spotting_model(2)(random_batch([0, 0]), TEXT)
    assert output.logits.shape == (0, 5)
    assert output.interest_tokens is None


def test_more_tokens_than_there_are() -> None:
    with pytest.raises(AssertionError, match="11 interest tokens of 10"):
        spotting_model(CONTEXT + 1)(random_batch([1]), TEXT)
