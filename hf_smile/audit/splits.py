"""A group-disjoint split, and the given split without leaks and conflicts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from hf_smile.data.sources import Images, ImageSource, plain_path
from hf_smile.errors import SmileDataError
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.csv_cells import guarded


def group_disjoint_split(labels: np.ndarray, groups: np.ndarray, test_share: float, seed: int = 0) -> np.ndarray:
    """Divide the images so that no group is in both train and test, and class shares are approximately kept.

    Groups of at least two images are assigned first, largest first, each to the split that brings the class shares
    closer to their targets. Single images then fill the gaps, class by class.

    Args:
        labels: (N,) label ids.
        groups: (N,) group numbers.
        test_share: share of the images in test, 0 to 1.
        seed: seed of the random order.

    Returns:
        (N,) bool, true for test images.

    Raises:
        SmileDataError: if one of the two splits would be empty.

    >>> in_test = group_disjoint_split(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), 0.5)
    >>> in_test[:2].sum(), in_test[2:].sum()
    (np.int64(1), np.int64(1))
    """
    draw = np.random.default_rng(seed)
    _, number = np.unique(groups, return_inverse=True)
    sizes = np.bincount(number)
    classes = int(labels.max()) + 1
    counts = np.zeros((len(sizes), classes))
    np.add.at(counts, (number, labels), 1)

    shuffled = draw.permutation(np.flatnonzero(sizes > 1))
    in_test = np.zeros(len(sizes), dtype=bool)
    dealt, test = np.zeros(classes), np.zeros(classes)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        dealt += counts[group]
        wanted = test_share * dealt
        in_test[group] = np.square(test + counts[group] - wanted).sum() < np.square(test - wanted).sum()
        test += counts[group] * in_test[group]

    alone = draw.permutation(np.flatnonzero(sizes == 1))
    for label_id, total in enumerate(counts.sum(axis=0)):
        of_class = alone[counts[alone, label_id] > 0]
        missing = round(test_share * total - test[label_id])
        in_test[of_class[: max(missing, 0)]] = True

    split = in_test[number]
    if split.all() or not split.any():
        raise SmileDataError(
            f"{len(labels)} images in {len(sizes)} groups can't be divided into train and test; raise the minimum "
            "similarity of images that are kept together"
        )
    return split


def clean_tables(tables: Mapping[str, pd.DataFrame], groups: pd.DataFrame, bad: set[str]) -> dict[str, pd.DataFrame]:
    """The given splits without leaks, conflicts and unreadable images, by file name.

    Args:
        tables: annotations by split.
        groups: duplicates, from `list_groups`.
        bad: ids of unreadable images.

    Returns:
        `train`, and `validation` if given, without images that have a duplicate in test. `test` keeps these images.
        Groups with differing labels are removed from all of them. `test_without_leaks` is the given test split
        without images that have a duplicate in another split, for models trained on the given train split.
    """
    conflicts = set(groups.loc[groups["labels_differ"], "image_id"])
    leaks = set(groups.loc[groups["crosses_splits"], "image_id"])

    def without(split: str, left_out: set[str]) -> pd.DataFrame:
        return tables[split][~tables[split]["image_id"].isin(left_out)]

    cleaned = {split: without(split, bad | conflicts | (leaks if split != "test" else set())) for split in tables}
    return cleaned | {"test_without_leaks": without("test", bad | leaks)}


def write_annotations(table: pd.DataFrame, path: Path, labels: LabelSet = SMILE_LABELS) -> None:
    """Write a table of `read_tables` as an annotation file: `image_id,file_name,label` and additional columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = table.drop(columns=["where", "problem"], errors="ignore").rename(columns={"file": "file_name"})
    named = named.assign(
        label=[labels[label] for label in table["label"]], file_name=named["file_name"].map(plain_path)
    )
    named.rename(columns=guarded).map(guarded).to_csv(path, index=False, lineterminator="\n")


def can_be_listed(images: Images) -> bool:
    """Whether CSV files can refer to the images, which is not possible for rows of a saved data set."""
    return isinstance(images, ImageSource)


def link_images(images: Images, folder: Path) -> None:
    """Make `folder` a complete data set with a symbolic link to the images, if these are files."""
    if not isinstance(images, ImageSource):
        return
    link = folder / ("images" if images.path.is_dir() else "images.zip")
    if link.is_symlink():
        link.unlink()
    with suppress(OSError):  # without links, the CSV files still work beside a copy of the images
        link.symlink_to(images.path.resolve())
