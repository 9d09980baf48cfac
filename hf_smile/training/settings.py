"""The settings of a run, as in command lines and recipes. Imports neither torch nor transformers' Trainer."""

from __future__ import annotations

import ast
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
from hf_smile.utils.words import did_you_mean

IMBALANCE = ["none", "class_weights", "oversample", "focal", "logit_adjustment"]
MOVES_THE_PRIOR = ("class_weights", "oversample", "logit_adjustment")
"""With these, the model's probabilities are for a population with more even class shares than train."""
LOSSES = ["cross_entropy", "gce"]


@dataclass
class ModelArguments:
    """The backbone and its head."""

    backbone: str = setting(DEFAULT_BACKBONE, "timm model on the Hub, local folder in Hub layout, or timm name")
    pretrained: bool = setting(True, "the backbone's pretrained weights")
    image_size: int | None = setting(None, "side of the input in pixels; by default the backbone's own")
    crop_pct: float = setting(1.0, "side of the centre crop in evaluation, as a share of the image's shorter side")
    head_hidden_size: int | None = setting(None, "hidden units of a two-layer head; by default the head is linear")
    freeze_backbone: bool = setting(False, "train only the head")
    freeze_stages: int | None = setting(None, "number of stages to freeze, together with the stem; by default nothing")
    drop_path: float = setting(0.0, "highest probability of skipping a residual branch (stochastic depth)")


@dataclass
class TrainingSettings:
    """Settings that `transformers.TrainingArguments` does not have, or has with another default."""

    output_dir: str = setting("outputs/model", "folder for everything the run writes")
    overwrite: bool = setting(False, "start again in an output folder that contains a run")
    ema_decay: float = setting(0.995, "decay of the exponential average of the weights that is saved; 0 is off")
    select_best: str = setting(
        "accuracy",
        "validation metric that chooses the checkpoint; 'last' keeps the last epoch",
        choices=["accuracy", "macro_f1", "balanced_accuracy", "nll", "last"],
    )
    early_stopping_patience: int | None = setting(None, "epochs without a better validation metric before stopping")
    save_every: str | None = setting(None, "interval of checkpoints within epochs: 10min, 1h, or a number of steps")

    temperature: float | None = setting(None, "divisor of the saved logits; by default fitted on validation")
    prior_adjustment: float = setting(0.0, "preference for rare classes: the logits get minus this times the log share")

    imbalance: str = setting("none", "remedy for class imbalance", choices=IMBALANCE)
    logit_adjustment_tau: float = setting(1.0, "strength of --imbalance logit_adjustment: factor of the log prior")
    loss: str = setting("cross_entropy", "training loss; gce is a bounded one, for noisy labels", choices=LOSSES)
    mixup: float = setting(0.0, "mixup alpha: images are blended with shares from Beta(alpha, alpha); 0 is off")
    cutmix: float = setting(0.0, "CutMix alpha: areas pasted between images come from Beta(alpha, alpha); 0 is off")
    teachers: list[str] | None = setting(None, "trained models whose predictions are part of the target, in turn")
    teacher_weight: float = setting(0.8, "with --teachers: their share in the target; the label has the rest")
    layer_decay: float = setting(1.0, "learning rate of each layer relative to the layer above it; 1 is off")
    warmup_frozen_epochs: int = setting(0, "number of first epochs that train only the head")
    head_learning_rate: float | None = setting(None, "highest rate of these first epochs; by default learning_rate")

    seed: int = setting(42, "seed of the splits and of everything random")
    seeds: list[int] | None = setting(None, "seeds of several runs, in OUTPUT_DIR/SEED, with their mean and spread")
    soup: bool = setting(False, "with --seeds: average the weights too, and keep that if it is better on validation")
    split_seed: int | None = setting(None, "seed of the splits; by default seed")
    num_train_epochs: float = setting(15, "number of passes over the training images")
    max_hours: float | None = setting(None, "hours for the run, with evaluation and saving; sets the number of steps")
    per_device_train_batch_size: int = setting(32, "images per step and device")
    per_device_eval_batch_size: int = setting(64, "images per evaluation step and device")
    learning_rate: float = setting(5e-4, "highest learning rate")
    lr_scheduler_type: str = setting(
        "cosine", "learning rate schedule; cosine with --warmup_steps 0.25 has the one-cycle shape"
    )
    warmup_steps: float = setting(0.1, "number of warm-up steps, or share of the run if below 1")
    weight_decay: float = setting(0.01, "weight decay of AdamW")
    label_smoothing_factor: float = setting(0.05, "label smoothing of the training loss, for noisy labels")
    shuffle_buffer_size: int = setting(1000, "images in the shuffle buffer, when streaming from shards")
    dataloader_num_workers: int | None = setting(None, "data loading processes; by default up to 8 with a GPU, else 0")
    dataloader_persistent_workers: bool = setting(True, "reuse of the data loading processes in all epochs")
    dataloader_pin_memory: bool = setting(True, "pinned memory, which copies faster to a GPU")
    bf16: bool | None = setting(None, "compute in bfloat16 where precise enough; by default if the GPU supports it")
    use_cpu: bool = setting(False, "train on the CPU even if there is a GPU")
    push_to_hub: bool = setting(False, "publish the finished run as hub_model_id")
    hub_model_id: str | None = setting(None, "Hub repository to publish to: owner/name")
    hub_private_repo: bool = setting(False, "make the published repository private")

    checkpoint_to: str | None = setting(None, "private Hub repository for copies of the newest checkpoints: owner/name")
    job: str | None = setting(None, "Hub machine to run on instead of this one, for example a10g-small")
    job_timeout: str = setting("2h", "time after which the job is stopped: 45m, 2h")
    dry_run: bool = setting(False, "print the request for the job without starting it")

    show_parameters: bool = setting(False, "print each parameter of the network")
    report_to: str = setting("none", "experiment tracker: tensorboard, trackio or wandb, if installed")
    run_name: str | None = setting(None, "name of the run for --report_to; by default that of the output folder")

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
"""The settings of hf_smile, in the groups that help shows."""
OURS = {option.name for group in SETTINGS.values() for option in fields(group)}

