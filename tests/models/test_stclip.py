import pytest
import torch

from stclip.models.stclip import STCLIP, STCLIPOutput
from stclip.structures import ClipBatch
from tests.helpers import random_batch, tiny_model


def forward(batch: ClipBatch, seed: int = 0) -> STCLIPOutput:
    model = tiny_model(seed).eval()
    with torch.no_grad():
        return model(batch, torch.randn(5, 64, generator=torch.Generator().manual_seed(1)))


def one_keyframe(batch: ClipBatch, row: int) -> ClipBatch:
    rows = batch.owner == row
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


def test_no_boxes_at_all_is_legal() -> None:
    output = forward(random_batch([0, 0]))
    assert output.logits.shape == (0, 5)
    assert output.text_features.shape == (0, 5, 64)


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    model, batch, text = tiny_model().eval(), random_batch([1, 0, 2]), torch.randn(5, 64)
    with torch.inference_mode():
        expected = model(batch, text).logits
        found = model.cuda()(batch.to(torch.device("cuda")), text.cuda()).logits.cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_forward_draws_no_random_numbers() -> None:
    model, batch, text = tiny_model().train(), random_batch([1]), torch.randn(5, 64)
    before = torch.get_rng_state()
    model(batch, text)
    assert torch.equal(before, torch.get_rng_state())
