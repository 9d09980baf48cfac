"""The result of a run as the backbone of the next: what is kept, and which models the weights come from."""

import json

import pytest
import timm
import torch

from hf_smile.modeling import build_model, load_model
from hf_smile.modeling.origin import base_models, pretrained_hub_id

TWO, OTHER_TWO, THREE = ["smile", "NOT smile"], ["happy", "sad"], ["negative smile", "positive smile", "NOT smile"]
TIMM_S = "timm/test_resnet.r160_in1k"


@pytest.fixture
def backbone(tmp_path):
    """An ImageNet-like checkpoint of a tiny network, in the Hub layout of timm models."""
    timm.models.save_for_hf(timm.create_model("test_resnet"), tmp_path / "backbone", safe_serialization=True)
    return tmp_path / "backbone"


@pytest.fixture
def first(backbone, tmp_path):
    """The model of a first stage, with two classes."""
    model = build_model(str(backbone), image_size=64, labels=TWO)
    torch.nn.init.normal_(model.timm_model.fc.bias)
    model.save_pretrained(tmp_path / "first")
    return tmp_path / "first"


def logits_of(model):
    with torch.no_grad():
        return model.eval()(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).logits


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_equal_labels_keep_the_head(first):
    expected = logits_of(load_model(str(first)))
    assert torch.allclose(logits_of(build_model(str(first), labels=TWO)), expected, atol=1e-5)


@pytest.mark.parametrize("labels", [OTHER_TWO, TWO[::-1], THREE])
def test_other_labels_replace_the_head_and_nothing_else(first, tmp_path, labels):
    earlier = load_model(str(first))
    model = build_model(str(first), labels=labels)
    for (name, value), old in zip(model.state_dict().items(), earlier.state_dict().values(), strict=True):
        assert (value.shape == old.shape and torch.equal(value, old)) != name.startswith("timm_model.fc."), name
    model.save_pretrained(tmp_path / "second")
    assert config_of(tmp_path / "second")["label_names"] == labels
    assert torch.allclose(logits_of(load_model(str(tmp_path / "second"))), logits_of(model), atol=1e-5)


def test_a_head_of_another_shape_is_replaced_whole(backbone, tmp_path):
    build_model(str(backbone), labels=TWO, head_hidden_size=8).save_pretrained(tmp_path / "hidden")
    kept, wider, linear = (build_model(str(tmp_path / "hidden"), labels=TWO, head_hidden_size=n) for n in (8, 9, None))
    assert torch.equal(kept.timm_model.fc[2].weight, load_model(str(tmp_path / "hidden")).timm_model.fc[2].weight)
    assert wider.timm_model.fc[0].out_features == 9 and not wider.timm_model.fc[2].bias.any()
    linear.save_pretrained(tmp_path / "linear")
    assert logits_of(load_model(str(tmp_path / "linear"))).shape == (2, 2)


def test_a_head_of_two_classifiers_is_replaced(tmp_path):
    timm.models.save_for_hf(timm.create_model("deit_tiny_distilled_patch16_224"), tmp_path, safe_serialization=True)
    assert build_model(str(tmp_path)).timm_model.head_dist.out_features == 3


def test_each_stage_names_those_before(backbone, first, tmp_path):
    assert config_of(first)["base_models"] == [TIMM_S]
    build_model(str(first)).save_pretrained(tmp_path / "second")
    assert config_of(tmp_path / "second")["base_models"] == ["first", TIMM_S]
    build_model(str(tmp_path / "second"), labels=OTHER_TWO).save_pretrained(tmp_path / "third")
    assert config_of(tmp_path / "third")["base_models"] == ["second", "first", TIMM_S]
    build_model(str(first), pretrained=False).save_pretrained(tmp_path / "random")
    assert config_of(tmp_path / "random")["base_models"] == []
    assert base_models(str(tmp_path / "random"), config_of(tmp_path / "random")) == ["random"]


def test_a_run_without_a_note_is_followed_by_what_its_weights_tell(first):
    config = config_of(first)
    del config["base_models"]
    assert base_models(str(first), config) == ["first", TIMM_S]
    assert base_models("me/first", config) == ["me/first", TIMM_S]
    strange = {"base_models": ["fine/model", 5, "", "`code`", "a\nline", "x" * 201]}
    assert base_models("me/first", config | strange) == ["me/first", "fine/model"]
    assert base_models("me/first", config | {"base_models": "text"}) == ["me/first"]


def test_whose_weights_they_are_is_kept_and_random_ones_are_nobody_s(backbone, tmp_path):
    for pretrained, hub_id in ((True, "timm/test_resnet.r160_in1k"), (False, None)):
        build_model(str(backbone), pretrained=pretrained).save_pretrained(tmp_path / "saved")
        assert pretrained_hub_id(json.loads((tmp_path / "saved" / "config.json").read_text())) == hub_id
    build_model("resnet18", pretrained=False).save_pretrained(tmp_path / "saved")
    assert "in1k" not in (tmp_path / "saved" / "config.json").read_text()


def test_weights_that_are_not_timm_s_are_of_no_model_on_the_hub():
    assert pretrained_hub_id({"architecture": "mobilenetv1_100", "pretrained_cfg": {"tag": "vggface2"}}) is None
    assert pretrained_hub_id({"architecture": "no_such_network", "pretrained_cfg": {"tag": "in1k"}}) is None
