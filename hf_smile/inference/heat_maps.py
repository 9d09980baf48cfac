"""Heat maps of many faces: the mean map of each class, and a check of the maps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from hf_smile.data.images import encoded_bytes
from hf_smile.errors import SmileModelError
from hf_smile.inference.classifier import ImageInput, SmileClassifier
from hf_smile.inference.explain import Explainer, deletion_curve
from hf_smile.inference.runtimes import TorchRuntime
from hf_smile.utils.figures import new_figure, save_figure
from hf_smile.utils.words import counted


@dataclass(frozen=True)
class MeanHeatMap:
    """The mean heat map of a class over faces with its label. A mean does not show any person's face."""

    label: str
    images: int
    face: NDArray[np.uint8]
    """(H, W, 3), mean of the crops."""
    heat: NDArray[np.float32]
    """(H, W), mean of the heat maps."""
    upper_share: float
    """Mean share of the heat on the upper half of the crop, where the eyes are."""


@dataclass(frozen=True)
class SanityCheck:
    """Check of whether heat maps depend on what the network learned, and show pixels that matter."""

    images: int
    hottest_deleted: float
    """Mean probability of the explained class while the hottest pixels are deleted first; lower is better."""
    random_deleted: float
    """The same for pixels in random order."""
    wins: float
    """Share of the images for which deleting the hottest first lowers the score faster than random order."""
    correlation_with_random_weights: float
    """Mean absolute rank correlation with the map of a network with random weights; near 0 is good, 1 is bad."""

    def __str__(self) -> str:
        return (
            f"On {counted(self.images, 'image')}, the mean probability of the explained class is"
            f" {self.hottest_deleted:.2f} when the hottest pixels are deleted first, and {self.random_deleted:.2f} when"
            f" pixels are deleted in random order; it is lower for {100 * self.wins:.0f} % of the images. The rank"
            " correlation of the maps with those of a network with random weights is"
            f" {self.correlation_with_random_weights:.2f}."
        )


def mean_heat_maps(
    classifier: SmileClassifier, images: Sequence[ImageInput], label_ids: Sequence[int]
) -> list[MeanHeatMap]:
    """Compute the mean heat map of each class in `label_ids`. Each image's map explains its own label.

    Args:
        classifier: any classifier.
        images: face crops, as for `Explainer`.
        label_ids: (N,) labels of the images.

    Raises:
        SmileModelError, SmileDataError: as `Explainer`.

    >>> mean_heat_maps(classifier, ["a.jpg", "b.jpg"], [0, 1])[0].upper_share  # doctest: +SKIP
    0.58
    """
    by_class: dict[int, list[tuple[NDArray[np.float32], NDArray[np.float32], float]]] = {}
    explain = Explainer(classifier)
    rows = zip(images, label_ids, strict=True)
    for image, label_id in tqdm(rows, total=len(images), desc="Heat maps", unit=" images", delay=1):
        one = explain(image, classifier.labels[label_id])
        total = one.heat.sum()
        heat = one.heat / total if total else one.heat  # every face has the same weight
        by_class.setdefault(label_id, []).append((np.asarray(one.image, np.float32), heat, one.upper_share))
    result = []
    for label_id, maps in sorted(by_class.items()):
        faces, heats, shares = zip(*maps, strict=True)
        result.append(
            MeanHeatMap(
                classifier.labels[label_id],
                len(maps),
                np.mean(faces, axis=0).round().astype(np.uint8),
                np.mean(heats, axis=0),
                float(np.mean(shares)),
            )
        )
    return result


def check_sanity(classifier: SmileClassifier, images: Sequence[ImageInput], seed: int = 0) -> SanityCheck:
    """Compare the heat maps of the predicted classes with random order and random weights.

    Sources: Petsiuk et al. (2018), "RISE" (deletion); Adebayo et al. (2018), "Sanity Checks for Saliency Maps"
    (randomised weights).

    Args:
        classifier: a classifier with the runtime `torch`.
        images: face crops, at least one.
        seed: seed of the random order and the random weights.

    >>> check_sanity(classifier, images).wins  # doctest: +SKIP
    0.96
    """
    rng = np.random.default_rng(seed)
    explain, explain_untrained = Explainer(classifier), Explainer(_with_random_weights(classifier, seed))
    rows = []
    for image in tqdm(images, desc="Checking heat maps", unit=" images", delay=1):
        explanation = explain(image)
        hottest = explanation.heat.ravel().argsort()[::-1]
        hot = deletion_curve(classifier, explanation, hottest).mean()
        random = deletion_curve(classifier, explanation, rng.permutation(len(hottest))).mean()
        other = explain_untrained(image, explanation.label).heat
        rows.append((hot, random, hot < random, abs(_rank_correlation(explanation.heat, other))))
    return SanityCheck(len(rows), *np.mean(rows, axis=0).tolist())


def plot_heat_maps(maps: Sequence[MeanHeatMap], path: str | Path) -> None:
    """Plot the mean face of every class, and below it the mean heat map over that face."""
    figure = new_figure(2.6 * len(maps), 5.6)
    axes = figure.subplots(2, len(maps), squeeze=False)
    for (top, bottom), one in zip(axes.T, maps, strict=True):
        top.imshow(one.face)
        top.set_title(f"{one.label}\n{counted(one.images, 'image')}")
        bottom.imshow(Image.fromarray(one.face).convert("L"), cmap="gray")
        bottom.imshow(one.heat, cmap="inferno", alpha=0.6)
        bottom.axhline((len(one.heat) - 1) / 2, color="white", linewidth=0.8, linestyle=":")
        bottom.set_xlabel(f"eyes {100 * one.upper_share:.0f} %, mouth {100 * (1 - one.upper_share):.0f} %")
        for axis in (top, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
    save_figure(figure, path)


def _with_random_weights(classifier: SmileClassifier, seed: int) -> SmileClassifier:
    if not isinstance(classifier.runtime, TorchRuntime):
        raise SmileModelError("random weights need the network in torch: load the model with runtime='torch'")
    runtime = copy.copy(classifier.runtime)
    runtime.model = copy.deepcopy(classifier.runtime.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in runtime.model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return SmileClassifier(runtime)


def _rank_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    from scipy.stats import spearmanr

    if a.std() == 0 or b.std() == 0:  # the correlation with a constant map is undefined
        return 0.0
    return float(spearmanr(a, b, axis=None).statistic)


def draw_heat_maps(classifier: SmileClassifier, images: Dataset, path: Path) -> str:
    """Plot the mean heat map of each class, and describe whether the maps can be trusted.

    Args:
        classifier: a classifier with the runtime `torch`.
        images: a split with the columns `image` and `label`; at most 100 images per class are used.
        path: picture to write.
    """
    images = images.cast_column("image", datasets.Image(decode=False))
    labels = np.array(images["label"])
    rows = np.concatenate([np.flatnonzero(labels == label)[:100] for label in np.unique(labels)])
    encoded = [encoded_bytes(image) for image in images.select(rows)["image"]]
    plot_heat_maps(mean_heat_maps(classifier, encoded, labels[rows].tolist()), path)
    return str(check_sanity(classifier, encoded[:: max(1, len(encoded) // 30)]))
