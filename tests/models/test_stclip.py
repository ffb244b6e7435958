"""The method, section by section, and as a whole."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models.clip import normalize_pixels
from stclip.models.marked import Outside, mark
from stclip.models.stclip import (
    STCLIP,
    ContextPrompt,
    ContextPrompting,
    ContextTokens,
    InterestTokens,
    PersonTokens,
    STCLIPOutput,
    lay_out,
)
from stclip.structures import ClipBatch, PersonLayout
from tests.helpers import random_batch, tiny_model

TEXT = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))


def forward(batch: ClipBatch, seed: int = 0) -> STCLIPOutput:
    model = tiny_model(seed).eval()
    with torch.no_grad():
        return model(batch, TEXT)


def one_keyframe(batch: ClipBatch, row: int) -> ClipBatch:
    rows = batch.owner == row
    assert batch.frame_boxes is not None
    return ClipBatch(
        frames=batch.frames,
        window=batch.window[row : row + 1],
        keyframe=batch.keyframe[row : row + 1],
        crops=batch.crops[rows],
        owner=torch.zeros(int(rows.sum()), dtype=torch.long),
        boxes=batch.boxes[rows],
        det_scores=batch.det_scores[rows],
        labels=None,
        keys=batch.keys[row : row + 1],
        frame_boxes=batch.frame_boxes[rows],
    )


def test_shapes() -> None:
    output = forward(random_batch([2, 0, 1]))
    assert output.logits.shape == (3, 5)
    assert output.person_features.shape == (3, 64)
    assert output.text_features.shape == (2, 5, 64)  # the keyframe without persons is left out
    assert output.text_row.tolist() == [0, 0, 1]
    assert output.logits.abs().max() <= 1 / 0.07 + 1e-4


@pytest.mark.parametrize("persons", [[2, 0, 1, 3], [1, 1, 1], [0, 0, 2], [4]])
def test_batched_equals_one_keyframe_at_a_time(persons: list[int]) -> None:
    batch = random_batch(persons)
    batched = forward(batch).logits
    looped = torch.cat([forward(one_keyframe(batch, row)).logits for row in range(len(persons))])
    torch.testing.assert_close(batched, looped, rtol=1e-5, atol=1e-5)


def test_two_videos_in_one_batch_do_not_mix() -> None:
    short = random_batch([1, 2], frames=4, seed=1, video="run/short")
    long = random_batch([3, 1], frames=12, seed=2, video="run/long")
    together = forward(ClipBatch.cat([short, long])).logits
    apart = torch.cat([forward(short).logits, forward(long).logits])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


def test_persons_of_a_keyframe_see_each_other() -> None:
    batch = random_batch([2])
    changed = random_batch([2])
    changed.crops[1] = 255 - changed.crops[1]
    assert not torch.allclose(forward(batch).logits[0], forward(changed).logits[0], atol=1e-6)


def test_frames_of_the_window_matter_and_others_do_not() -> None:
    batch, inside, outside = (random_batch([1], frames=12) for _ in range(3))
    inside.frames[8] = 255 - inside.frames[8]  # the window of keyframe 1 is frames 1 to 9
    outside.frames[9] = 255 - outside.frames[9]
    assert torch.equal(forward(batch).logits, forward(outside).logits)
    assert not torch.allclose(forward(batch).logits, forward(inside).logits, atol=1e-6)


def test_trained_is_exactly_what_section_8_names() -> None:
    model = tiny_model()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name for name, _ in model.named_parameters()} - trained
    assert all(
        name.startswith(("person_tokens.", "context_tokens.", "context_prompting."))
        or ".lora_" in name
        for name in trained
    )
    assert all(name.startswith("clip.") for name in frozen)
    assert not any(".lora_" in name for name in frozen)


def test_gradients_reach_all_of_that_and_nothing_else() -> None:
    model = tiny_model().train()
    batch = random_batch([1, 2])
    model(batch, torch.randn(5, 64)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_training_and_evaluation_mode_agree() -> None:
    model, batch, text = tiny_model(), random_batch([1, 2]), torch.randn(5, 64)
    train = model.train()(batch, text).logits
    with torch.inference_mode():  # takes other ways through LoRA's layers
        test = model.eval()(batch, text).logits
    torch.testing.assert_close(train, test, rtol=1e-5, atol=1e-5)


SWITCHES = ("temporal", "prompt", "person_tokens")


@pytest.mark.parametrize("off", [SWITCHES[:1], SWITCHES[1:2], SWITCHES[2:], SWITCHES])
def test_gradients_reach_all_that_is_left_with_parts_off(off: tuple[str, ...]) -> None:
    model = STCLIP(tiny_model().clip, **dict.fromkeys(off, False)).train()
    model(random_batch([1, 2]), torch.randn(5, 64)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("off", [SWITCHES[:1], SWITCHES[1:2], SWITCHES[2:], SWITCHES])
def test_batched_equals_one_keyframe_at_a_time_with_parts_off(off: tuple[str, ...]) -> None:
    model = STCLIP(tiny_model().clip, **dict.fromkeys(off, False)).eval()
    batch, text = random_batch([2, 0, 1]), torch.randn(5, 64)
    with torch.no_grad():
        looped = [model(one_keyframe(batch, row), text).logits for row in range(3)]
        torch.testing.assert_close(model(batch, text).logits, torch.cat(looped))


def test_without_temporal_only_the_keyframe_counts() -> None:
    model = STCLIP(tiny_model().clip, temporal=False).eval()
    assert model.window_length == 1
    batch, text = random_batch([1]), torch.randn(5, 64)
    narrow = random_batch([1], length=1)
    narrow.frames, narrow.crops = batch.frames, batch.crops
    with torch.no_grad():
        torch.testing.assert_close(model(batch, text).logits, model(narrow, text).logits)


def test_without_prompt_the_text_stays_clips() -> None:
    model, text = STCLIP(tiny_model().clip, prompt=False).eval(), torch.randn(5, 64)
    with torch.no_grad():
        output = model(random_batch([2, 0, 1]), text)
    assert torch.equal(output.text_features, text.expand(2, -1, -1))


def test_without_person_tokens_the_crops_do_not_matter() -> None:
    model, text = STCLIP(tiny_model().clip, person_tokens=False).eval(), torch.randn(5, 64)
    batch, other = random_batch([2]), random_batch([2])
    other.crops = 255 - other.crops
    with torch.no_grad():
        logits = model(batch, text).logits
        assert torch.equal(logits, model(other, text).logits)
    assert torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_float32_under_autocast(dtype: torch.dtype) -> None:
    """In 16 bits the temperature would turn rounding into ties between classes."""
    model, batch, text = tiny_model().eval(), random_batch([1, 2]), torch.randn(5, 64)
    with torch.inference_mode():
        expected = model(batch, text).logits
        with torch.autocast("cpu", dtype=dtype):
            logits = model(batch, text).logits
    assert logits.dtype == torch.float32
    assert (logits != logits.to(dtype).float()).any()
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.3)


def test_a_forward_draws_no_random_numbers() -> None:
    model, batch, text = tiny_model().train(), random_batch([1]), torch.randn(5, 64)
    before = torch.get_rng_state()
    model(batch, text)
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------- section by section
def test_adapter_is_added_to_the_feature() -> None:
    tokens = PersonTokens(64)
    features = torch.randn(3, 64)
    normed = torch.nn.functional.layer_norm(features, (64,))
    hidden = normed @ tokens.adapter.c_fc.weight.T + tokens.adapter.c_fc.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    expected = features + hidden @ tokens.adapter.c_proj.weight.T + tokens.adapter.c_proj.bias
    torch.testing.assert_close(tokens(features), expected)


def test_the_crops_feature_can_be_added() -> None:
    batch, model = random_batch([2, 0, 1]), tiny_model(0).eval()
    with torch.no_grad():
        plain = model(batch, TEXT)
        crops = model.clip.encode_image(normalize_pixels(batch.crops))
        model.crop_weight = 0.5
        added = model(batch, TEXT)
    expected = plain.person_features + 0.5 * crops
    torch.testing.assert_close(added.person_features, expected)
    text = F.normalize(added.text_features[added.text_row], dim=-1)
    cosines = (F.normalize(expected, dim=-1)[:, None] * text).sum(dim=-1)
    torch.testing.assert_close(added.logits, cosines / 0.07, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("person_tokens", [True, False])
@pytest.mark.parametrize("outside", ["blur", "mask"])
def test_the_marked_persons_feature_can_be_added(
    both_ways: bool, outside: Outside, person_tokens: bool
) -> None:
    clip, batch = tiny_model().clip, random_batch([2, 0, 1])
    crop_weight = 0.25 if person_tokens else 0.0
    parts = {"prompt": False, "person_tokens": person_tokens, "crop_weight": crop_weight}
    torch.manual_seed(0)
    plain = STCLIP(clip, **parts).eval()
    model = STCLIP(clip, **parts, marked=outside, marked_weight=0.5).eval()
    model.load_state_dict(plain.state_dict())  # no parameters of its own
    found = model(batch, TEXT)
    pictures = torch.cat([mark(one_keyframe(batch, row), outside) for row in (0, 2)])
    added = clip.encode_image(normalize_pixels(pictures))
    expected = plain(batch, TEXT).person_features + 0.5 * added
    torch.testing.assert_close(found.person_features, expected, rtol=1e-5, atol=1e-5)
    looped = torch.cat([model(one_keyframe(batch, row), TEXT).logits for row in range(3)])
    torch.testing.assert_close(found.logits, looped, rtol=1e-5, atol=1e-5)


def test_gradients_flow_through_the_marked_persons_feature() -> None:
    """Without person tokens and prompts LoRA learns from it, and only the pictures differ."""
    batch, gradients = random_batch([1, 2]), []
    for weight in (0.0, 1.0):
        parts = {"person_tokens": False, "prompt": False, "temporal": False}
        model = STCLIP(tiny_model().clip, **parts, marked="blur", marked_weight=weight).train()
        model(batch, TEXT).logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(not torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


def test_no_persons() -> None:
    assert PersonTokens(64)(torch.zeros(0, 64)).shape == (0, 64)


def mixed_by_loop(module: ContextTokens, patches: Tensor, frames: list[int]) -> Tensor:
    """One keyframe with nn.MultiheadAttention, position by position."""
    width = patches.shape[-1]
    rows = []
    for position in range(patches.shape[1]):
        x = patches[frames, position] + module.temporal_embedding[: len(frames)]
        for block in (module, *module.deeper):
            attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
            attention.load_state_dict(block.attn.state_dict())
            y = block.ln_1(x)[None]
            x = x + attention.eval()(y, y, y, need_weights=False)[0][0]
        rows.append(x.mean(dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "windows",
    [
        [list(range(9)), list(range(3, 12))],
        [[0, 1, 2], [4, 5, 6]],
        [list(range(9)), list(range(1, 10)), list(range(3, 12))],
        [[0, 1, 2], [1, 2, 3, 4], [4, 5, 6]],
    ],
)
def test_mixing_equals_the_loop(both_ways, windows: list[list[int]], depth: int) -> None:
    torch.manual_seed(0)
    module = ContextTokens(128, frames=9, depth=depth)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    patches = torch.randn(12, 5, 128)
    padded = torch.tensor([w + [-1] * (9 - len(w)) for w in windows])
    result = module(patches, padded)
    expected = torch.stack([mixed_by_loop(module, patches, frames) for frames in windows])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)

    direction = torch.randn(result.shape)
    shared = [module.temporal_embedding, module.ln_1.weight, module.ln_1.bias]
    gradients = torch.autograd.grad((result * direction).sum(), shared)
    for found, wanted in zip(
        gradients, torch.autograd.grad((expected * direction).sum(), shared), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_short_and_long_videos_share_a_batch() -> None:
    torch.manual_seed(0)
    module = ContextTokens(64, frames=4).eval()
    patches = torch.randn(6, 3, 64)
    window = torch.tensor([[0, 1, -1, -1], [2, 3, 4, 5]])
    both = module(patches, window)
    torch.testing.assert_close(both[:1], module(patches, window[:1]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[1:], module(patches, window[1:]), rtol=1e-5, atol=1e-6)


def test_one_frame_is_itself_plus_attention_to_itself() -> None:
    module = ContextTokens(64, frames=1).eval()
    nn.init.zeros_(module.attn.out_proj.weight)
    patches = torch.randn(1, 3, 64)
    result = module(patches, torch.tensor([[0]]))
    torch.testing.assert_close(result, patches + module.temporal_embedding[0])


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


def prompted_by_hand(
    prompt: ContextPrompt, text: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Section 5 for one keyframe with one head of 64: text (C, 64), tokens (S, 64)."""
    block = prompt.decoder[0]
    cross = block.cross_attn
    v = prompt.norm(tokens)
    q, k, value = (
        cross.q_proj(block.norm1(text)),
        cross.k_proj(v),
        cross.v_proj(v),
    )
    attention = (q @ k.T / 8).softmax(dim=-1)
    h = text + cross.proj(attention @ value)
    hidden = block.mlp.c_fc(block.norm3(h))
    h = h + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
    return text + prompt.alpha * h


