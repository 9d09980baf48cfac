"""What a backbone is worth before it is fine-tuned: a linear probe on its pooled features, its size and its speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from timeit import repeat
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset

from hf_smile.data.splits import column_of, hold_out
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.modeling.backbone import build_model

PENALTIES = (2.0, 0.2, 0.02)
"""Weights of the squared coefficients of the probe, beside its mean loss, that are tried, the strongest first."""


class Backbone(NamedTuple):
    """Size and speed of a backbone with three classes on it.

    Attributes:
        parameters: how many.
        image_size: side of the input in pixels.
        images_per_second: through the network in batches, on this machine; reading and decoding not counted.
    """

    parameters: int
    image_size: int
    images_per_second: float


def describe_backbone(
    backbone: str, *, pretrained: bool = True, image_size: int | None = None, batch_size: int = 16
) -> Backbone:
    """Count the parameters of a backbone and measure its speed, on a GPU where there is one.

    Args:
        backbone, pretrained, image_size: as in `build_model`.
        batch_size: images at a time. The fastest of three batches counts, since whatever else the machine does can
            only make it slower.

    Raises:
        SmileModelError: the backbone can't be had.

    >>> describe_backbone("resnet18", pretrained=False).parameters  # doctest: +SKIP
    11178051
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(backbone, pretrained=pretrained, image_size=image_size)
    model = model.to(device, memory_format=torch.channels_last).eval()
    shape = model.config.pretrained_cfg["input_size"]
    pixel_values = torch.randn(batch_size, *shape).to(device, memory_format=torch.channels_last)
    with torch.inference_mode():  # the first one warms up, and is never the fastest; cpu() waits for the GPU
        seconds = repeat(lambda: model(pixel_values=pixel_values).logits.cpu(), number=1, repeat=4)
    return Backbone(model.num_parameters(), shape[-1], batch_size / min(seconds))


def split_rows(
    train: Dataset, validation_size: float, seed: int, group_by: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `train` that train and those that validate: the very split that `load_smile_dataset` makes.

    Raises:
        SmileDataError: too few images for a validation split.
    """
    columns = ["label"] if group_by is None else ["label", column_of(train.column_names, group_by)]
    rows = train.select_columns(columns).add_column("row", np.arange(len(train)))
    parts = hold_out(rows, "validation", validation_size, seed, group_by)
    return np.array(parts["train"]["row"]), np.array(parts["validation"]["row"])


def probe(
    features: np.ndarray,
    label_ids: np.ndarray,
    validation_features: np.ndarray,
    validation_label_ids: np.ndarray,
    *further: np.ndarray,
    labels: LabelSet = SMILE_LABELS,
) -> list[np.ndarray]:
    """Logistic regression on standardised features; of three penalties the one with the best validation likelihood.

    Args:
        features: (N, F) to fit on.
        label_ids: (N,).
        validation_features: (M, F).
        validation_label_ids: (M,).
        further: (L, F) each, features of further images.
        labels: the K classes.

    Returns:
        Probabilities of the validation images (M, K), then of each array of `further` (L, K).

    Raises:
        SmileDataError: the labels hold one class only.
    """
    fits = linear_probes(features, label_ids, validation_features, *further, classes=len(labels))
    return min(fits, key=lambda found: compute_metrics(found[0], validation_label_ids, labels)["nll"])


def linear_probes(
    features: np.ndarray,
    label_ids: np.ndarray,
    *further: np.ndarray,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
) -> Iterator[list[np.ndarray]]:
    """Logistic regression on standardised features, one penalty after the other.

    Args:
        features: (N, F) to fit on.
        label_ids: (N,).
        further: (L, F) each, features of further images.
        classes: K.
        penalties: weights of the squared coefficients, beside the mean loss; the strongest first.

    Yields:
        For each penalty the probabilities of each array of `further`, (L, K) float64.

    Raises:
        SmileDataError: the labels hold one class only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(np.unique(label_ids)) < 2:
        raise SmileDataError("a probe needs images of two classes at least")
    scaler = StandardScaler().fit(features)
    scaled, *others = [scaler.transform(rows) for rows in (features, *further)]
    # Each fit begins where the one with the stronger penalty ended.
    model = LogisticRegression(tol=1e-3, max_iter=1000, warm_start=True)
    for penalty in penalties:
        model.C = 1 / (penalty * len(label_ids))  # scikit-learn weighs against the sum of the losses
        found = [np.zeros((len(rows), classes)) for rows in others]
        with threadpool_limits(1):  # products this small take longer on many threads, which wait for each other
            model.fit(scaled, label_ids)
            for probabilities, rows in zip(found, others, strict=True):
                probabilities[:, model.classes_] = model.predict_proba(rows)
        yield [probabilities / probabilities.sum(axis=1, keepdims=True) for probabilities in found]  # from float32
