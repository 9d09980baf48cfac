"""Compare backbones before fine-tuning: a linear probe on the pooled features, size and speed."""

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
"""L2 penalties that the probe tries, relative to its mean loss, the strongest first."""


class Backbone(NamedTuple):
    """Size and speed of a backbone with a three-class head.

    Attributes:
        parameters: number of parameters.
        image_size: side of the input in pixels.
        images_per_second: throughput of the network in batches, on this machine, without reading and decoding.
    """

    parameters: int
    image_size: int
    images_per_second: float


def describe_backbone(
    backbone: str, *, pretrained: bool = True, image_size: int | None = None, batch_size: int = 16
) -> Backbone:
    """Count the parameters of a backbone and measure its speed, on a GPU if there is one.

    Args:
        backbone, pretrained, image_size: as in `build_model`.
        batch_size: images per batch. The fastest of three batches counts, because other load can only slow a batch
            down.

    Raises:
        SmileModelError: the backbone can't be loaded.

    >>> describe_backbone("resnet18", pretrained=False).parameters  # doctest: +SKIP
    11178051
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(backbone, pretrained=pretrained, image_size=image_size)
    model = model.to(device, memory_format=torch.channels_last).eval()
    shape = model.config.pretrained_cfg["input_size"]
    pixel_values = torch.randn(batch_size, *shape).to(device, memory_format=torch.channels_last)
    with torch.inference_mode():  # the first run warms up and is never the fastest; cpu() waits for the GPU
        seconds = repeat(lambda: model(pixel_values=pixel_values).logits.cpu(), number=1, repeat=4)
    return Backbone(model.num_parameters(), shape[-1], batch_size / min(seconds))


def split_rows(
    train: Dataset, validation_size: float, seed: int, group_by: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training and the validation part of `train`, split as in `load_smile_dataset`.

    Raises:
        SmileDataError: there are too few images for a validation split.
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
    """Fit a logistic regression on standardised features; validation likelihood chooses one of three penalties.

    Args:
        features: (N, F) training features.
        label_ids: (N,) training labels.
        validation_features: (M, F).
        validation_label_ids: (M,).
        further: features of further images, (L, F) each.
        labels: the K classes.

    Returns:
        Probabilities of the validation images (M, K), then of each array in `further` (L, K).

    Raises:
        SmileDataError: the training labels have only one class.
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
    """Fit a logistic regression on standardised features for each penalty.

    Args:
        features: (N, F) training features.
        label_ids: (N,) training labels.
        further: features of further images, (L, F) each.
        classes: number of classes, K.
        penalties: L2 penalties relative to the mean loss, the strongest first.

    Yields:
        For each penalty, the probabilities of each array in `further`, (L, K) float64.

    Raises:
        SmileDataError: the training labels have only one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(np.unique(label_ids)) < 2:
        raise SmileDataError("a linear probe needs images of at least two classes")
    scaler = StandardScaler().fit(features)
    scaled, *others = [scaler.transform(rows) for rows in (features, *further)]
    # Each fit starts from the solution for the next stronger penalty.
    model = LogisticRegression(tol=1e-3, max_iter=1000, warm_start=True)
    for penalty in penalties:
        model.C = 1 / (penalty * len(label_ids))  # scikit-learn's C is relative to the sum of the losses
        found = [np.zeros((len(rows), classes)) for rows in others]
        with threadpool_limits(1):  # such small products are slower with several threads
            model.fit(scaled, label_ids)
            for probabilities, rows in zip(found, others, strict=True):
                probabilities[:, model.classes_] = model.predict_proba(rows)
        yield [probabilities / probabilities.sum(axis=1, keepdims=True) for probabilities in found]  # from float32
