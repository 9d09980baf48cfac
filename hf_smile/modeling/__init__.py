"""timm backbones as transformers models. Importing this package registers its head with the Auto classes."""

from hf_smile.modeling.backbone import build_model
from hf_smile.modeling.checkpoint import load_model, predict_probabilities
from hf_smile.modeling.head import SmileTimmConfig, SmileTimmForImageClassification

__all__ = ["SmileTimmConfig", "SmileTimmForImageClassification", "build_model", "load_model", "predict_probabilities"]
