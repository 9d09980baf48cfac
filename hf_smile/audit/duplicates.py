"""Which images are the same picture: across splits, where they leak, and against each other's label."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hf_smile.audit.scan import Scan
from hf_smile.audit.similarity import NO_LINKS, Links, clusters, link_all, pairs_in_block

KINDS = ("same bytes", "same picture", "similar")
"""How the images of a group are known to be one picture, the surest way first."""

HASH_BITS = 4
"""Bits by which the hashes of one picture may differ. Of 300 faces saved again (JPEG quality 30 to 90) or resized (60
to 150 %) the hash stayed the same for 57 to 85 %; none differed by more."""

THUMBNAIL_CORRELATION = 0.99
"""Of the thumbnails of one picture. For those faces it was 0.995 or more. Faces fill their crops alike, so that even
equal hashes come about by chance: 3 of 11 pairs of equal hash among 6,442 faces had 0.88 to 0.985."""

_PAIRS = 65536  # of thumbnails, compared at a time


def duplicate_links(scan: Scan, similar: Links = NO_LINKS) -> dict[str, Links]:
    """Pairs of images that are one picture, by each of the `KINDS`.

    Args:
        scan: of `scan_images`, without the unreadable images, rows numbered from 0.
        similar: further pairs of rows, whose features are nearly the same.

    Returns:
        `same bytes`: the files are the same. `same picture`: the 64-bit difference hashes are within 4 bits and the
        thumbnails correlate to 0.99, as after another compression, another size, or within a burst of shots.
        `similar`: as given.
    """
    return {
        "same bytes": link_equal(scan.table["digest"].to_numpy()),
        "same picture": _link_pictures(scan),
        "similar": similar,
    }


def merge_links(links: dict[str, Links]) -> Links:
    """All links as one graph."""
    return sum(links.values(), NO_LINKS)


def list_groups(scan: pd.DataFrame, links: dict[str, Links]) -> pd.DataFrame:
    """The groups of images that are linked, one row an image: what a reader goes through.

    Args:
        scan: rows as in `duplicate_links`, with `image_id`, `split` and `label`.
        links: pairs of rows, by kind, the surest kind first.

    Returns:
        `group` (numbered from 1: those with differing labels first, then those in train and test), `kind` (the first
        one that, with those before it, links the whole group), `crosses_splits` and `labels_differ` (bool),
        `image_id`, `split`, `label`, and `row` of the scan. A group is in train and test if a test image is in it
        with one that is not.
    """
    count = len(scan)
    number = clusters(merge_links(links), count)
    rows = np.flatnonzero(np.bincount(number, minlength=count)[number] > 1)
    table = scan.iloc[rows][["image_id", "split", "label"]].assign(row=rows, group=number[rows])

    so_far = NO_LINKS
    table["kind"] = ""
    undecided = np.ones(len(table), dtype=bool)
    for kind, of_kind in links.items():
        so_far += of_kind
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


def link_equal(keys: np.ndarray) -> Links:
    """Link each row to the first one with the same key (N,)."""
    first = pd.Series(range(len(keys))).groupby(keys).transform("min").to_numpy()
    later = np.flatnonzero(first != np.arange(len(keys)))
    return Links(np.stack([first[later], later]), np.ones(len(later), np.float32))


def _link_pictures(scan: Scan) -> Links:
    """Rows of one picture. All pairs of hashes are compared, a block at a time: 5 billion pairs, as 100,000 images
    have, take half a minute."""
    hashes = scan.table["dhash"].to_numpy()

    def compare(some: slice, others: slice) -> Links:
        differing = np.bitwise_count(hashes[some, None] ^ hashes[None, others])
        return _confirm(scan.thumbnails, pairs_in_block(differing <= HASH_BITS, some, others))

    return link_all(len(hashes), compare)


def _confirm(thumbnails: np.ndarray, pairs: np.ndarray) -> Links:
    """Those of the pairs (2, E) whose thumbnails correlate."""
    correlation = np.zeros(pairs.shape[1], np.float32)
    for start in range(0, len(correlation), _PAIRS):
        part = slice(start, start + _PAIRS)
        a, b = (thumbnails[rows].astype(np.float32) for rows in pairs[:, part])
        a -= a.mean(axis=1, keepdims=True)
        b -= b.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        correlation[part] = (a * b).sum(axis=1) / np.maximum(norms, 1e-6)
    return Links(pairs, correlation).at_least(THUMBNAIL_CORRELATION)
