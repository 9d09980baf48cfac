"""The whole audit in one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from hf_smile.audit.duplicates import count_groups, duplicate_links, link_equal, list_groups, merge_links
from hf_smile.audit.labels import (
    LabelNoise,
    estimate_label_noise,
    out_of_fold_probabilities,
    share_of_planted_found,
)
from hf_smile.audit.leakage import (
    accuracy_by_similarity,
    accuracy_with_interval,
    correct_predictions,
    list_neighbours,
    nearest_train_images,
)
from hf_smile.audit.scan import Scan
from hf_smile.audit.similarity import (
    NO_LINKS,
    choose_threshold,
    clusters,
    clusters_by_threshold,
    similarity_forest,
    unit_rows,
)
from hf_smile.audit.splits import group_disjoint_split
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.comparison import mcnemar_exact
from hf_smile.labels import SMILE_LABELS, LabelSet

DUPLICATE_SIMILARITY = 0.95
"""Minimum cosine similarity of duplicates. Among 6,442 faces, tf_efficientnet_lite0 gives 5 such links, all between
copies of the same picture. The face backbone gives 32, most of them between shots of the same moment."""


_QUANTILES = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}


@dataclass
class Audit:
    """The result of an audit. `scan` and the arrays have the same rows: the readable images."""

    scan: pd.DataFrame
    """Table of `scan_images`."""
    unreadable: pd.DataFrame
    """`image_id`, `split`, `label`, `problem`."""
    duplicates: pd.DataFrame
    """Groups of duplicates, from `list_groups`."""
    equal_hashes: pd.DataFrame
    """Groups with equal 64-bit difference hashes of either kind, duplicates or not, from `list_groups`."""
    odd: pd.DataFrame
    """`image_id`, `split`, `label`, and `what` is unusual."""
    cluster: np.ndarray
    """(N,) cluster of each image: images that are too similar to be divided between train and test."""
    group_disjoint: np.ndarray | None
    """(N,) bool, true for the test images of the group-disjoint split; None if there is no such split."""
    nearest_train: pd.DataFrame | None = None
    """Result of `nearest_train_images`. This and the following fields are None without features."""
    accuracy: pd.DataFrame | None = None
    """Result of `accuracy_by_similarity`."""
    noise: LabelNoise | None = None
    probabilities: np.ndarray | None = None
    """(N, K) out-of-fold probabilities of the probe; also None if it could not be fitted."""
    by_models: np.ndarray | None = None
    """(N, K) out-of-fold probabilities of fine-tuned models, if any; see `doubt_labels`."""
    neighbours: pd.DataFrame | None = None
    """`image_id`, `neighbour` (id of a similar image) and their `similarity`, most similar first."""
    by_threshold: pd.DataFrame | None = None
    """Result of `clusters_by_threshold`."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Contents of `audit.json`."""
    labels: LabelSet = SMILE_LABELS


def split_off_unreadable(scan: Scan) -> tuple[Scan, pd.DataFrame]:
    """The readable images, with rows numbered from 0, and a table of the unreadable ones.

    Raises:
        SmileDataError: if no image is left in train or in test.
    """
    table = scan.table
    bad = table["problem"] != ""
    readable = table[~bad].reset_index(drop=True)
    for split in ("train", "test"):
        if not (readable["split"] == split).any():
            problem = next(iter(table.loc[bad & (table["split"] == split), "problem"]), "there are none")
            raise SmileDataError(f"no {split} image can be read; the first problem: {problem}")
    thumbnails = scan.thumbnails[~bad.to_numpy()] if bad.any() else scan.thumbnails
    return Scan(readable, thumbnails, scan.labels), table.loc[bad, ["image_id", "split", "label", "problem"]]


