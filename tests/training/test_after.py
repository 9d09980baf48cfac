"""Temperature and prior adjustment are folded into the last layer once, between the last step and saving."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.evaluation.decision import prior_shift
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.modeling import build_model, load_model, predict_probabilities
from hf_smile.training.after import describe, fold_after_training
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.settings import MOVES_THE_PRIOR
from hf_smile.training.trainer import SmileTrainer


def make_trainer(splits, folder, **settings):
    settings = {"use_cpu": True, "disable_tqdm": True, "ema_decay": 0} | settings
    torch.manual_seed(0)
    model = build_model("test_resnet", pretrained=False, image_size=32)
    torch.nn.init.normal_(model.timm_model.fc.weight, std=1e6)  # features of random weights are small
    args = SmileTrainingArguments(output_dir=str(folder), **settings)
    return SmileTrainer(model, args, splits["train"], splits.get("validation"))


@pytest.fixture(scope="module")
def splits(sample_dir):
    return load_smile_dataset(sample_dir, validation_size=0.25)


def test_the_saved_model_gives_what_was_fitted_on_validation(splits, tmp_path):
    trainer = make_trainer(splits, tmp_path)
    before = trainer.predict(splits["test"]).predictions.astype(float)
    folded = fold_after_training(trainer)
    assert folded.temperature > 1.2 and folded.temperature_is == "fitted on the validation split"
    trainer.save_model()

    saved = predict_probabilities(load_model(str(tmp_path)), splits["test"])
    assert np.allclose(saved, softmax(before / folded.temperature, axis=1), atol=1e-5)
    assert (saved.argmax(axis=1) == before.argmax(axis=1)).all()

    on_validation = predict_probabilities(load_model(str(tmp_path)), splits["validation"])
    assert np.allclose(folded.stages(folded.validation_logits)["saved"], on_validation, atol=1e-5)


def test_before_and_after_are_told_from_one_look_at_test(splits, tmp_path):
    trainer = make_trainer(splits, tmp_path)
    before = trainer.predict(splits["test"]).predictions.astype(float)
    folded = fold_after_training(trainer, prior_adjustment=0.5)
    logits = trainer.predict(splits["test"]).predictions
    told = describe(folded, splits, logits)
    label_ids = splits["test"]["label"]
    trained = compute_metrics(softmax(before, axis=1), label_ids)
    saved = compute_metrics(softmax(logits.astype(float), axis=1), label_ids)
    assert told["calibration"]["test"]["as_trained"]["nll"] == pytest.approx(trained["nll"], abs=1e-3)
    assert told["calibration"]["test"]["saved"]["nll"] == pytest.approx(saved["nll"], abs=1e-6)
    validation = told["calibration"]["validation"]
    assert validation["with_temperature"]["nll"] < validation["as_trained"]["nll"]
    assert told["decision"]["prior_adjustment"] == 0.5
    row = next(row for row in told["decision"]["trade_off"] if row["strength"] == 0.5)
    on_validation = folded.stages(folded.validation_logits)["saved"]
    assert row["macro_f1"] == compute_metrics(on_validation, splits["validation"]["label"])["macro_f1"]


def test_without_validation_only_a_temperature_that_is_given_is_folded(sample_dir, tmp_path):
    splits = load_smile_dataset(sample_dir, validation_size=0)
    trainer = make_trainer(splits, tmp_path, select_best="last")
    before = trainer.predict(splits["test"]).predictions.astype(float)
    folded = fold_after_training(trainer)
    assert folded.temperature == 1 and "no validation split" in folded.temperature_is
    assert np.array_equal(trainer.predict(splits["test"]).predictions, before.astype(np.float32))

    folded = fold_after_training(trainer, temperature=2.0, prior_adjustment=0.3)
    after = trainer.predict(splits["test"]).predictions
    assert np.allclose(after, before / 2 + prior_shift(folded.shares, 0.3), atol=1e-4)
    told = describe(folded, splits, after)
    assert "validation" not in told["calibration"] and told["decision"]["trade_off"] == []


def test_a_backbone_with_two_classifiers_keeps_its_logits(splits, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_smile.training.after.output_layer", lambda model: None)
    trainer = make_trainer(splits, tmp_path)
    weight = trainer.model.timm_model.fc.weight.clone()
    folded = fold_after_training(trainer)
    assert folded.temperature == 1 and "no single linear layer" in folded.temperature_is
    assert torch.equal(trainer.model.timm_model.fc.weight, weight)


@pytest.mark.parametrize("imbalance", MOVES_THE_PRIOR)
def test_no_temperature_is_fitted_against_a_prior_that_training_has_moved(splits, tmp_path, imbalance):
    trainer = make_trainer(splits, tmp_path, imbalance=imbalance)
    weight = trainer.model.timm_model.fc.weight.clone()
    folded = fold_after_training(trainer)
    assert folded.temperature == 1 and imbalance in folded.temperature_is
    assert torch.equal(trainer.model.timm_model.fc.weight, weight)
    assert fold_after_training(trainer, temperature=2.0).temperature == 2


def test_the_focal_loss_moves_no_prior(splits, tmp_path):
    assert fold_after_training(make_trainer(splits, tmp_path, imbalance="focal")).temperature > 1.2


def test_the_numbers_are_those_of_the_saved_weights_also_where_training_is_in_bfloat16(splits, tmp_path):
    trainer = make_trainer(splits, tmp_path, bf16=True, num_train_epochs=1)
    trainer.train()
    fold_after_training(trainer)
    trainer.save_model()
    logits = trainer.predict(splits["test"]).predictions.astype(float)
    loaded = predict_probabilities(load_model(tmp_path), splits["test"], 64)
    assert np.allclose(softmax(logits, axis=1), loaded, atol=1e-6)
