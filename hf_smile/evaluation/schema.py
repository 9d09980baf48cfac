"""The columns of every prediction, whether it is a row of a CSV, JSON lines, Parquet, a table or an answer of the API.

`true_label` is what the annotators said, `predicted_label` what the model says; neither is ever called `label`.
"""

from __future__ import annotations

from hf_smile.labels import LABEL_NAMES, label_slug

PROBABILITY_COLUMNS = {name: f"p_{label_slug(name)}" for name in LABEL_NAMES}
"""Column name by label name."""
PREDICTION_COLUMNS = ("image_id", "true_label", "predicted_label", *PROBABILITY_COLUMNS.values())
"""They come first, in this order; further columns follow."""
