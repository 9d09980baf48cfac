"""`SmilePrediction`: the prediction for one face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_smile.evaluation.schema import probability_columns
from hf_smile.labels import POSITIVE_SMILE, SMILE_LABELS, LabelSet

NO_FACE = "no face found"
"""The `note` of a prediction for a photo without a face."""


@dataclass(frozen=True)
class SmilePrediction:
    """The prediction for one face, or the reason why there is none.

    >>> SmilePrediction("positive smile", dict(zip(SMILE_LABELS, (0.125, 0.375, 0.5)))).p_genuine_given_smile
    0.75
    """

    label: str | None = None
    """The label with the highest probability; None if the image could not be read."""
    probabilities: Mapping[str, float] | None = None
    """Probability by label name; they sum to one."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom of the face in pixels of the upright photo; None if the whole image was classified."""
    detector_score: float | None = None
    """Confidence of the detector that this is a face; the scale depends on the detector."""
    source: str | None = None
    """Path or name of the image, if it has one."""
    true_label: str | None = None
    """The annotated label, if known."""
    note: str | None = None
    """A remark on the prediction, for example that no face was found."""
    error: str | None = None
    """Why there is no prediction."""
    labels: LabelSet = SMILE_LABELS
    """The labels that the classifier chose from."""

    @property
    def p_smile(self) -> float | None:
        """Probability of any smile, genuine or posed; None if the labels do not say which classes are smiles."""
        if self.probabilities is None or not self.labels.smile_ids:
            return None
        return sum(self.probabilities[self.labels[label_id]] for label_id in self.labels.smile_ids)

    @property
    def p_genuine_given_smile(self) -> float | None:
        """Probability that a smile is genuine, given that it is a smile; 0.5 if `p_smile` is 0.

        Only for the default labels.
        """
        if self.probabilities is None or self.p_smile is None or not self.labels.tells_genuine:
            return None
        return self.probabilities[self.labels[POSITIVE_SMILE]] / self.p_smile if self.p_smile else 0.5

    def to_dict(self) -> dict[str, Any]:
        """Convert to a flat dictionary for JSON and CSV, the columns of `schema` first.

        Probabilities that the labels do not define are left out.

        >>> list(SmilePrediction(error="can't be decoded").to_dict())[:3]
        ['image_id', 'true_label', 'predicted_label']
        """
        probabilities = self.probabilities or dict.fromkeys(self.labels)
        answers = {"p_smile": self.p_smile, "p_genuine_given_smile": self.p_genuine_given_smile}
        return {
            "image_id": self.source,
            "true_label": self.true_label,
            "predicted_label": self.label,
            **{column: probabilities[name] for name, column in probability_columns(self.labels).items()},
            **{name: answers[name] for name in answers_of(self.labels)},
            "box": self.box,
            "detector_score": self.detector_score,
            "note": self.note,
            "error": self.error,
        }


def answers_of(labels: LabelSet) -> tuple[str, ...]:
    """The probabilities that the labels define beyond their own: `p_smile` and `p_genuine_given_smile`.

    >>> answers_of(LabelSet(("grin", "neutral")))
    ()
    """
    is_column = "smile" in labels.slugs  # the column of that label is called p_smile
    smile = ("p_smile",) if labels.smile_ids and not is_column else ()
    return (*smile, "p_genuine_given_smile") if labels.tells_genuine else smile


def with_verdict(face: SmilePrediction, probabilities: NDArray[np.float64]) -> SmilePrediction:
    """Add the label and the probabilities (K,), in the order of label ids, to a prediction."""
    by_name = dict(zip(face.labels, probabilities.tolist(), strict=True))
    return replace(face, label=face.labels[int(probabilities.argmax())], probabilities=by_name)
