"""The columns of every prediction, whether it is a row of a CSV, JSON lines, Parquet, a table or an answer of the API.

`true_label` is what the annotators said, `predicted_label` what the model says; neither is ever called `label`.
"""

from __future__ import annotations

from hf_smile.labels import LabelSet

OWN_COLUMNS = ("image_id", "true_label", "predicted_label")


def probability_columns(labels: LabelSet) -> dict[str, str]:
    """Column name by label name.

    >>> probability_columns(LabelSet(("smile", "NOT smile")))
    {'smile': 'p_smile', 'NOT smile': 'p_not_smile'}
    """
    return {name: f"p_{slug}" for name, slug in zip(labels, labels.slugs, strict=True)}


def prediction_columns(labels: LabelSet) -> tuple[str, ...]:
    """They come first, in this order; further columns follow."""
    return (*OWN_COLUMNS, *probability_columns(labels).values())