def run_audit(
    scan: Scan,
    features: np.ndarray | None = None,
    predictions: pd.DataFrame | None = None,
    *,
    duplicate_similarity: float = DUPLICATE_SIMILARITY,
    cluster_similarity: float | None = None,
    seed: int = 0,
) -> Audit:
    """Find duplicates, leaks, suspicious labels and unusual images.

    Args:
        scan: result of `scan_images`.
        features: (N, F) float32, a row for each readable image in the order of `scan`. Without features, duplicates
            are only found by hashes, and similarity and labels are not analysed.
        predictions: `image_id` and `prediction` (label id) of test images, to measure the effect of leaks on them.
        duplicate_similarity: minimum cosine similarity of duplicates, 0 to 1.
        cluster_similarity: minimum cosine similarity of images that must be in the same split; None chooses it with
            `choose_threshold`.
        seed: seed of the split and the folds.

    Raises:
        SmileDataError: if no image is left in a split, a similarity is out of range, or predictions and data do not
            match.

    >>> audit = run_audit(scan_images(*read_tables(DataArguments("data/sample"))))  # doctest: +SKIP
    >>> audit.summary["duplicates"]["all"]["groups"]  # doctest: +SKIP
    0
    """
    for name, value in (("duplicate_similarity", duplicate_similarity), ("cluster_similarity", cluster_similarity)):
        if value is not None and not 0 < value <= 1:
            raise SmileDataError(f"{name} is {value}; it must be above 0 and at most 1, for example 0.9")
    kept, unreadable = split_off_unreadable(scan)
    readable = kept.table
    labels, count = readable["label"].to_numpy(), len(readable)
    rows = None if features is None else unit_rows(features)
    forest = NO_LINKS if rows is None else similarity_forest(rows)
    links = duplicate_links(kept, forest.at_least(duplicate_similarity))
    duplicates = list_groups(readable, links)
    equal = [link_equal(readable[name].to_numpy()) for name in ("dhash", "dhash_bilinear")]
    equal_hashes = list_groups(readable, {"equal hash": equal[0] + equal[1]})
    odd = odd_pictures(readable)

    by_threshold = None if rows is None else clusters_by_threshold(forest, count)
    if cluster_similarity is None and by_threshold is not None:
        cluster_similarity = min(choose_threshold(by_threshold), duplicate_similarity)
    related = forest.at_least(cluster_similarity) if cluster_similarity is not None else NO_LINKS
    cluster = clusters(merge_links(links) + related, count)
    in_test = (readable["split"] == "test").to_numpy()
    try:
        group_disjoint = group_disjoint_split(labels, cluster, in_test.mean(), seed)
    except SmileDataError:
        group_disjoint = None

    summary = {
        "images": {"all": len(scan.table), "readable": count, "unreadable": len(unreadable)},
        "classes": _class_table(readable["split"], labels, scan.labels),
        "duplicates": {
            **{kind.replace(" ", "_"): count_groups(list_groups(readable, {kind: links[kind]})) for kind in links},
            "all": count_groups(duplicates),
            "equal_hash": count_groups(equal_hashes),
        },
        "clusters": _count_clusters(cluster, in_test, cluster_similarity),
        "group_disjoint": None
        if group_disjoint is None
        else _class_table(pd.Series(np.where(group_disjoint, "test", "train")), labels, scan.labels),
        "pictures": _describe_pictures(readable, odd, scan.labels),
    }
    found = (readable, unreadable, duplicates, equal_hashes, odd, cluster, group_disjoint)
    audit = Audit(*found, by_threshold=by_threshold, summary=summary, labels=scan.labels)
    if rows is not None:
        audit.summary["duplicates"]["similarity_threshold"] = duplicate_similarity
        audit.nearest_train = nearest_train_images(readable, rows)
        audit.neighbours = list_neighbours(readable["image_id"], rows)
        audit.summary["likeness"] = _describe_likeness(audit.nearest_train, cluster_similarity or 1)
    if predictions is not None:
        correct = correct_predictions(readable, predictions)
        audit.summary["accuracy"] = _accuracy_without_leaks(audit, correct, cluster_similarity or 1)
        if audit.nearest_train is not None:
            audit.accuracy = accuracy_by_similarity(audit.nearest_train, correct)
            audit.summary["accuracy"]["by_similarity"] = audit.accuracy.to_dict("records")
    if features is not None:
        _measure_label_noise(audit, features, seed)
    return audit


def odd_pictures(scan: pd.DataFrame) -> pd.DataFrame:
    """Unusual and grey images: `image_id`, `split`, `label`, and `what` is unusual."""
    shorter, longer = scan[["width", "height"]].min(axis=1), scan[["width", "height"]].max(axis=1)
    checks = {
        "small": shorter < 64,  # pixels; the input of most backbones is several times larger
        "not square": longer > 1.5 * shorter,
        "dark": scan["brightness"] < 40,
        "bright": scan["brightness"] > 215,
        "low contrast": scan["contrast"] < 15,
        "blurred": scan["sharpness"] < 20,
        "black or white bars": scan["border"] > 0.05,  # share of the image
        "grey": scan["grey"],
    }
    found = pd.DataFrame(checks)
    words = [", ".join(found.columns[row]) for row in found.to_numpy()]
    table = scan[["image_id", "split", "label"]].assign(what=words)
    return table[table["what"] != ""].reset_index(drop=True)


