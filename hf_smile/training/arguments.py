"""The settings of a run: defaults, over them a recipe (YAML), over it the command line."""

from __future__ import annotations

import difflib
import inspect
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from hf_smile.data.arguments import DataArguments
from hf_smile.data.augmentation import AugmentationArguments
from hf_smile.errors import SmileError
from hf_smile.modeling import DEFAULT_BACKBONE
from hf_smile.modeling.losses import IMBALANCE, LOSSES
from hf_smile.training.checks import check_together, check_values
from hf_smile.utils.cores import own_cores
from hf_smile.utils.hub_id import is_hub_id


@dataclass
class ModelArguments:
    """The backbone and its head."""

    backbone: str = field(
        default=DEFAULT_BACKBONE, metadata={"help": "timm model on the Hub, local folder in Hub layout, or timm name"}
    )
    pretrained: bool = field(default=True, metadata={"help": "start from the backbone's weights, not random ones"})
    image_size: int | None = field(
        default=None, metadata={"help": "side of the input in pixels; the backbone's own when left out"}
    )
    crop_pct: float = field(
        default=1.0, metadata={"help": "look at this share of an image's side, its centre; not while training"}
    )
    head_hidden_size: int | None = field(
        default=None, metadata={"help": "hidden units of a two-layer head; linear when left out"}
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "train the head alone"})
    freeze_stages: int | None = field(
        default=None, metadata={"help": "freeze the stem and this many stages of the backbone; nothing when left out"}
    )
    drop_path: float = field(default=0.0, metadata={"help": "leave out residual branches with up to this probability"})


