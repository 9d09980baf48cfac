"""The settings of a run, as a command line and recipes name them. Imports neither torch nor transformers' Trainer."""

from __future__ import annotations

import ast
import difflib
import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from hf_smile.data.arguments import AugmentationArguments, DataArguments, setting
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

    backbone: str = setting(DEFAULT_BACKBONE, "timm model on the Hub, local folder in Hub layout, or timm name")
    pretrained: bool = setting(True, "start from the backbone's weights")
    image_size: int | None = setting(None, "side of the input in pixels; the backbone's own when left out")
    crop_pct: float = setting(1.0, "look at this share of an image's side, its centre; not while training")
    head_hidden_size: int | None = setting(None, "hidden units of a two-layer head; linear when left out")
    freeze_backbone: bool = setting(False, "train the head alone")
    freeze_stages: int | None = setting(None, "freeze the stem and this many stages; nothing when left out")
    drop_path: float = setting(0.0, "leave out residual branches with up to this probability")


@dataclass
class TrainingSettings:
    """What `SmileTrainingArguments` has beyond `transformers.TrainingArguments`, or by another default."""

    output_dir: str = setting("outputs/model", "where the run leaves all it makes")
    overwrite: bool = setting(False, "start again in an output folder that holds a run")
    ema_decay: float = setting(0.995, "average the weights exponentially with this decay, which is saved; 0 is off")
    select_best: str = setting(
        "accuracy",
        "validation metric that chooses the checkpoint; last: no choosing, the last epoch is kept",
        choices=["accuracy", "macro_f1", "balanced_accuracy", "nll", "last"],
    )
    early_stopping_patience: int | None = setting(None, "stop after so many epochs without a better validation metric")
    save_every: str | None = setting(None, "save within epochs too: every 10min, 1h, or so many steps")

    temperature: float | None = setting(None, "divide the saved logits by this; fitted on validation when left out")
    prior_adjustment: float = setting(0.0, "name rare classes more readily: minus this times the log of their share")

    imbalance: str = setting("none", "what is done about classes of unequal size", choices=IMBALANCE)
    logit_adjustment_tau: float = setting(1.0, "strength of --imbalance logit_adjustment: times the log prior")
    loss: str = setting("cross_entropy", "gce is generalized cross-entropy, against noisy labels", choices=LOSSES)
    mixup: float = setting(0.0, "blend images of a batch, by shares of Beta(this, this); 0 is off")
    cutmix: float = setting(0.0, "paste rectangles between images of a batch, by shares of Beta(this, this); 0 is off")
    layer_decay: float = setting(1.0, "each layer learns this times as fast as the one above it; 1 is off")
    warmup_frozen_epochs: int = setting(0, "first epochs that train the head alone")
    head_learning_rate: float | None = setting(None, "highest rate of these first epochs; learning_rate when left out")

    seed: int = setting(42, "of the splits and of all that is drawn")
    seeds: list[int] | None = setting(None, "train once with each of these, in OUTPUT_DIR/SEED; report mean and spread")
    soup: bool = setting(False, "with --seeds: also average the weights of the runs, kept if validation prefers that")
    split_seed: int | None = setting(None, "seed of the splits; that of the run when left out")
    num_train_epochs: float = setting(15, "number of passes over the training images")
    max_hours: float | None = setting(None, "train as many steps as the run, evaluated and saved, has time for")
    per_device_train_batch_size: int = setting(32, "images per step and device")
    per_device_eval_batch_size: int = setting(64, "images per evaluation step and device")
    learning_rate: float = setting(5e-4, "the highest learning rate")
    lr_scheduler_type: str = setting(
        "cosine", "shape of the learning rate over the run; with --warmup_steps 0.25, cosine is the one-cycle shape"
    )
    warmup_steps: float = setting(0.1, "steps, or share of the run below 1, of rising rate")
    weight_decay: float = setting(0.01, "of AdamW")
    label_smoothing_factor: float = setting(0.05, "of the training loss, against noisy labels")
    shuffle_buffer_size: int = setting(1000, "images that are held and shuffled, where they are streamed from shards")
    dataloader_num_workers: int | None = setting(None, "loading processes; by default up to 8 with a GPU, else none")
    dataloader_persistent_workers: bool = setting(True, "keep the loading processes")
    dataloader_pin_memory: bool = setting(True, "load into memory that a GPU copies from without waiting")
    bf16: bool | None = setting(None, "compute in bfloat16 where that is exact enough; by default where a GPU can")
    use_cpu: bool = setting(False, "compute on the CPU, also where there is a GPU")
    push_to_hub: bool = setting(False, "publish the finished run as hub_model_id")
    hub_model_id: str | None = setting(None, "where to publish: owner/name")
    hub_private_repo: bool = setting(False, "publish where nobody else sees it")

    checkpoint_to: str | None = setting(None, "keep the newest checkpoints in this private repository too: owner/name")
    job: str | None = setting(None, "run it on a machine of the Hub instead, for example a10g-small")
    job_timeout: str = setting("2h", "end the job after this time, done or not: 45m, 2h")
    dry_run: bool = setting(False, "print the request of the job, and start nothing")

    show_parameters: bool = setting(False, "print a line for each parameter of the network")
    report_to: str = setting("none", "tensorboard, trackio or wandb, if it is installed")
    run_name: str | None = setting(None, "for --report_to; the output folder's name")

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
OURS = {option.name for group in SETTINGS.values() for option in fields(group)}

