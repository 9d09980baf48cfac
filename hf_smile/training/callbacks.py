"""What happens between epochs: a line to read, the history on disk, whether to go on, and what is frozen."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import IntervalStrategy

from hf_smile.modeling.layers import head_parameters
from hf_smile.training.history import best_epoch, history_table, write_history


class EpochReport(ProgressCallback):
    """A progress bar, one line an epoch in place of a dictionary, and history and curves kept up to date on disk."""

    prediction_bar: tqdm | None

    def __init__(self, args: TrainingArguments) -> None:
        super().__init__()
        self.show_bar = not args.disable_tqdm
        self.epoch_start = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.current_step = state.global_step
        if state.is_world_process_zero and self.show_bar:
            self.training_bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="Training", unit=" steps", dynamic_ncols=True
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.epoch_start = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """The evaluation after an epoch has no bar of its own."""
        if self.show_bar and state.is_world_process_zero and self.training_bar is None:
            if self.prediction_bar is None:
                self.prediction_bar = tqdm(
                    total=len(eval_dataloader), desc="Predicting", unit=" batches", leave=False, delay=2
                )
            self.prediction_bar.update()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Where there is an evaluation, the epoch's line follows when it is done."""
        if args.eval_strategy == IntervalStrategy.NO and "loss" in logs:
            self._report_epoch(args, state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_evaluate(args, state, control, **kwargs)
        self._report_epoch(args, state)

    def _report_epoch(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero or (self.training_bar is None and self.show_bar):
            return
        table = history_table(state.log_history)
        if table.empty:
            return
        last = table.iloc[-1]
        parts = [
            f"epoch {last['epoch']:g}/{args.num_train_epochs:g}",
            f"train loss {last['train_loss']:.3f}, accuracy {last['train_accuracy']:.3f}",
        ]
        if "validation_loss" in last:
            parts.append(
                f"validation loss {last['validation_loss']:.3f}, accuracy {last['validation_accuracy']:.3f},"
                f" macro F1 {last['validation_macro_f1']:.3f}"
            )
        line = " | ".join([*parts, f"{time.perf_counter() - self.epoch_start:.0f} s"])
        if self.training_bar is not None:
            self.training_bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)
        write_history(table, Path(str(args.output_dir)))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.training_bar is not None:
            super().on_train_end(args, state, control, **kwargs)


class EarlyStopping(TrainerCallback):
    """Stop after `patience` epochs without a better validation metric.

    It counts in the recorded history and keeps no counter of its own, so that an interruption does not reset it.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def is_reached(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether the history recorded so far already says stop."""
        table = history_table(state.log_history)
        if table.empty:
            return False
        return len(table) - 1 - best_epoch(table, args) >= self.patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.is_reached(args, state):
            control.should_training_stop = True


class FrozenWarmUp(TrainerCallback):
    """Train the head alone in the first `epochs` epochs, then all that is not frozen for good.

    The optimizer knows all of it from the start. It passes over what has no gradient, so that an interrupted run goes
    on in either part.
    """

    def __init__(self, model: PreTrainedModel, epochs: int) -> None:
        self.epochs = epochs
        head = set(head_parameters(model))
        self.backbone = [p for p in model.parameters() if p.requires_grad and p not in head]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for parameter in self.backbone:
            parameter.requires_grad_(int(state.epoch or 0) >= self.epochs)
