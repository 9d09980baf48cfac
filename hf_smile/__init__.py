"""Fine-tune an image classifier that distinguishes no smile, a genuine smile and a posed smile.

Public names are imported on first use:

>>> import hf_smile
>>> hf_smile.LabelSet(("smile", "NOT smile")).parse("not_smile")
1
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "LabelSet": "labels",
    "SmileClassifier": "inference.classifier",
    "SmileMetric": "evaluation.metric",
    "SmilePrediction": "inference.classifier",
    "SmileTrainer": "training.trainer",
    "SmileTrainingArguments": "training.arguments",
    "audit_dataset": "audit.dataset",
    "build_model": "modeling",
    "load_smile_dataset": "data.dataset",
    "publish_model": "hub.model",
    "write_model_card": "hub.model_card",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hf_smile.utils.extras import needed_by

    with needed_by(f"{__name__}.{name}"):
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
