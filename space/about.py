"""The About tab: the model card, the metrics, and the versions of the packages."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine import model_text
from words import word

import hf_smile
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.words import counted

_METRICS = {
    "accuracy": "correct verdicts (accuracy)",
    "balanced_accuracy": "mean recall of the classes (balanced accuracy)",
    "macro_f1": "macro F1",
    "smile_auc": "smile or no smile (AUC)",
    "genuine_auc": "genuine or posed, among smiles (AUC)",
    "ece": "calibration error (ECE)",
}
_PACKAGES = ("gradio", "onnxruntime", "opencv-python-headless", "pillow", "numpy", "torch", "timm", "transformers")

_SMILES = """\
A classifier that distinguishes **no smile**, a **genuine smile** and a **posed smile** on a face. Posed smiles raise
the corners of the mouth; genuine ones also narrow the eyes (the Duchenne marker). The percentages are the model's
probabilities; the calibration error below says how reliable they are."""

_OTHER_LABELS = """\
A classifier that distinguishes these classes on a face: {}. The percentages are the model's probabilities; the
calibration error below says how reliable they are."""

_ABOUT = """\
## What this is

{}

## Your pictures

Uploads are kept in a folder on this server, and results in its memory, until a few minutes after they were last used.
Nothing about them is logged, there are no analytics, and the page sends no requests to other servers.
"""


def about(model: str, labels: LabelSet = SMILE_LABELS) -> str:
    """Return the text of the tab as Markdown.

    Args:
        model: folder or id on the Hub of the model whose card and metrics are shown.
        labels: labels of the model.
    """
    card, metrics = model_text(model, "README.md"), model_text(model, "test_metrics.json")
    name = Path(model).name if Path(model).is_dir() else model
    limits = _sections(card, r"limit|responsible|out.of.scope|intended")
    return "\n\n".join(
        [
            _ABOUT.format(_SMILES if labels.tells_genuine else _OTHER_LABELS.format(labels)),
            limits or "## Limits and responsible use\n\nThis model has no card, so its limits are not known.",
            f"## How good it is\n\n{_quality(metrics, labels)}",
            f"## Versions\n\nmodel {name}, hf_smile {hf_smile.__version__}, {', '.join(_versions())}",
        ]
    )


def _sections(card: str, pattern: str) -> str:
    """Return the sections of a card whose headings match a pattern."""
    sections = re.split(r"^(?=## )", card, flags=re.MULTILINE)[1:]
    return "\n".join(text.strip() for text in sections if re.search(pattern, text.splitlines()[0], re.IGNORECASE))


def _quality(metrics: str, labels: LabelSet) -> str:
    if not metrics:
        return "This model was not tested."
    try:
        return _metrics_table(json.loads(metrics), labels)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):  # an untrusted file
        return "The model's `test_metrics.json` can't be read."


def _metrics_table(metrics: dict[str, Any], labels: LabelSet) -> str:
    images = sum(metrics.get(f"support_{slug}", 0) for slug in labels.slugs)
    rows = [f"On {counted(int(images), 'test image')}:", "", "| measure | value |", "| --- | --- |"]
    rows += [f"| {words} | {metrics[name]:.3f} |" for name, words in _METRICS.items() if metrics.get(name) is not None]
    rows += [
        "",
        "| class | correct when predicted (precision) | found (recall) | images |",
        "| --- | --- | --- | --- |",
    ]
    for name, slug in zip(labels, labels.slugs, strict=True):
        if f"support_{slug}" in metrics:
            shares = [metrics[f"{metric}_{slug}"] for metric in ("precision", "recall")]
            cells = " | ".join("–" if share is None else f"{share:.3f}" for share in shares)
            rows.append(f"| {word(name)} | {cells} | {metrics[f'support_{slug}']:,.0f} |")
    return "\n".join(rows)


def _versions() -> list[str]:
    installed = []
    for package in _PACKAGES:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # prediction with ONNX Runtime needs no torch
            continue
    return installed
