"""The metrics as a module of the `evaluate` library.

`evaluate.load(...)` downloads a script and fails without a network connection; an imported class does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import evaluate
from datasets import Features, Sequence, Value

from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.labels import SMILE_LABELS, LabelSet

_CITATION = """\
@inproceedings{guo2017calibration,
  title     = {On Calibration of Modern Neural Networks},
  author    = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle = {International Conference on Machine Learning},
  year      = {2017}
}
"""


class SmileMetric(evaluate.Metric):
    """`compute_metrics` with the interface of `evaluate.Metric`. Works offline and leaves no files behind.

    Call `compute(predictions=..., references=...)`, or `add_batch(...)` several times and then `compute()`. A single
    process must see all predictions (`transformers.Trainer` gathers them before it calls a metric).

    Args:
        labels: label set, by default the three labels of hf_smile.
        **kwargs: further arguments of `evaluate.Metric`.

    Raises:
        ValueError: if predictions and references differ in length (raised by `evaluate`).
        SmileDataError: if they are not probabilities and label ids (raised by `compute_metrics`).

    >>> SmileMetric().compute(predictions=[[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]], references=[0, 2])["accuracy"]
    1.0
    """

    def __init__(self, labels: LabelSet | Iterable[str] = SMILE_LABELS, **kwargs: Any) -> None:
        self.labels = LabelSet.of(labels)
        super().__init__(**{"keep_in_memory": True, **kwargs})

    def _build_data_dir(self) -> str:
        # The base class creates this folder even for in-memory use, and fails if the home folder is read-only.
        return os.devnull if self.keep_in_memory else super()._build_data_dir()

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(
                "Accuracy, precision, recall, F1, ROC AUC, Cohen's kappa, negative log-likelihood, Brier score and"
                " calibration error of a classifier that distinguishes a posed smile, a genuine smile and no smile."
            ),
            citation=_CITATION,
            inputs_description=compute_metrics.__doc__ or "",
            features=Features({"predictions": Sequence(Value("float64")), "references": Value("int64")}),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        return compute_metrics(predictions, references, self.labels)
