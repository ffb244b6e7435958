"""X-CLIP weights in every format that people hold them in."""

import json
import re
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from yacs.config import CfgNode

import stclip
from stclip.errors import UserError
from stclip.models import weights
from stclip.models.download import download_xclip, xclip_models
from tests.models.test_formats import hugging_face_names as clip_to_hugging_face
from tests.models.test_xclip import SIZES, TEXTS, tiny_xclip, videos


@pytest.fixture(scope="module")
def model():
    return tiny_xclip(vocab_size=300)


@pytest.fixture
def state(model) -> dict[str, Tensor]:
    """The weights under their authors' names."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("prompts_generator."):
            name = name.replace("mlp.c_fc", "mlp.0").replace("mlp.c_proj", "mlp.3")
        state[name] = tensor.clone()
    return state


def hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names to Hugging Face's, written out separately."""
    clip, named = {}, {}
    for name, tensor in state.items():
        if name.startswith(("mit.resblocks.", "visual.transformer.")) or name == "visual.proj":
            continue
        if name.startswith(("mit.", "prompts_")):
            new = name.replace("positional_embedding", "position_embedding")
            new = new.replace("prompts_generator.norm.", "prompts_generator.layernorm.")
            new = new.replace("prompts_visual_ln", "prompts_visual_layernorm")
            named[re.sub("prompts_visual_proj$", "prompts_visual_projection", new)] = tensor
        else:
            clip[name] = tensor
    named.update(clip_to_hugging_face(clip))
    named["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    for part in ("weight", "bias"):
        pre = named.pop(f"vision_model.pre_layrnorm.{part}")
        named[f"vision_model.pre_layernorm.{part}"] = pre
    for name, tensor in state.items():
        found = re.fullmatch(r"(mit|visual\.transformer)\.resblocks\.(\d+)\.(.*)", name)
        if found is None:
            continue
        tower = "mit" if found[1] == "mit" else "vision_model"
        prefix, rest = f"{tower}.encoder.layers.{found[2]}.", found[3]
        rest = re.sub(r"^attn\.", "self_attn.", rest)
        rest = rest.replace("ln_1", "layer_norm1").replace("ln_2", "layer_norm2")
        rest = rest.replace("c_fc", "fc1").replace("c_proj", "fc2")
        if "in_proj_" in rest:
            for letter, piece in zip("qkv", tensor.chunk(3), strict=True):
                named[prefix + rest.replace("in_proj_", f"{letter}_proj.")] = piece.clone()
        else:
            named[prefix + rest] = tensor
    return named


def assert_holds(path, model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = stclip.load_xclip(path)
    expected = model.state_dict()
    assert not loaded.training
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name
    # Heads are in no weight; all are 64 wide, whatever a config beside the weights says.
    assert {block.attn.heads for block in loaded.mit.resblocks} == {loaded.embed_dim // 64}
    attentions = {block.cross_attn.heads for block in loaded.prompts_generator.decoder}
    assert attentions == {loaded.embed_dim // 64}


@pytest.mark.parametrize("wrap", ["plain", "published", "training", "parallel"])
def test_the_authors_files(tmp_path, model, state, wrap):
    path = tmp_path / "k400.pth"
    if wrap == "plain":
        contents = state
    elif wrap == "published":
        contents = {"model": state}
    elif wrap == "training":  # as a training program saves it, its config included
        config = CfgNode({"DATA": {"NUM_FRAMES": 4, "LABELS": ["a", "b"]}, "TRAIN": {"LR": 8e-6}})
        config.freeze()
        optimizer = {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}
        contents = {"model": state, "optimizer": optimizer, "epoch": 3, "config": config}
    else:
        contents = {"model": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(contents, path)
    assert_holds(path, model)


@pytest.mark.parametrize("as_folder", [True, False])
def test_hugging_faces_files(tmp_path, model, state, as_folder):
    named = hugging_face_names(state)
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(named, tmp_path / "model.safetensors")
    # Heads of 12 pixels, say, in the integration and the prompts: Hugging Face's mistake.
    tower = {"hidden_size": 128, "num_attention_heads": 2, "mit_num_attention_heads": 8}
    config = {"vision_config": tower, "prompt_num_attention_heads": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_holds(tmp_path if as_folder else tmp_path / "model.safetensors", model)


def test_the_config_beside_the_weights_is_checked(tmp_path, state):
    save_file(hugging_face_names(state), tmp_path / "model.safetensors")
    towers = {f"{tower}_config": {"hidden_act": "gelu"} for tower in ("text", "vision")}
    (tmp_path / "config.json").write_text(json.dumps(towers))
    loaded = stclip.load_xclip(tmp_path)
    assert loaded.activation == "gelu"
    mlps = {name: m for name, m in loaded.named_modules() if name.endswith("mlp.gelu")}
    gelu = {name.split(".")[0] for name, m in mlps.items() if isinstance(m, nn.GELU)}
    assert gelu == {"visual", "transformer"}  # what X-CLIP adds to CLIP has QuickGELU
    assert stclip.load_xclip(tmp_path, activation="quick_gelu").activation == "quick_gelu"
    (tmp_path / "config.json").write_text(json.dumps(towers | {"vision_config": {"x": 1}}))
    with pytest.raises(UserError, match=r"config\.json: found .*gelu and quick_gelu"):
        stclip.load_xclip(tmp_path)


@pytest.mark.parametrize("sizes", SIZES)
def test_transformers_writes_what_we_read_and_reads_what_we_hold(tmp_path, sizes):
    transformers = pytest.importorskip("transformers")
    image_size, patch_size, vision_width, vision_layers, text_width, text_layers = sizes[:6]
    embed_dim, frames, mit_layers, prompt_layers = sizes[6:]

    def tower(width: int, layers: int) -> dict[str, int]:
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
        }

    integration = {f"mit_{name}": value for name, value in tower(embed_dim, mit_layers).items()}
    vision = {**tower(vision_width, vision_layers), "image_size": image_size, "num_frames": frames}
    config = transformers.XCLIPConfig(
        vision_config={**vision, **integration, "patch_size": patch_size},
        text_config=tower(text_width, text_layers),
        projection_dim=embed_dim,
        prompt_layers=prompt_layers,
        prompt_num_attention_heads=embed_dim // 64,
    )
    torch.manual_seed(0)
    theirs = transformers.XCLIPModel(config).eval().requires_grad_(False)
    for name, parameter in theirs.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
        elif (
            parameter.ndim > 1 and "token_embedding" not in name
        ):  # its own initialisation is hardly above zero
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    theirs.save_pretrained(tmp_path)
    ours = stclip.load_xclip(tmp_path).requires_grad_(False)
    assert ours.frames == frames
    pixels, tokens = videos(2, frames, image_size), stclip.tokenize(TEXTS)
    out = theirs(input_ids=tokens, pixel_values=pixels)
    video_features = nn.functional.normalize(ours.encode_video(pixels), dim=-1)
    torch.testing.assert_close(video_features, out.video_embeds, atol=1e-5, rtol=1e-5)
    logits = ours(pixels, tokens)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, out.logits_per_video, atol=1e-4, rtol=1e-5)
    # and back: transformers takes weights that are ours under its names
    fresh = tiny_xclip(sizes, seed=5)
    published = {
        name.replace("mlp.c_fc", "mlp.0").replace("mlp.c_proj", "mlp.3")
        if name.startswith("prompts_")
        else name: tensor
        for name, tensor in fresh.state_dict().items()
    }
    theirs.load_state_dict(hugging_face_names(published))
    out = theirs(input_ids=tokens, pixel_values=pixels)
    torch.testing.assert_close(fresh(pixels, tokens), out.logits_per_video, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("frames", [2, 9])
def test_another_number_of_frames_is_warned_of(tmp_path, model, state, frames):
    torch.save(state, tmp_path / "x.pth")
    assert stclip.load_xclip(tmp_path / "x.pth", frames=4).mit.positional_embedding.equal(
        model.mit.positional_embedding
    )
    with pytest.warns(UserWarning, match=rf"trained for videos of 4 frames; .* of {frames} are"):
        stretched = stclip.load_xclip(tmp_path / "x.pth", frames=frames)
    assert stretched.frames == frames
    assert stretched.encode_video(videos(2, frames)).shape == (2, 64)
    with pytest.raises(UserError, match="found 4 a video, expected"):
        stretched.encode_video(videos(2, 4))
    with pytest.raises(UserError, match="frames: found 0, expected at least 1"):
        stclip.load_xclip(tmp_path / "x.pth", frames=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mit.resblocks.0.ln_1.weight": None}, r"found no mit\.resblocks\.0\.ln_1\.weight; .*X-C"),
        ({"extra.weight": torch.ones(2)}, r"unexpected extra\.weight; expected exactly .* X-CLIP"),
        ({"mit.positional_embedding": None}, r"found no mit\.positional_embedding; expected X-CL"),
        (
            {"mit.positional_embedding": torch.ones(8, 64)},
            r"of shape \(8, 64\), expected \(1, frames, 64\)",
        ),
        ({"text_projection": None}, r"found no text_projection; expected X-CLIP"),
        (
            {
                "text_projection": torch.ones(64, 96),
                "mit.positional_embedding": torch.ones(1, 4, 96),
            },
            "joint space of width 96, expected a multiple of 64",
        ),
        (
            {"prompts_generator.alpha": torch.ones(3)},
            r"prompts_generator\.alpha of shape \(3,\), expected \(64,\)",
        ),
        ({"ln_final.bias": torch.ones(64, dtype=torch.int8)}, r"whole numbers .*expected X-CLIP"),
    ],
)
def test_other_weights_are_refused(tmp_path, state, changes, message):
    state = {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: found .*{message.removeprefix('found ')}"):
        stclip.load_xclip(tmp_path / "x.pth")


OTHERS = {
    r"CLIP; .*stclip\.load_clip": ["visual.conv1.weight", "text_projection"],
    "CLIP; expected X-CLIP in": ["text_model.embeddings.token_embedding.weight"],
    r"an ST-CLIP checkpoint; .*stclip\.load": ["roi_heads.action.x"],
    "tensors named fc.weight": ["fc.weight"],
}


@pytest.mark.parametrize("found", OTHERS)
def test_other_models_are_named(tmp_path, found):
    torch.save({name: torch.ones(2, 2) for name in OTHERS[found]}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: found {found}") as error:
        stclip.load_xclip(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_damaged_and_foreign_files(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match=r"x\.pth: found a damaged file"):
        stclip.load_xclip(tmp_path / "x.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list\.pth: found a list; expected X-CLIP"):
        stclip.load_xclip(tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"did you mean k400_16_8\?\); expected a file of X-CLIP"):
        stclip.load_xclip("k400-16-8")


def test_published_files_are_fetched_by_name(tmp_path, monkeypatch, model, state):
    monkeypatch.setenv("STCLIP_CACHE", str(tmp_path))
    asked = []

    def fetch(transfer):
        asked.append((transfer.url, transfer.sha256))
        torch.save({"model": state}, transfer.target)
        return transfer.target

    monkeypatch.setattr("stclip.models.download._fetch", fetch)
    for _ in range(2):  # the second time it is there
        assert_holds("zero", model)
    base = "https://github.com/nbl97/X-CLIP_Model_Zoo/releases/download/v1.0"
    assert asked == [(f"{base}/zero.pth", None)]
    assert (tmp_path / "xclip" / "zero.pth").is_file()
    assert len(xclip_models()) == len(set(xclip_models())) == 18


def test_files_that_only_a_browser_can_fetch(tmp_path, monkeypatch, state):
    monkeypatch.setenv("STCLIP_CACHE", str(tmp_path))
    target = tmp_path / "xclip" / "k400_14_8.pth"
    with pytest.raises(UserError, match=r"get https://drive\.google\.com/file/d/1NUO\w+ and put"):
        weights.load_xclip("k400_14_8")
    target.parent.mkdir()
    torch.save({"model": state}, target)
    assert download_xclip("k400_14_8") == target
    assert weights.load_xclip("k400_14_8").frames == 4
