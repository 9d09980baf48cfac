"""Features -> nearest neighbours and clusters, block by block: never a matrix of all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from tqdm.auto import tqdm

_ROWS, _COLUMNS = 1024, 4096  # pairs compared at a time: 16 MiB of similarities
_FLOOR = 0.5  # less similar images are never linked
_STEP = 0.01  # of the search for a threshold


@dataclass(frozen=True)
class Links:
    """Pairs of images with their similarity: an undirected graph."""

    first: np.ndarray
    """(E,) int32 rows."""
    second: np.ndarray
    """(E,) int32 rows."""
    similarity: np.ndarray
    """(E,) float32, -1 to 1."""

    def __len__(self) -> int:
        return len(self.first)

    def at_least(self, similarity: float) -> Links:
        """The links that are this strong."""
        kept = self.similarity >= similarity
        return Links(self.first[kept], self.second[kept], self.similarity[kept])

    def __add__(self, other: Links) -> Links:
        return Links(
            np.concatenate([self.first, other.first]),
            np.concatenate([self.second, other.second]),
            np.concatenate([self.similarity, other.similarity]),
        )


NO_LINKS = Links(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Features (N, F) as rows of length 1 about their mean: products of the rows are then cosine similarities.

    All faces share most of what a backbone sees in them; without that common part, likeness tells more. The rows are
    scaled before the mean is taken, too: a face network hardly responds to a picture without a face, and next to the
    mean of the others all such pictures would be alike.

    >>> unit_rows(np.array([[3.0, 0.0], [0.0, 1.0]])).round(2).tolist()
    [[0.71, -0.71], [-0.71, 0.71]]
    """
    units = _scaled(features)
    return _scaled(units - units.mean(axis=0))


def nearest(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar reference of each query.

    Args:
        queries: (Q, F) rows of length 1.
        references: (R, F) rows of length 1, at least one.

    Returns:
        similarity (Q,) float32 and row of the reference (Q,) int64.

    >>> nearest(np.eye(3)[:1], np.eye(3)[::-1])[1]
    array([2])
    """
    best = np.full(len(queries), -np.inf, np.float32)
    index = np.zeros(len(queries), np.int64)
    for rows, columns, similarity in _blocks(queries, references):
        found = similarity.argmax(axis=1)
        value = similarity[np.arange(len(found)), found]
        better = value > best[rows]
        best[rows] = np.where(better, value, best[rows])
        index[rows] = np.where(better, found + columns.start, index[rows])
    return best, index


def nearest_others(rows: np.ndarray, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """The images that are most like each image, the most similar one first.

    Args:
        rows: (N, F) of length 1.
        count: of others, or all there are where these are fewer.

    Returns:
        similarity (N, count) float32 and row of the other (N, count) int64.

    >>> nearest_others(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), 1)[1].ravel()
    array([2, 2, 1])
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(count, len(rows) - 1), algorithm="brute").fit(rows)
    distance, index = search.kneighbors()  # of an image itself, it is not among them
    return (1 - distance**2 / 2).astype(np.float32), index


def similarity_forest(rows: np.ndarray, floor: float = _FLOOR) -> Links:
    """The links that hold the images together, at every threshold at once: a maximum spanning forest.

    The links of the forest above some threshold connect the same images as all pairs above it do (Gower & Ross, 1969,
    "Minimum spanning trees and single linkage cluster analysis"). There are fewer links than images, so that the
    memory stays small; the time grows with the square of the number of images.

    Args:
        rows: (N, F) of length 1.
        floor: pairs below this similarity are left out.
    """
    forest = NO_LINKS
    for first, second, similarity in _blocks(rows, rows, "Comparing images"):
        if second.stop <= first.start:
            continue  # the mirror image of a block that was there
        i, j = np.nonzero(similarity >= floor)
        i, j, values = i + first.start, j + second.start, similarity[i, j]
        above = i < j
        found = Links(i[above].astype(np.int32), j[above].astype(np.int32), values[above])
        forest = spanning_forest(forest + found, len(rows))
    return forest


def clusters(links: Links, count: int) -> np.ndarray:
    """Number of each image's cluster (count,): what is linked, directly or through others, is together.

    >>> clusters(Links(np.array([0]), np.array([2]), np.array([0.9])), 4).tolist()
    [0, 1, 0, 2]
    """
    graph = coo_matrix((np.ones(len(links)), (links.first, links.second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def clusters_by_threshold(links: Links, count: int) -> pd.DataFrame:
    """The clusters of several images at each threshold, from the floor up to 0.99.

    Returns:
        `threshold`, ascending; `clusters` of several images; `images` in them; images in the `largest` of them.
    """
    rows = []
    for step in range(round(_FLOOR / _STEP), round(1 / _STEP)):
        threshold = round(step * _STEP, 2)
        sizes = np.bincount(clusters(links.at_least(threshold), count))
        several = sizes[sizes > 1]
        rows.append((threshold, len(several), int(several.sum()), int(several.max(initial=0))))
    return pd.DataFrame(rows, columns=["threshold", "clusters", "images", "largest"])


def choose_threshold(table: pd.DataFrame) -> float:
    """The threshold at which the most images are in clusters of several other than the largest; the lowest of these.

    From the top down, images first find the others of their person or scene, and this number grows. Then clusters
    chain: a face resembles a second, that one a third, and the largest cluster swallows the others, so that it falls
    (as in percolation, whose transition is where the clusters beside the largest are at their largest: Stauffer &
    Aharony, 1994, "Introduction to Percolation Theory"). The threshold lies between: it keeps together as many likely
    relations as possible, and errs on the side of joining two people. How many images a person has does not matter.
    Of 6,442 faces, a face network gives 0.55 and a largest cluster of 148 images; tf_efficientnet_lite0, in whose
    features clusters are less distinct, 0.63 and 909.

    Args:
        table: of `clusters_by_threshold`.

    >>> sizes = {"threshold": [0.5, 0.6, 0.7], "images": [990, 800, 300], "largest": [900, 40, 8]}
    >>> choose_threshold(pd.DataFrame(sizes))
    0.6
    """
    return float(table["threshold"][(table["images"] - table["largest"]).idxmax()])


def _scaled(rows: np.ndarray) -> np.ndarray:
    """Each row (N, F) at length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _blocks(a: np.ndarray, b: np.ndarray, title: str | None = None) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Similarities of all rows of a (N, F) to all of b (M, F), one block of them at a time."""
    progress = tqdm(total=len(a), desc=title, unit=" images", delay=1, disable=title is None)
    with progress:
        for i in range(0, len(a), _ROWS):
            rows = slice(i, min(i + _ROWS, len(a)))
            for j in range(0, len(b), _COLUMNS):
                columns = slice(j, min(j + _COLUMNS, len(b)))
                yield rows, columns, a[rows] @ b[columns].T
            progress.update(rows.stop - rows.start)


def spanning_forest(links: Links, count: int) -> Links:
    """The strongest of the links that connect the same images: fewer links than images."""
    # The weights must be positive: in a sparse graph a zero is no link.
    graph = coo_matrix((2 - links.similarity.astype(np.float64), (links.first, links.second)), shape=(count, count))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    return Links(tree.row.astype(np.int32), tree.col.astype(np.int32), (2 - tree.data).astype(np.float32))