@dataclass
class SmileTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with our defaults and what the Trainer lacks. Any of its fields may be set.

    >>> SmileTrainingArguments(output_dir="outputs/model", use_cpu=True, select_best="nll").metric_for_best_model
    'nll'
    """

    output_dir: str = field(default="outputs/model", metadata={"help": "where the run leaves all it makes"})
    overwrite: bool = field(default=False, metadata={"help": "start afresh in an output folder that holds a run"})
    ema_decay: float = field(
        default=0.995, metadata={"help": "average the weights exponentially with this decay, which is saved; 0 is off"}
    )
    select_best: str = field(
        default="accuracy",
        metadata={
            "help": "validation metric that chooses the checkpoint; last: no choosing, the last epoch is kept",
            "choices": ["accuracy", "macro_f1", "balanced_accuracy", "nll", "last"],
        },
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "stop after this many epochs without a better validation metric"}
    )

    temperature: float | None = field(
        default=None,
        metadata={"help": "divide the logits of the saved model by this; fitted on validation, if any, when left out"},
    )
    prior_adjustment: float = field(
        default=0.0,
        metadata={
            "help": "let the saved model name rare classes more readily: minus this times the log of their share"
        },
    )

    imbalance: str = field(
        default="none", metadata={"help": "what is done about classes of unequal size", "choices": list(IMBALANCE)}
    )
    logit_adjustment_tau: float = field(
        default=1.0, metadata={"help": "strength of --imbalance logit_adjustment: times the log prior"}
    )
    loss: str = field(
        default="cross_entropy",
        metadata={"help": "gce is generalized cross-entropy, against noisy labels", "choices": list(LOSSES)},
    )
    mixup: float = field(
        default=0.0, metadata={"help": "blend images of a batch, by shares of Beta(this, this); 0 is off"}
    )
    cutmix: float = field(
        default=0.0,
        metadata={"help": "paste rectangles between images of a batch, by shares of Beta(this, this); 0 is off"},
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "each layer learns this times as fast as the one above it; 1 is off"}
    )
    warmup_frozen_epochs: int = field(default=0, metadata={"help": "first epochs that train the head alone"})
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "highest learning rate of these first epochs; learning_rate when left out"}
    )

    num_train_epochs: float = field(default=15, metadata={"help": "number of passes over the training images"})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "images per step and device"})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "images per evaluation step and device"})
    learning_rate: float = field(default=5e-4, metadata={"help": "the highest learning rate"})
    lr_scheduler_type: str = field(
        default="cosine",
        metadata={
            "help": "shape of the learning rate over the run; with --warmup_steps 0.25, cosine is the one-cycle shape"
        },
    )
    warmup_steps: float = field(default=0.1, metadata={"help": "steps, or share of the run below 1, of rising rate"})
    weight_decay: float = field(default=0.01, metadata={"help": "of AdamW"})
    label_smoothing_factor: float = field(default=0.05, metadata={"help": "of the training loss, against noisy labels"})
    shuffle_buffer_size: int = field(
        default=1000, metadata={"help": "images that are held and shuffled, where they are streamed from shards"}
    )
    dataloader_num_workers: int | None = field(
        default=None, metadata={"help": "loading processes; when left out, up to 8 beside a GPU and none on a CPU"}
    )
    dataloader_persistent_workers: bool = field(default=True, metadata={"help": "keep the loading processes"})
    dataloader_pin_memory: bool = field(
        default=True, metadata={"help": "load into memory that a GPU copies from without waiting"}
    )
    bf16: bool | None = field(
        default=None, metadata={"help": "compute in bfloat16 where that is exact enough; by default where a GPU can"}
    )
    use_cpu: bool = field(default=False, metadata={"help": "compute on the CPU, also where there is a GPU"})
    push_to_hub: bool = field(default=False, metadata={"help": "publish the finished run as hub_model_id"})
    hub_model_id: str | None = field(default=None, metadata={"help": "where to publish: owner/name"})
    hub_private_repo: bool = field(default=False, metadata={"help": "publish where nobody else sees it"})

    run_name: str | None = field(default=None, metadata={"help": "for --report_to; the output folder's name"})

    metric_for_best_model: str | None = None  # these three follow from select_best
    greater_is_better: bool | None = None
    load_best_model_at_end: bool = True
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    logging_strategy: str = "epoch"
    save_total_limit: int | None = 2
    remove_unused_columns: bool = False
    report_to: str = "none"

    def __post_init__(self) -> None:
        on_gpu = torch.cuda.is_available() and not self.use_cpu
        if self.dataloader_num_workers is None:  # on a CPU the training itself needs every core
            self.dataloader_num_workers = min(8, own_cores()) if on_gpu else 0
        launched_with = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if self.bf16 is None:
            can = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
            self.bf16 = can and not self.fp16 and launched_with == "no"
        if not on_gpu and not self.use_cpu and "bf16" in (self.bf16 and "bf16", launched_with):
            raise SmileError(
                "bf16 is on, and there is no GPU here; turn it off (--bf16 false, of the launcher --mixed_precision "
                "no), or add --use_cpu where the CPU computes in bfloat16"
            )
        if not on_gpu and "fp16" in (self.fp16 and "fp16", launched_with):
            raise SmileError(
                "fp16 is on, and there is no GPU to compute in it; turn it off (--fp16 false, of the launcher "
                "--mixed_precision no)"
            )
        check_values(self)
        if self.max_steps <= 0 and not self.num_train_epochs > 0:
            raise SmileError(f"num_train_epochs is {self.num_train_epochs}; it must be above 0")
        if 0 < self.num_train_epochs <= self.warmup_frozen_epochs:
            raise SmileError(
                f"warmup_frozen_epochs is {self.warmup_frozen_epochs}, and there are {self.num_train_epochs:g} epochs: "
                "the backbone would never train; if that is meant, set --freeze_backbone"
            )
        if self.metric_for_best_model not in (None, self.select_best):
            raise SmileError(
                f"metric_for_best_model is {self.metric_for_best_model!r}, but select_best is {self.select_best!r}; "
                "leave it out, and choose with --select_best"
            )
        if self.select_best == "last":
            if self.early_stopping_patience is not None:
                raise SmileError("early_stopping_patience needs a metric to watch; select_best is 'last'")
            self.metric_for_best_model = None
            self.load_best_model_at_end = False
        else:
            self.metric_for_best_model = self.select_best
            self.greater_is_better = self.select_best != "nll"
        if self.loss != "cross_entropy" and self.imbalance == "focal":
            raise SmileError(f"the focal loss takes the place of {self.loss}; choose --loss or --imbalance focal")
        if self.push_to_hub and not self.hub_model_id:
            raise SmileError("push_to_hub needs hub_model_id: owner/name")
        if self.run_name is None:
            self.run_name = Path(str(self.output_dir)).resolve().name
        self.publish_to = self.hub_model_id if self.push_to_hub else None
        self.push_to_hub = False  # the Trainer would push every checkpoint, with its optimizer; we push the result
        self.dataloader_persistent_workers = self.dataloader_persistent_workers and self.dataloader_num_workers > 0
        self.dataloader_pin_memory = self.dataloader_pin_memory and on_gpu
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not getattr(torch, "accelerator", torch.cuda).is_available():
            self.use_cpu = True  # or the processes that torchrun starts would know nothing of each other
        try:
            super().__post_init__()
        except (ValueError, ImportError) as error:
            raise SmileError(str(error)) from None
        self.accelerator_config.non_blocking = self.dataloader_pin_memory
        self.bf16 = self.mixed_precision == "bf16"  # the launcher may have asked for it


Arguments = tuple[DataArguments, AugmentationArguments, ModelArguments, SmileTrainingArguments]
_ARGUMENT_TYPES = (DataArguments, AugmentationArguments, ModelArguments, SmileTrainingArguments)


class _Parser(HfArgumentParser):
    """Errors in one line: the usage of a hundred options would bury them."""

    def _add_dataclass_arguments(self, dtype: Any) -> None:
        super()._add_dataclass_arguments(dtype)
        for action in self._actions:  # of the dataclass, each has the help of the setting that it turns off
            name = next((word[5:] for word in action.option_strings if word.startswith("--no_")), None)
            if name and f"--{name}" in self._option_string_actions:
                action.help = f"turn --{name} off"

    def error(self, message: str) -> NoReturn:
        raise SmileError(f"{message}\nAll settings: scripts/train.py --help")


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read `[RECIPE.yaml] [--any_field value ...]`.

    Raises:
        SmileError: no such recipe, or a setting that does not exist or does not fit; named, with the nearest name.

    >>> data, augmentation, model, training = parse_arguments(["--rotation", "30", "--use_cpu"])
    >>> augmentation.rotation
    30.0
    """
    parser = _Parser(
        _ARGUMENT_TYPES,
        prog="scripts/train.py",
        usage="%(prog)s [RECIPE.yaml] [--any_field value ...]",
        description="Fine-tune on your data. The command line goes over the recipe, the recipe over the defaults.",
        allow_abbrev=False,
    )
    words = list(argv)
    recipe = words.pop(0) if words and not words[0].startswith("-") else None
    if recipe is not None:
        words = _read_recipe(Path(recipe)) + words
    *parsed, unknown = parser.parse_args_into_dataclasses(
        words, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        raise SmileError(_unknown_setting(unknown[0].removeprefix("--"), "the command line"))
    check_together(parsed)
    return tuple(parsed)


def to_recipe(arguments: Sequence[Any]) -> dict[str, Any]:
    """The settings as a recipe: all of ours, and those of `TrainingArguments` that are not at their default.

    >>> to_recipe(parse_arguments(["--use_cpu"]))["use_cpu"]
    True
    """
    recipe: dict[str, Any] = {}
    for group in arguments:
        ours = {"seed", *inspect.get_annotations(type(group))}
        for setting in fields(group):
            value, default = (
                v.value if isinstance(v, Enum) else v for v in (getattr(group, setting.name), setting.default)
            )
            changed = value != default and not (value is False and default is None)
            kinds = (str, int, float, bool, dict, *[list] * (setting.name in ours))
            if isinstance(value, kinds) and (setting.name in ours or changed):
                recipe[setting.name] = value
    backbone = recipe["backbone"]
    if is_hub_id(backbone) and Path(backbone).is_dir():  # or who reads the recipe elsewhere takes it for one
        recipe["backbone"] = f"./{backbone}"
    return {name: value for name, value in recipe.items() if name not in _NOT_IN_RECIPE}


_NOT_IN_RECIPE = {
    # Secrets, what holds for one start only, and what is the same in every run or follows from the rest.
    "hub_token",
    "hub_model_id",
    "hub_private_repo",
    "push_to_hub",
    "overwrite",
    "local_rank",
    "disable_tqdm",
    "eval_strategy",
    "save_strategy",
    "logging_strategy",
    "load_best_model_at_end",
    "remove_unused_columns",
    "report_to",
    "run_name",
    "project",
    "do_eval",
    "metric_for_best_model",
    "greater_is_better",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
}


def _read_recipe(path: Path) -> list[str]:
    """The recipe as words of a command line, so that both are checked and converted in one place."""
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SmileError(f"{path}: no such recipe; those that come with the project are in recipes/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SmileError(f"{path}: not a readable YAML file: {error}") from None
    if not isinstance(recipe, dict):
        raise SmileError(f"{path}: a recipe is a list of 'setting: value' lines")
    known = {setting.name for group in _ARGUMENT_TYPES for setting in fields(group)}
    words = []
    for name, value in recipe.items():
        if name == "processes":  # in the recipe that a run leaves; how many there are is up to the launcher
            continue
        if name not in known:
            raise SmileError(_unknown_setting(str(name), str(path)))
        if isinstance(value, dict):
            if odd := [key for key in value if not isinstance(key, str)]:
                raise SmileError(f"{path}: {name} holds {odd[0]!r}, which YAML takes for no text; quote it")
            words += [f"--{name}", json.dumps(value)]
        elif value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _unknown_setting(name: str, where: str) -> str:
    known = [setting.name for group in _ARGUMENT_TYPES for setting in fields(group)]
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"unknown setting {name!r} in {where}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
