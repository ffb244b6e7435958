"""stclip puppet pretrain: the pieces, and a tiny training from end to end."""

import pytest
import torch

from stclip.errors import UserError
from stclip.models.clip import CLIP
from stclip.models.tokenizer import get_tokenizer, tokenize
from stclip.models.weights import load_clip
from stclip.puppet import pretraining_pictures
from stclip.puppet.draw.captions import Looks
from stclip.puppet.pretraining_pictures import ALL_ACTIONS, Cache, Shown, Trial
from tests.helpers import REPOSITORY, InThisProcess, load_command


@pytest.fixture
def tool():
    return load_command("pretrain_puppet")


def cache_of(count: int) -> Cache:
    looks = [Looks(action, "red", "blue", "grey") for action in ALL_ACTIONS]
    shown = [Shown((looks[i % 37],), "park") for i in range(count)]
    part = pretraining_pictures.SAMPLES_PER_PART
    pixels = torch.arange(count)[:, None, None, None].expand(count, 3, 2, 2).to(torch.uint8)
    return Cache([rows.numpy() for rows in pixels.split(part)], shown)


def test_an_epoch_shows_every_picture_once_and_the_next_other_captions(tool, monkeypatch):
    monkeypatch.setattr(tool, "BATCH", 16)
    cache = cache_of(96)
    tokens = tool.Tokens.of(cache)
    steps = [tool.make_pairs(cache, tokens, step, seed=0) for step in range(12)]
    for epoch in (steps[:6], steps[6:]):
        seen = torch.cat([pairs.pictures[:, 0, 0, 0] for pairs in epoch])
        assert sorted(seen.tolist()) == list(range(96))
    again = tool.make_pairs(cache, tokens, 7, seed=0)
    assert torch.equal(again.tokens, steps[7].tokens)
    assert not torch.equal(steps[0].tokens, steps[6].tokens)
    for pairs in steps:
        rows = [int(row) % 37 for row in pairs.pictures[:, 0, 0, 0]]
        assert torch.equal(pairs.shown, torch.eye(37).bool()[rows])
        assert torch.equal(pairs.named, pairs.shown)


def test_places_keep_the_order_of_the_tokens(tool):
    tokens = tool.Tokens.of(cache_of(37))
    assert tokens.ids[-1] == get_tokenizer().end
    places = tokens.encode(["brush_hair", "a man in a red shirt is running in the park"])
    expected = tokenize(["brush_hair", "a man in a red shirt is running in the park"])
    assert torch.equal(tokens.ids[places] * (expected > 0), expected)
    assert torch.equal(places.argmax(1), expected.argmax(1))
    with pytest.raises(AssertionError, match="all_words"):
        tokens.encode(["a dinosaur"])


def test_accuracy_by_hand(tool, monkeypatch):
    # Pictures and texts are told by one number each: the features are its direction.
    class Told(torch.nn.Module):
        def encode_image(self, pictures):
            return torch.eye(21)[(pictures[:, 0, 0, 0]).round().long()]

        def encode_text(self, tokens):
            return torch.eye(21)[tokens[:, 0]]

    labels = list(pretraining_pictures.ACTIONS)

    class Numbers:
        def encode(self, texts):
            return torch.tensor([[labels.index(text)] for text in texts])

    monkeypatch.setattr(tool, "normalize_pixels", lambda pictures: pictures.float())

    def picture(*actions):
        rows = torch.tensor([labels.index(action) for action in actions])
        return rows[:, None, None, None].expand(-1, 3, 1, 1).to(torch.uint8)

    trial = Trial(
        frames=picture("clap", "golf"),
        crops=picture("clap", "sit", "golf", "walk"),
        frame_of=(0, 0, 1, 1),
        actions=("clap", "wave", "golf", "walk"),
    )
    results = tool.try_names(Told(), Numbers(), {"some": trial})["some"]
    assert results["all 21"] == tool.Result(frame=50, crop=75)
    # Of split 1's unseen names (clap, sit, wave, ...) the first two persons have one.
    assert results["split 1"] == tool.Result(frame=50, crop=50)
    assert tool.table({"some": results})[2].startswith("| some | 50 / 50 |")


@pytest.mark.slow
def test_a_tiny_training_gives_weights_and_a_card(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretraining_pictures, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(pretraining_pictures, "_SCENES_PER_PART", 12)
    monkeypatch.setattr(pretraining_pictures, "SAMPLES_PER_PART", 60)
    monkeypatch.setattr(tool, "SCENES_PER_ACTION", 1)
    monkeypatch.setattr(tool, "BATCH", 20)
    sizes = {"vision_width": 64, "vision_layers": 1, "text_width": 64, "text_layers": 1}
    monkeypatch.setattr(tool, "SIZES", {**tool.SIZES, **sizes, "image_size": 32})
    out = tmp_path / "small.safetensors"
    arguments = ["--out", str(out), "--work", str(tmp_path / "work"), "--samples", "120"]
    with torch.random.fork_rng():
        assert tool.main([*arguments, "--steps", "4", "--workers", "1"]) == 0
    clip = load_clip(out)
    assert isinstance(clip, CLIP)
    assert clip.token_embedding.num_embeddings == 49408
    assert clip.image_size == 32
    assert clip.encode_text(tokenize("riding a unicorn")).isfinite().all()
    card = out.with_suffix(".md").read_text()
    assert "| benchmark's look, alone |" in card
    assert "--samples 120 --steps 4" in card
    assert "Pictures: 120 of one to four people" in card
    assert "card next to it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--out", "a.safetensors", "--steps", "0"], "--steps: 1 or more expected, found 0"),
        (["--out", "a.safetensors", "--seed", "-1"], "--seed: 0 or more expected, found -1"),
        (["--out", "a.pt"], "--out: a name that ends in .safetensors expected, found a.pt"),
    ],
)
def test_wrong_options_are_told(tool, arguments, found):
    with pytest.raises(UserError, match=found):
        tool.main(arguments)


def test_the_clip_of_the_package_knows_the_actions(tool):
    asset = REPOSITORY / "stclip" / "assets" / "puppet_clip.safetensors"
    assert asset.stat().st_size < 8e6
    assert asset.with_suffix(".md").exists()
    clip = load_clip("puppet")
    assert clip.text_length == 77
    trial = pretraining_pictures.draw_trial(
        "benchmark", others=False, scenes_per_action=4, seed=1, size=112
    )
    results = tool.try_names(clip, tool.Tokens(torch.arange(49408)), {"some": trial})["some"]
    assert results["all 21"].crop > 30  # chance is 5
    assert results["all 21"].frame > 12
