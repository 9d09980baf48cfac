"""The order of the pictures: labels that are most probably wrong come first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from hf_smile.errors import SmileDataError
from hf_smile.review.opinions import NO_LIKENESS, Likeness, Opinion

_BLIND_SEED = 0  # the same order for all reviewers, so that they see the same pictures


class Entry(NamedTuple):
    """A picture in the queue."""

    image_id: str
    file: str
    split: str
    label: int
    opinions: dict[str, np.ndarray]
    """(K,) label probabilities, by source."""
    copies: Sequence[str]
    """Ids of its duplicates."""
    neighbours: Sequence[tuple[str, float]]
    """Ids of the most similar images, with their similarity."""
    reason: str
    """Why it needs a review; empty if nothing is suspicious."""


def make_queue(
    tables: Mapping[str, pd.DataFrame],
    opinions: Sequence[Opinion] = (),
    likeness: Likeness = NO_LIKENESS,
    blind: bool = False,
) -> list[Entry]:
    """All pictures, ordered by the value of a decision about them.

    Suspicious labels come first, ordered by the probability of the label (the lowest of all opinions) or by the share
    of its duplicates with the same label. Pictures in both train and test come next, then all others, also by
    suspicion. Duplicates with other labels or in other splits are next to each other.

    Args:
        tables: annotations by split, from `read_tables`.
        opinions: label probabilities for any of the images.
        likeness: duplicates and similar images from the audit.
        blind: whether to use a fixed random order instead, so that the decisions are a random sample.

    Raises:
        SmileDataError: if an image of the audit is not in the data, or an image id appears twice.

    >>> [entry.image_id for entry in make_queue(tables, [probe])[:2]]  # doctest: +SKIP
    ['face17', 'face3']
    """
    table = pd.concat([part.assign(split=split) for split, part in tables.items()], ignore_index=True)
    row_of = {image_id: row for row, image_id in enumerate(table["image_id"])}
    if len(row_of) < len(table):
        again = table.loc[table["image_id"].duplicated(), "image_id"].iloc[0]
        raise SmileDataError(f"image_id {again!r} appears twice, so a decision would apply to both; rename one")
    for ids in (likeness.duplicates["image_id"], *(opinion.image_ids for opinion in opinions)):
        if unknown := next((image_id for image_id in ids if image_id not in row_of), None):
            raise SmileDataError(f"image_id {unknown!r} of the audit is not in the data; audit these data again")

    groups = likeness.duplicates.groupby("group")["image_id"].apply(list)
    group_of = {image_id: number for number, ids in enumerate(groups) for image_id in ids}
    table["group"] = [group_of.get(image_id, -1 - row) for image_id, row in row_of.items()]
    alike = table.groupby(["group", "label"])["file"].transform("size") / table.groupby("group")["file"].transform(
        "size"
    )
    tests = (table["split"] == "test").groupby(table["group"])
    leaks = tests.transform("any") & ~tests.transform("all")

    given, labels = np.ones(len(table)), table["label"].to_numpy()
    doubted = (alike < 1).to_numpy(copy=True)
    said: list[dict[str, np.ndarray]] = [{} for _ in row_of]
    for opinion in opinions:
        rows = np.array([row_of[image_id] for image_id in opinion.image_ids])
        given[rows] = np.minimum(given[rows], opinion.probabilities[np.arange(len(rows)), labels[rows]])
        doubted[rows] |= opinion.probabilities.argmax(axis=1) != labels[rows]
        for row, probabilities in zip(rows, opinion.probabilities, strict=True):
            said[row][opinion.name] = probabilities
    table["doubt"] = 1 - np.minimum(given, alike)
    table["stage"] = np.where(doubted, 0, np.where(leaks, 1, 2))
    reasons = np.where(
        alike < 1,
        "The same picture has another label",
        np.where(leaks, "The same picture is in both train and test", np.where(doubted, "The label is doubted", "")),
    )
    if blind:
        order = np.random.default_rng(_BLIND_SEED).permutation(len(table))
    else:
        together = table["group"].where((alike < 1) | leaks, -1 - table.index)
        first = table.groupby(together)["stage"].transform("min")
        most = table.groupby(together)["doubt"].transform("max")
        order = np.lexsort((-table["doubt"], together, -most, first))

    neighbours: dict[str, list[tuple[str, float]]] = {}
    for image_id, other, similarity in likeness.neighbours.itertuples(index=False):
        if other in row_of:
            neighbours.setdefault(image_id, []).append((other, similarity))
    columns = [table[name].tolist() for name in ("image_id", "file", "split", "label", "group")]
    entries = []
    for row in order:
        image_id, file, split, label, group = (column[row] for column in columns)
        copies = [other for other in groups.iloc[group] if other != image_id] if group >= 0 else []
        entries.append(
            Entry(image_id, file, split, label, said[row], copies, neighbours.get(image_id, []), str(reasons[row]))
        )
    return entries
