"""The model card has everything that a reader must know before using the model."""

import json
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pytest
from scipy.special import softmax

from hf_smile.errors import SmileModelError
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.evaluation.numbers import times_in_100
from hf_smile.evaluation.predictions import write_predictions
from hf_smile.hub.card_sections import corrections_section, looks_sentence
from hf_smile.hub.finished_run import report_notes
from hf_smile.hub.model_card import write_model_card
from hf_smile.training.after import Folded, describe
from hf_smile.training.run_folder import record_look, start_run

SHARES = np.array([0.1, 0.2, 0.7])


@pytest.fixture
def write(tmp_path, monkeypatch):
    def write(label_ids, *, folder="model", prior_adjustment=0.0, temperature=1.25, sure=1.0, **options) -> str:
        draw = np.random.default_rng(0)
        of_split = {"validation": draw.integers(0, 3, 40), "test": label_ids}
        splits = {split: datasets.Dataset.from_dict({"label": ids}) for split, ids in of_split.items()}
        validation_logits = sure * draw.normal(size=(40, 3))
        folded = Folded(temperature, "fitted on the validation split", prior_adjustment, SHARES, validation_logits)
        logits = draw.normal(size=(len(label_ids), 3))
        metrics = compute_metrics(softmax(logits, axis=1), label_ids) | describe(folded, splits, logits)
        metrics["choice"] = {"epoch": 1.0, "epochs": 1, "metric": "accuracy", "images": 40, "margin": 0.15}
        settings = {"backbone": "timm/resnet18", "pretrained": True, "plain_timm": True}
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
    assert "**Is it a smile?** Given a smiling face" in card
    assert "**Is the smile genuine?** Given a genuine smile" in card


def test_what_is_not_defined_is_a_dash(write):
    card = write([2] * 10)
    assert "| AUC of genuine or posed smile | – |" in card
    assert "| positive smile | – | – | – | 0 |" in card
    assert "Not available: it needs images of both a genuine smile and a posed one." in card
    assert "| nan |" not in card


def test_a_prior_adjustment_is_no_surprise(write):
    assert "not calibrated for one like train" not in write([0, 1, 2] * 10)
    card = write([0, 1, 2] * 10, prior_adjustment=0.5)
    assert "`--prior_adjustment 0.5`" in card and "not calibrated for one like train" in card
    assert "20 % negative smile, 28 % positive smile, 52 % NOT smile,\nwhile train has 10 % negative" in card
    assert "| **0.5** |" in card


def test_a_hidden_layer_is_told_before_the_loading(write):
    assert "import hf_smile" not in write([0, 1, 2])
    card = write([0, 1, 2], plain_timm=False)
    assert card.index("import hf_smile.modeling") < card.index("from transformers import pipeline")
    assert "timm.create_model" not in card


def table_after(card, heading):
    section = card.partition(f"## {heading}")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


def test_the_calibration_error_is_told_before_and_after(write):
    for settings, rows in (
        ({"temperature": 1.0}, ["as trained, and as saved"]),
        ({}, ["as trained", "with the temperature"]),
        ({"temperature": 1.0, "prior_adjustment": 0.5}, ["as trained", "with the prior adjustment, as saved"]),
        ({"prior_adjustment": 0.5}, ["as trained", "with the temperature", "with the prior adjustment, as saved"]),
    ):
        table = table_after(write([0, 1, 2] * 10, **settings), "How sure it is")
        assert [row.split("|")[1].strip() for row in table] == rows


def test_a_temperature_that_makes_the_test_split_worse_is_told(write):
    errors = []
    for temperature in (0.5, 1.0, 2.0):
        card = write([0, 1, 2] * 10, temperature=temperature)
        before, after = (float(row.split("|")[4]) for row in (table_after(card, "How sure it is") * 2)[:2])
        assert ("higher with the temperature than without it" in card) == (after > before)
        errors.append(after - before)
    assert min(errors) < 0 < max(errors)


