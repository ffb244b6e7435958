"""Building CLIP from weights, and files that are not what they should be."""

import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stclip.errors import UserError
from stclip.models import weights
from stclip.models.clip import CLIP, CLIPSizes
from stclip.models.formats import clip_sizes, name_tokens
from stclip.models.tokenizer import tokenize
from stclip.models.weights import (
    available_models,
    clip_from_state_dict,
    clip_state_dict,
    load_clip,
)
from tests.models.test_clip import SIZES, inputs, tiny_clip


@pytest.fixture(scope="module")
def model() -> CLIP:
    return tiny_clip(vocab_size=300)


@pytest.fixture
def state(model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_sizes_follow_from_the_weights():
    for sizes in SIZES:
        model = tiny_clip(sizes, vocab_size=100, text_length=20)
        found = clip_sizes(model.state_dict())
        assert found == CLIPSizes(*sizes, 20, 100)
        again = CLIP(found)
        again.load_state_dict(model.state_dict())


def test_lora_starts_as_the_identity_or_is_loaded(state, model):
    images, _ = inputs(64)
    torch.manual_seed(3)
    fresh = clip_from_state_dict(state, lora_rank=2, lora_alpha=4.0)
    torch.testing.assert_close(fresh.encode_image(images), model.encode_image(images))
    layer = fresh.visual.transformer.resblocks[0].mlp.c_fc
    assert layer.scale == 2.0
    assert layer.lora_A.abs().max() > 0
    assert not layer.lora_B.any()
    torch.manual_seed(3)
    again = clip_from_state_dict(state, lora_rank=2)
    assert torch.equal(again.visual.transformer.resblocks[0].mlp.c_fc.lora_A, layer.lora_A)
    trained = {name: tensor + 0.01 for name, tensor in fresh.state_dict().items()}
    loaded = clip_from_state_dict(trained, lora_rank=2)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, trained[name])
    with pytest.raises(UserError, match=r"found unexpected visual\.transformer\.resblocks\.0\."):
        clip_from_state_dict(trained)
    part = {name: tensor for name, tensor in trained.items() if not name.endswith("c_fc.lora_A")}
    with pytest.raises(UserError, match=r"found no .*resblocks\.0\.mlp\.c_fc\.lora_A, "):
        clip_from_state_dict(part, lora_rank=2)
    with pytest.raises(UserError, match=r"lora_A of shape \(2, 128\), expected \(3, 128\)"):
        clip_from_state_dict(trained, lora_rank=3)


def test_the_state_dict_is_copied(state):
    loaded = clip_from_state_dict(state)
    state["logit_scale"].fill_(7)
    assert loaded.logit_scale.item() != 7


def test_the_model_is_whole(state):
    state = {name: tensor.half() for name, tensor in state.items()}
    model = clip_from_state_dict(state, lora_rank=2).to("cpu")
    assert not any(module.training for module in model.modules())
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.device.type == "cpu"
        frozen_by_lora = name.endswith((".weight", ".bias")) and ".mlp." in name
        expected = not (frozen_by_lora and name.startswith("visual."))
        assert parameter.requires_grad == expected, name


def test_missing_unexpected_and_misshapen_weights_are_fatal(state):
    wrong = dict(state)
    del wrong["ln_final.bias"]
    with pytest.raises(UserError, match=r"a\.pt: found no ln_final\.bias; expected exactly the"):
        clip_from_state_dict(wrong, source="a.pt")
    with pytest.raises(UserError, match=r"found unexpected extra\.weight; expected"):
        clip_from_state_dict({**state, "extra.weight": torch.ones(1)})
    with pytest.raises(UserError, match=r"ln_final.bias of shape \(3,\), expected \(64,\)"):
        clip_from_state_dict({**state, "ln_final.bias": torch.ones(3)})
    with pytest.raises(UserError, match=r"found no visual\.conv1\.weight, "):
        clip_from_state_dict({})
    with pytest.raises(UserError, match="3 positions, expected one"):
        clip_from_state_dict({**state, "visual.positional_embedding": torch.ones(3, 128)})
    with pytest.raises(UserError, match="image tower of width 96, expected a multiple of 64"):
        clip_from_state_dict({**state, "visual.conv1.weight": torch.ones(96, 3, 32, 32)})


OTHERS = {
    "CLIP with a ResNet": ["visual.conv1.weight", "visual.layer1.0.conv1.weight"],
    "X-CLIP": ["visual.conv1.weight", "mit.positional_embedding", "prompts_generator.alpha"],
    r"an ST-CLIP checkpoint; .*MODEL\.WEIGHT": ["roi_heads.action.x"],
    "tensors named fc.weight": ["fc.weight"],
    "no visual.positional_embedding": ["visual.conv1.weight"],
    "no visual.conv1.weight": ["text_model.embeddings.token_embedding.weight"],
}


@pytest.mark.parametrize("found", OTHERS)
def test_other_models_are_named(tmp_path, found):
    path = tmp_path / "other.pt"
    torch.save({name: torch.ones(2, 2) for name in OTHERS[found]}, path)
    with pytest.raises(UserError, match=rf"other\.pt: found {found}") as error:
        load_clip(path)
    assert "\n" not in str(error.value)
    assert "expected" in str(error.value)


