"""Frozen layers, and layers with a lower learning rate."""

import pytest

from hf_smile.errors import SmileModelError
from hf_smile.modeling import build_model
from hf_smile.modeling.layers import layer_decay_groups


def frozen(model) -> set[str]:
    return {name for name, parameter in model.timm_model.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize(
    ("backbone", "stages", "first_trained"),
    [
        ("resnet18", 2, "layer3.0.conv1.weight"),
        ("test_efficientnet", 0, "blocks.0.0.conv.weight"),
        ("test_efficientnet", 2, "blocks.2.0.conv_exp.weight"),
        ("test_vit", 1, "blocks.1.norm1.weight"),
    ],
)
def test_the_stem_and_the_first_stages_are_frozen(backbone, stages, first_trained):
    model = build_model(backbone, pretrained=False, freeze_stages=stages)
    names = [name for name, _ in model.timm_model.named_parameters()]
    assert frozen(model) == set(names[: names.index(first_trained)])


def test_too_many_stages_are_refused():
    with pytest.raises(SmileModelError, match="freeze_stages is 5; resnet18 has 4 stages before its head"):
        build_model("resnet18", pretrained=False, freeze_stages=5)


@pytest.mark.parametrize("backbone", ["resnet18", "test_efficientnet", "test_vit"])
def test_each_layer_learns_slower_than_the_one_above_it(backbone):
    model = build_model(backbone, pretrained=False)
    groups = layer_decay_groups(model, learning_rate=0.1, weight_decay=0.05, layer_decay=0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    parameters = list(model.timm_model.named_parameters())
    assert rates.keys() == {id(parameter) for _, parameter in parameters}
    assert all(rates[id(parameter)] == 0.1 for parameter in model.timm_model.get_classifier().parameters())
    blocks = [rates[id(parameter)] for name, parameter in parameters if name.startswith(("layer", "blocks"))]
    assert blocks == sorted(blocks) and blocks[0] < blocks[-1] < 0.1
    assert rates[id(parameters[0][1])] == min(rates.values())
    assert all(decays[id(parameter)] == 0 for _, parameter in parameters if parameter.ndim == 1)
    assert decays[id(model.timm_model.get_classifier().weight)] == 0.05


def test_what_is_frozen_is_in_no_group():
    model = build_model("test_resnet", pretrained=False, freeze_backbone=True)
    groups = layer_decay_groups(model, learning_rate=0.1, weight_decay=0, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == 2 and groups[0]["lr"] == 0.1
