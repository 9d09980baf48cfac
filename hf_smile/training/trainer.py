"""The Trainer: our data, our loss, averaged weights, and metrics every epoch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import DatasetDict
from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput

from hf_smile.data.transforms import (
    AugmentationArguments,
    BatchTransform,
    collate,
    evaluation_transform,
    training_transform,
)
from hf_smile.errors import SmileModelError
from hf_smile.evaluation.metric import SmileMetric
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.callbacks import EarlyStopping, EpochReport

RAW_WEIGHTS = "raw_weights.safetensors"
"""In a checkpoint: the weights that go on training. Those in `model.safetensors` are their average."""


class SmileTrainer(Trainer):
    """Fine-tunes a model of `build_model` on the splits of `load_smile_dataset`.

    Beyond `transformers.Trainer`: augmentation that does not depend on how the data are loaded; accuracy of the
    training batches beside their loss; label smoothing in training only; an exponential average of the weights
    (`ema_decay`), which is what is evaluated and saved; early stopping that an interruption does not reset; no
    pickled arguments beside the model.

    >>> trainer = SmileTrainer(build_model(), training_args, load_smile_dataset("data/sample"))  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    """

    args: SmileTrainingArguments
    model: PreTrainedModel

    def __init__(
        self,
        model: PreTrainedModel,
        args: SmileTrainingArguments,
        splits: DatasetDict,
        augmentation: AugmentationArguments | None = None,
    ) -> None:
        pretrained_cfg = model.config.pretrained_cfg
        self.augment = BatchTransform(
            training_transform(pretrained_cfg, augmentation or AugmentationArguments()), seed=args.seed
        )
        evaluate = BatchTransform(evaluation_transform(pretrained_cfg))
        encoded = splits.cast_column("image", datasets.Image(decode=False))  # decoding is our images.py's job
        # Convolutions run faster this way on CPUs and on GPUs; the values stay the same.
        model.to(memory_format=torch.channels_last)
        super().__init__(
            model=model,
            args=args,
            data_collator=collate,
            train_dataset=encoded["train"].with_transform(self.augment),
            eval_dataset=encoded["validation"].with_transform(evaluate),
            compute_metrics=_compute_metrics,
            callbacks=[_SetEpoch(self.augment)],
        )
        self.test_dataset = encoded["test"].with_transform(evaluate)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.add_callback(EpochReport(args))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(args.early_stopping_patience))
        self.ema: ModelEmaV3 | None = None
        if args.ema_decay:
            self.ema = ModelEmaV3(self.model, decay=args.ema_decay, use_warmup=True)
            self.add_callback(_UpdateAverage(self))
        self._train_hits = torch.zeros(2, dtype=torch.int64)  # right answers, answers

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, or go on from a checkpoint. One that early stopping ended is not trained any further."""
        patience = self.args.early_stopping_patience
        if resume_from_checkpoint and patience is not None:
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            if EarlyStopping(patience).is_reached(self.args, state):
                self.state = state
                # Where it was saved may have been moved since.
                best = Path(self.args.output_dir) / f"checkpoint-{state.best_global_step}"
                if not (best / "model.safetensors").is_file():
                    raise SmileModelError(f"{best}: the best checkpoint is gone; start afresh with --overwrite")
                state.best_model_checkpoint = str(best)
                self._load_best_model()
                return TrainOutput(state.global_step, float("nan"), {})
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy of `logits (N, 3)` and `labels (N,)`; smoothed in training, plain in evaluation."""
        labels = inputs["labels"]
        if model.training:
            _keep_frozen_in_eval_mode(model)
        outputs = model(pixel_values=inputs["pixel_values"].contiguous(memory_format=torch.channels_last))
        smoothing = self.args.label_smoothing_factor if model.training else 0.0
        loss = F.cross_entropy(outputs.logits.float(), labels, label_smoothing=smoothing)
        if model.training:
            hits = (outputs.logits.argmax(dim=1) == labels).sum()
            self._train_hits = self._train_hits.to(hits.device)
            self._train_hits += torch.stack([hits, torch.full_like(hits, len(labels))])
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Put the training accuracy since the last log beside the training loss."""
        if "loss" in logs:
            hits, answers = self.accelerator.reduce(self._train_hits, "sum").tolist()
            logs["accuracy"] = hits / answers
            self._train_hits = torch.zeros_like(self._train_hits)
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the averaged weights where there are any."""
        with self.averaged_weights():
            return super().evaluation_loop(*args, **kwargs)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within, the model holds the averaged weights; without `ema_decay` nothing changes."""
        if self.ema is None:
            yield
            return
        raw = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema.module.state_dict())
        try:
            yield
        finally:
            self.model.load_state_dict(raw)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        if self.ema is not None and folder.name.startswith("checkpoint-"):
            folder.mkdir(parents=True, exist_ok=True)
            raw = {name: value.contiguous() for name, value in self.model.state_dict().items()}
            save_file(raw, folder / RAW_WEIGHTS)
        with self.averaged_weights():
            super()._save(output_dir)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle
        for weights in folder.glob("*.safetensors"):
            shutil.copymode(folder / "config.json", weights)  # safetensors lets nobody but the owner read

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.ema is not None:
            self.ema.module.load_state_dict(self.model.state_dict())
            self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / RAW_WEIGHTS))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self.ema = None  # the best checkpoint holds averaged weights already


class _SetEpoch(TrainerCallback):
    def __init__(self, transform: BatchTransform) -> None:
        self.transform = transform

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.transform.set_epoch(int(state.epoch or 0))


class _UpdateAverage(TrainerCallback):
    def __init__(self, trainer: SmileTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.trainer.ema is not None:
            self.trainer.ema.update(self.trainer.model, step=state.global_step)


def _keep_frozen_in_eval_mode(model: nn.Module) -> None:
    """Frozen layers are no longer trained, so their batch statistics and dropout must rest as well."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def softmax(logits: Any) -> np.ndarray:
    """Probabilities `(N, 3)` float64 of `logits (N, 3)`."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def _compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    probabilities = softmax(prediction.predictions)
    return SmileMetric().compute(predictions=probabilities, references=prediction.label_ids)
