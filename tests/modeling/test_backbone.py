"""Backbones from every source, and checkpoints for every loader."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from hf_smile.errors import SmileModelError
from hf_smile.labels import LABEL_NAMES
from hf_smile.modeling import build_model, load_model
from hf_smile.modeling.backbone import parameter_table


@pytest.fixture
def face() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8))


@pytest.fixture
def local_backbone(tmp_path):
    """An ImageNet-like checkpoint of a tiny network, in the Hub layout of timm models."""
    model = timm.create_model("test_resnet", pretrained=False)
    timm.models.save_for_hf(model, tmp_path / "backbone", safe_serialization=True)
    return tmp_path / "backbone"


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "resnet50", "vit_tiny_patch16_224"])
def test_transformers_pipeline_and_timm_load_a_saved_model_alike(tmp_path, face, backbone):
    model = build_model(backbone, pretrained=False).eval()
    model.save_pretrained(tmp_path)
    pixel_values = AutoImageProcessor.from_pretrained(tmp_path)(face, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixel_values).logits
        from_auto = AutoModelForImageClassification.from_pretrained(tmp_path)(pixel_values).logits
        plain = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
        from_timm = plain(pixel_values)
    assert torch.allclose(from_auto, expected, atol=1e-5)
    assert torch.allclose(from_timm, expected, atol=1e-5)
    assert plain.pretrained_cfg["label_names"] == list(LABEL_NAMES)
    scores = {row["label"]: row["score"] for row in pipeline("image-classification", model=str(tmp_path))(face)}
    probabilities = expected.softmax(dim=1)[0].tolist()
    assert scores == pytest.approx(dict(zip(LABEL_NAMES, probabilities, strict=True)), abs=1e-5)


MODEL_ARGS = {
    "padding": ("test_efficientnet", {"pad_type": "same"}),
    "size, patches and heads": ("test_vit", {"img_size": [96, 96], "patch_size": 8, "num_heads": 4, "embed_dim": 64}),
    "tokens and pooling": ("test_vit", {"class_token": False, "global_pool": "avg", "dynamic_img_size": True}),
    "layers by name": ("test_vit", {"norm_layer": "rmsnorm", "act_layer": "relu", "qkv_bias": False}),
}


def folder_with_args(folder, architecture, model_args):
    """A backbone with random weights as exported by timm, with its arguments in `config.json`."""
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model(architecture, **model_args), folder, safe_serialization=True)
    assert model_args.items() <= json.loads((folder / "config.json").read_text())["model_args"].items()
    return folder


@pytest.mark.parametrize(("architecture", "model_args"), MODEL_ARGS.values(), ids=MODEL_ARGS)
def test_the_network_that_the_weights_were_made_for_is_the_one_trained_and_loaded(
    tmp_path, face, architecture, model_args
):
    backbone = folder_with_args(tmp_path / "backbone", architecture, model_args)
    model = build_model(str(backbone), drop_path=0.2 if architecture == "test_vit" else 0)
    height, width = model.config.pretrained_cfg["input_size"][1:]
    pixel_values = torch.rand(2, 3, height, width)
    source = timm.create_model(f"local-dir:{backbone}", pretrained=True).eval()
    with torch.no_grad():
        expected = source.forward_features(pixel_values)
        assert torch.allclose(model.eval().timm_model.forward_features(pixel_values), expected, atol=1e-5)

    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
    torch.nn.functional.cross_entropy(model(pixel_values=pixel_values).logits, torch.tensor([0, 2])).backward()
    optimizer.step()
    model.eval().save_pretrained(tmp_path / "saved")
    plain = timm.create_model(architecture, num_classes=3, **model_args).eval()
    plain.load_state_dict(load_file(tmp_path / "saved" / "model.safetensors"))
    pixel_values = AutoImageProcessor.from_pretrained(tmp_path / "saved")(face, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = plain(pixel_values)
        from_timm = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
        loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
        assert torch.allclose(from_timm(pixel_values), expected, atol=1e-5)
        assert torch.allclose(loaded(pixel_values).logits, expected, atol=1e-5)
        assert torch.allclose(load_model(str(tmp_path / "saved"))(pixel_values).logits, expected, atol=1e-5)
    scores = pipeline("image-classification", model=str(tmp_path / "saved"))(face)
    assert max(row["score"] for row in scores) == pytest.approx(expected.softmax(dim=1).max().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"checkpoint_path": "/elsewhere"}, "model_args has checkpoint_path = '/elsewhere'.*not among"),
        ({"features_only": True}, "features_only"),
        ({"in_chans": 1}, "in_chans 1"),
        ({"img_size": 100_000}, "img_size = 100000; it must be a whole number from 0 to 2048"),
        ({"depths": [2, "2"]}, "depths"),
        ({"qkv_bias": "yes"}, "qkv_bias = 'yes'; it must be true or false"),
        ({"init_values": float("nan")}, "init_values = nan; it must be a number"),
        ({"act_layer": "os.system"}, "act_layer = 'os.system'; it must be a plain name"),
        (["pad_type"], "model_args must be an object"),
        ({"patch_size": 8}, "test_resnet does not take patch_size"),
        ({"act_layer": "unheard_of"}, "test_resnet does not take act_layer"),
    ],
)
def test_arguments_that_could_do_more_or_do_not_fit_are_refused_by_name(local_backbone, model_args, message):
    changed(model_args=model_args)(local_backbone)
    with pytest.raises(SmileModelError, match=message):
        build_model(str(local_backbone))


def test_a_network_of_one_size_is_not_given_another(tmp_path):
    fixed = folder_with_args(tmp_path / "fixed", "test_vit", {"img_size": [96, 96], "dynamic_img_size": False})
    with pytest.raises(SmileModelError, match="only takes images of 96 pixels"):
        build_model(str(fixed), image_size=64)
    assert build_model(str(fixed), image_size=96)(torch.rand(1, 3, 96, 96)).logits.shape == (1, 3)
    flexible = folder_with_args(tmp_path / "flexible", "test_vit", {"dynamic_img_size": True})
    assert build_model(str(flexible), image_size=64)(torch.rand(1, 3, 64, 64)).logits.shape == (1, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pretrained", [True, False])
def test_a_backbone_in_half_precision_is_trained_in_float32(local_backbone, dtype, pretrained):
    weights = load_file(local_backbone / "model.safetensors")
    halved = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    save_file(halved, local_backbone / "model.safetensors")
    changed(dtype=str(dtype).removeprefix("torch."))(local_backbone)
    model = build_model(str(local_backbone), pretrained=pretrained)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32


def test_a_local_folder_gives_its_weights_and_a_new_head(local_backbone):
    model = build_model(str(local_backbone), image_size=64)
    original = timm.create_model(f"local-dir:{local_backbone}", pretrained=True).state_dict()
    for name, value in model.timm_model.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(value, original[name]), name
    assert model.timm_model.fc.weight.shape[0] == 3
    assert model.config.pretrained_cfg["input_size"] == [3, 64, 64]


@pytest.mark.parametrize(("crop_pct", "sees_the_frame"), [(1.0, True), (0.5, False)])
def test_plain_loaders_look_at_the_centre_that_crop_pct_keeps(tmp_path, crop_pct, sees_the_frame):
    build_model("test_resnet", pretrained=False, image_size=32, crop_pct=crop_pct).save_pretrained(tmp_path)
    framed = Image.new("RGB", (64, 64), "white")
    framed.paste("black", (10, 10, 54, 54))
    pixel_values = AutoImageProcessor.from_pretrained(tmp_path)(framed)["pixel_values"]
    assert pixel_values.shape[-2:] == (32, 32)
    assert bool(pixel_values.max() > pixel_values.min()) == sees_the_frame


def test_random_weights_are_drawn_by_the_seed(local_backbone):
    def first_weight(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return next(build_model(str(local_backbone), pretrained=False).parameters())

    assert torch.equal(first_weight(0), first_weight(0))
    assert not torch.equal(first_weight(0), first_weight(1))
    assert not torch.equal(first_weight(0), next(build_model(str(local_backbone)).parameters()))


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_hidden_layer_in_the_head_survives_saving(local_backbone, tmp_path, pretrained):
    model = build_model(str(local_backbone), pretrained=pretrained, head_hidden_size=20).eval()
    assert [type(layer).__name__ for layer in model.timm_model.fc] == ["Linear", "ReLU", "Linear"]
    assert model.timm_model.fc[0].out_features == 20
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    pixel_values = torch.rand(2, 3, 160, 160)
    assert torch.allclose(loaded(pixel_values).logits, model(pixel_values).logits, atol=1e-5)
    assert AutoImageProcessor.from_pretrained(tmp_path / "saved") is not None


@pytest.mark.parametrize("head_hidden_size", [None, 8])
def test_a_frozen_backbone_trains_its_head_alone(local_backbone, head_hidden_size):
    model = build_model(str(local_backbone), freeze_backbone=True, head_hidden_size=head_hidden_size)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable and all(name.startswith("timm_model.fc.") for name in trainable)


def test_the_parameter_table_counts_what_trains(local_backbone):
    table = parameter_table(build_model(str(local_backbone), freeze_backbone=True))
    features = timm.create_model("test_resnet").num_features
    assert table.splitlines()[0].split() == ["parameter", "shape", "count", "trainable"]
    assert table.endswith(f"{3 * features + 3:,} trainable")
    assert "timm_model.conv1.0.weight" in table


def test_the_hub_out_of_reach_names_the_two_ways_on():
    with pytest.raises(SmileModelError, match="could not be fetched from the Hugging Face Hub") as caught:
        build_model("timm/no_such_model_here")
    assert "--backbone FOLDER" in str(caught.value) and "--no_pretrained" in str(caught.value)


def test_a_bare_name_with_pretrained_weights_asks_the_hub():
    with pytest.raises(SmileModelError, match="timm/resnet50"):
        build_model("resnet50")


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("resnet51", {"pretrained": False}, "timm has no model 'resnet51'"),
        ("./nowhere/at/all", {}, "no such folder"),
        ("outputs/mobilenet", {}, "outputs/mobilenet: no such folder .and not looked for on the Hub"),
        ("test_resnet", {"pretrained": False, "image_size": 8}, "must be at least 32"),
        ("test_resnet", {"pretrained": False, "head_hidden_size": 0}, "must be at least 1"),
        ("test_resnet", {"pretrained": False, "crop_pct": 0}, "must lie between 0.1 and 1"),
        ("vit_tiny_patch16_224", {"pretrained": False, "image_size": 96}, "only takes images of 224 pixels"),
    ],
)
def test_a_wrong_setting_is_said_in_words(backbone, options, message):
    with pytest.raises(SmileModelError, match=message):
        build_model(backbone, **options)


def damage_nothing_there(folder):
    (folder / "config.json").unlink()


def damage_config(folder):
    (folder / "config.json").write_text("{")


def damage_no_timm(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))


def damage_weights(folder):
    (folder / "model.safetensors").write_bytes(b"broken")


def damage_pickle_only(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def damage_other_network(folder):
    timm.models.save_for_hf(timm.create_model("test_efficientnet"), folder / "other", safe_serialization=True)
    (folder / "other" / "model.safetensors").replace(folder / "model.safetensors")


def changed(**settings):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        own = config["pretrained_cfg"] | settings.pop("pretrained", {})
        (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": own} | settings))

    return damage


def damage_with_nan(folder):
    weights = load_file(folder / "model.safetensors")
    weights[min(weights)].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors")


STRANGE = {
    "architecture": [5, "local-dir:/elsewhere", "hf-hub:owner/name", "no_such_network"],
    "pretrained_cfg": [[], None],
    "auto_map": [{"AutoModel": "code.Model"}],
    "pretrained": [{"mean": 3}, {"interpolation": "magic"}, {"input_size": "big"}],
}


@pytest.mark.parametrize(
    "damage",
    [changed(**{name: value}) for name, values in STRANGE.items() for value in values]
    + [damage_with_nan]
    + [damage_nothing_there, damage_config, damage_no_timm, damage_weights, damage_pickle_only, damage_other_network],
)
def test_a_damaged_folder_is_refused_and_never_replaced_by_random_weights(local_backbone, damage):
    damage(local_backbone)
    with pytest.raises(SmileModelError, match="backbone"):
        build_model(str(local_backbone))
