"""Stopping and resuming runs; losses that are not finite; checkpoints that contain code."""

import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import time
from types import SimpleNamespace

import datasets
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import TrainerCallback

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.errors import SmileError, SmileModelError
from hf_smile.modeling import build_model
from hf_smile.training import callbacks, resumable
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.checkpoints import UNFINISHED, clear_of_disk_errors, damage, last_whole_checkpoint, seal
from hf_smile.training.history import history_table
from hf_smile.training.trainer import SmileTrainer
from hf_smile.utils.console import run_script

EVERYTHING = {"imbalance": "oversample", "mixup": 0.4, "cutmix": 1.0, "layer_decay": 0.7, "ema_decay": 0.9}
STEPS_AN_EPOCH = 5


@pytest.fixture(scope="module", autouse=True)
def ctrl_c_is_not_ignored():
    """As it is by processes that a script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Do not draw the curves: they are tested elsewhere, and take longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "write_history", lambda table, folder: None)
        yield


@pytest.fixture(scope="module")
def splits(sample_dir):
    return load_smile_dataset(sample_dir, validation_size=0.25)


def new_trainer(splits, output_dir, **options) -> SmileTrainer:
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "use_cpu": True, "disable_tqdm": True}
    args = SmileTrainingArguments(**({"output_dir": str(output_dir)} | settings | options))
    torch.manual_seed(args.seed)
    model = build_model("test_resnet", pretrained=False, image_size=32, drop_path=0.5)
    return SmileTrainer(model, args, splits["train"], splits.get("validation"))


class At(TrainerCallback):
    """Call a function at an event after a number of steps."""

    def __init__(self, step: int, event: str, do) -> None:
        self.step = step
        self.do = do
        setattr(self, event, self.at)

    def at(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            self.do()


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def outcome(trainer: SmileTrainer) -> tuple:
    weights = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    return history_table(trainer.state.log_history).to_csv(), weights


@pytest.fixture(scope="module")
def undisturbed(splits, tmp_path_factory):
    trainer = new_trainer(splits, tmp_path_factory.mktemp("runs") / "undisturbed", **EVERYTHING)
    trainer.train()
    return outcome(trainer)


@pytest.mark.parametrize(
    ("step", "event", "saved_at"),
    [
        (2, "on_step_end", 2),
        (7, "on_step_begin", 8),
        (STEPS_AN_EPOCH, "on_step_end", STEPS_AN_EPOCH),
        (STEPS_AN_EPOCH, "on_prediction_step", STEPS_AN_EPOCH),
        (2 * STEPS_AN_EPOCH, "on_prediction_step", 2 * STEPS_AN_EPOCH),
        (2 * STEPS_AN_EPOCH, "on_evaluate", 2 * STEPS_AN_EPOCH),
        (2 * STEPS_AN_EPOCH, "on_train_end", 2 * STEPS_AN_EPOCH),
    ],
)
def test_a_run_that_was_told_to_stop_ends_as_one_left_alone(
    splits, undisturbed, tmp_path, caplog, step, event, saved_at
):
    handler = signal.getsignal(signal.SIGTERM)
    trainer = new_trainer(splits, tmp_path, **EVERYTHING)
    trainer.add_callback(At(step, event, send_sigterm))
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == 143
    assert f"SIGTERM: {tmp_path}/checkpoint-{saved_at} is saved" in caplog.text
    assert signal.getsignal(signal.SIGTERM) == handler
    checkpoint = last_whole_checkpoint(tmp_path)
    assert checkpoint.name == f"checkpoint-{saved_at}"
    again = new_trainer(splits, tmp_path, **EVERYTHING)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert outcome(again) == undisturbed


class Killed(Exception):
    """End a run like SIGKILL, without saving anything."""


def kill() -> None:
    raise Killed


@pytest.fixture
def a_second_a_step(monkeypatch):
    """A fake clock on which every training step takes a second."""
    now = [0.0]
    step = SmileTrainer.training_step

    def timed(*args):
        now[0] += 1
        return step(*args)

    monkeypatch.setattr(SmileTrainer, "training_step", timed)
    monkeypatch.setattr(resumable, "time", SimpleNamespace(monotonic=lambda: now[0]))


@pytest.mark.parametrize(
    ("save_every", "killed_at", "resumes_from"), [("3", 4, 3), ("3", 8, 6), ("2s", 4, 4), ("0.05min", 9, 8)]
)
def test_killed_between_two_regular_saves_it_ends_as_one_left_alone(
    splits, undisturbed, a_second_a_step, tmp_path, save_every, killed_at, resumes_from
):
    trainer = new_trainer(splits, tmp_path, save_every=save_every, **EVERYTHING)
    trainer.add_callback(At(killed_at, "on_step_begin", kill))
    with pytest.raises(Killed):
        trainer.train()
    checkpoint = last_whole_checkpoint(tmp_path)
    assert checkpoint.name == f"checkpoint-{resumes_from}"
    again = new_trainer(splits, tmp_path, save_every=save_every, **EVERYTHING)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert outcome(again) == undisturbed


def test_regular_saves_change_nothing(splits, undisturbed, tmp_path):
    trainer = new_trainer(splits, tmp_path, save_every="1", **EVERYTHING)
    saved = []
    trainer.add_callback(Saves(saved))
    trainer.train()
    assert outcome(trainer) == undisturbed
    assert saved == [*range(1, 2 * STEPS_AN_EPOCH + 1)]  # only once at the end of an epoch


class Saves(TrainerCallback):
    def __init__(self, steps: list[int]) -> None:
        self.steps = steps

    def on_save(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)


def signal_the_whole_job(name: str) -> None:
    job = (*multiprocessing.active_children(), multiprocessing.current_process())
    # From another process: on a signal from its parent, a loading process exits normally.
    subprocess.run(["kill", f"-{name}", *(str(process.pid) for process in job)], check=True)
    time.sleep(0.5)  # enough time for it to exit


@pytest.mark.parametrize(
    ("step", "event", "name"),
    [(2, "on_step_end", "TERM"), (2, "on_step_begin", "INT"), (STEPS_AN_EPOCH, "on_evaluate", "TERM")],
)
def test_loading_processes_change_nothing_of_that(splits, undisturbed, tmp_path, step, event, name):
    options = EVERYTHING | {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 1}
    trainer = new_trainer(splits, tmp_path, **options)
    trainer.add_callback(At(step, event, lambda: signal_the_whole_job(name)))
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        trainer.train()
    again = new_trainer(splits, tmp_path, **options)
    again.train(resume_from_checkpoint=str(last_whole_checkpoint(tmp_path)))
    assert outcome(again) == undisturbed


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("step", "event", "saved_at"),
    [
        (2, "on_step_end", 2),
        (STEPS_AN_EPOCH, "on_prediction_step", STEPS_AN_EPOCH),
        (2 * STEPS_AN_EPOCH, "on_train_end", 2 * STEPS_AN_EPOCH),
    ],
)
def test_after_ctrl_c_it_ends_as_one_left_alone_and_says_from_where(
    splits, undisturbed, tmp_path, step, event, saved_at
):
    trainer = new_trainer(splits, tmp_path, **EVERYTHING)
    trainer.add_callback(At(step, event, press_ctrl_c))
    checkpoint = f"{tmp_path}/checkpoint-{saved_at}"
    with pytest.raises(KeyboardInterrupt, match=f"^interrupted; the same command resumes from {checkpoint}$"):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    again = new_trainer(splits, tmp_path, **EVERYTHING)
    again.train(resume_from_checkpoint=checkpoint)
    assert outcome(again) == undisturbed


def test_after_ctrl_c_the_same_trainer_can_go_on(splits, tmp_path):
    trainer = new_trainer(splits, tmp_path)
    trainer.add_callback(At(2, "on_step_end", press_ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.pop_callback(At)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert trainer.state.global_step == 2 * STEPS_AN_EPOCH


def test_a_second_ctrl_c_ends_a_run_immediately(splits, tmp_path):
    trainer = new_trainer(splits, tmp_path)
    trainer.add_callback(At(STEPS_AN_EPOCH + 1, "on_step_begin", press_ctrl_c))
    trainer.add_callback(At(STEPS_AN_EPOCH + 1, "on_step_begin", press_ctrl_c))
    with pytest.raises(KeyboardInterrupt, match=f"resumes from {tmp_path}/checkpoint-{STEPS_AN_EPOCH}$"):
        trainer.train()
    assert last_whole_checkpoint(tmp_path).name == f"checkpoint-{STEPS_AN_EPOCH}"


def test_a_run_that_was_killed_after_its_last_step_is_not_trained_any_further(splits, tmp_path):
    options = {"max_steps": 3, "select_best": "last"}
    trainer = new_trainer(splits, tmp_path, **options)
    trainer.train()
    again = new_trainer(splits, tmp_path, **options)
    again.train(resume_from_checkpoint=str(last_whole_checkpoint(tmp_path)))
    assert again.state.global_step == 3
    assert outcome(again) == outcome(trainer)


def test_a_loss_that_is_not_finite_ends_the_run_and_says_where(splits, tmp_path):
    trainer = new_trainer(splits, tmp_path, learning_rate=1e-3, lr_scheduler_type="constant", warmup_steps=0)
    plain, calls = trainer.training_loss, []

    def broken(logits, targets):
        calls.append(0)
        return plain(logits, targets) * (float("nan") if len(calls) == 7 else 1)

    trainer.training_loss = broken
    with pytest.raises(SmileModelError, match=r"the loss is nan at step 7 \(epoch 1\.20\), learning rate 0\.001") as e:
        trainer.train()
    named = str(e.value).partition("on the images ")[2].partition(".\n")[0].split(", ")
    assert len(named) == 16 and set(named) <= set(splits["train"]["image_id"])
    assert last_whole_checkpoint(tmp_path).name == f"checkpoint-{STEPS_AN_EPOCH}"


def test_weights_that_are_not_finite_are_not_saved(splits, tmp_path):
    trainer = new_trainer(splits, tmp_path)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("inf"))
    with pytest.raises(SmileModelError, match="is not finite after step 0"):
        trainer._save_checkpoint(trainer.model, None)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_full_disk_leaves_the_checkpoint_before(splits, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer = new_trainer(splits, tmp_path)
    trainer.add_callback(At(7, "on_step_end", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))))
    try:
        with pytest.raises(SmileError, match="can't be written to"), clear_of_disk_errors(tmp_path):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert last_whole_checkpoint(tmp_path).name == f"checkpoint-{STEPS_AN_EPOCH}"
    assert not (tmp_path / UNFINISHED).exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_goes_in_the_middle_of_an_epoch_is_named(splits, tmp_path, capsys, workers):
    def write(row):
        path = tmp_path / f"{row['image_id']}.jpg"
        path.write_bytes(row["image"]["bytes"])
        return {"image": {"bytes": None, "path": str(path)}}

    encoded = splits.cast_column("image", datasets.Image(decode=False))
    on_disk = DatasetDict(
        {split: Dataset.from_list([row | write(row) for row in rows]) for split, rows in encoded.items()}
    )
    on_disk = on_disk.cast_column("image", datasets.Image())
    trainer = new_trainer(on_disk, tmp_path / "run", dataloader_num_workers=workers)
    gone = tmp_path / f"{splits['train']['image_id'][0]}.jpg"
    trainer.add_callback(At(STEPS_AN_EPOCH + 1, "on_step_end", gone.unlink))
    # The prefetched batch may already contain the image; the next epoch needs it in any case.
    trainer.args.num_train_epochs = 3
    with pytest.raises(SystemExit) as ended:
        run_script(trainer.train)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"error: image '{gone.stem}' ({gone}): can't be read" in said and "Traceback" not in said


def test_a_loading_process_that_dies_ends_the_run_and_is_said(splits, tmp_path, capsys):
    before = multiprocessing.active_children()

    def kill_one():
        (worker,) = set(multiprocessing.active_children()) - set(before)
        os.kill(worker.pid, signal.SIGKILL)

    trainer = new_trainer(splits, tmp_path, dataloader_num_workers=1, per_device_train_batch_size=2)
    trainer.add_callback(At(1, "on_step_end", kill_one))
    with pytest.raises(SystemExit) as ended:
        run_script(trainer.train)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "error: DataLoader worker" in said and "--dataloader_num_workers" in said and "Traceback" not in said


def test_a_loading_process_that_dies_while_it_hands_over_a_batch_is_said(splits, tmp_path, capsys):
    def hand_over():
        raise EOFError  # as raised by multiprocessing, not by torch

    for workers in (1, 0):
        trainer = new_trainer(splits, tmp_path / str(workers), dataloader_num_workers=workers)
        trainer.add_callback(At(1, "on_step_end", hand_over))
        with pytest.raises(SystemExit if workers else EOFError):
            run_script(trainer.train)
    assert "error: DataLoader worker died" in capsys.readouterr().err


def test_loading_processes_end_with_the_run(splits, tmp_path):
    before = set(multiprocessing.active_children())
    loading = []
    trainer = new_trainer(splits, tmp_path, dataloader_num_workers=1, num_train_epochs=1)
    trainer.add_callback(At(1, "on_step_end", lambda: loading.extend(set(multiprocessing.active_children()) - before)))
    trainer.train()
    assert len(loading) == 1
    assert set(multiprocessing.active_children()) <= before
    trainer.predict(splits["test"])
    assert set(multiprocessing.active_children()) <= before


class Code:
    def __reduce__(self):
        return os.mkdir, (os.environ["HF_SMILE_TEST_TRACE"],)


def test_no_code_from_a_checkpoint_runs(splits, tmp_path, monkeypatch):
    trace = tmp_path / "code_ran"
    monkeypatch.setenv("HF_SMILE_TEST_TRACE", str(trace))
    new_trainer(splits, tmp_path, num_train_epochs=1).train()
    checkpoint = last_whole_checkpoint(tmp_path)
    trainer = new_trainer(splits, tmp_path)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        whole = (checkpoint / name).read_bytes()
        for write in (torch.save, lambda code, path: path.write_bytes(pickle.dumps(code, protocol=2))):
            write(Code(), checkpoint / name)
            seal(checkpoint)  # as an attacker could
            assert damage(checkpoint) is None
            with pytest.raises(SmileError, match="could run code, and is refused"):
                trainer.train(resume_from_checkpoint=str(checkpoint))
            assert not trace.exists()
        (checkpoint / name).write_bytes(whole)
