"""Train within a time budget: the number of steps and the learning rate follow from the measured speed."""

from __future__ import annotations

import json
import time
from collections import deque
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerState

from hf_smile.errors import SmileError
from hf_smile.training.callbacks import head_first_schedule

if TYPE_CHECKING:
    from hf_smile.training.trainer import SmileTrainer

BUDGET = "budget.json"
"""File of a checkpoint: the time spent so far, and the progress of the learning rate schedule."""
NO_LIMIT = 10**9
_PICTURES_AND_CARD = 3.0  # CPU seconds after the last prediction: intervals, plots, exit of Python
_EVALUATION = 0.5  # time per image in evaluation as a share of that in training, until it is measured


def process_start() -> float:
    """The start time of this process on the clock of `time.monotonic()`."""
    return time.monotonic() - (time.time() - psutil.Process().create_time())


class Budget(TrainerCallback):
    """Estimate after each step how many steps are left, so that the run, with evaluation, ends within `max_hours`.

    The remaining time has to cover the remaining evaluations and checkpoints, each estimated by the last one, and the
    work after training. The learning rate schedule is stretched to the remaining steps, so that it ends with the run
    even if the speed changes. A resumed run continues with the time and the schedule of its checkpoint.

    Args:
        trainer: a trainer with `max_hours` in its settings.

    Attributes:
        started: `time.monotonic()` at which the clock starts; the start of `train` if None.
        images_after: number of images to predict after training.
        steps: current estimate of the total number of steps.

    >>> Budget(trainer).reached()  # doctest: +SKIP
    {'max_hours': 0.5, 'hours': 0.49, 'steps': 1210, 'epochs': 7.3}
    """

    def __init__(self, trainer: SmileTrainer) -> None:
        self.trainer = trainer
        self.started: float | None = None
        self.images_after = 0
        self.steps: int | None = None
        self.steps_an_epoch = 0
        self._spent_before = 0.0
        self._fitted_at, self._done = 0, 0.0  # a step, and the share of the schedule that was done by then
        self._step_seconds: deque[float] = deque(maxlen=50)
        self._epoch_end_seconds: float | None = None
        self._epoch_ended: float | None = None
        self._step_began, self._began = 0.0, (0.0, 0.0)

    def unlimited(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values of `Trainer.set_initial_training_values`, without a limit on steps."""
        _, self.steps_an_epoch, *others, _ = values
        return NO_LIMIT, self.steps_an_epoch, *others, NO_LIMIT

    def seconds(self) -> float:
        """Seconds spent so far, including those before the run was resumed."""
        return self._spent_before + time.monotonic() - (self.started or 0)

    def reached(self) -> dict[str, float]:
        """The budget and how much of it was used."""
        steps = self.trainer.state.global_step
        epochs = steps / max(1, self.steps_an_epoch)
        hours = self.seconds() / 3600
        return {"max_hours": self.trainer.args.max_hours or 0.0, "hours": hours, "steps": steps, "epochs": epochs}

    def scheduler(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        """The configured schedule, over a number of steps that is not known yet."""
        return LambdaLR(optimizer, lambda step: self._factor(step))  # a bound method would be saved in checkpoints

    def _factor(self, step: int) -> float:
        """Factor of the learning rate. The length of the part for the head alone, if any, is known from the start."""
        args, head_steps = self.trainer.args, self._head_steps()
        steps = max(self.steps or 1, step, head_steps + 1)
        nothing = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        plan = head_first_schedule(args, nothing, steps, head_steps)
        at: Any = step if step < head_steps else head_steps + (steps - head_steps) * self._progress(step)
        return plan.lr_lambdas[0](at)

    def _head_steps(self) -> int:
        args = self.trainer.args
        return args.warmup_frozen_epochs * self.steps_an_epoch if args.head_learning_rate is not None else 0

    def _progress(self, step: int) -> float:
        """The share of the schedule that is done after a step, not counting the part for the head alone."""
        since = max(self._fitted_at, self._head_steps())
        left = (self.steps or 0) - since
        if step <= since or left <= 0:
            return self._done
        return self._done + (1 - self._done) * min(1.0, (step - since) / left)

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self._began = time.monotonic(), time.process_time()
        self._step_began = self._began[0]
        self.started = self._step_began if self.started is None else self.started

    def on_epoch_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._step_began = time.monotonic()
        self._note_epoch_end()
        self._epoch_ended = None
        if args.warmup_frozen_epochs and state.global_step == args.warmup_frozen_epochs * self.steps_an_epoch:
            self._step_seconds.clear()  # a step takes longer when the backbone trains too

    def on_epoch_end(self, *_: Any, **kwargs: Any) -> None:
        self._epoch_ended = time.monotonic()

    def _note_epoch_end(self) -> None:
        if self._epoch_ended is not None:
            self._epoch_end_seconds = time.monotonic() - self._epoch_ended

    def on_optimizer_step(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        now, step = time.monotonic(), state.global_step + 1
        took, self._step_began = now - self._step_began, now
        if step == 1:
            return  # the first step takes much longer than the others
        self._step_seconds.append(took)
        more = self._steps_left(step)
        if args.world_size > 1:  # the clock of the first process counts
            counted = torch.tensor(more, device=args.device)
            torch.distributed.broadcast(counted, 0)
            more = int(counted)
        self._done, self._fitted_at = self._progress(step), step
        self.steps = state.max_steps = step + more
        frozen = args.warmup_frozen_epochs * self.steps_an_epoch
        if step < frozen and self.steps <= frozen and len(self._step_seconds) >= 5:
            raise SmileError(
                f"max_hours is {args.max_hours:g}, too short for the {args.warmup_frozen_epochs} epochs that train "
                "only the head; set a higher --max_hours or a lower --warmup_frozen_epochs"
            )

    def _steps_left(self, step: int) -> int:
        """The number of steps after this one that fit in the remaining time."""
        trainer, args, a_step = self.trainer, self.trainer.args, fmean(self._step_seconds)
        an_image = _EVALUATION * a_step / trainer.get_total_train_batch_size(args)
        validated = len(trainer.eval_dataset or ())
        if took := [line["eval_runtime"] for line in trainer.state.log_history if "eval_runtime" in line]:
            an_image = took[-1] / validated
        an_end = an_image * validated if self._epoch_end_seconds is None else self._epoch_end_seconds
        after = an_image * self.images_after + _PICTURES_AND_CARD * self._seconds_per_own()
        left = (args.max_hours or 0) * 3600 - self.seconds() - after
        more = max(0, int(left / a_step))
        while more and more * a_step + an_end * self._epoch_ends(step, more) > left:
            more -= 1
        return more

    def _seconds_per_own(self) -> float:
        """Wall-clock seconds per CPU second, which is above 1 on a shared machine."""
        wall, own = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        return max(1.0, wall / own) if own > 0 else 1.0

    def _epoch_ends(self, step: int, more: int) -> int:
        return ceil((step + more) / self.steps_an_epoch) - (step - 1) // self.steps_an_epoch

    def save(self, checkpoint: Path) -> None:
        self._note_epoch_end()
        speed = {"step": fmean(self._step_seconds or [0.0]), "epoch_end": self._epoch_end_seconds}
        schedule = {"steps": self.steps, "fitted_at": self._fitted_at, "done": self._done}
        (checkpoint / BUDGET).write_text(json.dumps({"seconds": self.seconds(), **schedule, "speed": speed}))

    def load(self, checkpoint: Path) -> None:
        saved = json.loads((checkpoint / BUDGET).read_text(encoding="utf-8"))
        self._spent_before, self._fitted_at, self._done = saved["seconds"], saved["fitted_at"], saved["done"]
        if saved["steps"] is None:  # saved after the first step, when nothing was known
            return
        self._step_seconds.extend([saved["speed"]["step"]] * 49)  # outweighs the slow first step after resuming
        self._epoch_end_seconds = saved["speed"]["epoch_end"]
        self.steps = self.trainer.state.max_steps = saved["steps"]