def test_prompting_equals_the_formula(both_ways) -> None:
    torch.manual_seed(0)
    prompt = ContextPrompt(64)
    for parameter in prompt.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    text, tokens = torch.randn(2, 5, 64), torch.randn(2, 7, 64)
    result = prompt(text, tokens)
    for row in range(2):
        expected = prompted_by_hand(prompt, text[row], tokens[row])
        torch.testing.assert_close(result[row], expected, rtol=1e-5, atol=1e-5)


def test_initial_values_are_the_papers() -> None:
    prompt = ContextPrompt(512)
    assert torch.equal(prompt.alpha, torch.full((512,), 0.2))
    weight = prompt.decoder[0].mlp.c_fc.weight
    assert 0.019 < weight.std() < 0.021
    assert not prompt.decoder[0].cross_attn.proj.bias.any()
    wider = (
        ContextPrompting(range(2), 64, 512, init_std=0.15).prompts["1"].decoder[0].mlp.c_fc.weight
    )
    assert 0.14 < wider.std() < 0.16


def test_masked_tokens_do_not_count() -> None:
    torch.manual_seed(0)
    prompting = ContextPrompting(layers=range(2), width=64, embed_dim=128)
    text, tokens = torch.randn(1, 3, 128), torch.randn(1, 6, 64)
    mask = torch.tensor([[True, True, False, True, False, True]])
    kept = prompting(1, text, tokens[:, mask[0]])
    torch.testing.assert_close(prompting(1, text, tokens, mask), kept, rtol=1e-5, atol=1e-6)


