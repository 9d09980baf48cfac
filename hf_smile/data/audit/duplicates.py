"""Which images are the same picture: across splits, where they leak, and against each other's label."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hf_smile.data.audit.similarity import NO_LINKS, Links, clusters

KINDS = ("same bytes", "same hash", "mirrored", "similar")
"""How the images of a group are known to be one picture, the surest way first."""


def duplicate_links(scan: pd.DataFrame, similar: Links = NO_LINKS) -> dict[str, Links]:
    """Pairs of images that are one picture, by each of the `KINDS`.

    Args:
        scan: of `scan_images`, without the unreadable images, rows numbered from 0.
        similar: further pairs of rows, whose features are nearly the same.

    Returns:
        `same bytes`: the files are the same. `same hash`: so is the 64-bit difference hash, as after another
        compression or a small change of size. `mirrored`: the hash is that of the mirror image. `similar`: as given.
    """
    hashes, mirrored = scan["dhash"].to_numpy(), scan["mirrored_dhash"].to_numpy()
    # An image and its mirror image have the same smaller hash of the two.
    return {
        "same bytes": _link_equal(scan["digest"].to_numpy()),
        "same hash": _link_equal(hashes),
        "mirrored": _link_equal(np.minimum(hashes, mirrored)),
        "similar": similar,
    }


def merge_links(links: dict[str, Links]) -> Links:
    """All links as one graph."""
    return sum(links.values(), NO_LINKS)


def list_groups(scan: pd.DataFrame, links: dict[str, Links]) -> pd.DataFrame:
    """The groups of images that are linked, one row an image: what a reader goes through.

    Args:
        scan: rows as in `duplicate_links`, with `image_id`, `split` and `label`.
        links: of `duplicate_links`.

    Returns:
        `group` (numbered from 1: those with differing labels first, then those in train and test), `kind` (the first
        of `KINDS` that, with those before it, links the whole group), `crosses_splits` and `labels_differ` (bool),
        `image_id`, `split`, `label`, and `row` of the scan. A group is in train and test if a test image is in it
        with one that is not.
    """
    count = len(scan)
    number = clusters(merge_links(links), count)
    rows = np.flatnonzero(np.bincount(number, minlength=count)[number] > 1)
    table = scan.iloc[rows][["image_id", "split", "label"]].assign(row=rows, group=number[rows])

    so_far = NO_LINKS
    table["kind"] = KINDS[-1]
    undecided = np.ones(len(table), dtype=bool)
    for kind in KINDS:
        so_far += links[kind]
        parts = pd.Series(clusters(so_far, count)[rows], index=table.index)
        whole = (parts.groupby(table["group"]).transform("nunique") == 1).to_numpy()
        table.loc[undecided & whole, "kind"] = kind
        undecided &= ~whole

    is_test = (table["split"] == "test").groupby(table["group"])
    table["crosses_splits"] = is_test.transform("any") & ~is_test.transform("all")
    table["labels_differ"] = table.groupby("group")["label"].transform("nunique") > 1
    table["first"] = table.groupby("group")["row"].transform("min")
    table = table.sort_values(
        ["labels_differ", "crosses_splits", "first", "row"], ascending=[False, False, True, True], ignore_index=True
    )
    table["group"] = pd.factorize(table["group"])[0] + 1
    return table[["group", "kind", "crosses_splits", "labels_differ", "image_id", "split", "label", "row"]]


def count_groups(groups: pd.DataFrame) -> dict[str, int]:
    """Numbers of a table of `list_groups`: groups, images in them, and groups that leak or disagree."""
    first = groups.drop_duplicates("group")
    return {
        "groups": len(first),
        "images": len(groups),
        "groups_in_train_and_test": int(first["crosses_splits"].sum()),
        "groups_with_differing_labels": int(first["labels_differ"].sum()),
    }


def _link_equal(keys: np.ndarray) -> Links:
    """Each row linked to the first one with the same key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    second = np.arange(len(keys))
    later = first[inverse] != second
    return Links(
        first[inverse][later].astype(np.int32), second[later].astype(np.int32), np.ones(later.sum(), np.float32)
    )
