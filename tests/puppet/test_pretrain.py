"""Pre-training: it learns, and an interrupted training ends as an uninterrupted one."""

import pytest
import torch

from stclip.errors import UserError
from stclip.models.clip import CLIP, CLIPSizes, normalize_pixels
from stclip.puppet.pretrain import Pairs, Pretrainer, Recipe, encode_by_length, varied

SIZES = {
    "image_size": 32,
    "patch_size": 16,
    "vision_width": 64,
    "vision_layers": 1,
    "text_width": 64,
    "text_layers": 1,
    "embed_dim": 16,
    "text_length": 4,
    "vocab_size": 8,
}
END = SIZES["vocab_size"] - 1


def pairs(step: int) -> Pairs:
    """Pictures of one of four colours; the text is one token for the colour."""
    generator = torch.Generator().manual_seed(step)
    colours = torch.randint(0, 4, (8,), generator=generator)
    palette = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 250]])
    pictures = palette[colours].to(torch.uint8)[:, :, None, None].expand(-1, -1, 32, 32)
    tokens = torch.zeros(8, 4, dtype=torch.long)
    tokens[:, 0], tokens[:, 1] = colours + 1, END
    shown = torch.eye(4).bool()[colours]
    return Pairs(pictures, tokens, shown, shown)


def trainer(path, steps: int = 60) -> Pretrainer:
    torch.manual_seed(0)
    return Pretrainer(CLIP(CLIPSizes(**SIZES)), 4, Recipe(steps), path)


@pytest.mark.parametrize("part", ["recipe", "model", "optimizer", "step", "seconds"])
@pytest.mark.parametrize("how", ["missing", "wrong"])
def test_a_damaged_checkpoint_is_told(tmp_path, part, how):
    path = tmp_path / "a.pt"
    trainer(path).save()
    content = torch.load(path, weights_only=True)
    if how == "missing":
        del content[part]
    else:
        content[part] = {"classifier": torch.ones(2)}
    torch.save(content, path)
    with pytest.raises(UserError, match=r"a\.pt: found "):
        trainer(path).resume()


@pytest.mark.slow
def test_it_learns_and_resumes(tmp_path):
    whole = trainer(tmp_path / "whole.pt")
    whole.run(pairs)
    batch = pairs(1000)
    logits = whole.clip(normalize_pixels(batch.pictures), batch.tokens)
    best = logits.argmax(1)
    assert (batch.tokens[best, 0] == batch.tokens[:, 0]).all()

    path = tmp_path / "parts.pt"
    first = trainer(path)
    first.run(pairs, until=25)
    first.save()
    second = trainer(path)
    second.resume()
    assert second.step == 25
    second.run(pairs)
    for name, value in whole.clip.state_dict().items():
        assert torch.equal(second.clip.state_dict()[name], value), name


def test_what_has_diverged_is_not_saved(tmp_path):
    path = tmp_path / "a.pt"
    made = trainer(path)
    made.save()
    before = path.read_bytes()
    made.clip.visual.proj.data[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"a\.pt: step 0: .*visual\.proj is not finite.*not saved"):
        made.save()
    assert path.read_bytes() == before


def test_another_recipe_does_not_resume(tmp_path):
    trainer(tmp_path / "a.pt").save()
    with pytest.raises(UserError, match=r"a\.pt: found \{'steps': 60.*remove the file"):
        trainer(tmp_path / "a.pt", steps=70).resume()


def test_texts_by_length_are_the_same():
    torch.manual_seed(0)
    clip = CLIP(CLIPSizes(**{**SIZES, "text_length": 9}))
    tokens = torch.randint(1, END, (11, 9))
    for row in range(11):
        tokens[row, 1 + row % 8] = END
        tokens[row, 2 + row % 8 :] = 0
    torch.testing.assert_close(encode_by_length(clip, tokens), clip.encode_text(tokens))


def test_variations_are_mirrors_and_small_changes_of_colour():
    pictures = torch.zeros(32, 3, 4, 4, dtype=torch.uint8)
    pictures[..., 0] = 200  # a bright left edge
    out = varied(pictures, torch.Generator().manual_seed(0))
    assert torch.equal(out, varied(pictures, torch.Generator().manual_seed(0)))
    plain = normalize_pixels(pictures)
    mirrored = out[:, 0, 0, 3] > out[:, 0, 0, 0]
    assert 8 <= mirrored.sum() <= 24
    upright = torch.where(mirrored[:, None, None, None], out.flip(-1), out)
    edge, rest = upright[..., 0], upright[..., 1:]
    gain = (edge[..., :1] - rest[..., :1, 0]) / (plain[..., :1, 0] - plain[..., :1, 1])
    assert gain.min() >= 0.8 - 1e-4
    assert gain.max() <= 1.2 + 1e-4
    level = upright - gain[..., None] * plain
    assert level.abs().max() <= 0.3 + 1e-4
