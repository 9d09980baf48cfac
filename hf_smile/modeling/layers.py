"""Freezing of layers, and learning rates by layer."""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn
from transformers import PreTrainedModel

from hf_smile.errors import SmileModelError


def head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """The parameters of the classifier, or of both classifiers if the backbone has two."""
    classifiers = model.timm_model.get_classifier()
    classifiers = classifiers if isinstance(classifiers, (tuple, list)) else [classifiers]
    return [parameter for classifier in classifiers for parameter in classifier.parameters()]


def freeze_stages(model: PreTrainedModel, stages: int) -> None:
    """Freeze the stem and the first `stages` stages of the backbone, as timm divides it.

    Args:
        model: from `build_model`.
        stages: number of stages; 0 freezes only the stem.

    Raises:
        SmileModelError: the backbone has no stages, or fewer.

    >>> freeze_stages(build_model("resnet18", pretrained=False), 2)  # conv1, bn1, layer1, layer2  # doctest: +SKIP
    """
    network = model.timm_model
    if not hasattr(network, "group_matcher"):
        raise SmileModelError(f"timm defines no stages for {model.config.architecture}; leave --freeze_stages out")
    groups = group_parameters(network, network.group_matcher(coarse=True))  # stem, stages, head
    if not 0 <= stages <= len(groups) - 2:
        raise SmileModelError(
            f"freeze_stages is {stages}; {model.config.architecture} has {len(groups) - 2} stages before its head"
        )
    for group in range(stages + 1):
        for name in groups[group]:
            network.get_parameter(name).requires_grad_(False)


def keep_frozen_in_eval_mode(model: nn.Module) -> None:
    """Put frozen layers in evaluation mode, so that their batch statistics and dropout are frozen too."""
    if all(parameter.requires_grad for parameter in model.parameters()):  # visiting every module takes milliseconds
        return
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def layer_decay_groups(
    model: PreTrainedModel, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups with layer-wise learning rate decay: each layer's rate is `layer_decay` times that of the next.

    Biases, norms and the parameters in the backbone's `no_weight_decay` have no weight decay.
    Source: Bao et al., "BEiT", ICLR 2022 (https://arxiv.org/abs/2106.08254), as implemented in timm.

    Returns:
        Groups of trainable parameters with `params`, `lr` and `weight_decay`. The head, at the full rate, comes first,
        because the Trainer reports the rate of the first group.
    """
    network = model.timm_model
    exempt = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    groups = param_groups_layer_decay(network, weight_decay, no_weight_decay_list=exempt, layer_decay=layer_decay)
    scales = [group.pop("lr_scale") for group in groups]
    ordered = sorted(zip(scales, groups, strict=True), key=lambda pair: -pair[0])
    return [group | {"lr": learning_rate * scale} for scale, group in ordered]
