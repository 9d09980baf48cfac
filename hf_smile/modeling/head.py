"""The classification head of the original work (two dense layers), as a model that the Auto classes load."""

from __future__ import annotations

from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
)

from hf_smile.errors import SmileModelError


class SmileTimmConfig(TimmWrapperConfig):
    """Configuration of a timm backbone with a hidden layer in its head.

    Args:
        head_hidden_size: units of the hidden dense layer.
    """

    model_type = "smile_timm"

    head_hidden_size: int = 1024


class SmileTimmForImageClassification(TimmWrapperForImageClassification):
    """A timm backbone whose classifier is Linear(F, H), ReLU, Linear(H, K) over F pooled features.

    >>> import hf_smile.modeling
    >>> AutoModelForImageClassification.from_pretrained("outputs/original")  # doctest: +SKIP
    """

    config_class = SmileTimmConfig

    def __init__(self, config: SmileTimmConfig) -> None:
        super().__init__(config)
        name = self.timm_model.pretrained_cfg.get("classifier")
        classifier = self.timm_model.get_classifier()
        if not isinstance(name, str) or "." in name or not isinstance(classifier, nn.Linear):
            raise SmileModelError(
                f"{config.architecture}: head_hidden_size needs a backbone with one linear classifier; leave it out"
            )
        head = nn.Sequential(
            nn.Linear(classifier.in_features, config.head_hidden_size),
            nn.ReLU(),
            nn.Linear(config.head_hidden_size, config.num_labels),
        )
        setattr(self.timm_model, name, head)
        self.post_init()


def classes_of(head_hidden_size: int | None) -> tuple[type[TimmWrapperConfig], type[TimmWrapperForImageClassification]]:
    """The configuration class and the model class; those of transformers if the head is linear (None)."""
    if head_hidden_size is None:
        return TimmWrapperConfig, TimmWrapperForImageClassification
    return SmileTimmConfig, SmileTimmForImageClassification


AutoConfig.register(SmileTimmConfig.model_type, SmileTimmConfig)
AutoModelForImageClassification.register(SmileTimmConfig, SmileTimmForImageClassification)
AutoImageProcessor.register(SmileTimmConfig, slow_image_processor_class=TimmWrapperImageProcessor)