def test_hugging_faces_xclip_is_named(tmp_path):
    names = ["vision_model.encoder.layers.0.message_fc.weight", "mit.position_embedding"]
    save_file({name: torch.ones(2) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="found X-CLIP; expected CLIP"):
        load_clip(tmp_path)


@pytest.mark.parametrize("contents", [[1, 2], {}, {"state_dict": {"a": 1}}, torch.ones(2)])
def test_other_contents_are_told(tmp_path, contents):
    torch.save(contents, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt: found .*expected CLIP"):
        load_clip(tmp_path / "x.pt")


def test_whole_numbers_are_not_taken_for_weights(tmp_path, state):
    torch.save({**state, "ln_final.bias": torch.ones(64, dtype=torch.int8)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"whole numbers \(ln_final.bias\)"):
        load_clip(tmp_path / "x.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_told(tmp_path, state, kind, kept):
    path = tmp_path / "cut.pt"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError, match=r"cut\.pt: found ") as error:
        load_clip(path)
    assert "\n" not in str(error.value)


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    torch.save({"a": Payload()}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="no weights that can be read safely"):
        load_clip(tmp_path / "x.pt")
    assert "executed" not in capsys.readouterr().out


def test_files_that_hold_no_weights_are_told(tmp_path):
    (tmp_path / "text.pt").write_text("hello, this is no file of weights")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "a")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("a/constants.pkl", "a")
    for name in ("text.pt", "zip.pt", "script.pt"):
        with pytest.raises(UserError, match=rf"{name}: found no weights") as error:
            load_clip(tmp_path / name)
        assert "\n" not in str(error.value)


def test_folders_without_weights_are_told(tmp_path):
    with pytest.raises(UserError, match=r"found none of .*model\.safetensors.* in this folder"):
        load_clip(tmp_path)


def test_names_and_paths_that_do_not_exist_are_told(tmp_path):
    with pytest.raises(UserError, match=r"ViT-B-16: no such file.*did you mean ViT-B/16\?"):
        load_clip("ViT-B-16")
    with pytest.raises(UserError) as error:
        load_clip(tmp_path / "clip.pt")
    assert all(name in str(error.value) for name in available_models())
    assert "did you mean" not in str(error.value)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        clip_state_dict(tmp_path / "clip.pt")


def test_names_are_downloaded(tmp_path, monkeypatch, state):
    path = tmp_path / "clip.pt"
    torch.save(state, path)
    asked = []
    monkeypatch.setattr(
        weights, "download", lambda url, sha256: asked.append((url, sha256)) or path
    )
    names = ["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"]
    assert available_models() == [*names, "puppet"]
    for name in names:
        load_clip(name)
    for url, sha256 in asked:
        assert url.startswith("https://")
        assert url.split("/")[-2] == sha256
        assert len(sha256) == 64
    assert [url.rsplit("/", 1)[1] for url, _ in asked][3] == "ViT-L-14-336px.pt"


def test_the_small_clip_is_read_from_the_package(tmp_path, monkeypatch, state):
    monkeypatch.setattr(weights, "files", lambda package: tmp_path / package)
    with pytest.raises(UserError, match=r"assets/puppet_clip\.safetensors: .*install it again"):
        load_clip("puppet")
    (tmp_path / "stclip" / "assets").mkdir(parents=True)
    save_file(state, tmp_path / "stclip" / "assets" / "puppet_clip.safetensors")
    assert torch.equal(load_clip("puppet").ln_final.weight, state["ln_final.weight"])
    with pytest.raises(UserError, match=r"did you mean puppet\?"):
        load_clip("pupet")


def test_some_rows_of_the_token_embedding_make_a_whole_one(tmp_path, state):
    path = tmp_path / "part.safetensors"
    ids = torch.tensor([5, 40406, 49406, 49407])
    rows = torch.tensor([[1.0], [2.0], [3.0], [6.0]]).expand(4, 64)
    state["token_embedding.weight"] = rows.half()
    save_file(name_tokens(state, ids, 49408), path)
    loaded = load_clip(path)
    embedding = loaded.token_embedding.weight
    assert embedding.shape == (49408, 64)
    assert torch.equal(embedding[ids], rows)
    assert torch.equal(embedding[6], torch.full((64,), 3.0))  # the mean of the four
    assert embedding.unique().tolist() == [1, 2, 3, 6]
    assert loaded.encode_text(tokenize(["any text", "7"])).isfinite().all()
    again = tmp_path / "whole.safetensors"
    save_file(loaded.state_dict(), again)  # what is loaded is an ordinary CLIP
    assert torch.equal(load_clip(again).token_embedding.weight, embedding)


@pytest.mark.parametrize(
    ("ids", "count", "found"),
    [
        ([0, 1, 2], 300, "with 3 ids, expected as many rows"),
        ([0, 1, 2, 300], 300, "not all from 0 to 299"),
        ([-1, 1, 2, 3], 300, "not all from 0 to 299"),
    ],
)
def test_ids_that_do_not_fit_are_told(tmp_path, state, ids, count, found):
    path = tmp_path / "part.safetensors"
    state["token_embedding.weight"] = torch.ones(4, 64)
    save_file(name_tokens(state, torch.tensor(ids), count), path)
    with pytest.raises(
        UserError, match=rf"part\.safetensors: found token_embedding\.ids .*{found}"
    ):
        load_clip(path)
    del state["token_embedding.weight"]
    save_file(name_tokens(state, torch.tensor(ids), count), path)
    with pytest.raises(UserError, match="expected as many rows in token_embedding"):
        load_clip(path)
