"""Which layers train, and how fast."""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn
from transformers import PreTrainedModel

from hf_smile.errors import SmileModelError


def head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """The parameters of the classifier, or of both where a backbone has two of them."""
    classifiers = model.timm_model.get_classifier()
    classifiers = classifiers if isinstance(classifiers, (tuple, list)) else [classifiers]
    return [parameter for classifier in classifiers for parameter in classifier.parameters()]


def freeze_stages(model: PreTrainedModel, stages: int) -> None:
    """Freeze the stem and the first `stages` stages of the backbone, as timm divides it.

    Args:
        model: as `build_model` gives it.
        stages: 0 freezes the stem alone.

    Raises:
        SmileModelError: the backbone has no stages, or not that many.

    >>> freeze_stages(build_model("resnet18", pretrained=False), 2)  # conv1, bn1, layer1, layer2  # doctest: +SKIP
    """
    network = model.timm_model
    if not hasattr(network, "group_matcher"):
        raise SmileModelError(f"timm knows no stages of {model.config.architecture}; leave --freeze_stages out")
    groups = group_parameters(network, network.group_matcher(coarse=True))  # stem, stages, head
    if not 0 <= stages <= len(groups) - 2:
        raise SmileModelError(
            f"freeze_stages is {stages}; {model.config.architecture} has {len(groups) - 2} stages before its head"
        )
    for group in range(stages + 1):
        for name in groups[group]:
            network.get_parameter(name).requires_grad_(False)


def keep_frozen_in_eval_mode(model: nn.Module) -> None:
    """Frozen layers are no longer trained, so their batch statistics and dropout must rest as well."""
    if all(parameter.requires_grad for parameter in model.parameters()):  # to look at every module takes milliseconds
        return
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def layer_decay_groups(
    model: PreTrainedModel, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for the optimizer: each layer learns `layer_decay` times as fast as the one above it.

    Biases, norms and what the backbone names have no weight decay.
    Source: Bao et al., "BEiT", ICLR 2022 (https://arxiv.org/abs/2106.08254), as timm has it.

    Returns:
        Groups of trainable parameters with `params`, `lr` and `weight_decay`, the head, at the full rate, first: it
        is the rate of the first group that the Trainer reports.
    """
    network = model.timm_model
    exempt = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    groups = param_groups_layer_decay(network, weight_decay, no_weight_decay_list=exempt, layer_decay=layer_decay)
    scales = [group.pop("lr_scale") for group in groups]
    ordered = sorted(zip(scales, groups, strict=True), key=lambda pair: -pair[0])
    return [group | {"lr": learning_rate * scale} for scale, group in ordered]
