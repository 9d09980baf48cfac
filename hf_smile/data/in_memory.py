"""A `datasets.Dataset` from anywhere -> the columns that training needs."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import ClassLabel, Dataset, Value

from hf_smile.data.rows import standardize
from hf_smile.errors import SmileDataError
from hf_smile.labels import _key


def smile_dataset(dataset: Dataset, labels: Sequence[str], split: str = "train") -> Dataset:
    """The columns `image` (encoded), `label` and `image_id` of any data set with images and labels.

    Args:
        dataset: with one column of images, and one of labels: `label`, `labels`, `class` or `target`. A `ClassLabel`
            or text is matched to `labels` by name, whatever its ids; whole numbers are ids already.
        labels: of the model, in the order of their ids.
        split: what to call the data set in messages and in the ids of images that have none.

    Returns:
        The data set without any transform, with `label` a `ClassLabel` of these labels.

    Raises:
        TypeError: it is no `datasets.Dataset`.
        SmileDataError: a column is missing, or a label is none of `labels`.

    >>> rows = Dataset.from_dict({"image": faces, "label": [1, 0]})  # doctest: +SKIP
    >>> smile_dataset(rows, ["smile", "NOT smile"])["image_id"]  # doctest: +SKIP
    ['train-0000000', 'train-0000001']
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"the {split} data must be a datasets.Dataset, not {type(dataset).__name__}")
    rows = standardize(dataset.with_format(None), split, "the data set in memory")
    wanted = ClassLabel(names=[*labels])
    if getattr(rows.features["label"], "names", None) != wanted.names:
        label_ids = _label_ids(rows, labels, split)
        rows = rows.remove_columns("label").add_column("label", label_ids).cast_column("label", wanted)
    return rows if rows.features["image_id"].dtype == "string" else rows.cast_column("image_id", Value("string"))


def _label_ids(rows: Dataset, labels: Sequence[str], split: str) -> list[int]:
    feature, values = rows.features["label"], rows["label"]
    spellings = {_key(text): label_id for label_id, name in enumerate(labels) for text in (name, str(label_id))}
    names = feature.names if isinstance(feature, ClassLabel) else None
    label_ids = {}
    for value in set(values):
        text = str(names[value] if names and value is not None else value)
        if _key(text) not in spellings:
            raise SmileDataError(
                f"the {split} data have the label {text!r}, and the model knows {', '.join(labels)}; "
                "give build_model the labels of the data, or rename those"
            )
        label_ids[value] = spellings[_key(text)]
    return [label_ids[value] for value in values]
