"""The settings of a run as `transformers.TrainingArguments`, from defaults, recipe and command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from hf_smile.data.arguments import AugmentationArguments, DataArguments
from hf_smile.data.corrections import digest_of
from hf_smile.errors import SmileError
from hf_smile.training.checks import FIXED, check_together, check_values
from hf_smile.training.parser import SettingsParser
from hf_smile.training.settings import OURS, SETTINGS, ModelArguments, TrainingSettings
from hf_smile.utils.cores import own_cores
from hf_smile.utils.hub_id import is_hub_id
from hf_smile.utils.model_files import file_sha256, model_file


@dataclass
class SmileTrainingArguments(TrainingSettings, TrainingArguments):
    """`transformers.TrainingArguments` with other defaults and more settings. All its fields can be set.

    >>> SmileTrainingArguments(output_dir="outputs/model", use_cpu=True, select_best="nll").metric_for_best_model
    'nll'
    """

    def __post_init__(self) -> None:
        for option in fields(TrainingSettings):
            choices, value = option.metadata.get("choices"), getattr(self, option.name)
            if choices and value not in choices:
                raise SmileError(f"{option.name} is {value!r}; it must be {', '.join(choices)}")
        on_gpu = torch.cuda.is_available() and not self.use_cpu
        if self.dataloader_num_workers is None:  # on a CPU, training needs every core
            self.dataloader_num_workers = min(8, own_cores()) if on_gpu else 0
        launched_with = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if self.bf16 is None:
            is_fast = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
            self.bf16 = is_fast and not self.fp16 and launched_with == "no"
        for name, hint in (("bf16", ", or add --use_cpu if the CPU computes in bfloat16"), ("fp16", "")):
            can = on_gpu or (name == "bf16" and self.use_cpu)
            if not can and (getattr(self, name) or launched_with == name):
                raise SmileError(
                    f"{name} is on, but there is no GPU; turn it off (--{name} false, or --mixed_precision no of the "
                    f"launcher){hint}"
                )
        check_values(self)
        if self.max_steps <= 0 and not self.num_train_epochs > 0:
            raise SmileError(f"num_train_epochs is {self.num_train_epochs}; it must be above 0")
        if self.max_hours is None and 0 < self.num_train_epochs <= self.warmup_frozen_epochs:
            raise SmileError(
                f"warmup_frozen_epochs is {self.warmup_frozen_epochs}, and num_train_epochs is "
                f"{self.num_train_epochs:g}: the backbone would never train; to train only the head, set "
                "--freeze_backbone"
            )
        if self.metric_for_best_model not in (None, self.select_best):
            raise SmileError(
                f"metric_for_best_model is {self.metric_for_best_model!r}, but select_best is {self.select_best!r}; "
                "use only --select_best"
            )
        if self.select_best == "last":
            if self.early_stopping_patience is not None:
                raise SmileError("early_stopping_patience needs a metric to watch; select_best is 'last'")
            self.metric_for_best_model, self.load_best_model_at_end = None, False
        else:
            self.metric_for_best_model, self.greater_is_better = self.select_best, self.select_best != "nll"
        if self.loss != "cross_entropy" and self.imbalance == "focal":
            raise SmileError(f"the focal loss would replace {self.loss}; choose --loss or --imbalance focal")
        if self.push_to_hub and not self.hub_model_id:
            raise SmileError("push_to_hub needs hub_model_id: owner/name")
        if self.run_name is None:
            self.run_name = Path(str(self.output_dir)).resolve().name
        self.publish_to = self.hub_model_id if self.push_to_hub else None
        self.push_to_hub = False  # the Trainer would push every checkpoint with its optimizer
        self.dataloader_persistent_workers = self.dataloader_persistent_workers and self.dataloader_num_workers > 0
        self.dataloader_pin_memory = self.dataloader_pin_memory and on_gpu
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not getattr(torch, "accelerator", torch.cuda).is_available():
            self.use_cpu = True  # otherwise the processes of torchrun would not form a group
        try:
            super().__post_init__()
        except (ValueError, ImportError) as error:
            raise SmileError(str(error)) from None
        self.accelerator_config.non_blocking = self.dataloader_pin_memory
        self.bf16 = self.mixed_precision == "bf16"  # the launcher may have asked for it


Arguments = tuple[DataArguments, AugmentationArguments, ModelArguments, SmileTrainingArguments]


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Parse `[RECIPE.yaml] [--any_setting value ...]`.

    Raises:
        SmileError: there is no such recipe, or a setting is unknown or invalid. For an unknown name, the message
            suggests the nearest one.

    >>> data, augmentation, model, training = parse_arguments(["--rotation", "30", "--use_cpu"])
    >>> augmentation.rotation
    30.0
    """
    types = [SmileTrainingArguments if group is TrainingSettings else group for group in SETTINGS.values()]
    parsed, unknown = SettingsParser(types).read(argv)
    if unknown:
        raise SmileError(f"{unknown[0]!r} in the command line does not belong to a setting")
    check_together(parsed)
    return tuple(parsed)


def to_recipe(arguments: Sequence[Any]) -> dict[str, Any]:
    """Convert settings to a recipe: all settings of hf_smile, and those of `TrainingArguments` that were changed.

    >>> to_recipe(parse_arguments(["--use_cpu"]))["use_cpu"]
    True
    """
    recipe: dict[str, Any] = {}
    for group in arguments:
        for setting in fields(group):
            value, default = (
                v.value if isinstance(v, Enum) else v for v in (getattr(group, setting.name), setting.default)
            )
            changed = value != default and not (value is False and default is None)
            kinds = (str, int, float, bool, dict, *[list] * (setting.name in OURS))
            if isinstance(value, kinds) and (setting.name in OURS or changed) and setting.name not in _NOT_IN_RECIPE:
                recipe[setting.name] = value
    recipe["backbone"] = _local(recipe["backbone"])
    if recipe.get("teachers"):
        recipe["teachers"] = [*map(_local, recipe["teachers"])]
    else:
        recipe.pop("teacher_weight", None)  # it has no effect
    return recipe


def recipe_of(arguments: Arguments) -> dict[str, Any]:
    """The settings as `recipe.yaml` records them: `to_recipe`, and what the run depends on besides.

    Raises:
        SmileError: the corrections or a teacher can't be read.
    """
    data, _, _, args = arguments
    recipe = to_recipe(arguments) | {"processes": args.world_size * max(1, args.n_gpu)}
    if data.corrections:
        recipe["corrections_sha256"] = digest_of(data.corrections)
    if args.teachers:
        weights = (model_file(name, "model.safetensors") for name in args.teachers)
        recipe["teachers_sha256"] = [*map(file_sha256, weights)]
    return recipe


def _local(model: str) -> str:
    """A folder that can't be mistaken for a model on the Hub."""
    return f"./{model}" if is_hub_id(model) and Path(model).is_dir() else model


# Settings that apply to one start only, that are the same in every run, or that follow from other settings.
_NOT_IN_RECIPE = {
    *("overwrite", "hub_model_id", "hub_private_repo", "push_to_hub", "report_to", "run_name", "project"),
    *("checkpoint_to", "job", "job_timeout", "dry_run", "seeds", "soup"),
    *("show_parameters", "local_rank", "disable_tqdm", "do_eval", *FIXED),
    *("metric_for_best_model", "dataloader_pin_memory", "dataloader_persistent_workers"),
}
