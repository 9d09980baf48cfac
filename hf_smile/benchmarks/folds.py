"""Out-of-fold predictions of fine-tuned models for every image of a data set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from hf_smile.audit.labels import divide
from hf_smile.audit.run import Audit
from hf_smile.audit.splits import link_images, write_annotations
from hf_smile.benchmarks.backbones import tell_but_test
from hf_smile.data.arguments import DATA_SETTINGS
from hf_smile.data.sources import Images
from hf_smile.errors import SmileError
from hf_smile.evaluation.predictions import read_predictions
from hf_smile.training.arguments import parse_arguments, to_recipe
from hf_smile.training.settings import to_words
from hf_smile.training.several import train_in


def fold_settings(recipe: str) -> list[str]:
    """The settings of a recipe as command-line words, without those for reading data.

    Raises:
        SmileError: there is no such recipe, a setting is wrong, or the recipe has teachers.

    >>> "--image_size" in fold_settings("quickstart"), "--data_dir" in fold_settings("quickstart")
    (True, False)
    """
    settings = to_recipe(parse_arguments([recipe]))
    if settings.get("teachers"):
        raise SmileError(f"{recipe}: its teachers may know the images that the folds are to judge; leave them out")
    of_the_data = {*DATA_SETTINGS, "output_dir"} - {"validation_size", "max_train_samples"}
    return to_words({name: value for name, value in settings.items() if name not in of_the_data})


def fold_probabilities(
    audit: Audit, images: Images, settings: list[str], folds: int, folder: Path, seed: int = 0
) -> tuple[np.ndarray, int]:
    """Predict every image with a model that was not trained on it or on another image of its cluster.

    All images are divided into folds, without dividing clusters. The model for a fold is trained on the train images in
    the other folds, with its checkpoint chosen on their validation images, and predicts all images of its fold,
    whatever their split. Each run is in `<folder>/<fold>-<digest>`. The digest is of the images, their labels and the
    settings, so that finished runs are not repeated, and runs on other data are not used by mistake.

    Args:
        audit: audit of the data.
        images: images of the data; they must be files, so that annotations can refer to them.
        settings: as returned by `fold_settings`.
        folds: number of folds, see `divide`.
        folder: folder for all runs.
        seed: seed of the folds.

    Returns:
        Probabilities (N, K), one row per row of `audit.scan`, and the number of models.

    Raises:
        SmileError: there are too few images, or a run failed.

    >>> settings = fold_settings("face_mobilenet")  # doctest: +SKIP
    >>> fold_probabilities(audit, images, settings, 5, Path("outputs/audit/folds"))[0].shape  # doctest: +SKIP
    (6442, 3)
    """
    table, splits = audit.scan[["image_id", "file", "label", "digest"]], audit.scan["split"].to_numpy()
    row_of = {image_id: row for row, image_id in enumerate(table["image_id"])}
    divided = divide(table["label"].to_numpy(), audit.cluster, folds, seed, len(audit.labels))
    probabilities = np.zeros((len(table), len(audit.labels)))
    for number, (seen, held_out) in enumerate(divided, 1):
        parts = {split: table.iloc[seen[splits[seen] == split]] for split in sorted({*splits} - {"test"})}
        parts["test"] = table.iloc[held_out]
        content = pd.concat(parts).to_csv() + "\n".join(settings)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        run = folder / f"{number}-{digest}"
        for split, part in parts.items():
            write_annotations(part.drop(columns="digest"), run / "data" / f"{split}.csv", audit.labels)
        link_images(images, run / "data")
        data = ["--data_dir", str(run / "data"), "--labels", *audit.labels]
        train_in(run, [*settings, *data], tell_but_test)
        found = read_predictions(run / "test_predictions.csv")
        probabilities[[row_of[image_id] for image_id in found.image_ids]] = found.probabilities
    return probabilities, len(divided)
