"""What is learned after training goes into the last layer, so that every loader profits by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TimmWrapperForImageClassification

from hf_smile.errors import SmileModelError


@torch.inference_mode()
def output_layer(model: TimmWrapperForImageClassification) -> nn.Linear | nn.Conv2d | None:
    """The one linear layer with a bias whose output the logits are.

    Returns:
        None where there is no such layer: two classifiers whose answers are averaged, normalised weights, a layer
        behind the classifier.

    >>> output_layer(build_model("resnet18", pretrained=False))  # doctest: +SKIP
    Linear(in_features=512, out_features=3, bias=True)
    """
    layer = model.timm_model.get_classifier()
    if isinstance(layer, nn.Sequential) and len(layer):
        layer = layer[-1]
    # Subclasses may do more to their input than multiply, add.
    if type(layer) not in (nn.Linear, nn.Conv2d) or layer.bias is None:
        return None
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    was_training = model.training
    shape = (2, *model.config.pretrained_cfg["input_size"])
    pixel_values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(layer.weight)
    try:
        logits = model.eval()(pixel_values=pixel_values).logits
    finally:
        hook.remove()
        model.train(was_training)
    is_last = len(seen) == 1 and seen[0].numel() == logits.numel() and torch.equal(seen[0].reshape_as(logits), logits)
    return layer if is_last else None


def require_output_layer(model: TimmWrapperForImageClassification) -> nn.Linear | nn.Conv2d:
    """`output_layer`, or a message for the user.

    Raises:
        SmileModelError: the model has none.
    """
    layer = output_layer(model)
    if layer is None:
        raise SmileModelError(
            f"{model.config.architecture}: the logits are not the output of one linear layer, which --temperature and"
            " --prior_adjustment are folded into; leave these out, or choose another --backbone"
        )
    return layer


@torch.no_grad()
def fold_into_output_layer(
    model: TimmWrapperForImageClassification, temperature: float = 1.0, shift: Any = 0.0
) -> None:
    """Change the last layer's weights, so that the model gives `logits / temperature + shift`.

    Temperature scaling (Guo et al., 2017, "On Calibration of Modern Neural Networks") thus reaches whoever loads the
    saved model, with whatever loader.

    Args:
        model: as `build_model` or `load_model` give it; it is changed in place.
        temperature: above 0.
        shift: (K,), or one number, added to the logits after that.

    Raises:
        SmileModelError: the model has no `output_layer`.

    >>> fold_into_output_layer(build_model("resnet18", pretrained=False), temperature=1.5)  # doctest: +SKIP
    """
    layer = require_output_layer(model)
    assert layer.bias is not None
    layer.weight.div_(temperature)
    layer.bias.div_(temperature).add_(torch.as_tensor(np.asarray(shift)).to(layer.bias))
