"""Training in this process: averaged weights, frozen layers, early stopping, and what a checkpoint holds."""

import json

import pytest
import torch
from safetensors.torch import load_file

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.modeling import build_model
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.history import best_epoch, history_table
from hf_smile.training.trainer import RAW_WEIGHTS, SmileTrainer


@pytest.fixture(scope="module")
def splits(sample_dir):
    return load_smile_dataset(sample_dir, validation_size=0.25)


@pytest.fixture
def make_trainer(splits, tmp_path):
    def make(model=None, **options) -> SmileTrainer:
        settings = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "use_cpu": True}
        settings |= {"disable_tqdm": True, "ema_decay": 0, "label_smoothing_factor": 0}
        args = SmileTrainingArguments(**({"output_dir": str(tmp_path)} | settings | options))
        torch.manual_seed(args.seed)
        model = model or build_model("test_resnet", pretrained=False, image_size=32)
        return SmileTrainer(model, args, splits)

    return make


def weights(model) -> dict[str, torch.Tensor]:
    return {name.removeprefix("timm_model."): value.clone() for name, value in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_leaves_its_history_and_no_pickle_beside_the_model(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.train()
    trainer.save_model()
    table = history_table(trainer.state.log_history)
    assert list(table["epoch"]) == [1, 2]
    for column in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_macro_f1"):
        assert table[column].between(0, 10).all()
    assert {"validation_precision_not_smile", "validation_micro_precision_at_50"} <= set(table.columns)
    assert (tmp_path / "accuracy.png").stat().st_size > 5000 and (tmp_path / "loss.png").stat().st_size > 5000
    modes = {path.stat().st_mode for path in tmp_path.rglob("*.safetensors")}
    assert modes == {(tmp_path / "config.json").stat().st_mode}
    assert not list(tmp_path.rglob("training_args.bin"))
    assert not [path for path in tmp_path.glob("*") if path.suffix in (".bin", ".pt", ".pth")]


def test_averaged_weights_are_what_is_evaluated_and_saved(make_trainer, tmp_path):
    trainer = make_trainer(ema_decay=0.9, num_train_epochs=1)
    trainer.train()
    checkpoint = next(tmp_path.glob("checkpoint-*"))
    averaged, raw = load_file(checkpoint / "model.safetensors"), load_file(checkpoint / RAW_WEIGHTS)
    raw = {name.removeprefix("timm_model."): value for name, value in raw.items()}
    assert averaged.keys() == raw.keys() and not equal(averaged, raw)
    assert equal(weights(trainer.model), averaged)
    logged = trainer.state.log_history[1]["eval_loss"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(logged, abs=1e-6)


def test_without_averaging_a_checkpoint_holds_one_set_of_weights(make_trainer, tmp_path):
    make_trainer(num_train_epochs=1).train()
    assert not list(tmp_path.rglob(RAW_WEIGHTS))


def test_a_frozen_backbone_does_not_change_its_batch_statistics_either(make_trainer):
    model = build_model("test_resnet", pretrained=False, image_size=32, freeze_backbone=True)
    before = weights(model)
    trainer = make_trainer(model, num_train_epochs=1, learning_rate=0.1)
    trainer.train()
    after = weights(trainer.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_the_best_checkpoint_by_the_chosen_metric_is_the_one_kept(make_trainer):
    trainer = make_trainer(num_train_epochs=3, metric_for_best_model="nll", learning_rate=0.05)
    trainer.train()
    table = history_table(trainer.state.log_history)
    best = table["validation_nll"].min()
    assert table["validation_nll"][best_epoch(table, trainer.args)] == best
    assert trainer.evaluate()["eval_nll"] == pytest.approx(best, abs=1e-5)


def test_early_stopping_ends_a_run_and_a_restart_does_not_train_on(make_trainer, tmp_path):
    options = {"num_train_epochs": 8, "early_stopping_patience": 1, "metric_for_best_model": "nll"}
    options |= {"learning_rate": 0.5, "lr_scheduler_type": "constant", "save_total_limit": None}
    trainer = make_trainer(**options)
    trainer.train()
    assert trainer.state.epoch < 8
    moved = tmp_path.with_name(f"{tmp_path.name}_moved")
    tmp_path.rename(moved)
    last = moved / f"checkpoint-{trainer.state.global_step}"
    assert json.loads((last / "trainer_state.json").read_text())["epoch"] == trainer.state.epoch
    again = make_trainer(**options, output_dir=str(moved))
    assert not equal(weights(again.model), weights(trainer.model))
    again.train(resume_from_checkpoint=str(last))
    assert again.state.global_step == trainer.state.global_step
    assert equal(weights(again.model), weights(trainer.model))


def test_label_smoothing_is_for_training_only(make_trainer):
    plain, smoothed = make_trainer(), make_trainer(label_smoothing_factor=0.5)
    smoothed.model.load_state_dict(plain.model.state_dict())
    assert smoothed.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], abs=1e-6)
    batch = next(iter(plain.get_train_dataloader()))
    plain.model.train(), smoothed.model.train()
    difference = plain.compute_loss(plain.model, batch) - smoothed.compute_loss(smoothed.model, batch)
    assert abs(difference.item()) > 1e-4
