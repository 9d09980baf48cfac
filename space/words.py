"""The verdict on a face as one sentence, in everyday words instead of label names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_smile.inference.prediction import SmilePrediction
from hf_smile.labels import NEGATIVE_SMILE, NOT_SMILE, POSITIVE_SMILE, SMILE_LABELS, label_slug

_WORDS = dict(zip(SMILE_LABELS, ("posed smile", "genuine smile", "no smile"), strict=True))
_UNSURE = 0.1  # probabilities this close to one half give no answer


def word(label: str) -> str:
    """Return the everyday name of a label.

    >>> word("positive smile"), word("grin")
    ('genuine smile', 'grin')
    """
    return _WORDS.get(label, label)


def percent(probability: float) -> str:
    """Format a probability as whole percent, never as certain, with non-breaking spaces.

    >>> percent(0.731), percent(0.9996)
    ('73\\xa0%', 'over\\xa099\\xa0%')
    """
    if probability >= 0.995:
        return "over\xa099\xa0%"
    return "under\xa01\xa0%" if probability <= 0.005 else f"{100 * probability:.0f}\xa0%"


def claim(prediction: SmilePrediction) -> str | None:
    """Return the label that the answer stands for; None for "can't tell" and for a smile of unknown kind."""
    if prediction.p_smile is None:
        return prediction.label
    if _is_open(prediction.p_smile):
        return None
    labels = prediction.labels
    if prediction.p_smile < 0.5:
        others = [label_id for label_id in range(len(labels)) if label_id not in labels.smile_ids]
        return labels[others[0]] if len(others) == 1 else None
    genuine = prediction.p_genuine_given_smile
    if genuine is None:
        return labels[labels.smile_ids[0]] if len(labels.smile_ids) == 1 else None
    return None if _is_open(genuine) else labels[POSITIVE_SMILE if genuine > 0.5 else NEGATIVE_SMILE]


def short(prediction: SmilePrediction) -> str:
    """Return the answer in a few words, for lists of faces: `genuine smile`, `smile`, `can't tell`."""
    if prediction.label is None:
        return prediction.note or "no verdict"
    if (label := claim(prediction)) is not None:
        return word(label)
    if prediction.p_smile is None or _is_open(prediction.p_smile):
        return "can't tell"
    return "smile" if prediction.p_smile > 0.5 else word(SMILE_LABELS[NOT_SMILE])


def sentence(prediction: SmilePrediction) -> str:
    """Return the answer as a sentence.

    >>> sentence(SmilePrediction("positive smile", dict(zip(SMILE_LABELS, (0.28, 0.60, 0.12)))))
    'Smiling (88\\xa0%). More likely genuine than posed (68\\xa0:\\xa032).'
    >>> sentence(SmilePrediction("NOT smile", dict(zip(SMILE_LABELS, (0.24, 0.30, 0.46)))))
    "Can't tell whether this is a smile (54\\xa0% for it)."
    """
    smiling, genuine = prediction.p_smile, prediction.p_genuine_given_smile
    if prediction.label is None or prediction.probabilities is None:
        return f"No verdict: {prediction.error or prediction.note}."
    if smiling is None:
        name = word(prediction.label)
        return f"{name[:1].upper()}{name[1:]} ({percent(prediction.probabilities[prediction.label])})."
    if _is_open(smiling):
        return f"Can't tell whether this is a smile ({percent(smiling)} for it)."
    if smiling < 0.5:
        return f"Not smiling ({percent(1 - smiling)})."
    said = f"Smiling ({percent(smiling)})."
    if genuine is None:
        return said
    if _is_open(genuine):
        return f"{said} Can't tell whether genuine or posed ({_odds(genuine)})."
    more, less = ("genuine", "posed") if genuine > 0.5 else ("posed", "genuine")
    return f"{said} More likely {more} than {less} ({_odds(max(genuine, 1 - genuine))})."


def _odds(first: float) -> str:
    share = min(max(round(100 * first), 1), 99)
    return f"{share}\xa0:\xa0{100 - share}"


def _is_open(probability: float) -> bool:
    return abs(probability - 0.5) < _UNSURE


def track_record(prediction: SmilePrediction, metrics: Mapping[str, Any]) -> str:
    """Return how often such an answer was right on the test images; empty if that was not measured.

    Args:
        prediction: a verdict.
        metrics: metrics of the model, as in `test_metrics.json`.

    >>> genuine = SmilePrediction("positive smile", dict(zip(SMILE_LABELS, (0.2, 0.7, 0.1))))
    >>> track_record(genuine, {"precision_positive_smile": 0.734})
    'When it says “genuine smile”, it was right 7 times in 10 on its test images.'
    """
    label = claim(prediction)
    precision = metrics.get(f"precision_{label_slug(label)}") if label else None
    if label != prediction.label or not isinstance(precision, (int, float)) or not 0 <= precision <= 1:
        return ""  # precision was measured for the label with the highest probability
    times = f"{round(10 * precision)} times in 10".replace("1 times", "1 time")
    if not 0.05 < precision < 0.95:
        times = f"{'' if precision in (0, 1) else 'almost '}{'every time' if precision > 0.5 else 'never'}"
    return f"When it says “{word(str(label))}”, it was right {times} on its test images."