def test_text_without_visual_influence_keeps_its_residual() -> None:
    prompt = ContextPrompt(64)
    torch.nn.init.zeros_(prompt.decoder[0].cross_attn.proj.weight)
    torch.nn.init.zeros_(prompt.decoder[0].mlp.c_proj.weight)
    text = F.normalize(torch.randn(1, 4, 64), dim=-1)
    torch.testing.assert_close(prompt(text, torch.randn(1, 6, 64)), 1.2 * text)


CONTEXT = 1 + 9  # class token and patches of the tiny model


def spotting_model(top_k: int, include_person: bool = True, seed: int = 0) -> STCLIP:
    model = tiny_model(seed, vision_width=128)  # two heads, so that their mean matters
    # Attention that is far from uniform, and prompts that change the text a lot.
    for name, parameter in model.named_parameters():
        if name.endswith(("in_proj_weight", "cross_attn.proj.weight", "q_proj.weight")):
            nn.init.normal_(parameter, std=0.2)
    model.interest_tokens = InterestTokens(top_k, include_person)
    return model.eval()


def spotted_by_loop(model: STCLIP, batch: ClipBatch, row: int) -> tuple[Tensor, Tensor]:
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
def test_spotting_equals_the_loop(both_ways, top_k: int, include_person: bool) -> None:
    model = spotting_model(top_k, include_person)
    batch = random_batch([3, 0, 1, 2])
    output = model(batch, TEXT)
    parts = [spotted_by_loop(model, batch, row) for row in (0, 2, 3)]
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
    weights = attention.weights(x, slice(1, 3), mask)
    assert weights.shape == (2, 2, 6)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2))
    assert not weights[1, :, 3:].any()
    short = attention.weights(x[1:, :3], slice(1, 3))
    torch.testing.assert_close(weights[1:, :, :3], short, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_under_autocast(dtype: torch.dtype) -> None:
    """Choosing tokens without gradients must not leave weights behind that have none."""
    model, batch = spotting_model(2).train(), random_batch([2])
    with torch.autocast("cpu", dtype=dtype):
        output = model(batch, TEXT)
    output.logits.square().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_more_tokens_than_there_are() -> None:
    with pytest.raises(AssertionError, match="11 interest tokens of 10"):
        spotting_model(CONTEXT + 1)(random_batch([1]), TEXT)