def _describe_likeness(nearest_train: pd.DataFrame, cluster_similarity: float) -> dict[str, Any]:
    quantiles = nearest_train["similarity"].quantile([0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    return {
        "quantiles": {f"{share:.2f}": round(float(value), 4) for share, value in quantiles.items()},
        "test_images_like_a_train_image": int((nearest_train["similarity"] >= cluster_similarity).sum()),
        "nearest_has_same_label": float((nearest_train["label"] == nearest_train["train_label"]).mean()),
    }


def _accuracy_without_leaks(audit: Audit, correct: pd.Series, cluster_similarity: float) -> dict[str, Any]:
    groups, nearest_train = audit.duplicates, audit.nearest_train
    leaked = set(groups.loc[groups["crosses_splits"], "image_id"])
    left_out = {"all": set(), "without_duplicates_in_train": leaked}
    if nearest_train is not None:
        alike = nearest_train.loc[nearest_train["similarity"] >= cluster_similarity, "image_id"]
        left_out["without_images_like_train"] = leaked | set(alike)
    return {name: accuracy_with_interval(correct[~correct.index.isin(out)]) for name, out in left_out.items()}


def _measure_label_noise(audit: Audit, features: np.ndarray, seed: int) -> None:
    labels, cluster, classes = audit.scan["label"].to_numpy(), audit.cluster, len(audit.labels)
    try:
        probabilities = out_of_fold_probabilities(features, labels, cluster, seed=seed, classes=classes)
        found = share_of_planted_found(features, labels, cluster, seed, audit.labels)
        divided = out_of_fold_probabilities(features, labels, np.arange(len(labels)), seed=seed, classes=classes)
    except SmileDataError as error:
        audit.summary["labels"] = {"not_estimated": str(error)}
        return
    doubt_labels(audit, probabilities)
    audit.summary["labels"]["share_of_planted_errors_found"] = found
    right = probabilities.argmax(axis=1) == labels
    several = np.bincount(cluster)[cluster] > 1
    if several.any():
        together, apart = right[several], (divided.argmax(axis=1) == labels)[several]
        audit.summary["likeness"]["probe"] = {
            "clusters_kept_together": accuracy_with_interval(together),
            "clusters_divided": accuracy_with_interval(apart),
            "p_value": mcnemar_exact(apart, together, alternative="greater"),
        }


def doubt_labels(audit: Audit, probabilities: np.ndarray, models: int = 0) -> None:
    """Find suspicious labels from out-of-fold probabilities, replacing earlier results of the audit.

    Args:
        audit: audit to update: `by_models` or `probabilities`, `noise` and `summary["labels"]`.
        probabilities: (N, K) out-of-fold probabilities, a row for each row of `audit.scan`.
        models: number of fine-tuned models they come from; 0 for the linear probe.

    >>> doubt_labels(audit, probabilities, models=5)  # doctest: +SKIP
    >>> audit.noise.suspicious.head()  # doctest: +SKIP
    """
    labels = audit.scan["label"].to_numpy()
    if models:
        audit.by_models = probabilities
    else:
        audit.probabilities = probabilities
    audit.noise = noise = estimate_label_noise(labels, probabilities, audit.labels)
    audit.summary["labels"] = {
        "models": models,
        "suspicious": len(noise.suspicious),
        "suspicious_by_class": _count_labels(noise.suspicious["label"].to_numpy(), audit.labels),
        "noise_by_class": noise.by_class,
        "joint_given_by_likely": noise.joint.tolist(),
        "accuracy": accuracy_with_interval(probabilities.argmax(axis=1) == labels),
    }


def _count_labels(label_ids: np.ndarray, labels: LabelSet) -> dict[str, int]:
    return dict(zip(labels, np.bincount(label_ids, minlength=len(labels)).tolist(), strict=True))


def _class_table(splits: pd.Series, label_ids: np.ndarray, labels: LabelSet) -> dict[str, dict[str, int]]:
    """Number of images of each class, by split."""
    return {str(split): _count_labels(label_ids[(splits == split).to_numpy()], labels) for split in splits.unique()}


def _count_clusters(cluster: np.ndarray, in_test: np.ndarray, similarity: float | None) -> dict[str, Any]:
    sizes = np.bincount(cluster)
    tests = np.bincount(cluster, weights=in_test)
    values, counts = np.unique(sizes, return_counts=True)
    return {
        "similarity": similarity,
        "clusters": len(sizes),
        "clusters_of_several": int((sizes > 1).sum()),
        "images_in_them": int(sizes[sizes > 1].sum()),
        "largest": int(sizes.max()),
        "in_train_and_test": int(((tests > 0) & (tests < sizes)).sum()),
        "clusters_by_size": dict(zip(map(str, values.tolist()), counts.tolist(), strict=True)),
    }


def _describe_pictures(scan: pd.DataFrame, odd: pd.DataFrame, labels: LabelSet) -> dict[str, Any]:
    shorter, longer = scan[["width", "height"]].min(axis=1), scan[["width", "height"]].max(axis=1)
    numbers = pd.DataFrame({"shorter_side": shorter, "aspect": longer / shorter})
    numbers = numbers.join(scan[["file_bytes", "brightness", "contrast", "sharpness"]])
    quantiles = numbers.quantile(list(_QUANTILES.values())).round(3).set_axis(list(_QUANTILES))
    by_class = numbers.groupby(scan["label"]).median().assign(grey=scan["grey"].groupby(scan["label"]).mean())
    return {
        "quantiles": quantiles.to_dict(),
        "by_class": {labels[label]: row.round(3).to_dict() for label, row in by_class.iterrows()},
        "odd": odd["what"].str.split(", ").explode().value_counts().to_dict(),
    }
