"""What each setting may be, and which settings do nothing beside others: every such rule, in tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from hf_smile.errors import SmileError
from hf_smile.shards.folder import is_sharded
from hf_smile.training.settings import MOVES_THE_PRIOR

logger = logging.getLogger(__name__)

TRACKERS = ("tensorboard", "trackio", "wandb")
"""What `report_to` takes: those whose runs the tests have seen, or that share their interface."""

_PER_EPOCH = "the history and the checkpoints are kept per epoch"
_NEEDED = "the metrics of every epoch need it so"
_IN_FLOAT32 = "the numbers are those of the saved weights, which are float32"
FIXED: dict[str, tuple[Any, str]] = {
    "eval_strategy": ("epoch", _PER_EPOCH),
    "save_strategy": ("epoch", _PER_EPOCH),
    "logging_strategy": ("epoch", _PER_EPOCH),
    "remove_unused_columns": (False, "the images would be among them"),
    "prediction_loss_only": (False, _NEEDED),
    "batch_eval_metrics": (False, _NEEDED),
    "load_best_model_at_end": (True, "select_best says which model is saved"),
    "greater_is_better": (None, "it follows from select_best"),
    "resume_from_checkpoint": (None, "a run resumes when it is started again with the same output_dir"),
    "hub_token": (None, "the token comes from HF_TOKEN or `hf auth login`, which keep it out of the command line"),
    "neftune_noise_alpha": (None, "it is for language models"),
    "label_names": (None, "the labels of a batch are called 'labels'; the classes come from the data"),
    "eval_do_concat_batches": (True, _NEEDED),
    "train_sampling_strategy": ("random", "the images have no lengths to sort them by"),
    "bf16_full_eval": (False, _IN_FLOAT32),
    "fp16_full_eval": (False, _IN_FLOAT32),
    "ignore_data_skip": (False, "a resumed run would see some images twice and others never"),
    "save_only_model": (False, "a run could not be resumed from such a checkpoint"),
}
RANGES = {
    "seed": (0, 2**32 - 1),
    "learning_rate": (0, 1e3),
    "head_learning_rate": (0, 1e3),
    "weight_decay": (0, 1e3),
    "label_smoothing_factor": (0, 1),
    "logit_adjustment_tau": (0, 10),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "layer_decay": (0.01, 1),
    "warmup_frozen_epochs": (0, 1e6),
    "ema_decay": (0, 0.999999),
    "temperature": (0.05, 20),
    "prior_adjustment": (0, 2),
    "num_train_epochs": (-float("inf"), 1e6),  # NaN lies nowhere
    "per_device_train_batch_size": (1, 1e6),
    "per_device_eval_batch_size": (1, 1e6),
    "gradient_accumulation_steps": (1, 1e6),
    "shuffle_buffer_size": (1, 1e7),
    "dataloader_num_workers": (0, 1024),
    "early_stopping_patience": (1, 1e6),
}

Settings = SimpleNamespace
"""The settings of all groups, by name."""


def _always(settings: Settings) -> bool:
    return True


def _head_only(settings: Settings) -> bool:
    return settings.freeze_backbone


def _unreported(settings: Settings) -> bool:
    return settings.report_to in ([], ["none"])


def _unpublished(settings: Settings) -> bool:
    return settings.publish_to is None


_ONCE = "the finished run is published once"
_SPLIT_BEFORE = "the data were split when they were written to shards"
_READ_BEFORE = "the annotations were read when they were written to shards"
_NO_TOKENS = "it is for language models"
WITHOUT_EFFECT: dict[str, tuple[Callable[[Settings], bool], str]] = {
    "logging_steps": (_always, _PER_EPOCH),
    "logging_first_step": (_always, _PER_EPOCH),
    "eval_steps": (_always, _PER_EPOCH),
    "save_steps": (_always, _PER_EPOCH),
    "logging_nan_inf_filter": (_always, "a loss that is not finite ends the run"),
    "do_train": (_always, "a run trains, validates and tests"),
    "do_predict": (_always, "a run trains, validates and tests"),
    "hub_strategy": (_always, _ONCE),
    "hub_always_push": (_always, _ONCE),
    "hub_revision": (_always, _ONCE),
    "include_num_input_tokens_seen": (_always, _NO_TOKENS),
    "average_tokens_across_devices": (_always, _NO_TOKENS),
    "use_cache": (_always, _NO_TOKENS),
    "trackio_space_id": (_unreported, "report_to is none"),
    "length_column_name": (_always, _NO_TOKENS),
    "hub_model_id": (_unpublished, "push_to_hub is off"),
    "hub_private_repo": (_unpublished, "push_to_hub is off"),
    "project": (_unreported, "report_to is none"),
    "freeze_stages": (_head_only, "freeze_backbone freezes all of them"),
    "drop_path": (_head_only, "freeze_backbone leaves the backbone as it is"),
    "layer_decay": (_head_only, "freeze_backbone leaves one layer to train"),
    "warmup_frozen_epochs": (_head_only, "freeze_backbone freezes the backbone for good"),
    "head_learning_rate": (
        lambda s: not s.warmup_frozen_epochs or s.max_steps > 0,
        "warmup_frozen_epochs is 0, or max_steps ends the run",
    ),
    "logit_adjustment_tau": (lambda s: s.imbalance != "logit_adjustment", "imbalance is not logit_adjustment"),
    "warmup_steps": (
        lambda s: s.lr_scheduler_type in ("constant", "reduce_lr_on_plateau") and s.warmup_steps > 0,
        "this lr_scheduler_type has no warm-up; constant_with_warmup has",
    ),
    "early_stopping_patience": (
        lambda s: s.max_steps <= 0 and s.early_stopping_patience >= s.num_train_epochs,
        "the run ends after num_train_epochs, which is no more",
    ),
    "num_train_epochs": (lambda s: s.max_steps > 0, "max_steps ends the run"),
    "shuffle_buffer_size": (lambda s: not is_sharded(s.data_dir), "the images are not streamed from shards"),
    "dataloader_drop_last": (lambda s: is_sharded(s.data_dir), "images from shards are shared out whole"),
    "validation_size": (lambda s: is_sharded(s.data_dir), _SPLIT_BEFORE),
    "test_size": (lambda s: is_sharded(s.data_dir), _SPLIT_BEFORE),
    "group_by": (lambda s: is_sharded(s.data_dir), _SPLIT_BEFORE),
    "label_map": (lambda s: is_sharded(s.data_dir), _READ_BEFORE),
    "labels": (lambda s: is_sharded(s.data_dir), _READ_BEFORE),
    "image_column": (lambda s: is_sharded(s.data_dir), _READ_BEFORE),
    "label_column": (lambda s: is_sharded(s.data_dir), _READ_BEFORE),
    "id_column": (lambda s: is_sharded(s.data_dir), _READ_BEFORE),
    "on_bad_image": (lambda s: is_sharded(s.data_dir), "the images were checked when they were written to shards"),
}
"""Where a setting does nothing, and why. One that differs from its default there is warned about."""

CONTRADICTORY: dict[str, tuple[Callable[[Settings], bool], str]] = {
    "head_learning_rate": (
        lambda s: s.lr_scheduler_type == "reduce_lr_on_plateau",
        "reduce_lr_on_plateau changes the rate as it goes, and can't be planned twice; leave one of them out",
    ),
    "prior_adjustment": (
        lambda s: s.imbalance in MOVES_THE_PRIOR,
        "this imbalance evens the class shares already; choose one of the two",
    ),
    "corrections": (lambda s: is_sharded(s.data_dir), "shards hold labels; give it to hf-smile shard"),
    "freeze_backbone": (lambda s: not s.pretrained, "random weights would never be trained; leave out --no_pretrained"),
    "freeze_stages": (lambda s: not s.pretrained, "random weights would never be trained; leave out --no_pretrained"),
}
"""Where a setting makes no sense, and why. One that differs from its default there is refused."""


def check_values(args: Any) -> None:
    """Check each setting on its own.

    Raises:
        SmileError: one is not what `FIXED` and `RANGES` allow.
    """
    for name, (fixed, reason) in FIXED.items():
        if getattr(args, name) != fixed:
            raise SmileError(f"{name} is fixed to {fixed!r}: {reason}")
    for tracker in [args.report_to] if isinstance(args.report_to, str) else args.report_to:
        if tracker not in (*TRACKERS, "none"):
            raise SmileError(f"report_to is {tracker!r}; it must be {', '.join(TRACKERS)} or none")
        if tracker != "none" and find_spec(tracker) is None:
            raise SmileError(f"report_to is {tracker!r}, which is not installed: pip install {tracker}")
    for name, (low, high) in RANGES.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise SmileError(f"{name} is {value}; it must lie between {low:g} and {high:g}")


def check_together(groups: Sequence[Any]) -> None:
    """Check the settings of all groups against each other, and log a warning for each that has no effect.

    Args:
        groups: dataclasses of settings, as `parse_arguments` has them.

    Raises:
        SmileError: one contradicts another, as `CONTRADICTORY` has it.
    """
    settings = SimpleNamespace(**{name: value for group in groups for name, value in vars(group).items()})
    changed = {
        setting.name: getattr(group, setting.name)
        for group in groups
        for setting in fields(group)
        if setting.default is not MISSING and getattr(group, setting.name) != setting.default
    }
    for name, (is_contradictory, reason) in CONTRADICTORY.items():
        if name in changed and is_contradictory(settings):
            raise SmileError(f"{name} is {changed[name]}: {reason}")
    for name, (has_none, reason) in WITHOUT_EFFECT.items():
        if name in changed and has_none(settings):
            logger.warning("%s = %s has no effect: %s", name, changed[name], reason)
