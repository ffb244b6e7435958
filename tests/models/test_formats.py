"""CLIP weights in every format that people hold them in."""

import json
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.models.clip import CLIP
from stclip.models.weights import clip_state_dict, load_clip
from tests.models.test_clip import SIZES, inputs, tiny_clip


@pytest.fixture(scope="module")
def model() -> CLIP:
    return tiny_clip(vocab_size=300)


@pytest.fixture
def state(model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_holds(path, expected: dict[str, Tensor]) -> None:
    found = clip_state_dict(path)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].float()), name
    loaded = load_clip(path)
    assert not loaded.training
    assert loaded.state_dict().keys() == expected.keys()


def hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The map backwards, written out separately."""
    named = {}
    for name, tensor in state.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        name = name.removeprefix("visual.")
        if "resblocks" in name:
            _, _, block, rest = name.split(".", 3)
            prefix = f"{tower}.encoder.layers.{block}."
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                    named[f"{prefix}self_attn.{part}_proj.{kind}"] = piece.clone()
                continue
            rest = rest.replace("ln_1", "layer_norm1").replace("ln_2", "layer_norm2")
            rest = rest.replace("c_fc", "fc1").replace("c_proj", "fc2")
            named[prefix + rest.replace("attn.out_proj", "self_attn.out_proj")] = tensor
            continue
        embeddings = f"{tower}.embeddings"
        new = {
            "class_embedding": f"{embeddings}.class_embedding",
            "conv1.weight": f"{embeddings}.patch_embedding.weight",
            "positional_embedding": f"{embeddings}.position_embedding.weight",
            "token_embedding.weight": f"{embeddings}.token_embedding.weight",
            "proj": "visual_projection.weight",
            "text_projection": "text_projection.weight",
        }.get(name, name)
        new = new.replace("ln_pre", "vision_model.pre_layrnorm")
        new = new.replace("ln_post", "vision_model.post_layernorm")
        new = new.replace("ln_final", "text_model.final_layer_norm")
        named[new] = tensor.T.contiguous() if "projection" in new else tensor
    return named


class OpenAIArchive(nn.Module):
    """What OpenAI saved: the weights in float16, and three numbers beside them."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(64))

    def forward(self, images: Tensor) -> Tensor:
        return self.visual(images)


def test_torchscript_archive(tmp_path, model):
    path = tmp_path / "ViT.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive = OpenAIArchive(tiny_clip(vocab_size=300))
        with torch.no_grad():  # torch checks the trace there, where QuickGELU works in place
            script = torch.jit.trace(archive, torch.randn(1, 3, 64, 64)).half()
        torch.jit.save(script, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the format is old does not concern the user
        assert_holds(path, {name: tensor.half() for name, tensor in model.state_dict().items()})


WRAPS = ["plain", "state_dict", "model", "module", "both", "legacy", "compiled", "scale"]


@pytest.mark.parametrize("wrap", WRAPS)
def test_state_dicts_of_torch(tmp_path, state, wrap):
    path = tmp_path / "clip.pth"
    contents: dict = {name: tensor.half() for name, tensor in state.items()}
    expected = dict(contents)
    if wrap in ("module", "both"):
        contents = {f"module.{name}": tensor for name, tensor in contents.items()}
    if wrap == "compiled":  # a compiled tower in a compiled model in a parallel wrapper
        contents = {
            "module._orig_mod." + name.replace("visual.", "visual._orig_mod."): tensor
            for name, tensor in contents.items()
        }
    if wrap == "scale":
        contents["logit_scale"] = contents["logit_scale"].reshape(1)
    if wrap in ("state_dict", "both"):
        contents = {"epoch": 3, "name": "x", "state_dict": contents, "optimizer": {"lr": 0.1}}
    if wrap == "model":
        contents = {"model": contents}
    torch.save(contents, path, _use_new_zipfile_serialization=wrap != "legacy")
    assert_holds(path, expected)


@pytest.mark.parametrize("inner", [None, "module", "shadow"])
def test_a_moving_average_is_taken(tmp_path, state, caplog, inner):
    average = {f"module.{name}": tensor + 1 for name, tensor in state.items()}
    part = dict(list(average.items())[:5])
    for held in (average, part):
        entry = held if inner is None else {inner: held, "decay": 0.999}
        torch.save({"model": state, "model_ema": entry, "epoch": 3}, tmp_path / "x.pth")
        expected = {n: tensor + (f"module.{n}" in held) for n, tensor in state.items()}
        caplog.clear()
        with caplog.at_level("INFO"):
            assert_holds(tmp_path / "x.pth", expected)
        assert "x.pth: taking the moving average of the weights (model_ema)" in caplog.text
    for none in (None, {}, {"decay": 0.9}, {0: torch.ones(2)}, [torch.ones(2)]):
        torch.save({"state_dict": state, "ema": none}, tmp_path / "x.pth")
        assert_holds(tmp_path / "x.pth", state)
    torch.save({"model": {0: torch.ones(2)}, "ema": average}, tmp_path / "x.pth")
    assert_holds(tmp_path / "x.pth", {name: tensor + 1 for name, tensor in state.items()})


@pytest.mark.parametrize("file", ["clip.safetensors", "clip.bin"])
def test_safetensors_whatever_they_are_called(tmp_path, state, file):
    save_file(state, tmp_path / file)
    assert_holds(tmp_path / file, state)


def test_open_clips_custom_text_clip(tmp_path, state):
    def custom(name: str) -> str:
        return name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}"

    save_file({custom(name): tensor for name, tensor in state.items()}, tmp_path / "a.safetensors")
    assert_holds(tmp_path / "a.safetensors", state)


