"""A Trainer that can be stopped at any moment and resumes as if it had never stopped."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput, TrainOutput, rotate_checkpoints

from hf_smile.errors import SmileError, SmileModelError
from hf_smile.training.checkpoints import UNFINISHED, last_whole_checkpoint, move_into_place, seal
from hf_smile.training.loading import end_workers, evaluation_loader
from hf_smile.training.settings import parse_interval

logger = logging.getLogger(__name__)

EPOCH_SO_FAR = "epoch_so_far.json"
"""File of a checkpoint: sums of the epoch that are not logged yet, and whether its evaluation is still due."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code of a run that saved a checkpoint on SIGTERM, by the convention of shells."""


class ResumableTrainer(Trainer):
    """A `transformers.Trainer` that survives killed runs, full disks and NaN losses.

    - A checkpoint is written to a temporary folder and moved into place when it is complete; only then are older ones
      deleted.
    - On Ctrl-C, and on SIGTERM, which Slurm and pre-emptible machines send, the run saves a checkpoint after the
      current step, or in the middle of an evaluation, and ends. A second Ctrl-C ends it immediately.
    - A resumed run ends with the same history, metrics and weights, even from the middle of an epoch.
    - A loss that is not finite ends the run before it affects the weights.

    Batches include `image_ids`, a list of strings, for the message about such a loss.

    Attributes:
        loss_so_far: sum of the losses of this process that are not logged yet.
        hits_so_far: number of correct predictions and of all predictions that are not logged yet.
        loaders: data loaders of accelerate, whose workers outlive an epoch.
    """

    control: TrainerControl
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.args.logging_nan_inf_filter = False  # `training_step` checks; twice would synchronize twice per step
        self.args.restore_callback_states_from_checkpoint = True  # otherwise early stopping would count from zero
        self.loss_so_far = torch.zeros(())
        self.hits_so_far = torch.zeros(2, dtype=torch.int64)
        self._logged_step = 0
        self._checkpoint: Path | None = None
        self._evaluation_is_due = False
        self._interruption = _Interruption(self)
        self.loaders: dict[str, Any] = {}

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As `Trainer.train`. A complete run is not trained any further.

        Raises:
            SmileModelError: the loss is not finite, or the checkpoint contains a pickle that could run code.
            SystemExit: with code 143, after SIGTERM.
            KeyboardInterrupt: after Ctrl-C. Its message names the checkpoint to resume from, if there is one.
        """
        self._checkpoint = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        # The last callback, so that the others have started when a missed end of an epoch is caught up on.
        self.remove_callback(_Interruption)
        self.add_callback(self._interruption)
        try:
            with self._interruption.listening(), self._loading():
                try:
                    output = super().train(resume_from_checkpoint, *args, **kwargs)
                except _AtItsEnd:
                    self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
                    output = TrainOutput(self.state.global_step, float("nan"), {})
                if self._interruption.agreed():  # after the last step
                    raise self._interruption.exit()
                return output
        except KeyboardInterrupt:
            saved = last_whole_checkpoint(Path(str(self.args.output_dir))) if self.args.should_save else None
            if saved:
                raise KeyboardInterrupt(f"interrupted; the same command resumes from {saved}") from None
            raise
        except SmileError as error:
            if self.args.process_index:  # an error in the data of this process, which the first one does not see
                logger.error("process %d: %s", self.args.process_index, error)
            raise
        except pickle.UnpicklingError:
            raise SmileModelError(
                f"{self._checkpoint}: contains a pickle that could run code, and is refused; "
                "start again with --overwrite"
            ) from None
        finally:
            self.is_in_train = False

    def restore(self, checkpoint: Path) -> None:
        """Restore from a checkpoint what `Trainer` does not restore."""

    def save_place(self, checkpoint: Path) -> None:
        """Write what `restore` needs to a checkpoint, in each process."""

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        image_ids = inputs.pop("image_ids")
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not loss.isfinite():
            assert self.lr_scheduler is not None
            raise SmileModelError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1} (epoch {self.state.epoch or 0:.2f}), "
                f"learning rate {self.lr_scheduler.get_last_lr()[0]:g}, on the images {', '.join(image_ids)}.\n"
                "Check these images, or start again with a lower --learning_rate and --overwrite."
            )
        self.loss_so_far = self.loss_so_far.to(loss.device) + loss
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the training loss and accuracy since the last log, including steps before the run was resumed."""
        if "loss" in logs:
            losses = self.accelerator.gather(self.loss_so_far.reshape(1))
            hits, answers = self.accelerator.reduce(self.hits_so_far, "sum").tolist()
            logs["loss"] = losses.mean().item() / (self.state.global_step - self._logged_step)
            logs["accuracy"] = hits / answers
            self.loss_so_far, self.hits_so_far = self.loss_so_far * 0, self.hits_so_far * 0
            self._logged_step = self.state.global_step
        super().log(logs, start_time)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        if eval_dataset is not None and eval_dataset is not self.eval_dataset:
            return self.get_test_dataloader(eval_dataset)
        if "eval" not in self.loaders:
            self.loaders["eval"] = self.get_test_dataloader(self.eval_dataset)
        return self.loaders["eval"]

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """All images in order, even if `dataloader_drop_last` leaves some out of training."""
        self.loaders["test"] = self.accelerator.prepare(evaluation_loader(test_dataset, self.args))
        return self.loaders["test"]

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """Stop the data loading processes on exit."""
        try:
            yield
        except (EOFError, ConnectionError) as error:
            if self.args.dataloader_num_workers == 0:
                raise
            raise RuntimeError("DataLoader worker died while it handed over a batch") from error
        finally:
            end_workers(self.loaders.values())
            self.loaders.clear()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As `Trainer.evaluate`. When training is told to stop, it is saved here, and the resumed run evaluates."""
        try:
            if self.is_in_train and self._interruption.agreed():
                raise _EvaluationStopped
            return super().evaluate(*args, **kwargs)
        except _EvaluationStopped:
            self._evaluation_is_due = True
            self._save_checkpoint(self.model, None)
            raise self._interruption.exit() from None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        with nullcontext() if self.is_in_train else self._loading():
            return super().evaluation_loop(*args, **kwargs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save atomically. `best_global_step` names the best checkpoint; a path would break if the folder is moved."""
        folder, state = Path(str(self.args.output_dir)), self.state
        if broken := [name for name, value in self.model.named_parameters() if not value.isfinite().all()]:
            raise SmileModelError(
                f"{broken[0]} is not finite after step {state.global_step}, so no checkpoint is saved; "
                "start again with a lower --learning_rate and --overwrite"
            )
        name = f"checkpoint-{state.global_step}"
        aside = folder / UNFINISHED
        losses = self.accelerator.gather(self.loss_so_far.to(self.args.device).reshape(1)).tolist()
        hits = self.accelerator.gather(self.hits_so_far.to(self.args.device).reshape(1, 2)).tolist()
        if self.args.should_save:
            shutil.rmtree(aside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.args.output_dir = str(aside)
        try:
            super()._save_checkpoint(model, None)  # None: with a trial, it would go to another folder
        finally:
            self.args.output_dir = str(folder)
        self.save_place(aside / name)
        self.accelerator.wait_for_everyone()  # every process has written the state of its random generators
        state.best_model_checkpoint = None
        if self.args.should_save:
            state.save_to_json(str(aside / name / TRAINER_STATE_NAME))
            due = {"logged_step": self._logged_step, "evaluation_is_due": self._evaluation_is_due}
            so_far = {"losses": losses, "hits": hits, **due}
            (aside / name / EPOCH_SO_FAR).write_text(json.dumps(so_far, indent=2) + "\n", encoding="utf-8")
            seal(aside / name)
            move_into_place(aside / name, folder / name)
            best = folder / f"checkpoint-{state.best_global_step}"
            rotate_checkpoints(
                str(folder), self.args.save_total_limit, str(best) if best.is_dir() else None, use_mtime=True
            )

    def stopping_early(self) -> list[EarlyStoppingCallback]:
        """The callbacks that stop early."""
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, EarlyStoppingCallback)]

    def make_up(self) -> None:
        """Restore the sums of the current epoch, and run its evaluation if that was still due."""
        self._logged_step, self._evaluation_is_due = self.state.global_step, False
        self.loss_so_far, self.hits_so_far = self.loss_so_far * 0, self.hits_so_far * 0
        if self._checkpoint is None:
            for callback in self.stopping_early():
                callback.early_stopping_patience_counter = 0  # it may count from an earlier call of `train`
            return
        self.restore(self._checkpoint)
        if not (self._checkpoint / EPOCH_SO_FAR).is_file():
            return
        so_far = json.loads((self._checkpoint / EPOCH_SO_FAR).read_text(encoding="utf-8"))
        self.loss_so_far = torch.tensor(so_far["losses"][self.args.process_index], device=self.args.device)
        self.hits_so_far = torch.tensor(so_far["hits"][self.args.process_index], device=self.args.device)
        self._logged_step = so_far["logged_step"]
        if so_far["evaluation_is_due"]:
            self._load_rng_state(str(self._checkpoint))
            self.control.should_evaluate = self.control.should_save = True
            self._maybe_log_save_evaluate(torch.zeros(()), None, self.model, None, 0, None, 0.0)


