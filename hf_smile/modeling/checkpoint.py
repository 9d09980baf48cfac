"""Load a trained model, and predict probabilities for a split of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import datasets
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm
from transformers import TimmWrapperForImageClassification

from hf_smile.data.transforms import BatchTransform, collate, evaluation_transform
from hf_smile.errors import SmileModelError, first_line
from hf_smile.labels import LabelSet
from hf_smile.modeling.backbone import check_architecture, check_preprocessing, label_settings, quiet_transformers
from hf_smile.modeling.head import classes_of
from hf_smile.utils.console import is_main_process
from hf_smile.utils.model_files import WEIGHTS_FIX, HubOptions, model_file, read_config

_TAKEN = ("architecture", "num_features", "pretrained_cfg", "model_args", "head_hidden_size")


def load_model(model: str, **hub: Unpack[HubOptions]) -> TimmWrapperForImageClassification:
    """Load a model trained by `hf-smile train`, from a folder or from the Hub, ready to predict.

    Only `config.json` and `model.safetensors` are read: no pickle, no code, no other settings. Every weight must fit;
    this is checked in the file's header, before memory is allocated.

    Raises:
        SmileModelError: there is no such model, it is another kind of model, or its weights do not fit or are not
            finite.

    >>> load_model("outputs/model").config.id2label  # doctest: +SKIP
    {0: 'negative smile', 1: 'positive smile', 2: 'NOT smile'}
    """
    config = read_config(model, **hub)
    check_architecture(model, config)
    check_preprocessing(model, config["pretrained_cfg"])
    path = model_file(model, "model.safetensors", WEIGHTS_FIX, **hub)
    config_class, model_class = classes_of(config.get("head_hidden_size"))
    settings = {name: config[name] for name in _TAKEN if name in config}
    try:
        model_config = config_class.from_dict(settings, **label_settings(LabelSet.of(config["label_names"])))
        with torch.device("meta"):
            empty = model_class(model_config).timm_model.state_dict()
    except Exception as error:  # timm's models and the type checks of the settings share no error type
        raise SmileModelError(f"{model}: no model can be built from config.json: {first_line(error)}") from None
    weights = _read_weights(path, empty, model)
    with quiet_transformers():
        loaded = model_class.from_pretrained(None, config=model_config, state_dict=weights, dtype=torch.float32)
    return loaded.to(memory_format=torch.channels_last).eval()


def _read_weights(path: Path, expected: dict[str, torch.Tensor], model: str) -> dict[str, torch.Tensor]:
    """Read the weights of a safetensors file, and check that they have the names and shapes of `expected`."""
    try:
        with safe_open(path, "pt") as file:
            names = {name.removeprefix("timm_model."): name for name in file.keys()}  # noqa: SIM118
            found = {ours: _shape(file.get_slice(name).get_shape()) for ours, name in names.items()}
            needed = {name: _shape(tensor.shape) for name, tensor in expected.items()}
            if wrong := sorted(name for name in {*needed, *found} if needed.get(name) != found.get(name)):
                raise SmileModelError(
                    f"{model}: {len(wrong):,} weights in model.safetensors do not fit config.json; the first "
                    f"is {wrong[0]} ({found.get(wrong[0], 'missing')}; expected: {needed.get(wrong[0], 'none')}); "
                    "take both files from the same model"
                )
            weights = {ours: file.get_tensor(name) for ours, name in names.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise SmileModelError(
            f"{model}: model.safetensors is damaged or incomplete ({first_line(error)}); copy it or train again"
        ) from None
    for name, tensor in weights.items():
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise SmileModelError(f"{model}: {name} in model.safetensors has the type {tensor.dtype}; train it again")
        weights[name] = tensor.to(expected[name].dtype)
        if not torch.isfinite(weights[name]).all():
            raise SmileModelError(f"{model}: {name} in model.safetensors contains NaN or infinity; train it again")
    return weights


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def predict_probabilities(
    model: TimmWrapperForImageClassification,
    dataset: datasets.Dataset,
    batch_size: int = 64,
    test_time_flip: bool = False,
) -> np.ndarray:
    """Predict the probabilities of every image of a split, on a GPU if there is one.

    Args:
        model: from `load_model` or `build_model`.
        dataset: a split from `load_smile_dataset`.
        batch_size: images per batch.
        test_time_flip: average the logits of each image and its mirror image.

    Returns:
        (N, K) float64, in the order of `dataset`.
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
            logits = model(pixel_values=pixel_values).logits
            if test_time_flip:
                logits = (logits + model(pixel_values=pixel_values.flip(3)).logits) / 2
            probabilities.append(logits.double().softmax(dim=1).cpu())
            progress.update(len(pixel_values))
    return torch.cat(probabilities).numpy()
