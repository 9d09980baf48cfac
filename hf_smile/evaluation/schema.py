"""The columns of predictions in every format: CSV, JSON Lines, Parquet, tables and API responses.

`true_label` is the annotated label and `predicted_label` that of the model. Neither is ever called `label`.
"""

from __future__ import annotations

from hf_smile.labels import LabelSet

OWN_COLUMNS = ("image_id", "true_label", "predicted_label")


def probability_columns(labels: LabelSet) -> dict[str, str]:
    """Names of the probability columns by label name.

    >>> probability_columns(LabelSet(("smile", "NOT smile")))
    {'smile': 'p_smile', 'NOT smile': 'p_not_smile'}
    """
    return {name: f"p_{slug}" for name, slug in zip(labels, labels.slugs, strict=True)}


def prediction_columns(labels: LabelSet) -> tuple[str, ...]:
    """Names of the standard columns, in order. Additional columns come after them."""
    return (*OWN_COLUMNS, *probability_columns(labels).values())