def of_any_process(is_so: bool, args: TrainingArguments) -> bool:
    """Whether `is_so` is true in any process. All processes must call this at the same point."""
    if args.world_size == 1:
        return is_so
    found = torch.tensor(int(is_so), device=args.device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found)


class SaveEvery(TrainerCallback):
    """Save checkpoints within epochs too; see `parse_interval`."""

    def __init__(self, interval: str) -> None:
        self.interval, self.is_time = parse_interval(interval)
        self.saved_at = time.monotonic()

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self.saved_at = time.monotonic()

    on_save = on_train_begin

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if control.should_training_stop or float(state.epoch or 0).is_integer():
            return  # the checkpoint at the end of the epoch follows its evaluation
        if self.is_time:
            is_due = of_any_process(time.monotonic() - self.saved_at >= self.interval, args)
        else:
            is_due = state.global_step % self.interval == 0
        control.should_save = control.should_save or is_due


class _EvaluationStopped(Exception):
    pass


class _AtItsEnd(Exception):
    """The resumed run has nothing left to train."""


class _Interruption(TrainerCallback):
    """Stop the run on SIGTERM or Ctrl-C where it can be resumed, and resume it from there."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.received = 0  # the signal

    @contextmanager
    def listening(self) -> Iterator[None]:
        self.received = 0  # a trainer may train again after an interruption
        if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
            yield
            return
        before = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._receive)}
        has_checkpoints = self.trainer.args.save_strategy != "no"  # a search has none
        if has_checkpoints and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _receive(self, number: int, _: Any) -> None:
        self.received = self.received or number
        if number == signal.SIGINT:
            logger.warning("\nStopping after this step; Ctrl-C again ends the run immediately")
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the next one ends the run immediately

    def agreed(self) -> bool:
        """Whether any process received a signal."""
        if of_any_process(bool(self.received), self.trainer.args):
            self.received = self.received or signal.SIGTERM
        return bool(self.received)

    def exit(self) -> BaseException:
        if self.received == signal.SIGINT:
            return KeyboardInterrupt()
        state = self.trainer.state
        if state.is_world_process_zero:
            saved = Path(str(self.trainer.args.output_dir), f"checkpoint-{state.global_step}")
            logger.warning("\nSIGTERM: %s is saved; the same command resumes from there", saved)
        return SystemExit(TERMINATED)

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self.trainer.make_up()

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A resumed run may already be complete, by its checkpoint or by the evaluation that was still due."""
        stopped = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.trainer.stopping_early()
        )
        if stopped or control.should_training_stop or state.global_step >= state.max_steps:
            raise _AtItsEnd

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.agreed() and not (control.should_training_stop or float(state.epoch or 0).is_integer()):
            control.should_save = True  # not at the end of an epoch, where logging and evaluation come first

    def on_prediction_step(self, *_: Any, **kwargs: Any) -> None:
        if self.trainer.is_in_train and self.agreed():
            raise _EvaluationStopped

    def on_save(self, *_: Any, **kwargs: Any) -> None:
        if self.agreed():
            raise self.exit()
