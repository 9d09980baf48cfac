"""A temperature and a shift in the last layer apply in every loader, and are refused where they would be wrong."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from transformers import AutoModelForImageClassification

from hf_smile.errors import SmileModelError
from hf_smile.modeling import build_model
from hf_smile.modeling.calibrate import fold_into_output_layer, output_layer

SHIFT = np.array([0.5, -1.0, 2.0])


@pytest.fixture
def pixel_values():
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def make_model(**options):
    torch.manual_seed(0)
    model = build_model("test_resnet", pretrained=False, image_size=64, **options).eval()
    layer = output_layer(model)
    nn.init.normal_(layer.weight, std=3.0)
    nn.init.normal_(layer.bias)
    return model


@torch.inference_mode()
def logits(model, pixel_values):
    return model(pixel_values=pixel_values).logits.double()


@pytest.mark.parametrize("head_hidden_size", [None, 8])
def test_a_folded_temperature_reaches_a_plain_loader_and_changes_no_prediction(
    head_hidden_size, pixel_values, tmp_path
):
    model = make_model(head_hidden_size=head_hidden_size)
    before = logits(model, pixel_values)
    fold_into_output_layer(model, temperature=2.5)
    model.save_pretrained(tmp_path)
    after = logits(AutoModelForImageClassification.from_pretrained(tmp_path).eval(), pixel_values)
    assert torch.allclose(after.softmax(dim=1), (before / 2.5).softmax(dim=1), atol=1e-6)
    assert not torch.allclose(after.softmax(dim=1), before.softmax(dim=1), atol=1e-2)
    assert torch.equal(after.argmax(dim=1), before.argmax(dim=1))
    if head_hidden_size is None:
        plain = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
        assert torch.allclose(plain(pixel_values).double(), before / 2.5, atol=1e-5)


def test_a_shift_is_added_after_the_temperature(pixel_values):
    model = make_model()
    before = logits(model, pixel_values)
    fold_into_output_layer(model, 2.0, SHIFT)
    assert torch.allclose(logits(model, pixel_values), before / 2 + torch.tensor(SHIFT), atol=1e-5)


def test_looking_for_the_layer_leaves_the_model_as_it_was():
    model = make_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert isinstance(output_layer(model), nn.Linear)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Cosine(nn.Linear):
    def forward(self, features):
        return nn.functional.linear(features, nn.functional.normalize(self.weight), self.bias)


def with_two_classifiers():
    return build_model("deit_tiny_distilled_patch16_224", pretrained=False)


def with_normalised_weights():
    model = make_model()
    model.timm_model.fc = Cosine(model.timm_model.num_features, 3)
    return model


def with_something_behind_the_classifier():
    model = make_model()
    forward = model.timm_model.forward
    model.timm_model.forward = lambda pixel_values: forward(pixel_values).tanh()
    return model


def without_bias():
    model = make_model()
    model.timm_model.fc.bias = None
    return model


@pytest.mark.parametrize(
    "make", [with_two_classifiers, with_normalised_weights, with_something_behind_the_classifier, without_bias]
)
def test_a_classifier_that_is_not_one_linear_layer_is_left_alone(make):
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert output_layer(model) is None
    with pytest.raises(SmileModelError, match=r"one linear layer that outputs the logits.*leave them out"):
        fold_into_output_layer(model, 2.0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
