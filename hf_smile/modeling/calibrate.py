"""Fold what is fitted after training into the last layer, so that it works with every loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TimmWrapperForImageClassification

from hf_smile.errors import SmileModelError


@torch.inference_mode()
def output_layer(model: TimmWrapperForImageClassification) -> nn.Linear | nn.Conv2d | None:
    """The linear layer with a bias that outputs the logits.

    Returns:
        None if there is no such layer: two classifiers whose outputs are averaged, normalised weights, or a layer
        after the classifier.

    >>> output_layer(build_model("resnet18", pretrained=False))  # doctest: +SKIP
    Linear(in_features=512, out_features=3, bias=True)
    """
    layer = model.timm_model.get_classifier()
    if isinstance(layer, nn.Sequential) and len(layer):
        layer = layer[-1]
    # Subclasses may do more than multiply and add.
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
    """`output_layer` of a model that must have one.

    Raises:
        SmileModelError: the model has none.
    """
    layer = output_layer(model)
    if layer is None:
        raise SmileModelError(
            f"{model.config.architecture}: --temperature and --prior_adjustment are folded into one linear layer that"
            " outputs the logits, and this network has none; leave them out, or choose another --backbone"
        )
    return layer


@torch.no_grad()
def fold_into_output_layer(
    model: TimmWrapperForImageClassification, temperature: float = 1.0, shift: Any = 0.0
) -> None:
    """Change the last layer's weights so that the model outputs `logits / temperature + shift`.

    Temperature scaling (Guo et al., 2017, "On Calibration of Modern Neural Networks") then applies in every loader of
    the saved model.

    Args:
        model: from `build_model` or `load_model`; changed in place.
        temperature: divides the logits; above 0.
        shift: (K,), or one number, added to the scaled logits.

    Raises:
        SmileModelError: the model has no `output_layer`.

    >>> fold_into_output_layer(build_model("resnet18", pretrained=False), temperature=1.5)  # doctest: +SKIP
    """
    layer = require_output_layer(model)
    assert layer.bias is not None
    layer.weight.div_(temperature)
    layer.bias.div_(temperature).add_(torch.as_tensor(np.asarray(shift)).to(layer.bias))
