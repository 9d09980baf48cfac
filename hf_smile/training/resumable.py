"""A Trainer that may be stopped at any moment and goes on as if it had not been."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from hf_smile.errors import SmileError, SmileModelError
from hf_smile.training.checkpoints import UNFINISHED, last_whole_checkpoint, move_into_place, seal

EPOCH_SO_FAR = "epoch_so_far.json"
"""In a checkpoint: the sums of the epoch that is not logged yet, and whether its evaluation is still to come."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code, as shells give it, of a run that saved a checkpoint on SIGTERM."""


class ResumableTrainer(Trainer):
    """What `transformers.Trainer` lacks where runs are killed, disks fill up and losses become NaN.

    - A checkpoint is written aside and moved into place when it is whole; older ones are deleted only then.
    - On SIGTERM, which Slurm and pre-emptible machines send, the run saves a checkpoint after the step at hand, or in
      the middle of an evaluation, and exits with code 143.
    - A run that goes on, from the middle of an epoch too, ends in the same history, metrics and weights.
    - A loss that is not finite ends the run before it reaches the weights.

    Batches carry `image_ids`, a list of strings, for the message about the last.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.args.logging_nan_inf_filter = False  # `training_step` looks already, and that is waiting once a step
        self._train_hits = torch.zeros(2, dtype=torch.int64)  # right answers, answers
        self._checkpoint: Path | None = None
        self._evaluation_is_due = False
        self._termination = _Termination(self)
        self._loaders: list[Any] = []  # accelerate's, whose workers outlive an epoch

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As `Trainer.train`.

        Raises:
            SmileModelError: the loss is not finite, or the checkpoint holds what could run code.
            SystemExit: with code 143, after SIGTERM.
        """
        self._checkpoint = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        # Last in the line, so that the others have begun when the end of an epoch is made up for.
        self.remove_callback(_Termination)
        self.add_callback(self._termination)
        try:
            with self._termination.listening(), self._loading():
                output = super().train(resume_from_checkpoint, *args, **kwargs)
                if self._termination.agreed():  # after the last step
                    raise self._termination.exit()
                return output
        except KeyboardInterrupt:
            saved = last_whole_checkpoint(Path(str(self.args.output_dir))) if self.args.should_save else None
            if saved:
                print(f"\nThe same command goes on from {saved}", file=sys.stderr)
            raise
        except SmileError as error:
            if self.args.process_index:  # a fault of its own data, which `run_script` would leave to the first process
                print(f"process {self.args.process_index}: {error}", file=sys.stderr)
            raise
        except pickle.UnpicklingError:
            raise SmileModelError(
                f"{self._checkpoint}: holds more than numbers, which could run code, and is refused; "
                "start afresh with --overwrite"
            ) from None

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        image_ids = inputs.pop("image_ids")
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not loss.isfinite():
            raise SmileModelError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1} (epoch {self.state.epoch or 0:.2f}), "
                f"learning rate {self._get_learning_rate():g}, on the images {', '.join(image_ids)}.\n"
                "Look at these, or start afresh with a lower --learning_rate and --overwrite."
            )
        return loss

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super()._get_dataloader(*args, **kwargs)
        # It draws the seeds of its workers when it starts them, which a run that goes on does at other times.
        loader.base_dataloader.generator = torch.Generator()
        loader.base_dataloader.worker_init_fn = worker_start(loader.base_dataloader.worker_init_fn)
        self._loaders.append(loader)
        return loader

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """End the processes that load data at the end, which wait for the next epoch otherwise.

        Left to the garbage collector they do not hear of it (their queues go first), and are waited for in vain.
        """
        try:
            yield
        except (EOFError, ConnectionError) as error:
            if self.args.dataloader_num_workers == 0:
                raise
            raise RuntimeError("DataLoader worker died while it handed over a batch") from error
        finally:
            for loader in self._loaders:
                if workers := getattr(loader.base_dataloader, "_iterator", None):
                    workers._shutdown_workers()
                    loader.base_dataloader._iterator = None
            self._loaders.clear()

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self._loading():
            return super().predict(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # killed between the last checkpoint and the result
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _evaluate(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        try:
            if self._termination.agreed():
                raise _EvaluationStopped
            return super()._evaluate(trial, *args, **kwargs)
        except _EvaluationStopped:
            self._evaluation_is_due = True
            self._save_checkpoint(self.model, trial)
            raise self._termination.exit() from None

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder, state = Path(str(self.args.output_dir)), self.state
        if broken := [name for name, value in self.model.named_parameters() if not value.isfinite().all()]:
            raise SmileModelError(
                f"{broken[0]} is not finite after step {state.global_step}, and is not saved; "
                "start afresh with a lower --learning_rate and --overwrite"
            )
        name = f"checkpoint-{state.global_step}"
        aside = folder / UNFINISHED
        losses = self.accelerator.gather(self._tr_loss.reshape(1)).tolist()
        hits = self.accelerator.gather(self._train_hits.to(self.args.device).reshape(1, 2)).tolist()
        if self.args.should_save:
            shutil.rmtree(aside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.args.output_dir = str(aside)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir = str(folder)
        self.accelerator.wait_for_everyone()  # each has written the state of its random generators
        if state.best_global_step:
            state.best_model_checkpoint = str(folder / f"checkpoint-{state.best_global_step}")
        if self.args.should_save:
            state.save_to_json(str(aside / name / TRAINER_STATE_NAME))
            so_far = {"losses": losses, "hits": hits, "logged_step": self._globalstep_last_logged}
            so_far["evaluation_is_due"] = self._evaluation_is_due
            (aside / name / EPOCH_SO_FAR).write_text(json.dumps(so_far, indent=2) + "\n", encoding="utf-8")
            seal(aside / name)
            move_into_place(aside / name, folder / name)
            rotate_checkpoints(str(folder), self.args.save_total_limit, state.best_model_checkpoint, use_mtime=True)

    def _make_up(self) -> None:
        """Put the epoch where the checkpoint left it, at its end too if only the evaluation is missing."""
        if self._checkpoint is None or not (self._checkpoint / EPOCH_SO_FAR).is_file():
            return
        so_far = json.loads((self._checkpoint / EPOCH_SO_FAR).read_text(encoding="utf-8"))
        self._tr_loss += so_far["losses"][self.args.process_index]
        self._train_hits = torch.tensor(so_far["hits"][self.args.process_index])
        self._globalstep_last_logged = so_far["logged_step"]
        if so_far["evaluation_is_due"]:
            self._load_rng_state(str(self._checkpoint))
            self.control.should_evaluate = self.control.should_save = True
            self._maybe_log_save_evaluate(self._tr_loss, None, self.model, None, 0, None, 0.0)


_exiting = multiprocessing.Value("b", False, lock=False)  # tells the workers
atexit.register(setattr, _exiting, "value", True)  # before multiprocessing terminates them, which registered earlier


def worker_start(start: Callable[[int], object] | None = None) -> Callable[[int], None]:
    """A `worker_init_fn`: a data loader's worker passes over SIGTERM until the process that trains is exiting.

    Slurm and service managers signal all processes of a job, and the one that trains still needs its workers to finish
    the step at hand.

    Args:
        start: what else to do when a worker starts.
    """
    return partial(_start_worker, _exiting, start)


def _start_worker(exiting: Any, start: Callable[[int], object] | None, worker_id: int) -> None:

    def receive(*_: Any) -> None:
        if exiting.value:
            os._exit(0)  # of any other end torch would say that a worker was killed

    signal.signal(signal.SIGTERM, receive)
    if start is not None:
        start(worker_id)


class _EvaluationStopped(Exception):
    pass


class _Termination(TrainerCallback):
    """Notes SIGTERM, and ends the run where it can go on from."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.received = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
            yield
            return
        before = signal.signal(signal.SIGTERM, self._receive)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def _receive(self, *_: Any) -> None:
        self.received = True

    def agreed(self) -> bool:
        """Whether any process got the signal; all of them ask at the same point."""
        if self.trainer.args.world_size > 1:
            received = torch.tensor(int(self.received), device=self.trainer.args.device)
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
            self.received = bool(received)
        return self.received

    def exit(self) -> SystemExit:
        state = self.trainer.state
        if state.is_world_process_zero:
            saved = Path(str(self.trainer.args.output_dir), f"checkpoint-{state.global_step}")
            print(f"\nSIGTERM: {saved} is saved; the same command goes on from there", file=sys.stderr)
        return SystemExit(TERMINATED)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer._make_up()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.agreed() and not (control.should_training_stop or float(state.epoch or 0).is_integer()):
            control.should_save = True  # at the end of an epoch, what is due then comes first

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.is_in_train and self.agreed():
            raise _EvaluationStopped

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.agreed():
            raise self.exit()