COMMON = {
    *("data_dir", "labels", "test_size", "validation_size", "group_by"),
    *("backbone", "pretrained", "image_size", "output_dir", "overwrite", "seed", "use_cpu"),
    *("num_train_epochs", "max_hours", "per_device_train_batch_size", "learning_rate", "imbalance", "select_best"),
}
"""What help explains; of the others it gives the names."""

_OTHER_NAMES = {
    "backbone": "model model_name model_name_or_path",
    "data_dir": "dataset dataset_name",
    "dataloader_num_workers": "workers",
    "early_stopping_patience": "patience",
    "freeze_backbone": "freeze",
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "overwrite": "overwrite_output_dir",
    "per_device_train_batch_size": "batch_size train_batch_size",
    "use_cpu": "no_cuda",
    "weight_decay": "decay wd",
}
OTHER_NAMES = {other: ours for ours, others in _OTHER_NAMES.items() for other in others.split()}
"""What other programs call a setting, where the name that looks most alike is another's."""


def parse_interval(text: str) -> tuple[float, bool]:
    """What `save_every` means.

    Returns:
        Seconds and True, or steps and False.

    Raises:
        SmileError: it is neither.

    >>> parse_interval("10min"), parse_interval("200")
    ((600.0, True), (200.0, False))
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(s|min|h)?", text.strip())
    number, unit = (float(found[1]), found[2]) if found else (0.0, None)
    if not number or (unit is None and not number.is_integer()):
        raise SmileError(f"save_every is {text!r}; it must be a time (30s, 10min, 1h) or a number of steps (200)")
    return number * {"s": 1, "min": 60, "h": 3600, None: 1}[unit], unit is not None


def setting_names() -> set[str]:
    """Of all settings, those of `transformers.TrainingArguments` among them.

    >>> {"rotation", "learning_rate", "gradient_checkpointing"} <= setting_names()
    True
    """
    return OURS | _names_of_transformers()


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


def without(words: Iterable[str], *names: str) -> list[str]:
    """The words of `read_words` without some settings and their values.

    >>> without(["--seeds", "1", "2", "--mixup", "0.2"], "seeds")
    ['--mixup', '0.2']
    """
    kept, is_kept = [], True
    for word in words:
        if word.startswith("--"):
            is_kept = word[2:].partition("=")[0].replace("-", "_") not in names
        kept += [word] * is_kept
    return kept


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
    for name, value in recipe.items():
        if isinstance(value, dict) and (odd := [key for key in value if not isinstance(key, str)]):
            raise SmileError(f"{path}: {name} holds {odd[0]!r}, which YAML takes for no text; quote it")
    return to_words(recipe)


def to_words(settings: dict[str, Any]) -> list[str]:
    """Settings as words of a command line. What is None is left out.

    >>> to_words({"mixup": 0.2, "labels": ["smile", "NOT smile"]})
    ['--mixup', '0.2', '--labels', 'smile', 'NOT smile']
    """
    words = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            words += [f"--{name}", *map(str, values)]
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
    groups = {name: [option for option in fields(group) if option.metadata] for name, group in SETTINGS.items()}
    if further := [option for option in further if option.name not in OURS]:
        groups["transformers.TrainingArguments"] = further
    lines = [f"usage: {prog} [RECIPE.yaml] [--any_setting value ...]", ""]
    lines += ["Fine-tune on your data. The command line goes over the recipe,", "the recipe over the defaults."]
    for title, group in groups.items():
        lines += ["", f"{title}:"]
        explained = [option for option in group if further or option.name in COMMON]
        lines += (line for option in explained for line in _explain(option, width))
        if others := [option.name for option in group if option not in explained]:
            lines += textwrap.wrap(", ".join(others), width, initial_indent="  also ", subsequent_indent=" " * 7)
    if not further:
        lines += ["", f"{prog} --help_all explains all, and those of transformers.TrainingArguments."]
    return "\n".join(lines)


def _explain(option: Field, width: int) -> list[str]:
    is_on = option.default is True
    text = "turn off: " * is_on + " ".join(str(option.metadata.get("help", "")).replace("%%", "%").split())
    if choices := option.metadata.get("choices"):
        text += f": {', '.join(map(str, choices))}"
    if isinstance(option.default, (str, int, float)) and not isinstance(option.default, bool):
        text += f" [{option.default}]"
    name = f"  --{'no_' * is_on}{option.name}"
    return textwrap.wrap(text or " ", width, initial_indent=f"{name:<22}  ", subsequent_indent=" " * 24)
