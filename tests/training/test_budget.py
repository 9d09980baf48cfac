"""Runs within a time budget, on a fake clock: a step takes a second, an evaluation three."""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.errors import SmileError
from hf_smile.modeling import build_model
from hf_smile.training import budget, callbacks
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.checkpoints import last_whole_checkpoint
from hf_smile.training.history import history_table
from hf_smile.training.trainer import SmileTrainer

FOR_THE_CARD = budget._PICTURES_AND_CARD
STEPS_AN_EPOCH = 5


@pytest.fixture
def clock(monkeypatch):
    """A fake clock, and the time that a step takes."""
    clock = SimpleNamespace(now=100.0, step=1.0)

    def costing(method, seconds):
        def timed(*args, **kwargs):
            clock.now += seconds()
            return method(*args, **kwargs)

        return timed

    monkeypatch.setattr(SmileTrainer, "training_step", costing(SmileTrainer.training_step, lambda: clock.step))
    monkeypatch.setattr(SmileTrainer, "evaluate", costing(SmileTrainer.evaluate, lambda: 3.0))
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: clock.now, process_time=lambda: clock.now))
    monkeypatch.setattr(callbacks, "write_history", lambda table, folder: None)
    return clock


@pytest.fixture(scope="module")
def splits(sample_dir):
    return load_smile_dataset(sample_dir, validation_size=0.25)


def new_trainer(splits, output_dir, seconds, **options) -> SmileTrainer:
    settings = {"per_device_train_batch_size": 16, "use_cpu": True, "disable_tqdm": True, "ema_decay": 0.9}
    hours = (seconds + FOR_THE_CARD) / 3600
    args = SmileTrainingArguments(output_dir=str(output_dir), max_hours=hours, **(settings | options))
    torch.manual_seed(0)
    model = build_model("test_resnet", pretrained=False, image_size=32)
    return SmileTrainer(model, args, splits["train"], splits["validation"])


class At(TrainerCallback):
    def __init__(self, step: int, do) -> None:
        self.step, self.do = step, do

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.do()


@pytest.mark.parametrize(("seconds", "steps"), [(16, 10), (32, 20), (35, 20), (36, 21)])
def test_there_are_as_many_steps_as_there_is_time_for(splits, clock, tmp_path, seconds, steps):
    trainer = new_trainer(splits, tmp_path, seconds)
    trainer.train()
    evaluations = -(-steps // STEPS_AN_EPOCH)
    assert trainer.state.global_step == steps
    assert trainer.budget.seconds() == steps + 3 * evaluations <= seconds
    rates = history_table(trainer.state.log_history)["learning_rate"]
    assert len(rates) == evaluations and rates.iloc[-1] < 0.1 * rates.max()
    reached = trainer.budget.reached()
    assert reached["steps"] == steps and reached["epochs"] == steps / STEPS_AN_EPOCH


@pytest.mark.parametrize("seconds_a_step", [0.5, 2.0])
def test_a_machine_that_changes_its_speed_ends_in_time_with_the_schedule_done(splits, clock, tmp_path, seconds_a_step):
    trainer = new_trainer(splits, tmp_path, 60)
    trainer.add_callback(At(12, lambda: setattr(clock, "step", seconds_a_step)))
    trainer.train()
    assert 60 - 3 - seconds_a_step < trainer.budget.seconds() <= 60
    assert history_table(trainer.state.log_history)["learning_rate"].iloc[-1] < 0.1 * trainer.args.learning_rate


class Killed(Exception):
    pass


def kill() -> None:
    raise Killed


def outcome(trainer):
    weights = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    return history_table(trainer.state.log_history).to_csv(), weights


@pytest.mark.parametrize("killed_at", [8, 10])
def test_a_resumed_run_keeps_time_and_schedule(splits, clock, tmp_path, killed_at):
    alone = new_trainer(splits, tmp_path / "alone", 32)
    alone.train()
    trainer = new_trainer(splits, tmp_path / "killed", 32, save_every="2")
    trainer.add_callback(At(killed_at, kill))
    with pytest.raises(Killed):
        trainer.train()
    clock.now += 1000  # the time until the run is started again
    again = new_trainer(splits, tmp_path / "killed", 32, save_every="2")
    again.train(resume_from_checkpoint=str(last_whole_checkpoint(tmp_path / "killed")))
    assert again.budget.seconds() == 32 and outcome(again) == outcome(alone)


def test_the_head_alone_first_then_the_whole_as_far_as_time_goes(splits, clock, tmp_path):
    head = {"warmup_frozen_epochs": 2, "head_learning_rate": 0.01, "learning_rate": 0.001, "warmup_steps": 0.0}
    trainer = new_trainer(splits, tmp_path / "enough", 48, **head)
    trainer.train()
    assert trainer.state.global_step == 30
    rates = history_table(trainer.state.log_history)["learning_rate"].tolist()
    assert rates[0] > 0.001 and rates[1] < rates[0] and rates[1] < rates[2] <= 0.001 and rates[-1] < 0.0001
    short = new_trainer(splits, tmp_path / "short", 16, **head | {"warmup_frozen_epochs": 3})
    with pytest.raises(SmileError, match="too short for the 3 epochs that train only the head"):
        short.train()
