"""The Trainer: data, loss, averaged weights, and metrics after every epoch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F
from transformers import EarlyStoppingCallback, EvalPrediction, PreTrainedModel, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, IntervalStrategy, TrainOutput
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_smile.data.arguments import AugmentationArguments
from hf_smile.data.augmentation import TrainingTransform
from hf_smile.data.in_memory import smile_dataset
from hf_smile.data.transforms import BatchTransform, evaluation_transform
from hf_smile.errors import SmileError, SmileModelError
from hf_smile.evaluation.metric import SmileMetric
from hf_smile.labels import LabelSet
from hf_smile.modeling.layers import keep_frozen_in_eval_mode, layer_decay_groups
from hf_smile.modeling.losses import Loss, soft_targets, training_loss
from hf_smile.shards.folder import labels_in, shard_files
from hf_smile.shards.loader import StreamedImages, load_position, save_position
from hf_smile.shards.stream import ShardBatches
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.budget import Budget
from hf_smile.training.callbacks import EpochReport, Following, FrozenWarmUp, head_first_schedule
from hf_smile.training.checkpoints import damage
from hf_smile.training.history import best_epoch, history_table
from hf_smile.training.loading import training_loader
from hf_smile.training.recorded import RecordedTrainer
from hf_smile.training.reporting import Reporting
from hf_smile.training.resumable import SaveEvery
from hf_smile.training.samplers import BalancedSampler, EpochBatches, RepeatedImages
from hf_smile.training.teachers import Teachers

RAW_WEIGHTS = "raw_weights.safetensors"
"""File of a checkpoint: the weights that training continues with. `model.safetensors` contains their average."""


class SmileTrainer(RecordedTrainer):
    """Trainer for models from `build_model`. Other arguments are those of `transformers.Trainer`.

    It adds to `ResumableTrainer` and `RecordedTrainer`: augmentation that does not depend on how the data are loaded;
    training accuracy next to the training loss (for mixed images, against the label with the larger share); remedies
    for class imbalance, label smoothing, mixup, CutMix and teachers, in training only; layer-wise learning rates and
    freezing; an exponential average of the weights (`ema_decay`), which is evaluated and saved.

    Args:
        model: from `build_model`.
        args: the settings; None for the defaults.
        train_dataset: a split from `load_smile_dataset`, any `datasets.Dataset` with images and labels (see
            `hf_smile.data.in_memory.smile_dataset`), or a folder written by `hf-smile shard`, whose train split is
            streamed.
        eval_dataset: a data set for validation after each epoch. `evaluate` and `predict` accept the same types.
        augmentation: augmentation of the training images; None for the defaults.
        compute_metrics: None for `SmileMetric`.

    Raises:
        SmileDataError: a data set lacks a column, or has other labels than the model.
        SmileError: the settings do not fit the data sets.
        TypeError: the model or the settings have the wrong type.

    >>> trainer = SmileTrainer(build_model(), args, splits["train"], splits["validation"])  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: SmileTrainingArguments | None = None,
        train_dataset: Dataset | str | Path | None = None,
        eval_dataset: Dataset | None = None,
        *,
        augmentation: AugmentationArguments | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        args = SmileTrainingArguments() if args is None else args
        if not isinstance(args, SmileTrainingArguments):
            raise TypeError(f"args must be SmileTrainingArguments, not {type(args).__name__}")
        if not hasattr(getattr(model, "config", None), "pretrained_cfg"):
            raise TypeError(f"the model must be one of build_model, not {type(model).__name__}")
        if eval_dataset is None:
            if train_dataset is not None and args.select_best != "last":
                raise SmileError(
                    f"without a validation split, {args.select_best} can't choose the checkpoint; "
                    "add --select_best last, or set --validation_size"
                )
            args.eval_strategy = IntervalStrategy.NO
        self.labels = LabelSet.of(model.config.id2label)
        pretrained_cfg = model.config.pretrained_cfg
        self.evaluation_transform = BatchTransform(evaluation_transform(pretrained_cfg))
        self.mixup: Mixup | None = None
        if args.mixup or args.cutmix:
            self.mixup = Mixup(args.mixup, args.cutmix, label_smoothing=0, num_classes=len(self.labels))
        self.class_counts = np.zeros(len(self.labels), np.int64)
        self.augmentation = augmentation or AugmentationArguments()
        self.augment = BatchTransform(TrainingTransform(pretrained_cfg, self.augmentation), seed=args.seed)
        # Convolutions are faster in this memory format on CPUs and GPUs; values do not change.
        model.to(memory_format=torch.channels_last)
        super().__init__(
            model=model,
            args=args,
            train_dataset=None if train_dataset is None else self._training_images(train_dataset, args),
            eval_dataset=None if eval_dataset is None else self.encode(eval_dataset, "validation"),
            processing_class=processing_class,
            compute_metrics=compute_metrics or self._smile_metrics,
            callbacks=[Following(self), *callbacks],
            optimizers=optimizers,
        )
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.add_callback(EpochReport(args))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
        if args.save_every is not None:
            self.add_callback(SaveEvery(args.save_every))
        if args.warmup_frozen_epochs:
            self.add_callback(FrozenWarmUp(model, args.warmup_frozen_epochs))
        if args.max_hours is not None:
            self.budget = Budget(self)
            self.add_callback(self.budget)
        self.teachers: Teachers | None = None
        if args.teachers:
            self.teachers = Teachers(args.teachers, model.config, args.device, args.teacher_weight)
        self.ema = self._new_average()
        self.reporting = Reporting(self)

    def encode(self, dataset: Dataset, split: str = "test") -> Dataset:
        """Convert rows to the model's input: `pixel_values (3, H, W)`, `labels`, `image_ids`."""
        return smile_dataset(dataset, self.labels, split).with_transform(self.evaluation_transform)

    def _training_images(self, dataset: Dataset | str | Path, args: SmileTrainingArguments) -> Any:
        """The augmented training images; also sets their batches and the loss for their classes."""
        batch_size, process, processes = args.train_batch_size, args.process_index, args.world_size
        images: Any
        if isinstance(dataset, (str, Path)):
            if args.imbalance == "oversample":
                raise SmileError(
                    "imbalance 'oversample' needs random access, but images from shards are streamed; "
                    "choose class_weights or logit_adjustment"
                )
            files = shard_files(dataset, "train")
            label_ids = labels_in(files, self.labels)
            self.batches: Any = ShardBatches(files, batch_size, process, processes, args.seed, args.shuffle_buffer_size)
            images = StreamedImages(self.batches, self.augment)
        else:
            rows = smile_dataset(dataset, self.labels, "train")
            label_ids = np.asarray(rows.with_format("numpy", columns=["label"])[:]["label"])
            sampler: Any
            if args.imbalance == "oversample":
                images, sampler = RepeatedImages(rows, self.augment), BalancedSampler(label_ids, args.seed)
            else:
                seed = args.seed if args.data_seed is None else args.data_seed
                images, sampler = rows.with_transform(self.augment), SeedableRandomSampler(rows, data_seed=seed)
            self.batches = EpochBatches(sampler, batch_size, process, processes, args.dataloader_drop_last)
        self.class_counts = np.bincount(label_ids, minlength=len(self.labels))
        self.training_loss: Loss = training_loss(
            args.imbalance,
            self.class_counts,
            loss=args.loss,
            tau=args.logit_adjustment_tau,
            smoothing=args.label_smoothing_factor,
        )
        return images

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, or resume from a checkpoint. A run that stopped early is not trained any further."""
        if self.model_init is None:
            self.ema = self.ema or self._new_average()
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        if self.args.load_best_model_at_end and self.state.best_global_step:
            best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
            if problem := damage(best):
                raise SmileModelError(
                    f"{best}, the best checkpoint, is damaged: {problem}; start again with --overwrite"
                )
            self.model.load_state_dict(load_file(best / SAFE_WEIGHTS_NAME))
            self.state.best_model_checkpoint = str(best)
        elif self.ema is not None:  # no checkpoint was chosen, so the last average is the model
            self.model.load_state_dict(self.ema.module.state_dict())
        self.ema = None
        self.forget_evaluations()
        return output

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        """A new model for `hyperparameter_search`, with a new average."""
        self.model = super().call_model_init(trial).to(memory_format=torch.channels_last)
        self.ema = self._new_average()
        return self.model

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As `Trainer.evaluate`. In training, `best_epoch` chooses the best epoch, and breaks ties."""
        metrics = super().evaluate(*args, **kwargs)
        if self.is_in_train and f"eval_{self.args.metric_for_best_model}" in metrics:
            table = history_table(self.state.log_history)
            best = table.iloc[best_epoch(table, self.args)]
            self.state.best_metric = float(best[f"validation_{self.args.metric_for_best_model}"])
            self.state.best_global_step = int(best["step"])
        return metrics

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """With `layer_decay`, parameter groups whose learning rate decreases with the distance from the head."""
        args = self.args
        if self.optimizer is None and args.layer_decay < 1:
            groups = layer_decay_groups(self.model, args.learning_rate, args.weight_decay, args.layer_decay)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(args, self.model)
            self.optimizer = optimizer_class(groups, **options)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """With `head_learning_rate`, use `head_first_schedule`; with `max_hours`, the schedule of `Budget`."""
        args, optimizer = self.args, optimizer or self.optimizer
        if self.lr_scheduler is None and optimizer is not None:
            if self.budget is not None:
                self.lr_scheduler = self.budget.scheduler(optimizer)
            elif args.head_learning_rate is not None and args.warmup_frozen_epochs:
                head_steps = round(num_training_steps * args.warmup_frozen_epochs / args.num_train_epochs)
                self.lr_scheduler = head_first_schedule(args, optimizer, num_training_steps, head_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> Any:
        values = super().set_initial_training_values(*args, **kwargs)
        return values if self.budget is None else self.budget.unlimited(values)

    def get_train_dataloader(self) -> Any:
        if self.train_dataset is None:
            raise ValueError("training needs a train_dataset")
        self.loaders["train"] = training_loader(self.train_dataset, self.batches, self.args, self.accelerator.device)
        return self.loaders["train"]

    def get_test_dataloader(self, test_dataset: Dataset) -> Any:
        return super().get_test_dataloader(self.encode(test_dataset))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The configured loss in training; in evaluation plain cross-entropy of `logits (N, K)` and `labels (N,)`."""
        labels = inputs["labels"]
        pixel_values = inputs["pixel_values"].contiguous(memory_format=torch.channels_last)
        if model.training:
            keep_frozen_in_eval_mode(model)
            targets = soft_targets(pixel_values, labels, len(self.labels), self.mixup)
            outputs = model(pixel_values=pixel_values)
            goal = targets
            if self.teachers is not None:
                with self.accelerator.autocast():
                    goal = self.teachers.targets(pixel_values, targets, self.state.global_step)
            loss = self.training_loss(outputs.logits, goal)
            hits = (outputs.logits.argmax(dim=1) == targets.argmax(dim=1)).sum()
            hits_and_answers = torch.stack([hits, torch.full_like(hits, len(labels))])
            self.hits_so_far = self.hits_so_far.to(hits.device) + hits_and_answers
        else:
            # In float32 even if training is not, so that the numbers are those of the saved weights.
            plain = self.accelerator.unwrap_model(model)
            outputs = getattr(plain, "_original_forward", plain)(pixel_values=pixel_values)
            loss = F.cross_entropy(outputs.logits.float(), labels)
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate the averaged weights, if any; in all processes those of the first process, which saves them."""
        if torch.distributed.is_initialized():  # each process has its own batch statistics
            for module in (self.model, *([self.ema.module] if self.ema else [])):
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, 0)
        with self.averaged_weights():
            return super().evaluation_loop(*args, **kwargs)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Context in which the model has the averaged weights; it has no effect without `ema_decay`."""
        if self.ema is None:
            yield
            return
        raw = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema.module.state_dict())
        try:
            yield
        finally:
            self.model.load_state_dict(raw)

    def _new_average(self) -> ModelEmaV3 | None:
        decay = self.args.ema_decay
        return ModelEmaV3(self.model, decay=decay, use_warmup=True) if decay else None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the averaged weights; in a checkpoint, also the weights that training continues with."""
        if not self.args.should_save:  # transformers calls this in every process
            return
        folder = Path(output_dir or str(self.args.output_dir))
        if self.ema is not None and folder.name.startswith("checkpoint-"):
            folder.mkdir(parents=True, exist_ok=True)
            raw = {name: value.contiguous() for name, value in self.model.state_dict().items()}
            save_file(raw, folder / RAW_WEIGHTS)
        with self.averaged_weights():
            super().save_model(str(folder), _internal_call)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle
        for weights in folder.glob("*.safetensors"):
            shutil.copymode(folder / "config.json", weights)  # safetensors makes files that only the owner can read

    def save_place(self, checkpoint: Path) -> None:
        if self.budget is not None and self.args.should_save:
            self.budget.save(checkpoint)
        if isinstance(self.train_dataset, StreamedImages):
            updates, per_update = self.state.global_step, self.args.gradient_accumulation_steps
            batches = updates % ceil(len(self.train_dataset.batches) / per_update) * per_update
            save_position(self.train_dataset, checkpoint, batches, self.args.process_index)

    def restore(self, checkpoint: Path) -> None:
        if self.budget is not None:
            self.budget.load(checkpoint)
        if isinstance(self.train_dataset, StreamedImages):
            load_position(self.train_dataset, checkpoint, self.args.process_index)
        if self.ema is not None:
            self.ema.module.load_state_dict(self.model.state_dict())
            self.model.load_state_dict(load_file(checkpoint / RAW_WEIGHTS))
        for callback in self.stopping_early():  # the patience of the settings, not that of the checkpoint
            callback.early_stopping_patience = self.args.early_stopping_patience or callback.early_stopping_patience

    def _smile_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        probabilities = softmax(prediction.predictions.astype(np.float64), axis=1)
        return SmileMetric(self.labels).compute(predictions=probabilities, references=prediction.label_ids)
