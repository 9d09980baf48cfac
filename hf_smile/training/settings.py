"""The settings of a run, as a command line and recipes name them. Imports neither torch nor transformers' Trainer."""

from __future__ import annotations

import ast
import difflib
import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from hf_smile.data.arguments import AugmentationArguments, DataArguments
from hf_smile.errors import SmileError
from hf_smile.utils.model_files import DEFAULT_BACKBONE
from hf_smile.utils.shipped import shipped

IMBALANCE = ["none", "class_weights", "oversample", "focal", "logit_adjustment"]
MOVES_THE_PRIOR = ("class_weights", "oversample", "logit_adjustment")
"""With these, the model's probabilities are those of a population with more even class shares than train."""
LOSSES = ["cross_entropy", "gce"]


@dataclass
class ModelArguments:
    """The backbone and its head."""

    backbone: str = field(
        default=DEFAULT_BACKBONE, metadata={"help": "timm model on the Hub, local folder in Hub layout, or timm name"}
    )
    pretrained: bool = field(default=True, metadata={"help": "start from the backbone's weights"})
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
class TrainingSettings:
    """What `SmileTrainingArguments` has beyond `transformers.TrainingArguments`, or by another default."""

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
        default="none", metadata={"help": "what is done about classes of unequal size", "choices": IMBALANCE}
    )
    logit_adjustment_tau: float = field(
        default=1.0, metadata={"help": "strength of --imbalance logit_adjustment: times the log prior"}
    )
    loss: str = field(
        default="cross_entropy",
        metadata={"help": "gce is generalized cross-entropy, against noisy labels", "choices": LOSSES},
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

    seed: int = field(default=42, metadata={"help": "of the splits and of all that is drawn"})
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

    show_parameters: bool = field(default=False, metadata={"help": "print a line for each parameter of the network"})
    report_to: str = field(default="none", metadata={"help": "tensorboard, trackio or wandb, if it is installed"})
    run_name: str | None = field(default=None, metadata={"help": "for --report_to; the output folder's name"})

    metric_for_best_model: str | None = None  # these three follow from select_best
    greater_is_better: bool | None = None
    load_best_model_at_end: bool = True
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    logging_strategy: str = "epoch"
    save_total_limit: int | None = 2
    remove_unused_columns: bool = False


SETTINGS = {
    "data": DataArguments,
    "augmentation": AugmentationArguments,
    "model": ModelArguments,
    "training": TrainingSettings,
}
"""Ours, in the groups in which help shows them."""

COMMON = {
    *("data_dir", "labels", "test_size", "validation_size", "group_by"),
    *("backbone", "pretrained", "image_size", "output_dir", "overwrite", "seed", "use_cpu"),
    *("num_train_epochs", "per_device_train_batch_size", "learning_rate", "imbalance", "select_best"),
}
"""What help explains; of the others it gives the names."""

OTHER_NAMES = {
    "batch_size": "per_device_train_batch_size",
    "cpu": "use_cpu",
    "data": "data_dir",
    "dataset": "data_dir",
    "dataset_name": "data_dir",
    "decay": "weight_decay",
    "epochs": "num_train_epochs",
    "eval_batch_size": "per_device_eval_batch_size",
    "freeze": "freeze_backbone",
    "img_size": "image_size",
    "label_smoothing": "label_smoothing_factor",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "model": "backbone",
    "model_name": "backbone",
    "model_name_or_path": "backbone",
    "n_epochs": "num_train_epochs",
    "no_cuda": "use_cpu",
    "num_epochs": "num_train_epochs",
    "num_workers": "dataloader_num_workers",
    "output": "output_dir",
    "overwrite_output_dir": "overwrite",
    "patience": "early_stopping_patience",
    "scheduler": "lr_scheduler_type",
    "train_batch_size": "per_device_train_batch_size",
    "val_size": "validation_size",
    "warmup_ratio": "warmup_steps",
    "wd": "weight_decay",
    "workers": "dataloader_num_workers",
}
"""What other programs call a setting."""


def setting_names() -> set[str]:
    """Of all settings, those of `transformers.TrainingArguments` among them.

    >>> {"rotation", "learning_rate", "gradient_checkpointing"} <= setting_names()
    True
    """
    return {setting.name for group in SETTINGS.values() for setting in fields(group)} | _names_of_transformers()


@cache
def _names_of_transformers() -> set[str]:
    """Read from its source, because its import takes seconds."""
    spec = find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    body = next(node.body for node in classes if node.name == "TrainingArguments")
    return {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


def read_words(argv: Sequence[str]) -> list[str]:
    """`[RECIPE.yaml] [--any_setting value ...]` as options alone, those of the recipe first.

    Raises:
        SmileError: there is no such recipe, or no such setting; all such names in one message, with the right ones.

    >>> read_words(["--rotation", "30"])
    ['--rotation', '30']
    """
    words = list(argv)
    recipe = words.pop(0) if words and not words[0].startswith("-") else None
    names = [word.lstrip("-").partition("=")[0].replace("-", "_") for word in words if re.match(r"--?[A-Za-z]", word)]
    _check_names(names, "the command line")
    return (_read_recipe(recipe) if recipe is not None else []) + words


def _check_names(names: Iterable[str], where: str) -> None:
    known = setting_names()
    messages = []
    for name in dict.fromkeys(names):
        if name not in known and name.removeprefix("no_") not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            right = OTHER_NAMES.get(name) or (nearest[0] if nearest else None)
            messages.append(f"unknown setting {name!r} in {where}" + (f"; did you mean {right!r}?" if right else ""))
    if messages:
        raise SmileError("\n".join(messages))


def _read_recipe(name: str) -> list[str]:
    """The recipe as words of a command line, so that both are checked and converted in one place."""
    path = _find_recipe(name)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SmileError(f"{path}: not a readable YAML file: {error}") from None
    if not isinstance(recipe, dict):
        raise SmileError(f"{path}: a recipe is a list of 'setting: value' lines")
    for of_the_run in ("processes", "corrections_sha256"):  # in the recipe that a run leaves; no settings
        recipe.pop(of_the_run, None)
    _check_names(map(str, recipe), str(path))
    words = []
    for name, value in recipe.items():
        if isinstance(value, dict):
            if odd := [key for key in value if not isinstance(key, str)]:
                raise SmileError(f"{path}: {name} holds {odd[0]!r}, which YAML takes for no text; quote it")
            words += [f"--{name}", json.dumps(value)]
        elif value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _find_recipe(name: str) -> Path:
    """The file of that name, or one of those that come with hf_smile, by its name alone: `quickstart`."""
    if Path(name).exists():
        return Path(name)
    known = {path.stem: path for path in sorted(shipped("recipes").glob("*.yaml"))}
    if name not in known:
        raise SmileError(f"{name}: no such recipe; those that come with hf_smile are {', '.join(known)}")
    return known[name]


def help_text(prog: str, further: Iterable[Field] = (), width: int | None = None) -> str:
    """What the settings are, a group at a time: the common ones, or all of them if there are `further` ones.

    Args:
        prog: the command.
        further: settings of `transformers.TrainingArguments`, which come last.
        width: columns; by default, those of the terminal.
    """
    width = width or shutil.get_terminal_size().columns
    groups = {name: [setting for setting in fields(group) if setting.metadata] for name, group in SETTINGS.items()}
    ours = {setting.name for group in SETTINGS.values() for setting in fields(group)}
    if further := [setting for setting in further if setting.name not in ours]:
        groups["transformers.TrainingArguments"] = further
    lines = [f"usage: {prog} [RECIPE.yaml] [--any_setting value ...]", ""]
    lines += ["Fine-tune on your data. The command line goes over the recipe,", "the recipe over the defaults."]
    for title, group in groups.items():
        lines += ["", f"{title}:"]
        explained = [setting for setting in group if further or setting.name in COMMON]
        lines += (line for setting in explained for line in _explain(setting, width))
        if others := [setting.name for setting in group if setting not in explained]:
            lines += textwrap.wrap(", ".join(others), width, initial_indent="  also ", subsequent_indent=" " * 7)
    if not further:
        lines += ["", f"{prog} --help_all explains all, and those of transformers.TrainingArguments."]
    return "\n".join(lines)


def _explain(setting: Field, width: int) -> list[str]:
    is_on = setting.default is True
    text = "turn off: " * is_on + " ".join(str(setting.metadata.get("help", "")).replace("%%", "%").split())
    if choices := setting.metadata.get("choices"):
        text += f": {', '.join(map(str, choices))}"
    if isinstance(setting.default, (str, int, float)) and not isinstance(setting.default, bool):
        text += f" [{setting.default}]"
    name = f"  --{'no_' * is_on}{setting.name}"
    return textwrap.wrap(text or " ", width, initial_indent=f"{name:<22}  ", subsequent_indent=" " * 24)
