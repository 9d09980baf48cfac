"""The Trainer: our data, our loss, averaged weights, and metrics every epoch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import DatasetDict
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    get_scheduler,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy, TrainOutput

from hf_smile.data.arguments import AugmentationArguments
from hf_smile.data.augmentation import TrainingTransform
from hf_smile.data.rows import labels_of
from hf_smile.data.transforms import BatchTransform, collate, evaluation_transform
from hf_smile.errors import SmileError, SmileModelError
from hf_smile.evaluation.metric import SmileMetric
from hf_smile.labels import LabelSet
from hf_smile.modeling.layers import keep_frozen_in_eval_mode, layer_decay_groups
from hf_smile.modeling.losses import training_loss
from hf_smile.shards.loader import StreamedImages, load_position, save_position, stream_loader
from hf_smile.shards.stream import ShardBatches
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.callbacks import EarlyStopping, EpochReport, FrozenWarmUp
from hf_smile.training.checkpoints import damage
from hf_smile.training.history import best_epoch, describe_choice, history_table
from hf_smile.training.reporting import Reporting
from hf_smile.training.resumable import ResumableTrainer, worker_start
from hf_smile.training.samplers import BalancedSampler, RepeatedImages, share_evenly

RAW_WEIGHTS = "raw_weights.safetensors"
"""In a checkpoint: the weights that go on training. Those in `model.safetensors` are their average."""


class SmileTrainer(ResumableTrainer):
    """Fine-tunes a model of `build_model` on the splits of `load_smile_dataset`.

    Beyond `ResumableTrainer`: augmentation that does not depend on how the data are loaded; accuracy of the
    training batches beside their loss (of mixed images: towards the label with the larger share); remedies against
    classes of unequal size, label smoothing, mixup and cutmix, in training only; layers that learn slower or later;
    an exponential average of the weights (`ema_decay`), which is what is evaluated and saved; early stopping that an
    interruption does not reset; no pickled arguments beside the model.

    With `shards`, the files of the train split, its images are streamed; of `splits["train"]` only `label` is used.

    >>> trainer = SmileTrainer(build_model(), training_args, load_smile_dataset("data/sample"))  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    """

    args: SmileTrainingArguments
    model: PreTrainedModel
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: PreTrainedModel,
        args: SmileTrainingArguments,
        splits: DatasetDict,
        augmentation: AugmentationArguments | None = None,
        shards: list[Path] | None = None,
    ) -> None:
        pretrained_cfg = model.config.pretrained_cfg
        self.augment = BatchTransform(
            TrainingTransform(pretrained_cfg, augmentation or AugmentationArguments()), seed=args.seed
        )
        evaluate = BatchTransform(evaluation_transform(pretrained_cfg))
        encoded = DatasetDict(
            {
                split: dataset.cast_column("image", datasets.Image(decode=False))  # decoding is our images.py's job
                for split, dataset in splits.items()
                if split != "train" or shards is None
            }
        )
        self.labels = LabelSet.of(model.config.id2label)
        for split, dataset in splits.items():
            if (labels := labels_of(dataset)) != self.labels:
                raise SmileError(f"{split} has the labels {labels}, and the model has {self.labels}; they must agree")
        label_ids = splits["train"].select_columns("label").with_format("numpy")[:]["label"]
        self.training_loss = training_loss(
            args.imbalance,
            np.bincount(label_ids, minlength=len(self.labels)),
            loss=args.loss,
            tau=args.logit_adjustment_tau,
            smoothing=args.label_smoothing_factor,
        )
        self.mixup: Mixup | None = None
        if args.mixup or args.cutmix:
            self.mixup = Mixup(args.mixup, args.cutmix, label_smoothing=0, num_classes=len(self.labels))
        self.balanced_sampler: BalancedSampler | None = None
        train: Any
        if shards is not None:
            if args.imbalance == "oversample":
                raise SmileError(
                    "imbalance 'oversample' draws from all images, and these are streamed; "
                    "choose class_weights or logit_adjustment"
                )
            batches = ShardBatches(
                shards, args.train_batch_size, args.process_index, args.world_size, args.seed, args.shuffle_buffer_size
            )
            train = StreamedImages(batches, self.augment)
        elif args.imbalance == "oversample":
            self.balanced_sampler = BalancedSampler(label_ids, args.seed)
            train = RepeatedImages(encoded["train"], self.augment)
        else:
            train = encoded["train"].with_transform(self.augment)
        if "validation" not in splits:
            if args.select_best != "last":
                raise SmileError(
                    f"there is no validation split to choose the checkpoint on by {args.select_best}; "
                    "add --select_best last, or set a --validation_size"
                )
            args.eval_strategy = IntervalStrategy.NO
        # Convolutions run faster this way on CPUs and on GPUs; the values stay the same.
        model.to(memory_format=torch.channels_last)
        super().__init__(
            model=model,
            args=args,
            data_collator=collate,
            train_dataset=train,
            eval_dataset=encoded["validation"].with_transform(evaluate) if "validation" in splits else None,
            compute_metrics=partial(_compute_metrics, SmileMetric(self.labels)),
            callbacks=[_SetEpoch(self.augment)],
        )
        self.test_dataset = encoded["test"].with_transform(evaluate)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.add_callback(EpochReport(args))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(args.early_stopping_patience))
        if args.warmup_frozen_epochs:
            self.add_callback(FrozenWarmUp(model, args.warmup_frozen_epochs))
        self.ema: ModelEmaV3 | None = None
        if args.ema_decay:
            self.ema = ModelEmaV3(self.model, decay=args.ema_decay, use_warmup=True)
            self.add_callback(_UpdateAverage(self))
        self.reporting = Reporting(self)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, or go on from a checkpoint. One that early stopping ended is not trained any further."""
        patience = self.args.early_stopping_patience
        if resume_from_checkpoint and patience is not None:
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            if EarlyStopping(patience).is_reached(self.args, state):
                self.state = state
                self._find_best_checkpoint()
                self._load_best_model()
                return TrainOutput(state.global_step, float("nan"), {})
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        state = self.state
        if self.args.load_best_model_at_end and state.best_global_step and state.best_model_checkpoint is None:
            self._find_best_checkpoint()  # the run was moved since it recorded where that is
            self._load_best_model()
        if self.ema is not None:  # no checkpoint was chosen: the last average is the model
            self.model.load_state_dict(self.ema.module.state_dict())
            self.ema = None
        return output

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """By `best_epoch`, which breaks ties; `Trainer` leaves them with the first epoch."""
        if self.args.metric_for_best_model is None:
            return False
        table = history_table(self.state.log_history)
        best = table.iloc[best_epoch(table, self.args)]
        self.state.best_metric = float(best[f"validation_{self.args.metric_for_best_model}"])
        self.state.best_global_step = int(best["step"])
        return self.state.best_global_step == self.state.global_step

    def describe_choice(self) -> dict[str, Any]:
        """Which epoch the weights are of, after `train`; see `hf_smile.training.history.describe_choice`."""
        n_images = len(self.eval_dataset) if self.eval_dataset is not None else 0
        return describe_choice(history_table(self.state.log_history), self.args, n_images)

    def _find_best_checkpoint(self) -> None:
        best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
        self.state.best_model_checkpoint = str(best)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """With `layer_decay`, groups of parameters that learn the slower the farther they are from the head."""
        args = self.args
        if self.optimizer is None and args.layer_decay < 1:
            groups = layer_decay_groups(self.model, args.learning_rate, args.weight_decay, args.layer_decay)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(args, self.model)
            self.optimizer = optimizer_class(groups, **options)
        return super().create_optimizer(model)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """With `head_learning_rate`, the rate rises and falls twice: for the head alone, then for all that trains."""
        args, optimizer = self.args, optimizer or self.optimizer
        assert optimizer is not None
        is_there = getattr(self, "lr_scheduler", None) is not None
        if is_there or args.head_learning_rate is None or not args.warmup_frozen_epochs:
            return super().create_scheduler(num_training_steps, optimizer)
        head_steps = round(num_training_steps * args.warmup_frozen_epochs / args.num_train_epochs)
        head, whole = (
            get_scheduler(
                args.lr_scheduler_type,
                optimizer,
                args.get_warmup_steps(steps),
                steps,
                scheduler_specific_kwargs=args.lr_scheduler_kwargs,
            ).lr_lambdas[0]
            for steps in (head_steps, num_training_steps - head_steps)
        )
        factor = args.head_learning_rate / args.learning_rate
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: factor * head(step) if step < head_steps else whole(step - head_steps)
        )
        self.lr_scheduler = scheduler
        return scheduler

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        if isinstance(self.train_dataset, StreamedImages):
            loader = stream_loader(self.train_dataset, self.args, self.accelerator.device, worker_start())
            self._loaders.append(loader)
            return loader
        loader = super().get_train_dataloader()
        share_evenly(loader)
        return loader

    def _save_rng_state(self, output_dir: str) -> None:
        """With it, in each process, the place in the stream."""
        super()._save_rng_state(output_dir)
        if isinstance(self.train_dataset, StreamedImages):
            updates, per_update = self.state.global_step, self.args.gradient_accumulation_steps
            batches = updates % ceil(len(self.train_dataset.batches) / per_update) * per_update
            save_position(self.train_dataset, output_dir, batches, self.args.process_index)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        return self.balanced_sampler or super()._get_train_sampler(train_dataset)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """In training the loss of the settings; in evaluation plain cross-entropy of `logits (N, K)`, `labels (N,)`."""
        labels = inputs["labels"]
        pixel_values = inputs["pixel_values"].contiguous(memory_format=torch.channels_last)
        if model.training:
            keep_frozen_in_eval_mode(model)
            targets = self._one_hot(labels) if self.mixup is None else self._mix(pixel_values, labels)
            outputs = model(pixel_values=pixel_values)
            loss = self.training_loss(outputs.logits, targets)
            hits = (outputs.logits.argmax(dim=1) == targets.argmax(dim=1)).sum()
            self._train_hits = self._train_hits.to(hits.device)
            self._train_hits += torch.stack([hits, torch.full_like(hits, len(labels))])
        else:
            # In float32 even where training is not: the numbers are to be those of the weights that are saved.
            plain = self.accelerator.unwrap_model(model)
            outputs = getattr(plain, "_original_forward", plain)(pixel_values=pixel_values)
            loss = F.cross_entropy(outputs.logits.float(), labels)
        return (loss, outputs) if return_outputs else loss

    def _one_hot(self, labels: torch.Tensor) -> torch.Tensor:
        return F.one_hot(labels, len(self.labels)).float()

    def _mix(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mix a batch in place, the last of an odd number left out; returns the share of each class, `(N, K)`.

        timm draws from NumPy's generator, which checkpoints hold. Sources: Zhang et al., "mixup", ICLR 2018
        (https://arxiv.org/abs/1710.09412); Yun et al., "CutMix", ICCV 2019 (https://arxiv.org/abs/1905.04899).
        """
        assert self.mixup is not None
        even = len(labels) // 2 * 2
        _, targets = self.mixup(pixel_values[:even], labels[:even])
        return torch.cat([targets, self._one_hot(labels[even:])])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Put the training accuracy since the last log beside the training loss."""
        if "loss" in logs:
            hits, answers = self.accelerator.reduce(self._train_hits, "sum").tolist()
            logs["accuracy"] = hits / answers
            self._train_hits = torch.zeros_like(self._train_hits)
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the averaged weights where there are any, in all processes those of the first, which saves them."""
        if torch.distributed.is_initialized():  # each has batch statistics of its own
            for module in (self.model, *([self.ema.module] if self.ema else [])):
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, 0)
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
        if not self.args.should_save:  # transformers calls this in every process
            return
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
        if isinstance(self.train_dataset, StreamedImages):
            load_position(self.train_dataset, resume_from_checkpoint, self.args.process_index)
        if self.ema is not None:
            self.ema.module.load_state_dict(self.model.state_dict())
            self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / RAW_WEIGHTS))

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        if problem := damage(best):
            raise SmileModelError(f"{best}, the best checkpoint, is damaged: {problem}; start afresh with --overwrite")
        super()._load_best_model()
        self.ema = None  # the best checkpoint holds averaged weights already


class _SetEpoch(TrainerCallback):
    def __init__(self, transform: BatchTransform) -> None:
        self.transform = transform

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        epoch = int(state.epoch or 0)
        self.transform.set_epoch(epoch)
        batches = train_dataloader.batch_sampler
        while hasattr(batches, "batch_sampler"):  # accelerate's; it does not reach below them when it skips batches
            batches = batches.batch_sampler
        if hasattr(batches.sampler, "set_epoch"):
            batches.sampler.set_epoch(epoch)


class _UpdateAverage(TrainerCallback):
    def __init__(self, trainer: SmileTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.trainer.ema is not None:
            self.trainer.ema.update(self.trainer.model, step=state.global_step)


def _compute_metrics(metric: SmileMetric, prediction: EvalPrediction) -> dict[str, float]:
    probabilities = softmax(prediction.predictions.astype(np.float64), axis=1)
    return metric.compute(predictions=probabilities, references=prediction.label_ids)