@pytest.mark.slow
def test_open_clip_writes_what_we_read(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    arguments = {
        "embed_dim": 32,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
        "quick_gelu": True,
    }
    images, tokens = inputs(32)
    for number, kind in enumerate((open_clip.CLIP, open_clip.CustomTextCLIP)):
        theirs = kind(**arguments).eval().requires_grad_(False)
        path = tmp_path / f"{number}.pt"
        torch.save({"state_dict": theirs.state_dict()}, path)
        ours = load_clip(path)
        for found, expected in (
            (ours.encode_image(images), theirs.encode_image(images)),
            (ours.encode_text(tokens), theirs.encode_text(tokens)),
        ):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("as_folder", [True, False])
def test_hugging_face(tmp_path, state, as_folder):
    named = hugging_face_names(state)
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    named["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(named, tmp_path / "model.safetensors")
    assert_holds(tmp_path if as_folder else tmp_path / "model.safetensors", state)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.slow
def test_transformers_writes_what_we_read(tmp_path, sizes):
    transformers = pytest.importorskip("transformers")
    image_size, patch_size, vision_width, vision_layers, text_width, text_layers, embed_dim = sizes

    def tower(width: int, layers: int) -> dict[str, int]:
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
        }

    torch.manual_seed(0)
    vision = {**tower(vision_width, vision_layers), "image_size": image_size}
    config = transformers.CLIPConfig(
        vision_config={**vision, "patch_size": patch_size},
        text_config=tower(text_width, text_layers),
        projection_dim=embed_dim,
    )
    theirs = transformers.CLIPModel(config).eval().requires_grad_(False)
    for parameter in theirs.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    theirs.save_pretrained(tmp_path)
    ours = load_clip(tmp_path)
    images, tokens = inputs(image_size)
    out = theirs(input_ids=tokens, pixel_values=images)
    text_features = torch.nn.functional.normalize(ours.encode_text(tokens), dim=-1)
    image_features = torch.nn.functional.normalize(ours.encode_image(images), dim=-1)
    torch.testing.assert_close(text_features, out.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(image_features, out.image_embeds, atol=1e-5, rtol=1e-5)
    logits = ours(images, tokens)
    torch.testing.assert_close(logits, out.logits_per_image, atol=1e-4, rtol=1e-5)
    # and back: transformers takes our weights under its names
    again = transformers.CLIPModel(config)
    again.load_state_dict(hugging_face_names(ours.state_dict()))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


@pytest.mark.parametrize("hugging_face", [True, False])
@pytest.mark.parametrize("config", ["gelu", "quick_gelu", "gelu_new", "heads"])
def test_the_config_beside_the_weights_is_heeded(tmp_path, state, hugging_face, config):
    save_file(hugging_face_names(state) if hugging_face else state, tmp_path / "model.safetensors")
    heads = 1 if config == "heads" else 2
    if hugging_face:
        tower = {"hidden_size": 128, "num_attention_heads": heads, "hidden_act": config}
        name, content = "config.json", {"vision_config": tower, "text_config": tower}
    else:
        text = {"width": 128, "heads": heads}
        content = {"model_cfg": {"text_cfg": text, "quick_gelu": config != "gelu"}}
        name = "open_clip_config.json"
    if config == "heads" and hugging_face:
        tower["hidden_act"] = "quick_gelu"
    (tmp_path / name).write_text(json.dumps(content))
    if config == "heads" or (config == "gelu_new" and hugging_face):
        message = "heads of another width" if config == "heads" else "gelu_new, expected quick_gelu"
        with pytest.raises(UserError, match=rf"config\.json: found .*{message}"):
            load_clip(tmp_path)
        return
    assert load_clip(tmp_path).activation == ("gelu" if config == "gelu" else "quick_gelu")


@pytest.mark.parametrize("mean", [[0.48145466, 0.4578275, 0.40821073], [0.5, 0.5, 0.5], None])
def test_pictures_normalised_otherwise_are_warned_of(tmp_path, state, caplog, mean):
    save_file(state, tmp_path / "model.safetensors")
    model = {"text_cfg": {"width": 128, "heads": 2}}
    config = {"model_cfg": model, "preprocess_cfg": {"mean": mean}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert load_clip(tmp_path).activation == "gelu"
    assert len(caplog.records) == (mean == [0.5, 0.5, 0.5])
    assert all("normalised with the mean [0.5" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("value", [None, "2", [1], {}, 1.5])
def test_configs_of_other_types_are_refused(tmp_path, state, value):
    save_file(state, tmp_path / "model.safetensors")
    for model in (
        {"text_cfg": {"width": 128, "heads": value}},
        {"vision_cfg": {"head_width": value}},
    ):
        config = {"model_cfg": {"text_cfg": {"width": 128, "heads": 2}} | model}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=r"config\.json: found heads of another width"):
            load_clip(tmp_path)


def test_towers_of_two_activations_are_refused(tmp_path, state):
    save_file(hugging_face_names(state), tmp_path / "model.safetensors")
    config = {"text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "quick_gelu"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="gelu and quick_gelu, expected"):
        load_clip(tmp_path)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("ViT-B-32-quickgelu.pt", "quick_gelu"),
        ("vit_b_32-quickgelu-laion400m_e31-d867053b.pt", "quick_gelu"),
        ("vit_b_16-laion400m_e32-55e67d44.pt", "gelu"),
        ("models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K/snapshots/0/w.bin", "gelu"),
        ("models--openai--clip-vit-base-patch16/snapshots/0/w.bin", "quick_gelu"),
        ("vit_base_patch32_clip_224.laion400m_e31/w.safetensors", "quick_gelu"),
        ("ViT-L-14-DataComp.XL-s13B-b90K/open_clip_pytorch_model.bin", "gelu"),
        ("b16_fullcc2.5b-metaclip.pt", "quick_gelu"),
        ("clip.pth", None),
    ],
)
def test_the_model_s_name_tells_the_activation(tmp_path, state, caplog, name, activation):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, tmp_path / name)
    assert load_clip(tmp_path / name).activation == (activation or "quick_gelu")
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(told) == (activation is None)
    assert all("clip.pth" in line and "MODEL.CLIP_ACTIVATION" in line for line in told)
    caplog.clear()
    assert load_clip(tmp_path / name, activation="gelu").activation == "gelu"
    assert len(caplog.records) == (activation == "quick_gelu")  # the two contradict each other


def test_a_training_of_open_clip_names_its_model(tmp_path, state):
    for model, activation in (("ViT-B-16", "gelu"), ("ViT-B-16-quickgelu", "quick_gelu")):
        contents = {"name": f"2024_01_01-model_{model}-lr_0.001", "state_dict": state}
        torch.save(contents, tmp_path / "epoch_1.pt")
        assert load_clip(tmp_path / "epoch_1.pt").activation == activation


def test_another_activation_is_refused():
    with pytest.raises(UserError, match="activation: one of auto, quick_gelu, gelu expected"):
        load_clip("puppet", activation="relu")


@pytest.mark.slow
def test_plain_gelu_is_computed_as_open_clip_does(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    theirs = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        text_cfg={"width": 64, "heads": 1, "layers": 1},
    ).eval()
    for parameter in theirs.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    torch.save(theirs.state_dict(), tmp_path / "a.pt")
    images, tokens = inputs(32)
    ours, quick = (load_clip(tmp_path / "a.pt", activation=a) for a in ("gelu", "quick_gelu"))
    for method, given in (("encode_image", images), ("encode_text", tokens)):
        expected = getattr(theirs, method)(given)
        torch.testing.assert_close(getattr(ours, method)(given), expected, atol=1e-5, rtol=1e-4)
        assert (getattr(quick, method)(given) - expected).abs().max() > 1e-3
