"""Callbacks: progress and history, the frozen warm-up, and its learning rate schedule."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, TrainerCallback, TrainerState, TrainingArguments, get_scheduler
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import IntervalStrategy

from hf_smile.modeling.layers import head_parameters
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.history import history_table, write_history

if TYPE_CHECKING:
    from hf_smile.training.trainer import SmileTrainer

logger = logging.getLogger(__name__)


class EpochReport(ProgressCallback):
    """A progress bar, one line per epoch instead of a dictionary, and history and curves on disk after every epoch."""

    prediction_bar: tqdm | None

    def __init__(self, args: TrainingArguments) -> None:
        super().__init__()
        self.show_bar = not args.disable_tqdm
        self.training = False
        self.epoch_start = time.perf_counter()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self.training, self.current_step = True, state.global_step
        if state.is_world_process_zero and self.show_bar:
            self.training_bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="Training", unit=" steps", dynamic_ncols=True
            )

    def on_epoch_begin(self, *_: Any, **kwargs: Any) -> None:
        self.epoch_start = time.perf_counter()

    def on_step_end(self, *event: Any, **kwargs: Any) -> None:
        if self.training_bar is not None:
            self.training_bar.total = event[1].max_steps  # a budget changes it
            super().on_step_end(*event, **kwargs)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, *_: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Show a bar only outside of training."""
        if self.show_bar and state.is_world_process_zero and self.training_bar is None:
            if self.prediction_bar is None:
                self.prediction_bar = tqdm(
                    total=len(eval_dataloader), desc="Predicting", unit=" batches", leave=False, delay=2
                )
            self.prediction_bar.update()

    def on_log(self, args: TrainingArguments, state: TrainerState, *_: Any, logs: Any = None, **kwargs: Any) -> None:
        """With an evaluation, `on_evaluate` reports the epoch."""
        if args.eval_strategy == IntervalStrategy.NO and "loss" in logs:
            self._report_epoch(args, state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, *event: Any, **kwargs: Any) -> None:
        super().on_evaluate(args, state, *event, **kwargs)
        self._report_epoch(args, state)

    def _report_epoch(self, args: TrainingArguments, state: TrainerState) -> None:
        table = history_table(state.log_history)
        if not self.training or not state.is_world_process_zero or table.empty:
            return
        last = table.iloc[-1]
        epochs = round(state.max_steps * last["epoch"] / last["step"], 2)
        parts = [f"epoch {last['epoch']:.3g}/{epochs:g}"]
        for split, names in (("train", ("loss", "accuracy")), ("validation", ("loss", "accuracy", "macro_f1"))):
            if f"{split}_loss" in last:
                numbers = (f"{name} {last[f'{split}_{name}']:.3f}" for name in names)
                parts.append(f"{split} {', '.join(numbers)}".replace("macro_f1", "macro F1"))
        logger.info("%s", " | ".join([*parts, f"{time.perf_counter() - self.epoch_start:.0f} s"]))
        write_history(table, Path(str(args.output_dir)))

    def on_train_end(self, *event: Any, **kwargs: Any) -> None:
        self.training = False
        if self.training_bar is not None:
            super().on_train_end(*event, **kwargs)


class Following(TrainerCallback):
    """Pass each epoch to the augmentation, and update the average of the weights after each step."""

    def __init__(self, trainer: SmileTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self.trainer.augment.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if self.trainer.ema is not None:
            self.trainer.ema.update(self.trainer.model, step=state.global_step)


class FrozenWarmUp(TrainerCallback):
    """Train only the head in the first `epochs` epochs, then everything that is not permanently frozen.

    The optimizer has all parameters from the start and skips those without a gradient, so a run can resume in either
    part.
    """

    def __init__(self, model: PreTrainedModel, epochs: int) -> None:
        self.epochs = epochs
        head = set(head_parameters(model))
        self.backbone = [p for p in model.parameters() if p.requires_grad and p not in head]

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        for parameter in self.backbone:
            parameter.requires_grad_(int(state.epoch or 0) >= self.epochs)


def head_first_schedule(
    args: SmileTrainingArguments, optimizer: torch.optim.Optimizer, steps: int, head_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """A schedule in two parts: first for the head alone, up to `head_learning_rate`, then for all parameters."""
    head, whole = (
        get_scheduler(
            args.lr_scheduler_type, optimizer, args.get_warmup_steps(part), part, args.lr_scheduler_kwargs
        ).lr_lambdas[0]
        for part in (max(1, head_steps), steps - head_steps)
    )
    factor = (args.head_learning_rate or 0) / args.learning_rate
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: factor * head(step) if step < head_steps else whole(step - head_steps)
    )
