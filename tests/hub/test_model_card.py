"""The model card says what the reader has to know before using the model."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.hub.model_card import write_model_card
from hf_smile.training.after import Folded, describe

SHARES = np.array([0.1, 0.2, 0.7])


@pytest.fixture
def write(tmp_path, monkeypatch):
    def write(label_ids, *, folder="model", prior_adjustment=0.0, **options) -> str:
        draw = np.random.default_rng(0)
        splits = {"validation": {"label": draw.integers(0, 3, 40)}, "test": {"label": label_ids}}
        folded = Folded(1.25, "fitted on the validation split", prior_adjustment, SHARES, draw.normal(size=(40, 3)))
        logits = draw.normal(size=(len(label_ids), 3))
        metrics = compute_metrics(softmax(logits, axis=1), label_ids) | describe(folded, splits, logits)
        settings = {"backbone": "timm/resnet18", "selected_by": "accuracy", "pretrained": True, "plain_timm": True}
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_model_card(folder, metrics, **settings | options)
        return Path(folder, "README.md").read_text(encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    return write


def test_its_examples_load_from_the_folder_of_the_run(write):
    text = write([0, 1, 2], folder="outputs/faces")
    assert 'pipeline("image-classification", model="outputs/faces")' in text
    assert '"local-dir:outputs/faces"' in text


def test_it_does_not_tell_where_on_a_disk_the_run_was(write, tmp_path):
    text = write([0, 1, 2], folder=tmp_path / "private" / "faces")
    assert 'model="faces"' in text and "private" not in text


def test_both_questions_are_answered(write):
    card = write([0, 1, 2] * 10)
    assert "**Is it a smile?** Of a smiling face" in card and "**Is the smile genuine?** Of a genuine smile" in card


def test_what_is_not_defined_is_a_dash(write):
    card = write([2] * 10)
    assert "| AUC of genuine or posed smile | – |" in card
    assert "| positive smile | – | – | – | 0 |" in card
    assert "Cannot be told: the split does not hold both a genuine smile and a posed one." in card
    assert "| nan |" not in card


def test_a_prior_adjustment_is_no_surprise(write):
    assert "not calibrated for one like train" not in write([0, 1, 2] * 10)
    card = write([0, 1, 2] * 10, prior_adjustment=0.5)
    assert "`--prior_adjustment 0.5`" in card and "not calibrated for one like train" in card
    assert "20 % negative smile, 28 % positive smile, 52 % NOT smile,\nwhere train has 10 % negative" in card
    assert "| **0.5** |" in card


def test_a_hidden_layer_is_told_before_the_loading(write):
    assert "import hf_smile" not in write([0, 1, 2])
    card = write([0, 1, 2], plain_timm=False)
    assert card.index("import hf_smile.modeling\n") < card.index("from transformers import pipeline")
    assert "timm.create_model" not in card