def test_the_card_repeats_no_row(write):
    table = table_after(write([0, 1, 2] * 10), "How it decides")
    answers = [row.split("|")[2:] for row in table]
    assert 1 < len(answers) < 16
    assert all(one != other for one, other in pairwise(answers))
    saved = table_after(write([0, 1, 2] * 10, prior_adjustment=0.03), "How it decides")
    assert sum("**0.03**" in row for row in saved) == 1


def test_a_model_that_no_adjustment_changes_has_no_table(write):
    card = write([0, 1, 2] * 10, sure=1e6)
    assert "no prior adjustment up to 1.5 changes a prediction" in card
    assert not table_after(card, "How it decides") and "prior_adjustment.png" not in card


def test_every_look_at_the_test_split_is_counted(write, tmp_path):
    looks = [
        {"date": "2026-11-24", "changed": {}, "test_split": "other"},
        {"date": "2026-11-25", "changed": {}, "test_split": "this"},
        {"date": "2026-11-26", "changed": {"num_train_epochs": [4, 6]}, "test_split": "this"},
        {"date": "2026-11-27", "changed": {"backbone": ["/home/ann/a", "timm/b"]}, "test_split": "this"},
    ]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "test_looks.json").write_text(json.dumps(looks[:2]))
    assert "The test split was looked at once, on 2026-11-25." in write([0, 1, 2])
    (tmp_path / "model" / "test_looks.json").write_text(json.dumps(looks))
    card = write([0, 1, 2])
    assert "looked at 3 times: 2026-11-25 (first result), 2026-11-26 (num_train_epochs 4 -> 6), 2026-11-27" in card
    assert "backbone a -> timm/b" in card and "may be optimistic" in card
    (tmp_path / "model" / "test_looks.json").write_text("[{]")
    with pytest.raises(SmileModelError, match=r"test_looks\.json can't be read"):
        write([0, 1, 2])


def test_looks_at_other_data_do_not_hide_those_at_the_test_split(write, tmp_path):
    run = tmp_path / "model"
    for recipe, image_ids in (
        ({"num_train_epochs": 4}, "abc"),
        ({"num_train_epochs": 6}, "abc"),
        ({"num_train_epochs": 6}, "xyz"),  # evaluated on other data
    ):
        start_run(run, recipe)
        record_look(run, image_ids)
    write_predictions(run / "test_predictions.csv", list("abc"), [0, 1, 2], np.full((3, 3), 1 / 3))
    assert "The test split was looked at 2 times: " in write([0, 1, 2])


def test_a_report_says_what_is_known_of_the_run(tmp_path):
    assert report_notes(tmp_path, "test") == [] and report_notes("me/smile", "test") == []
    start_run(tmp_path, {"seed": 1, "prior_adjustment": 0.5})
    record_look(tmp_path, ["a"])
    (looks, adjusted) = report_notes(tmp_path, "test")
    assert "looked at once" in looks and "prior adjustment of 0.5" in adjusted
    assert "**The model was trained on these images**" in report_notes(tmp_path, "train")[0]


def test_a_run_that_was_made_longer_says_that_its_settings_do_not_repeat_it():
    looks = [{"date": "2026-11-25", "changed": {}}, {"date": "2026-11-26", "changed": {"num_train_epochs": [2, 5]}}]
    assert "do not reproduce it" in looks_sentence(looks)
    looks[1]["changed"] = {"temperature": [None, 2]}
    assert "do not reproduce it" not in looks_sentence(looks)


def test_a_share_is_not_rounded_to_certainty(write):
    assert [times_in_100(auc) for auc in (0.913, 0.9949, 0.9985, 1.0)] == ["91", "99", "more than 99", "100"]


def test_labels_that_were_corrected_are_told_and_those_of_test_by_name():
    facts = {"3f": {"file": "corrections.csv", "changed": {"NOT smile -> positive smile": 2}, "left_out": 0}}
    none = {"3f": {"file": "corrections.csv", "changed": {}, "left_out": 0}}
    assert corrections_section({}) == ""
    assert corrections_section({"train": facts, "test": none}).endswith("The test split was not corrected.")
    assert "**The test split was corrected too**" in corrections_section({"train": none, "test": facts})
    gone = {"3f": none["3f"] | {"left_out": 1}}
    assert "**The test split was corrected too**" in corrections_section({"train": facts, "test": gone})
