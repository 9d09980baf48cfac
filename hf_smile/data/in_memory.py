"""A `datasets.Dataset` from anywhere -> the columns that training needs."""

from __future__ import annotations

from datasets import Dataset

from hf_smile.data.rows import label_names, labelled, standardize
from hf_smile.errors import SmileDataError
from hf_smile.labels import LabelSet


def smile_dataset(dataset: Dataset, labels: LabelSet, split: str = "train") -> Dataset:
    """The columns `image` (encoded), `label` and `image_id` of any data set with images and labels.

    Args:
        dataset: with one column of images, and one of labels: `label`, `labels`, `class` or `target`. A `ClassLabel`
            or text is matched to `labels` by name, whatever its ids; whole numbers are ids already.
        labels: of the model.
        split: what to call the data set in messages and in the ids of images that have none.

    Returns:
        The data set without any transform, with `label` a `ClassLabel` of these labels.

    Raises:
        TypeError: it is no `datasets.Dataset`.
        SmileDataError: a column is missing, or a label is none of `labels`.

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
        raise SmileDataError(f"{split}: {error}; give build_model the labels of the data: labels=[...]") from None
    return [ids[value] for value in values]
