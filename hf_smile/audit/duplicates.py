"""Duplicates: images of the same picture, in particular across splits (leaks) and with different labels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hf_smile.audit.scan import Scan
from hf_smile.audit.similarity import NO_LINKS, Links, clusters, link_all, pairs_in_block

KINDS = ("same bytes", "same picture", "similar")
"""Kinds of evidence that images are duplicates, from strongest to weakest."""

HASH_BITS = 4
"""Maximum number of hash bits in which duplicates differ. For 300 faces saved again (JPEG quality 30 to 90) or resized
(60 to 150 %), the hash was unchanged for 57 to 85 %, and none differed by more bits than this."""

THUMBNAIL_CORRELATION = 0.99
"""Minimum correlation between the thumbnails of duplicates. For those faces, it was at least 0.995. Face crops look
alike, so hashes can be equal by chance: among 6,442 faces, 3 of 11 pairs with equal hashes had correlations of 0.88 to
0.985."""

_PAIRS = 65536  # thumbnail pairs compared at a time


def duplicate_links(scan: Scan, similar: Links = NO_LINKS) -> dict[str, Links]:
    """Pairs of duplicates, by each of the `KINDS`.

    Args:
        scan: result of `scan_images`, without unreadable images, with rows numbered from 0.
        similar: further pairs of rows, whose features are almost the same.

    Returns:
        `same bytes`: identical files. `same picture`: the 64-bit difference hashes differ by at most 4 bits, and the
        thumbnails have a correlation of at least 0.99, for example after recompression, resizing, or within a burst of
        shots. `similar`: the given pairs.
    """
    return {
        "same bytes": link_equal(scan.table["digest"].to_numpy()),
        "same picture": _link_pictures(scan),
        "similar": similar,
    }


def merge_links(links: dict[str, Links]) -> Links:
    """Merge links of all kinds."""
    return sum(links.values(), NO_LINKS)


def list_groups(scan: pd.DataFrame, links: dict[str, Links]) -> pd.DataFrame:
    """List the groups of linked images for review, one row per image.

    Args:
        scan: images with `image_id`, `split` and `label`, with the rows of `duplicate_links`.
        links: pairs of rows by kind, strongest evidence first.

    Returns:
        `group` (numbered from 1: groups with differing labels first, then those in train and test), `kind` (the
        weakest kind needed to link the whole group), `crosses_splits` and `labels_differ` (bool), `image_id`, `split`,
        `label`, and `row` of the scan. A group crosses splits if it has both a test image and another image.
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
    """Summarize a table of `list_groups`: numbers of groups, of images, and of groups that leak or disagree."""
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
    """Link duplicates by hash and thumbnail. All pairs of hashes are compared, in blocks: for 100,000 images, these are
    5 billion pairs and take half a minute."""
    hashes = scan.table["dhash"].to_numpy()

    def compare(some: slice, others: slice) -> Links:
        differing = np.bitwise_count(hashes[some, None] ^ hashes[None, others])
        return _confirm(scan.thumbnails, pairs_in_block(differing <= HASH_BITS, some, others))

    return link_all(len(hashes), compare)


def _confirm(thumbnails: np.ndarray, pairs: np.ndarray) -> Links:
    """Keep the pairs (2, E) whose thumbnails correlate."""
    correlation = np.zeros(pairs.shape[1], np.float32)
    for start in range(0, len(correlation), _PAIRS):
        part = slice(start, start + _PAIRS)
        a, b = (thumbnails[rows].astype(np.float32) for rows in pairs[:, part])
        a -= a.mean(axis=1, keepdims=True)
        b -= b.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        correlation[part] = (a * b).sum(axis=1) / np.maximum(norms, 1e-6)
    return Links(pairs, correlation).at_least(THUMBNAIL_CORRELATION)
