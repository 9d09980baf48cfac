"""Bring any `datasets.Dataset` into the form that training needs."""

from __future__ import annotations

from datasets import Dataset

from hf_smile.data.rows import label_names, labelled, standardize
from hf_smile.errors import SmileDataError
from hf_smile.labels import LabelSet


def smile_dataset(dataset: Dataset, labels: LabelSet, split: str = "train") -> Dataset:
    """Convert a data set with images and labels to the columns `image` (encoded), `label` and `image_id`.

    Args:
        dataset: data set with a column of images and a column of labels named `label`, `labels`, `class` or `target`.
            `ClassLabel` and text labels are matched to `labels` by name; integers are used as label ids.
        labels: label set of the model.
        split: name of the data set in messages, and in generated image ids.

    Returns:
        The data set without a transform, with `label` as a `ClassLabel` of `labels`.

    Raises:
        TypeError: if `dataset` is not a `datasets.Dataset`.
        SmileDataError: if a column is missing, or a label is not in `labels`.

    >>> rows = Dataset.from_dict({"image": faces, "label": [1, 0]})  # doctest: +SKIP
    >>> smile_dataset(rows, LabelSet(("smile", "NOT smile")))["image_id"]  # doctest: +SKIP
    ['train-0000000', 'train-0000001']
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"the {split} data must be a datasets.Dataset, not {type(dataset).__name__}")
    rows = standardize(dataset.with_format(None), split, "the data set in memory")
    named_alike = label_names(rows) == [*labels]
    return labelled(rows, list(rows["label"]) if named_alike else _label_ids(rows, labels, split), labels)


def _label_ids(rows: Dataset, labels: LabelSet, split: str) -> list[int]:
    names, values = label_names(rows), rows["label"]
    try:
        ids = {cell: labels.parse(str(names[cell] if names and cell is not None else cell)) for cell in set(values)}
    except ValueError as error:
        raise SmileDataError(f"{split}: {error}; pass the labels of the data to build_model: labels=[...]") from None
    return [ids[value] for value in values]
