"""Training in this process: each setting, the contents of a checkpoint, and resuming from one."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from datasets import DatasetDict
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.errors import SmileError
from hf_smile.modeling import build_model
from hf_smile.modeling.losses import soft_targets
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.history import best_epoch, history_table
from hf_smile.training.settings import IMBALANCE
from hf_smile.training.trainer import RAW_WEIGHTS, SmileTrainer


@pytest.fixture(scope="module")
def splits(sample_dir):
    return load_smile_dataset(sample_dir, validation_size=0.25)


def new_trainer(splits, output_dir, model=None, **options) -> SmileTrainer:
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "use_cpu": True}
    settings |= {"disable_tqdm": True, "ema_decay": 0, "label_smoothing_factor": 0}
    args = SmileTrainingArguments(**({"output_dir": str(output_dir)} | settings | options))
    torch.manual_seed(args.seed)
    model = model or build_model("test_resnet", pretrained=False, image_size=32)
    return SmileTrainer(model, args, splits["train"], splits.get("validation"))


@pytest.fixture
def make_trainer(splits, tmp_path):
    def make(model=None, splits=splits, **options) -> SmileTrainer:
        return new_trainer(splits, model=model, **({"output_dir": tmp_path} | options))

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
    trainer = make_trainer(num_train_epochs=3, select_best="nll", learning_rate=0.05)
    trainer.train()
    table = history_table(trainer.state.log_history)
    best = table["validation_nll"].min()
    assert table["validation_nll"][best_epoch(table, trainer.args)] == best
    assert trainer.evaluate()["eval_nll"] == pytest.approx(best, abs=1e-5)


def test_a_tie_goes_to_the_lower_validation_loss(make_trainer):
    trainer = make_trainer(num_train_epochs=4, learning_rate=0.05, save_total_limit=1)
    trainer.compute_metrics = lambda prediction: {"accuracy": 0.75, "macro_f1": 0.5}
    trainer.train()
    table = history_table(trainer.state.log_history)
    losses = table["validation_loss"]
    assert losses.argmin() > 0, "otherwise the earliest epoch would be right by chance"
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses.min(), abs=1e-5)
    choice = trainer.describe_choice()
    assert (choice["epoch"], choice["epochs"], choice["metric"]) == (losses.argmin() + 1, 4, "accuracy")
    assert choice["images"] == 24
    assert choice["margin"] == pytest.approx(0.17, abs=0.01)  # Wilson's interval of 18 in 24 is 0.55 to 0.88


@pytest.mark.parametrize(
    ("metric", "values", "losses", "best"),
    [
        ("accuracy", [0.7, 0.8, 0.8], [0.1, 0.5, 0.4], 2),
        ("accuracy", [0.8, 0.8, 0.8], [0.5, 0.5, 0.6], 0),
        ("macro_f1", [float("nan"), 0.3, 0.2], [0.1, 0.5, 0.4], 1),
        ("macro_f1", [float("nan")] * 3, [0.3, 0.2, 0.4], 1),
        ("nll", [0.3, 0.2, 0.2], [0.1, 0.5, 0.4], 2),
    ],
)
def test_the_best_epoch_is_the_best_by_the_metric_and_then_by_the_loss(metric, values, losses, best):
    args = SmileTrainingArguments(use_cpu=True, select_best=metric)
    assert best_epoch(pd.DataFrame({f"validation_{metric}": values, "validation_loss": losses}), args) == best


def test_early_stopping_ends_a_run_and_a_restart_does_not_train_on(make_trainer, tmp_path):
    options = {"num_train_epochs": 8, "early_stopping_patience": 1, "select_best": "nll"}
    options |= {"learning_rate": 0.02, "lr_scheduler_type": "constant", "save_total_limit": None}
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
    patient = make_trainer(**(options | {"early_stopping_patience": 2}), output_dir=str(moved))
    patient.train(resume_from_checkpoint=str(last))
    assert patient.state.global_step > trainer.state.global_step


def test_label_smoothing_is_for_training_only(make_trainer):
    plain, smoothed = make_trainer(), make_trainer(label_smoothing_factor=0.5)
    smoothed.model.load_state_dict(plain.model.state_dict())
    assert smoothed.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], abs=1e-6)
    batch = next(iter(plain.get_train_dataloader()))
    plain.model.train(), smoothed.model.train()
    difference = plain.compute_loss(plain.model, batch) - smoothed.compute_loss(smoothed.model, batch)
    assert abs(difference.item()) > 1e-4


@pytest.fixture(scope="module")
def plain(splits, tmp_path_factory) -> SmileTrainer:
    """A run of two steps without any optional setting."""
    trainer = new_trainer(splits, tmp_path_factory.mktemp("plain"), max_steps=2)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    "options",
    [
        *({"imbalance": name} for name in IMBALANCE if name != "none"),
        {"loss": "gce"},
        {"mixup": 0.3},
        {"cutmix": 1.0},
        {"layer_decay": 0.7},
        {"warmup_frozen_epochs": 1},
    ],
    ids=lambda options: str(next(iter(options.values()))) if "imbalance" in options else next(iter(options)),
)
def test_each_setting_trains_in_a_way_of_its_own(make_trainer, plain, options):
    trainer = make_trainer(max_steps=2, **options)
    trainer.train()
    assert not equal(weights(plain.model), weights(trainer.model))
    assert all(value.isfinite().all() for value in weights(trainer.model).values())
    table = history_table(trainer.state.log_history)
    assert table["train_accuracy"].between(0.1, 1).all() and table["train_loss"].between(0, 5).all()
    assert table["learning_rate"][0] == history_table(plain.state.log_history)["learning_rate"][0]


EVERYTHING = {"imbalance": "oversample", "mixup": 0.4, "cutmix": 1.0, "layer_decay": 0.7, "ema_decay": 0.9}


def new_model():
    torch.manual_seed(0)
    return build_model("test_resnet", pretrained=False, image_size=32, drop_path=0.5)


def test_a_run_that_goes_on_ends_as_one_left_alone(make_trainer, tmp_path):
    options = EVERYTHING | {"warmup_frozen_epochs": 2, "num_train_epochs": 3, "save_total_limit": None}
    trainer = make_trainer(new_model(), **options)
    trainer.train()
    first = shutil.copytree(tmp_path / "checkpoint-5", tmp_path / "again" / "checkpoint-5")  # of the first epoch
    again = make_trainer(new_model(), output_dir=str(tmp_path / "again"), **options)
    again.train(resume_from_checkpoint=str(first))
    assert history_table(again.state.log_history).equals(history_table(trainer.state.log_history))
    assert equal(weights(again.model), weights(trainer.model))


def test_a_run_goes_on_in_the_middle_of_an_epoch(make_trainer, tmp_path):
    options = {"imbalance": "oversample", "mixup": 0.4, "ema_decay": 0.9, "select_best": "last"}
    options |= {"lr_scheduler_type": "constant", "warmup_steps": 0}
    whole = make_trainer(max_steps=10, **options)
    assert len(whole.get_train_dataloader()) == 5
    whole.train()
    make_trainer(max_steps=7, output_dir=str(tmp_path / "half"), **options).train()
    again = make_trainer(max_steps=10, output_dir=str(tmp_path / "half"), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-7"))
    assert equal(weights(again.model), weights(whole.model))


def test_the_backbone_waits_while_the_head_warms_up(make_trainer, tmp_path):
    options = {"warmup_frozen_epochs": 1, "num_train_epochs": 2, "save_total_limit": None, "learning_rate": 0.01}
    model = build_model("test_resnet", pretrained=False, image_size=32, freeze_stages=1)
    before = weights(model)
    trainer = make_trainer(model, **options, select_best="last")
    trainer.train()
    first, last = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (5, 10))
    assert {name for name in before if not torch.equal(before[name], first[name])} == {"fc.weight", "fc.bias"}
    changed = {name for name in before if not torch.equal(before[name], last[name])}
    assert {"layer4.0.conv1.weight", "layer4.0.bn1.running_mean", "fc.weight"} <= changed
    assert not [name for name in changed if name.startswith(("conv1", "bn1", "layer1"))]


def test_drop_path_trains_and_leaves_no_trace_in_the_saved_model(make_trainer, tmp_path):
    model = new_model()
    assert any(isinstance(module, timm.layers.DropPath) for module in model.modules())
    trainer = make_trainer(model, num_train_epochs=1)
    trainer.train()
    trainer.save_model()
    assert json.loads((tmp_path / "config.json").read_text())["model_args"] == {}
    pixel_values = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = trainer.model.eval()(pixel_values).logits
        loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
        plain = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
        assert torch.allclose(loaded.eval()(pixel_values).logits, expected, atol=1e-5)
        assert torch.allclose(plain(pixel_values), expected, atol=1e-5)


def test_the_middle_image_of_an_odd_batch_is_not_mixed(make_trainer):
    trainer = make_trainer(mixup=1.0)
    pixel_values = torch.rand(5, 3, 8, 8)
    before = pixel_values.clone()
    np.random.seed(0)
    targets = soft_targets(pixel_values, torch.tensor([0, 1, 2, 2, 1]), 3, trainer.mixup)
    assert targets.sum(dim=1).tolist() == pytest.approx([1] * 5)
    assert torch.equal(pixel_values[4], before[4]) and targets[4].tolist() == [0, 1, 0]
    share = targets[0, 0].item()  # of the first image; the rest is of the fourth
    assert 0 < share < 1
    assert torch.allclose(pixel_values[0], share * before[0] + (1 - share) * before[3], atol=1e-5)


def test_evaluation_is_one_plain_forward_pass(make_trainer, splits):
    trainer = make_trainer(build_model("test_vit", pretrained=False))
    images = torch.stack([row["pixel_values"] for row in trainer.encode(splits["test"])])
    with torch.no_grad():
        expected = trainer.model.eval()(images).logits.numpy()
    assert np.allclose(trainer.predict(splits["test"]).predictions, expected, atol=1e-5)


def test_without_a_validation_split_the_last_average_is_the_model(make_trainer, splits, tmp_path):
    without = DatasetDict({split: splits[split] for split in ("train", "test")})
    trainer = make_trainer(splits=without, select_best="last", ema_decay=0.9)
    trainer.train()
    trainer.save_model()
    checkpoint = tmp_path / f"checkpoint-{trainer.state.global_step}"
    averaged = load_file(checkpoint / "model.safetensors")
    assert equal(weights(trainer.model), averaged) and equal(load_file(tmp_path / "model.safetensors"), averaged)
    table = history_table(trainer.state.log_history)
    assert list(table.columns) == ["epoch", "step", "learning_rate", "train_loss", "train_accuracy"]
    assert len(table) == 2
    assert (tmp_path / "training_history.csv").read_text().startswith("epoch,step")
    assert (tmp_path / "loss.png").stat().st_size > 5000
    assert len(trainer.predict(splits["test"]).predictions) == 32
    with pytest.raises(SmileError, match=r"without a validation split, accuracy can.t choose the checkpoint"):
        make_trainer(splits=without)


def test_the_head_may_learn_at_a_rate_of_its_own_before_the_rest_joins(make_trainer):
    settings = {"num_train_epochs": 3, "warmup_frozen_epochs": 1, "head_learning_rate": 0.03, "learning_rate": 0.001}
    trainer = make_trainer(lr_scheduler_type="linear", warmup_steps=0.5, **settings)
    trainer.create_optimizer_and_scheduler(num_training_steps=12)
    rates = []
    for _ in range(12):
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert rates == pytest.approx([0, 0.015, 0.03, 0.015, 0, 0.00025, 0.0005, 0.00075, 0.001, 0.00075, 0.0005, 0.00025])