COMMON = {
    *("data_dir", "labels", "test_size", "validation_size", "group_by"),
    *("backbone", "pretrained", "image_size", "output_dir", "overwrite", "seed", "use_cpu"),
    *("num_train_epochs", "max_hours", "per_device_train_batch_size", "learning_rate", "imbalance", "select_best"),
}
"""Settings that `--help` explains; it only lists the names of the others."""

# In the recipe that a run writes.
_NOT_SETTINGS = ("processes", "corrections_sha256", "teachers_sha256", "soup_of")
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
"""Names of settings in other programs, where the most similar name of ours is another setting."""


def parse_interval(text: str) -> tuple[float, bool]:
    """Parse `save_every`.

    Returns:
        Seconds and True, or steps and False.

    Raises:
        SmileError: the text is neither a time nor a number of steps.

    >>> parse_interval("10min"), parse_interval("200")
    ((600.0, True), (200.0, False))
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(s|min|h)?", text.strip())
    number, unit = (float(found[1]), found[2]) if found else (0.0, None)
    if not number or (unit is None and not number.is_integer()):
        raise SmileError(f"save_every is {text!r}; it must be a time (30s, 10min, 1h) or a number of steps (200)")
    return number * {"s": 1, "min": 60, "h": 3600, None: 1}[unit], unit is not None


def setting_names() -> set[str]:
    """Names of all settings, including those of `transformers.TrainingArguments`.

    >>> {"rotation", "learning_rate", "gradient_checkpointing"} <= setting_names()
    True
    """
    return OURS | _names_of_transformers()


@cache
def _names_of_transformers() -> set[str]:
    """Read from the source code, because the import takes seconds."""
    spec = find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    body = next(node.body for node in classes if node.name == "TrainingArguments")
    return {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


def read_words(argv: Sequence[str]) -> list[str]:
    """Convert `[RECIPE.yaml] [--any_setting value ...]` to options only, those of the recipe first.

    Raises:
        SmileError: there is no such recipe, or a setting is unknown. One message lists all unknown names, with
            suggestions.

    >>> read_words(["--rotation", "30"])
    ['--rotation', '30']
    """
    words = list(argv)
    recipe = words.pop(0) if words and not words[0].startswith("-") else None
    names = [word.lstrip("-").partition("=")[0].replace("-", "_") for word in words if re.match(r"--?[A-Za-z]", word)]
    _check_names(names, "the command line")
    return (_read_recipe(recipe) if recipe is not None else []) + words


def without(words: Iterable[str], *names: str) -> list[str]:
    """Remove settings and their values from the words of `read_words`.

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
            name_here = OTHER_NAMES.get(name)
            hint = f"; did you mean {name_here!r}?" if name_here else did_you_mean(name, known)
            messages.append(f"unknown setting {name!r} in {where}{hint}")
    if messages:
        raise SmileError("\n".join(messages))


def _read_recipe(name: str) -> list[str]:
    """Read a recipe as command-line words, so that both are checked and converted in one place."""
    path = _find_recipe(name)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SmileError(f"{path}: not a valid YAML file: {error}") from None
    if not isinstance(recipe, dict):
        raise SmileError(f"{path}: not a recipe; write one 'setting: value' per line")
    for of_the_run in _NOT_SETTINGS:
        recipe.pop(of_the_run, None)
    _check_names(map(str, recipe), str(path))
    for name, value in recipe.items():
        if isinstance(value, dict) and (odd := [key for key in value if not isinstance(key, str)]):
            raise SmileError(f"{path}: {name} has the key {odd[0]!r}, which YAML does not read as text; quote it")
    return to_words(recipe)


def to_words(settings: dict[str, Any]) -> list[str]:
    """Convert settings to command-line words; None is left out.

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
    """Path of a recipe: a file, or the name of a recipe that comes with hf_smile, such as `quickstart`."""
    if Path(name).exists():
        return Path(name)
    known = {path.stem: path for path in sorted(shipped("recipes").glob("*.yaml"))}
    if name not in known:
        raise SmileError(f"{name}: no such recipe; name a file, or one that comes with hf_smile: {', '.join(known)}")
    return known[name]


def help_text(prog: str, further: Iterable[Field] = (), width: int | None = None) -> str:
    """Help on the settings by group: the common settings, or all settings if there are `further` ones.

    Args:
        prog: name of the command.
        further: settings of `transformers.TrainingArguments`, listed last.
        width: number of columns; by default that of the terminal.
    """
    width = width or shutil.get_terminal_size().columns
    groups = {name: [option for option in fields(group) if option.metadata] for name, group in SETTINGS.items()}
    if further := [option for option in further if option.name not in OURS]:
        groups["transformers.TrainingArguments"] = further
    lines = [f"usage: {prog} [RECIPE.yaml] [--any_setting value ...]", ""]
    lines += ["Fine-tune on your data. A recipe overrides the defaults,", "and the command line overrides the recipe."]
    for title, group in groups.items():
        lines += ["", f"{title}:"]
        explained = [option for option in group if further or option.name in COMMON]
        lines += (line for option in explained for line in _explain(option, width))
        if others := [option.name for option in group if option not in explained]:
            lines += textwrap.wrap(", ".join(others), width, initial_indent="  also ", subsequent_indent=" " * 7)
    if not further:
        lines += ["", f"{prog} --help_all explains all settings, including those of transformers.TrainingArguments."]
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
