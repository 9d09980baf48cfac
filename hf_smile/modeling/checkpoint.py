"""A trained model: loading it, and its probabilities for a split of the data."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification, TimmWrapperForImageClassification

from hf_smile.console import is_main_process
from hf_smile.data.transforms import BatchTransform, collate, evaluation_transform
from hf_smile.errors import SmileModelError
from hf_smile.hub_id import missing_folder
from hf_smile.labels import ID2LABEL
from hf_smile.modeling.backbone import quiet_transformers


def load_model(model: str) -> TimmWrapperForImageClassification:
    """Load what `scripts/train.py` made, from a folder or from the Hub, ready to predict.

    Raises:
        SmileModelError: there is no such model, or it is another kind of model.

    >>> load_model("outputs/model").config.id2label  # doctest: +SKIP
    {0: 'negative smile', 1: 'positive smile', 2: 'NOT smile'}
    """
    if not Path(model).is_dir() and (message := missing_folder(model)):
        raise SmileModelError(message)
    try:
        with quiet_transformers():
            loaded = AutoModelForImageClassification.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SmileModelError(f"the model {model} can't be loaded: {reason}") from None
    except Exception as error:  # safetensors has an error type of its own for broken files
        raise SmileModelError(f"the model {model} can't be loaded: {error}") from None
    if dict(loaded.config.id2label) != ID2LABEL or not hasattr(loaded.config, "pretrained_cfg"):
        raise SmileModelError(
            f"{model} is no model of scripts/train.py: a timm backbone with the labels {', '.join(ID2LABEL.values())}"
        )
    return loaded.to(memory_format=torch.channels_last).eval()


def predict_probabilities(
    model: TimmWrapperForImageClassification, dataset: datasets.Dataset, batch_size: int = 64
) -> np.ndarray:
    """Probabilities of every image of a split, on a GPU where there is one.

    Args:
        model: as `load_model` or `build_model` give it.
        dataset: a split of `load_smile_dataset`.
        batch_size: images at a time.

    Returns:
        (N, 3) float64, in the order of `dataset`.
    """
    encoded = dataset.cast_column("image", datasets.Image(decode=False))
    images = encoded.with_transform(BatchTransform(evaluation_transform(model.config.pretrained_cfg)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()
    loader = torch.utils.data.DataLoader(images, batch_size=batch_size, collate_fn=collate)
    progress = tqdm(total=len(images), desc="Predicting", unit=" images", disable=not is_main_process())
    probabilities = []
    with torch.inference_mode(), progress:
        for batch in loader:
            pixel_values = batch["pixel_values"].to(device, memory_format=torch.channels_last)
            probabilities.append(model(pixel_values=pixel_values).logits.double().softmax(dim=1).cpu())
            progress.update(len(pixel_values))
    return torch.cat(probabilities).numpy()
