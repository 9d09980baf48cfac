"""Label probabilities and similar images, from the audit and from a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError, SmileModelError
from hf_smile.labels import LabelSet

FINDINGS, NEIGHBOURS = "duplicates.csv", "neighbours.csv"
PREDICTIONS = {"linear probe": "probe_predictions.csv", "fine-tuned models": "fold_predictions.csv"}


class Opinion(NamedTuple):
    """Label probabilities from one source."""

    name: str
    """Name of the source on the page."""
    image_ids: Sequence[str]
    probabilities: np.ndarray
    """(N, K) probabilities, a row for each image."""


class Likeness(NamedTuple):
    """Duplicates and similar images."""

    duplicates: pd.DataFrame
    """`group`, `image_id`: groups of duplicates."""
    neighbours: pd.DataFrame
    """`image_id`, `neighbour`, `similarity`; most similar first."""


NO_LIKENESS = Likeness(
    pd.DataFrame(columns=["group", "image_id"]), pd.DataFrame(columns=["image_id", "neighbour", "similarity"])
)


def read_audit(folder: str | Path, labels: LabelSet) -> tuple[list[Opinion], Likeness]:
    """Read the output folder of `hf-smile audit`. Without `--backbone` or `--folds`, it has no opinions.

    Raises:
        SmileDataError: if it is not an audit folder, or the audited data have other labels.

    >>> opinions, likeness = read_audit("outputs/audit", SMILE_LABELS)  # doctest: +SKIP
    """
    from hf_smile.evaluation.predictions import read_predictions

    folder, opinions = Path(folder), []
    if not (folder / FINDINGS).is_file():
        raise SmileDataError(f"{folder} has no {FINDINGS}; run hf-smile audit --output_dir {folder}")
    for name, file in PREDICTIONS.items():
        if (folder / file).is_file():
            found = read_predictions(folder / file)
            if found.labels.slugs != labels.slugs:
                raise SmileDataError(
                    f"{folder}: the audited data have the labels {found.labels}, but these have {labels}; audit these"
                )
            opinions.append(Opinion(name, found.image_ids, found.probabilities))
    neighbours = NO_LIKENESS.neighbours
    if (folder / NEIGHBOURS).is_file():
        neighbours = _read_list(folder / NEIGHBOURS, neighbours.columns)
    return opinions, Likeness(_read_list(folder / FINDINGS, NO_LIKENESS.duplicates.columns), neighbours)


def ask_model(
    model: str, tables: Mapping[str, pd.DataFrame], images: Images, labels: LabelSet, cache_dir: str | Path
) -> tuple[Opinion, pd.DataFrame]:
    """Label probabilities of a model trained by `hf-smile train` for every image, and the most similar images.

    The model rarely doubts the labels of its own train split, right or wrong. There, the out-of-fold probabilities of
    the audit are more informative.

    Args:
        model: folder or Hub id.
        tables: annotations by split, from `read_tables`.
        images: source of the images, from `read_tables`.
        labels: label set of the data.
        cache_dir: folder in which the model's features are cached, so that the next start takes seconds.

    Returns:
        The opinion, and `neighbours` as in `Likeness`.

    Raises:
        SmileModelError: if there is no such model, or it has other labels.
    """
    import torch

    from hf_smile.audit.leakage import list_neighbours
    from hf_smile.audit.similarity import unit_rows
    from hf_smile.data.checks import check_images
    from hf_smile.modeling import load_model
    from hf_smile.modeling.features import pooled_features

    network = load_model(model)
    if (known := LabelSet.of(network.config.id2label)) != labels:
        raise SmileModelError(f"{model} has the labels {known}, but the data have {labels}; use another model")
    rows = [row for table in tables.values() for row in table.itertuples() if not row.problem]
    checked = check_images(images, [row.file for row in rows])  # the page reports unreadable images
    rows = [row for row, (_, problem) in zip(rows, checked, strict=True) if not problem]
    ids = [row.image_id for row in rows]
    features = pooled_features((images.read(row.file) for row in rows), network, cache_dir=cache_dir)
    with torch.inference_mode():
        head = network.timm_model.get_classifier().cpu()
        probabilities = head(torch.from_numpy(features)).double().softmax(dim=1).numpy()
    return Opinion("model", ids, probabilities), list_neighbours(ids, unit_rows(features))


def _read_list(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    from hf_smile.utils.csv_cells import unguarded

    types = dict.fromkeys(("image_id", "neighbour"), str)
    try:
        table = pd.read_csv(path, dtype=types, keep_default_na=False)[list(columns)]
    except (OSError, ValueError, KeyError) as error:
        raise SmileDataError(f"{path} was not written by hf-smile audit ({error}); run the audit again") from None
    return table.assign(**{name: table[name].map(unguarded) for name in types if name in table})
