"""Nearest neighbours and clusters from features, computed in blocks, never as a matrix of all pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from sklearn.preprocessing import normalize
from tqdm.auto import tqdm

_ROWS, _COLUMNS = 1024, 4096  # pairs compared at a time: 16 MiB of similarities
_QUERIES = 128  # queries compared with all references at a time: 51 MB for 100,000 references
_FLOOR = 0.5  # less similar images are never linked
_STEP = 0.01  # step of the threshold search


@dataclass(frozen=True)
class Links:
    """Linked pairs of images with their similarity: an undirected graph."""

    pairs: np.ndarray
    """(2, E) row numbers of the pairs."""
    similarity: np.ndarray
    """(E,) float32 similarity, -1 to 1."""

    def __len__(self) -> int:
        return len(self.similarity)

    def at_least(self, similarity: float) -> Links:
        """The links with at least this similarity."""
        kept = self.similarity >= similarity
        return Links(self.pairs[:, kept], self.similarity[kept])

    def __add__(self, other: Links) -> Links:
        return Links(np.hstack([self.pairs, other.pairs]), np.append(self.similarity, other.similarity))


NO_LINKS = Links(np.zeros((2, 0), np.int32), np.zeros(0, np.float32))


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Center features (N, F) and scale the rows to length 1, so that their products are cosine similarities.

    Features of faces have a large common part; without it, similarities are more informative. The rows are also scaled
    before centering: a face network hardly responds to images without a face, and relative to the mean of the others,
    all such images would look alike.

    >>> unit_rows(np.array([[3.0, 0.0], [0.0, 1.0]])).round(2).tolist()
    [[0.71, -0.71], [-0.71, 0.71]]
    """
    units = normalize(features)
    return normalize(units - units.mean(axis=0))


def nearest(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar reference of each query.

    Args:
        queries: (Q, F) rows of length 1.
        references: (R, F) rows of length 1, at least one.

    Returns:
        Similarity (Q,) float32 and row of the reference (Q,) int64.

    >>> nearest(np.eye(3)[:1], np.eye(3)[::-1])[1]
    array([2])
    """
    blocks = (queries[start : start + _QUERIES] @ references.T for start in range(0, len(queries), _QUERIES))
    best, index = zip(*((block.max(axis=1), block.argmax(axis=1)) for block in blocks), strict=True)
    return np.concatenate(best), np.concatenate(index)


def nearest_others(rows: np.ndarray, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """The nearest neighbours of each image, most similar first.

    Args:
        rows: (N, F) rows of length 1.
        count: number of neighbours, at most N - 1.

    Returns:
        Similarity (N, count) float32 and row of the neighbour (N, count) int64.

    >>> nearest_others(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), 1)[1].ravel()
    array([2, 2, 1])
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(count, len(rows) - 1), algorithm="brute").fit(rows)
    distance, index = search.kneighbors()  # excludes the image itself
    return (1 - distance**2 / 2).astype(np.float32), index


def similarity_forest(rows: np.ndarray) -> Links:
    """The maximum spanning forest of the similarity graph, which gives the clusters for every threshold.

    For any threshold, the forest's links above it connect the same images as all pairs above it (Gower & Ross, 1969,
    "Minimum spanning trees and single linkage cluster analysis"). There are fewer links than images, so memory use is
    small; the time grows with the square of the number of images.

    Args:
        rows: (N, F) rows of length 1. Pairs with a similarity below 0.5 are ignored.
    """

    def compare(some: slice, others: slice) -> Links:
        similarity = rows[some] @ rows[others].T
        pairs = pairs_in_block(similarity >= _FLOOR, some, others)
        return Links(pairs, similarity[pairs[0] - some.start, pairs[1] - others.start])

    return link_all(len(rows), compare, "Comparing images")


def link_all(count: int, compare: Callable[[slice, slice], Links], title: str | None = None) -> Links:
    """Compare all pairs of images in blocks, and keep the strongest links as a spanning forest.

    Args:
        count: number of images.
        compare: function that takes the rows and columns of a block and returns the links in it.
        title: title of the progress bar; None for no progress bar.
    """
    forest = NO_LINKS
    with tqdm(total=count, desc=title, unit=" images", delay=1, disable=title is None) as progress:
        for start in range(0, count, _ROWS):
            for first_column in range(start, count, _COLUMNS):
                found = compare(slice(start, start + _ROWS), slice(first_column, first_column + _COLUMNS))
                if len(found):
                    forest = _spanning_forest(forest + found, count)
            progress.update(min(_ROWS, count - start))
    return forest


def pairs_in_block(wanted: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """The pairs (2, E) that are true in a block (R, C), each pair once, without pairs of an image with itself."""
    first, second = np.nonzero(wanted)
    pairs = np.stack([first + rows.start, second + columns.start])
    return pairs[:, pairs[0] < pairs[1]]


def clusters(links: Links, count: int) -> np.ndarray:
    """Cluster number of each image (count,): the connected components of the graph of links.

    >>> clusters(Links(np.array([[0], [2]]), np.array([0.9])), 4).tolist()
    [0, 1, 0, 2]
    """
    graph = coo_matrix((np.ones(len(links)), tuple(links.pairs)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def clusters_by_threshold(links: Links, count: int) -> pd.DataFrame:
    """Statistics of the clusters with at least two images, for each threshold from 0.5 to 0.99.

    Returns:
        `threshold`, ascending; number of `clusters`; number of `images` in them; number of images in the `largest`.
    """
    rows = []
    for step in range(round(_FLOOR / _STEP), round(1 / _STEP)):
        threshold = round(step * _STEP, 2)
        sizes = np.bincount(clusters(links.at_least(threshold), count))
        several = sizes[sizes > 1]
        rows.append((threshold, len(several), int(several.sum()), int(several.max(initial=0))))
    return pd.DataFrame(rows, columns=["threshold", "clusters", "images", "largest"])


def choose_threshold(table: pd.DataFrame) -> float:
    """The threshold with the most images in clusters other than the largest. Of equally good ones, the lowest.

    As the threshold decreases, images of the same person or scene are linked first, and this number grows. Then
    clusters chain: a face resembles a second, that one a third, and the largest cluster absorbs the others, so the
    number falls (like at the percolation threshold, where the clusters other than the largest are at their largest:
    Stauffer & Aharony, 1994, "Introduction to Percolation Theory"). The maximum lies in between. It keeps as many
    probably related images together as possible, and joins two people rather than divide one. The number of images per
    person does not matter. For 6,442 faces, a face network gives 0.55 and a largest cluster of 148 images;
    tf_efficientnet_lite0, whose clusters are less distinct, gives 0.63 and 909 images.

    Args:
        table: result of `clusters_by_threshold`.

    >>> sizes = {"threshold": [0.5, 0.6, 0.7], "images": [990, 800, 300], "largest": [900, 40, 8]}
    >>> choose_threshold(pd.DataFrame(sizes))
    0.6
    """
    return float(table["threshold"][(table["images"] - table["largest"]).idxmax()])


def _spanning_forest(links: Links, count: int) -> Links:
    """The maximum spanning forest of the links."""
    # The weights must be positive, because zeros are not links in a sparse graph.
    graph = coo_matrix((2 - links.similarity.astype(np.float64), tuple(links.pairs)), shape=(count, count))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    return Links(np.stack([tree.row, tree.col]), (2 - tree.data).astype(np.float32))
