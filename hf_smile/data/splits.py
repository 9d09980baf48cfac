"""Train, validation and test: recognizing their names, and holding out images by class and by group."""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import ceil

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict

from hf_smile.errors import SmileDataError
from hf_smile.utils.words import counted

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
_SPLIT_WORDS = {  # the names that `datasets` recognizes
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def split_of(name: str) -> str | None:
    """The split that a folder or file is named after, ignoring case; None for other names.

    >>> split_of("Train"), split_of("val"), split_of("test-00000-of-00002.parquet"), split_of("trainer")
    ('train', 'validation', 'test', None)
    """
    return _SPLIT_WORDS.get(re.split(r"[-._ ]", name.lower())[0])


def name_splits(names: Iterable[str]) -> dict[str, str]:
    """Map split names, such as `val`, to `train`, `validation` and `test`. Other names are omitted.

    Raises:
        SmileDataError: if two different names stand for the same split.

    >>> name_splits(["Train", "val", "notes"])
    {'Train': 'train', 'val': 'validation'}
    """
    named = {name: split for name in sorted(names) if (split := split_of(name))}
    first: dict[str, str] = {}
    for name, split in named.items():
        word = re.split(r"[-._ ]", name.lower())[0]
        if first.setdefault(split, word) != word:
            raise SmileDataError(f"{first[split]!r} and {word!r} both stand for {split}; rename one of them")
    return named


def hold_out(train: Dataset, split: str, size: float, seed: int, group_by: str | None = None) -> DatasetDict:
    """Divide `train` into `train` and `split`, stratified by class. The columns are kept.

    Args:
        train: data with a column `label`.
        split: name of the held-out part, `validation` or `test`.
        size: share of the images to hold out, 0 to 1.
        seed: random seed.
        group_by: column whose values, people for example, must not be in both parts.

    Raises:
        SmileDataError: if a class has too few images, the size leaves too few for either part, or there is no such
            column.

    >>> hold_out(splits["train"], "validation", 0.1, seed=42)  # doctest: +SKIP
    DatasetDict({train: ..., validation: ...})
    """
    labels = np.array(train["label"])
    if group_by is None:
        check_size(labels, train.features["label"].names, split, size)
        parts = train.train_test_split(size, stratify_by_column="label", seed=seed)
        return DatasetDict({"train": parts["train"], split: parts["test"]})
    groups = np.array([str(value).strip() for value in train[column_of(train.column_names, group_by)]])
    held_out = grouped_rows(labels, groups, split, size, seed)
    return DatasetDict(
        {"train": train.select(np.flatnonzero(~held_out)), split: train.select(np.flatnonzero(held_out))}
    )


def column_of(names: list[str], group_by: str) -> str:
    """Find a column by name, ignoring case.

    Raises:
        SmileDataError: if there is no such column.
    """
    found = next((name for name in names if name.lower() == group_by.strip().lower()), None)
    if found is None or found in ("image", "label", "image_id"):
        further = [name for name in names if name not in ("image", "label", "image_id")]
        there = f"the columns are {', '.join(further)}" if further else "the annotations have no other columns"
        raise SmileDataError(f"no column {group_by!r} to group by (--group_by); {there}")
    return found


def grouped_rows(labels: np.ndarray, groups: np.ndarray, split: str, size: float, seed: int) -> np.ndarray:
    """Choose rows to hold out such that no group is in both parts and class shares are approximately kept.

    scikit-learn's `StratifiedGroupKFold` divides the groups into folds about as large as the smaller part. The number
    of folds held out is the one that comes closest to `size`.

    Args:
        labels: (N,) label ids.
        groups: (N,) group of each row.
        split: name of the held-out part, for messages.
        size: share of the rows to hold out, 0 to 1.
        seed: seed for shuffling the groups.

    Returns:
        (N,) bool, true for the held-out rows.

    Raises:
        SmileDataError: if a row has no group, or there are too few groups.

    >>> held_out = grouped_rows(np.array([0, 1] * 10), np.repeat([*"abcdefghij"], 2), "test", 0.2, seed=0)
    >>> int(held_out.sum())
    4
    """
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and only needed here

    unknown = np.isin(np.char.lower(groups), ("", "none", "nan", "na", "n/a", "null"))
    if unknown.any():
        raise SmileDataError(
            f"{counted(int(unknown.sum()), 'image')} without a value in the column to group by (--group_by), the first "
            f"in row {int(unknown.argmax()) + 1} of train; fill it in"
        )
    count = len(np.unique(groups))
    if count < 2:
        raise SmileDataError(f"all images are in one group, so none can be held out for {split}; omit --group_by")
    count_of_folds = min(max(2, round(1 / min(size, 1 - size))), count, max(2, int(np.bincount(labels).max())))
    folds = StratifiedGroupKFold(count_of_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may have fewer images than there are folds
        order = sorted((rows for _, rows in folds.split(labels, labels, groups)), key=len)
    sizes = np.cumsum([len(rows) for rows in order[:-1]])
    taken = 1 + int(np.abs(sizes - size * len(labels)).argmin())
    held_out = np.zeros(len(labels), bool)
    held_out[np.concatenate(order[:taken])] = True
    return held_out


def stratified_rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw a sample of rows, stratified by class, with at least one row of a rare class where possible.

    Args:
        labels: (N,) label ids.
        count: number of rows to draw; all rows are returned if there are fewer.
        seed: random seed. With the same seed, a larger sample contains the smaller ones.

    Returns:
        Sorted row indices.

    >>> stratified_rows(np.array([0, 0, 0, 0, 1, 1]), 3, seed=0).tolist()
    [2, 3, 5]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = pd.Series(labels[order])
    place_in_class = drawn.groupby(drawn).cumcount() / drawn.groupby(drawn).transform("size")
    return np.sort(order[place_in_class.argsort(kind="stable")[:count]])


def some_of(train: Dataset, count: int, seed: int) -> Dataset:
    """A sample of `count` images drawn by `stratified_rows`. Logs a warning if train has no more than that."""
    if count >= len(train):
        logger.warning("max_train_samples = %d has no effect: train has %s", count, counted(len(train), "image"))
        return train
    return train.select(stratified_rows(np.array(train["label"]), count, seed))


def check_size(labels: np.ndarray, names: Sequence[str], split: str, size: float) -> None:
    """Check that both parts can contain an image of every class.

    Raises:
        SmileDataError: if they can't.
    """
    counts = Counter(names[label] for label in labels.tolist())
    held_out = ceil(size * len(labels))
    label, fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < 2:
        raise SmileDataError(
            f"train has 1 image of {label!r}, but at least 2 of each class are needed, one of them for {split}; "
            "add images"
        )
    if not len(counts) <= held_out <= len(labels) - len(counts):
        raise SmileDataError(
            f"{split}_size {size:g} takes {held_out} of the {len(labels)} images in train, but both {split} and the "
            f"rest of train need at least {len(counts)}, one of each class; "
            f"set a {'larger' if held_out < len(counts) else 'smaller'} --{split}_size, or add images"
        )


def missing_split(sizes: Mapping[str, int], test_size: float | None) -> str | None:
    """The error message if train is missing, or if test is missing and no `test_size` is given; otherwise None.

    Args:
        sizes: number of images by split.
        test_size: share of train to use as the test split, if any.

    >>> missing_split({"train": 90}, 0.1) is None, missing_split({"test": 90}, None)
    (True, 'found test (90 images) but no train split')
    """
    there = " and ".join(f"{split} ({counted(images, 'image')})" for split, images in sizes.items())
    if "train" not in sizes:
        return f"found {there} but no train split" if there else "no labelled images found"
    if "test" not in sizes and not test_size:
        return f"found {there} but no test split; hold one out of train, for example with --test_size 0.2"
    return None


def check_groups(splits: Mapping[str, Dataset], group_by: str) -> None:
    """Check that no group is in two of the existing splits.

    Raises:
        SmileDataError: if a group is in two splits, or a split has no such column.
    """
    groups = {}
    for split, dataset in splits.items():
        try:
            column = column_of(dataset.column_names, group_by)
        except SmileDataError as error:
            raise SmileDataError(f"{split}: {error}") from None
        groups[split] = {str(value).strip() for value in dataset[column]}
    for split, other in combinations(groups, 2):
        if shared := groups[split] & groups[other]:
            raise SmileDataError(
                f"{counted(len(shared), 'value')} of {group_by!r} in both {split} and {other}, for example "
                f"{min(shared)!r}; put all rows into train, and hold out complete groups with --{other}_size"
            )


def describe(splits: DatasetDict, group_by: str | None = None) -> str:
    """A sentence with the number of images, and of groups, in each split.

    >>> describe(splits, "person")  # doctest: +SKIP
    'train: 72 images of 9 groups by person, test: 24 images of 3 groups by person'
    """
    words = []
    for split, dataset in splits.items():
        line = f"{split}: {counted(len(dataset), 'image')}"
        if group_by is not None:
            groups = set(map(str, dataset[column_of(dataset.column_names, group_by)]))
            line += f" of {counted(len(groups), 'group')} by {group_by}"
        words.append(line)
    return ", ".join(words)
