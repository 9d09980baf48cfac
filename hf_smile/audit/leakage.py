"""Similarity of the test images to the train images, and its effect on the accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hf_smile.audit.similarity import nearest, nearest_others
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.intervals import wilson_interval

BINS = 5
"""Number of equal parts into which the test images are divided by their similarity to a train image."""


def nearest_train_images(scan: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """The most similar train image of each test image.

    Args:
        scan: N images with `image_id`, `split` and `label`.
        rows: (N, F) features, rows of length 1.

    Returns:
        `image_id`, `label`, `similarity`, `train_image_id`, `train_label`; most similar pair first.
    """
    is_test = (scan["split"] == "test").to_numpy()
    test, train = scan[is_test].reset_index(), scan[~is_test]
    similarity, index = nearest(rows[is_test], rows[~is_test])
    alike = train[["image_id", "label"]].iloc[index].add_prefix("train_").reset_index(drop=True)
    table = test[["image_id", "label"]].assign(similarity=similarity).join(alike)
    return table.sort_values("similarity", ascending=False, ignore_index=True)


def list_neighbours(image_ids: Sequence[str] | pd.Series, rows: np.ndarray) -> pd.DataFrame:
    """The nearest neighbours of each image in any split: `image_id`, `neighbour`, `similarity`.

    Args:
        image_ids: (N,) image ids.
        rows: (N, F) features, rows of length 1.
    """
    similarity, index = nearest_others(rows)
    ids = np.asarray(image_ids, dtype=object)
    columns = {"image_id": ids.repeat(index.shape[1]), "neighbour": ids[index.ravel()]}
    return pd.DataFrame({**columns, "similarity": similarity.ravel()})


def correct_predictions(scan: pd.DataFrame, predictions: pd.DataFrame) -> pd.Series:
    """Whether the prediction is correct, by image id.

    Args:
        scan: images with `image_id`, `split` and `label`.
        predictions: `image_id` and `prediction` (label id) of some or all test images.

    Raises:
        SmileDataError: if an image of the predictions is not in the test split.
    """
    labels = scan[scan["split"] == "test"].set_index("image_id")["label"]
    if unknown := [image_id for image_id in predictions["image_id"] if image_id not in labels.index]:
        raise SmileDataError(
            f"{len(unknown)} of {len(predictions)} predictions are for images that are not in the test split (or can't "
            f"be read), for example {unknown[0]!r}; use predictions for the test split of these data"
        )
    given = predictions.set_index("image_id")["prediction"]
    return given == labels[given.index]


def accuracy_by_similarity(nearest_train: pd.DataFrame, correct: pd.Series, bins: int = BINS) -> pd.DataFrame:
    """Accuracy on test images, by their similarity to the most similar train image.

    Args:
        nearest_train: result of `nearest_train_images`.
        correct: result of `correct_predictions`.
        bins: number of parts of equal size.

    Returns:
        One row per part: `similarity_from`, `similarity_to`, `similarity` (median), `images`, `accuracy`, and its 95 %
        Wilson interval `low`, `high`.
    """
    table = nearest_train.assign(correct=nearest_train["image_id"].map(correct)).dropna(subset="correct")
    table = table.sort_values("similarity")
    parts = (table.iloc[rows] for rows in np.array_split(np.arange(len(table)), bins) if len(rows))
    return pd.DataFrame(
        {
            "similarity_from": part["similarity"].min(),
            "similarity_to": part["similarity"].max(),
            "similarity": part["similarity"].median(),
            **accuracy_with_interval(part["correct"]),
        }
        for part in parts
    )


def accuracy_with_interval(correct: Sequence[bool] | pd.Series) -> dict[str, float]:
    """`images`, `accuracy`, and its 95 % Wilson interval `low`, `high`.

    >>> accuracy_with_interval([True] * 9 + [False])["accuracy"]
    0.9
    """
    if not len(correct):
        return {"images": 0}
    accuracy = float(np.mean(correct))
    low, high = wilson_interval(accuracy, len(correct))
    return {"images": len(correct), "accuracy": accuracy, "low": float(low), "high": float(high)}
