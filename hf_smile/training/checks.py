"""Tables of the allowed values of settings, and of settings that have no effect or contradict others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from importlib.util import find_spec
from types import SimpleNamespace as Settings
from typing import Any

from hf_smile.errors import SmileError
from hf_smile.training.settings import MOVES_THE_PRIOR, parse_interval

logger = logging.getLogger(__name__)

TRACKERS = ("tensorboard", "trackio", "wandb")
"""Values of `report_to`: trackers that the tests cover, or that share their interface."""

_PER_EPOCH = "history and checkpoints are per epoch"
_NEEDED = "the metrics of every epoch need this value"
_IN_FLOAT32 = "evaluation uses the saved weights, which are float32"
FIXED: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), ("epoch", _PER_EPOCH)),
    **dict.fromkeys(("prediction_loss_only", "batch_eval_metrics"), (False, _NEEDED)),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), (False, _IN_FLOAT32)),
    "eval_do_concat_batches": (True, _NEEDED),
    "remove_unused_columns": (False, "otherwise the images would be removed"),
    "load_best_model_at_end": (True, "select_best chooses the model to save"),
    "greater_is_better": (None, "it follows from select_best"),
    "resume_from_checkpoint": (None, "a run resumes when it is started again with the same output_dir"),
    "hub_token": (None, "set HF_TOKEN or use `hf auth login`, which keep the token out of the command line"),
    "neftune_noise_alpha": (None, "it is for language models"),
    "label_names": (None, "the labels of a batch are called 'labels'; the classes come from the data"),
    "train_sampling_strategy": ("random", "images have no lengths to sort by"),
    "ignore_data_skip": (False, "a resumed run would see some images twice and others never"),
    "save_only_model": (False, "a run could not resume from such a checkpoint"),
}
RANGES = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), (1, 1e6)),
    **dict.fromkeys(("gradient_accumulation_steps", "early_stopping_patience"), (1, 1e6)),
    **dict.fromkeys(("learning_rate", "head_learning_rate", "weight_decay"), (0, 1e3)),
    **dict.fromkeys(("mixup", "cutmix"), (0, 100)),
    **dict.fromkeys(("seed", "split_seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("label_smoothing_factor", "teacher_weight"), (0, 1)),
    "logit_adjustment_tau": (0, 10),
    "layer_decay": (0.01, 1),
    "warmup_frozen_epochs": (0, 1e6),
    "ema_decay": (0, 0.999999),
    "temperature": (0.05, 20),
    "prior_adjustment": (0, 2),
    "num_train_epochs": (-float("inf"), 1e6),  # refuses NaN
    "max_hours": (0.001, 1e5),
    "shuffle_buffer_size": (1, 1e7),
    "dataloader_num_workers": (0, 1024),
}


def _always(settings: Settings) -> bool:
    return True


def _head_only(settings: Settings) -> bool:
    return settings.freeze_backbone


def _sharded(settings: Settings) -> bool:
    from hf_smile.shards.folder import is_sharded  # it imports datasets, which takes seconds

    return is_sharded(settings.data_dir)


def _streamed(settings: Settings) -> bool:
    return _sharded(settings) and settings.max_train_samples is None


_TO_SHARDS = "when they were written to shards"
_PUBLISHING = ("hub_strategy", "hub_always_push", "hub_revision")
_TEXT_ALONE = ("include_num_input_tokens_seen", "average_tokens_across_devices", "use_cache", "length_column_name")
_HOW_READ = ("label_map", "labels", "image_column", "label_column", "id_column")
WITHOUT_EFFECT: dict[str, tuple[Callable[[Settings], bool], str]] = {
    **dict.fromkeys(("logging_steps", "logging_first_step", "eval_steps"), (_always, _PER_EPOCH)),
    "save_steps": (_always, f"{_PER_EPOCH}; for more checkpoints, set save_every"),
    **dict.fromkeys(("do_train", "do_predict"), (_always, "a run trains, validates and tests")),
    **dict.fromkeys(_PUBLISHING, (_always, "the finished run is published once")),
    **dict.fromkeys(_TEXT_ALONE, (_always, "it is for language models")),
    **dict.fromkeys(("trackio_space_id", "project"), (lambda s: s.report_to in ([], ["none"]), "report_to is none")),
    **dict.fromkeys(("hub_model_id", "hub_private_repo"), (lambda s: s.publish_to is None, "push_to_hub is off")),
    **dict.fromkeys(("validation_size", "test_size", "group_by"), (_sharded, f"the data were split {_TO_SHARDS}")),
    **dict.fromkeys(_HOW_READ, (_sharded, f"the annotations were read {_TO_SHARDS}")),
    "on_bad_image": (_sharded, f"the images were checked {_TO_SHARDS}"),
    "dataloader_drop_last": (_streamed, "all images of the shards are used"),
    "shuffle_buffer_size": (lambda s: not _streamed(s), "the images are not streamed from shards"),
    "logging_nan_inf_filter": (_always, "a loss that is not finite ends the run"),
    "freeze_stages": (_head_only, "freeze_backbone freezes all stages"),
    "drop_path": (_head_only, "freeze_backbone does not train the backbone"),
    "layer_decay": (_head_only, "freeze_backbone trains only one layer"),
    "warmup_frozen_epochs": (_head_only, "freeze_backbone freezes the backbone in all epochs"),
    "head_learning_rate": (
        lambda s: not s.warmup_frozen_epochs or s.max_steps > 0,
        "warmup_frozen_epochs is 0, or max_steps ends the run",
    ),
    "logit_adjustment_tau": (lambda s: s.imbalance != "logit_adjustment", "imbalance is not logit_adjustment"),
    "teacher_weight": (lambda s: not s.teachers, "there are no teachers"),
    "warmup_steps": (
        lambda s: s.lr_scheduler_type in ("constant", "reduce_lr_on_plateau") and s.warmup_steps > 0,
        "this lr_scheduler_type has no warm-up; use constant_with_warmup",
    ),
    "early_stopping_patience": (
        lambda s: s.max_steps <= 0 and s.max_hours is None and s.early_stopping_patience >= s.num_train_epochs,
        "the run has no more than that many epochs",
    ),
    "num_train_epochs": (
        lambda s: s.max_steps > 0 or s.max_hours is not None,
        "max_steps or max_hours ends the run",
    ),
    "job_timeout": (lambda s: not s.job, "there is no job"),
}
"""When a setting has no effect, and why. A warning is logged if it then differs from its default."""

CONTRADICTORY: dict[str, tuple[Callable[[Settings], bool], str]] = {
    "head_learning_rate": (
        lambda s: s.lr_scheduler_type == "reduce_lr_on_plateau",
        "reduce_lr_on_plateau can't be planned in two parts; leave one of them out",
    ),
    "max_hours": (
        lambda s: s.max_steps > 0 or s.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"),
        "a time budget needs a planned learning rate schedule, and no max_steps",
    ),
    "prior_adjustment": (
        lambda s: s.imbalance in MOVES_THE_PRIOR,
        "this imbalance already balances the class shares; choose one of the two",
    ),
    "soup": (lambda s: s.seeds is None, "it is the mean of several runs; add --seeds, for example 1 2 3"),
    "dry_run": (lambda s: not s.job, "it shows the request for a job; add --job, for example a10g-small"),
    "corrections": (_sharded, "shards already contain labels; give it to hf-smile shard"),
    **dict.fromkeys(
        ("freeze_backbone", "freeze_stages"),
        (lambda s: not s.pretrained, "random weights would never be trained; leave out --no_pretrained"),
    ),
}
"""When a setting contradicts others, and why. It is refused if it then differs from its default."""


def check_values(args: Any) -> None:
    """Check each setting on its own.

    Raises:
        SmileError: a value is not allowed by `FIXED` or `RANGES`, or `report_to` or `save_every` is invalid.
    """
    for name, (fixed, reason) in FIXED.items():
        if getattr(args, name) != fixed:
            raise SmileError(f"{name} is fixed to {fixed!r}: {reason}")
    for tracker in [args.report_to] if isinstance(args.report_to, str) else args.report_to:
        if tracker not in (*TRACKERS, "none"):
            raise SmileError(f"report_to is {tracker!r}; it must be {', '.join(TRACKERS)} or none")
        if tracker != "none" and find_spec(tracker) is None:
            raise SmileError(f"report_to is {tracker!r}, which is not installed: pip install {tracker}")
    if args.save_every is not None:
        parse_interval(args.save_every)
    check_ranges(args)


def check_ranges(args: Any) -> None:
    """Check the numbers.

    Raises:
        SmileError: a number is outside of its range in `RANGES`.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(args, name, None)
        if value is not None and not low <= value <= high:
            raise SmileError(f"{name} is {value}; it must lie between {low:g} and {high:g}")


def check_together(groups: Sequence[Any]) -> None:
    """Check the settings of all groups against each other, and log a warning for each that has no effect.

    Args:
        groups: dataclasses of settings, as returned by `parse_arguments`.

    Raises:
        SmileError: a setting contradicts another (`CONTRADICTORY`).
    """
    settings = Settings(**{name: value for group in groups for name, value in vars(group).items()})
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
