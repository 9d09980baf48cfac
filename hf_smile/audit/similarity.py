"""Features -> nearest neighbours and clusters, block by block: never a matrix of all pairs."""

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
_QUERIES = 128  # compared with all references at a time: 51 MB for 100,000 of them
_FLOOR = 0.5  # less similar images are never linked
_STEP = 0.01  # of the search for a threshold


@dataclass(frozen=True)
class Links:
    """Pairs of images with their similarity: an undirected graph."""

    pairs: np.ndarray
    """(2, E) rows."""
    similarity: np.ndarray
    """(E,) float32, -1 to 1."""

    def __len__(self) -> int:
        return len(self.similarity)

    def at_least(self, similarity: float) -> Links:
        """The links that are this strong."""
        kept = self.similarity >= similarity
        return Links(self.pairs[:, kept], self.similarity[kept])

    def __add__(self, other: Links) -> Links:
        return Links(np.hstack([self.pairs, other.pairs]), np.append(self.similarity, other.similarity))


NO_LINKS = Links(np.zeros((2, 0), np.int32), np.zeros(0, np.float32))


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Features (N, F) as rows of length 1 about their mean: products of the rows are then cosine similarities.

    All faces share most of what a backbone sees in them; without that common part, likeness tells more. The rows are
    scaled before the mean is taken, too: a face network hardly responds to a picture without a face, and next to the
    mean of the others all such pictures would be alike.

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
        similarity (Q,) float32 and row of the reference (Q,) int64.

    >>> nearest(np.eye(3)[:1], np.eye(3)[::-1])[1]
    array([2])
    """
    blocks = (queries[start : start + _QUERIES] @ references.T for start in range(0, len(queries), _QUERIES))
    best, index = zip(*((block.max(axis=1), block.argmax(axis=1)) for block in blocks), strict=True)
    return np.concatenate(best), np.concatenate(index)


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


def similarity_forest(rows: np.ndarray) -> Links:
    """The links that hold the images together, at every threshold at once: a maximum spanning forest.

    The links of the forest above some threshold connect the same images as all pairs above it do (Gower & Ross, 1969,
    "Minimum spanning trees and single linkage cluster analysis"). There are fewer links than images, so that the
    memory stays small; the time grows with the square of the number of images.

    Args:
        rows: (N, F) of length 1. Pairs below a similarity of 0.5 are left out.
    """

    def compare(some: slice, others: slice) -> Links:
        similarity = rows[some] @ rows[others].T
        pairs = pairs_in_block(similarity >= _FLOOR, some, others)
        return Links(pairs, similarity[pairs[0] - some.start, pairs[1] - others.start])

    return link_all(len(rows), compare, "Comparing images")


def link_all(count: int, compare: Callable[[slice, slice], Links], title: str | None = None) -> Links:
    """The strongest links between all pairs of `count` images, as a forest, compared a block at a time.

    Args:
        count: number of images.
        compare: rows and columns of a block -> the links in it.
        title: of the progress bar; None for none.
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
    """The pairs (2, E) that are True in a block (R, C), each once and none of an image with itself."""
    first, second = np.nonzero(wanted)
    pairs = np.stack([first + rows.start, second + columns.start])
    return pairs[:, pairs[0] < pairs[1]]


def clusters(links: Links, count: int) -> np.ndarray:
    """Number of each image's cluster (count,): what is linked, directly or through others, is together.

    >>> clusters(Links(np.array([[0], [2]]), np.array([0.9])), 4).tolist()
    [0, 1, 0, 2]
    """
    graph = coo_matrix((np.ones(len(links)), tuple(links.pairs)), shape=(count, count))
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


def _spanning_forest(links: Links, count: int) -> Links:
    """The strongest of the links that connect the same images: fewer links than images."""
    # The weights must be positive: in a sparse graph a zero is no link.
    graph = coo_matrix((2 - links.similarity.astype(np.float64), tuple(links.pairs)), shape=(count, count))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    return Links(np.stack([tree.row, tree.col]), (2 - tree.data).astype(np.float32))
