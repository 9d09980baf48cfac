"""Hyperparameter search: `Trainer.hyperparameter_search` with Optuna, on validation, stored in a SQLite file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.importance import get_param_importances
from optuna.trial import TrialState
from transformers import PreTrainedModel
from transformers.trainer_utils import IntervalStrategy

from hf_smile.errors import SmileError, SmileModelError
from hf_smile.training.arguments import Arguments
from hf_smile.training.callbacks import FrozenWarmUp
from hf_smile.training.checks import WITHOUT_EFFECT
from hf_smile.training.run_folder import differences
from hf_smile.training.trainer import SmileTrainer
from hf_smile.utils.figures import new_figure, save_figure

SPACE = {
    "learning_rate": (1e-5, 3e-2, True),
    "head_learning_rate": (1e-4, 1e-1, True),
    "weight_decay": (1e-4, 0.3, True),
    "layer_decay": (0.6, 1.0, False),
    "warmup_steps": (0.0, 0.4, False),
}
"""The searched settings: lowest value, highest value, and whether on a log scale."""


def searched(arguments: Arguments) -> dict[str, float]:
    """The settings of `SPACE` that have an effect with these arguments, with their values in the recipe."""
    settings = SimpleNamespace(**{name: value for group in arguments for name, value in vars(group).items()})
    values = {name: getattr(settings, name) for name in SPACE if getattr(settings, name) is not None}
    settings.warmup_steps = settings.warmup_steps or 0.1
    idle = [name for name in values if name in WITHOUT_EFFECT and WITHOUT_EFFECT[name][0](settings)]
    return {name: float(value) for name, value in values.items() if name not in idle}


def search(
    trainer: SmileTrainer,
    build: Callable[[], PreTrainedModel],
    start: dict[str, float],
    recipe: dict[str, Any],
    folder: Path,
    n_trials: int,
    hours: float | None = None,
) -> optuna.Study:
    """Try settings, starting with those of the recipe, until there are `n_trials`, including those of earlier calls.

    A trial is a run without checkpoints. Its value is the metric `select_best` of its best epoch. A trial that is worse
    than the median of the others in its second half is pruned. A killed trial is repeated.

    Args:
        trainer: a trainer with a validation split.
        build: called for each trial; returns a new model.
        start: as returned by `searched`.
        recipe: settings of the search; an earlier call must have had the same.
        folder: folder of the study, `study.db`.
        n_trials: number of complete or pruned trials.
        hours: no trial starts after this time.

    Raises:
        SmileError: the folder contains a search with another recipe, or no trial completed.

    >>> search(trainer, build, searched(arguments), recipe, Path("outputs/tune"), 20).best_params  # doctest: +SKIP
    {'learning_rate': 0.0021, ...}
    """
    args = trainer.args
    args.save_strategy, args.load_best_model_at_end = IntervalStrategy.NO, False
    stored: dict[str, Any] = {"study_name": "tune", "storage": f"sqlite:///{folder}/study.db", "load_if_exists": True}
    stored["direction"] = "maximize" if args.greater_is_better else "minimize"
    study = optuna.create_study(**stored)
    if changed := differences(study.user_attrs.get("recipe", recipe), recipe):
        raise SmileError(f"{folder} contains a search with another recipe ({', '.join(changed)}); use another folder")
    study.set_user_attr("recipe", recipe)
    if not study.trials:
        study.enqueue_trial(start)
    for killed in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(killed.number, state=TrialState.FAIL)
        study.enqueue_trial(killed.params)

    def fresh_model() -> PreTrainedModel:
        model = build()
        if trainer.pop_callback(FrozenWarmUp):
            trainer.add_callback(FrozenWarmUp(model, args.warmup_frozen_epochs))
        return model

    trainer.model_init = fresh_model
    half_a_run = int(args.num_train_epochs * len(trainer.batches) / args.gradient_accumulation_steps / 2)
    done = len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED]))
    if done < n_trials:
        try:
            trainer.hyperparameter_search(
                lambda trial: {name: trial.suggest_float(name, *SPACE[name][:2], log=SPACE[name][2]) for name in start},
                lambda _: float(trainer.state.best_metric or 0),
                n_trials - done,
                backend="optuna",
                sampler=optuna.samplers.TPESampler(seed=args.seed + len(study.trials)),
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=half_a_run),  # the rate rises first and falls late
                timeout=hours and hours * 3600,
                catch=(SmileModelError,),  # for example, a loss that is not finite
                **stored,
            )
        except ValueError as error:
            if study.get_trials(states=[TrialState.COMPLETE]):
                raise
            raise SmileError(f"no trial completed ({error}); start from a recipe that trains") from None
    return study


def plot_search(study: optuna.Study, metric: str, path: Path) -> None:
    """Plot the result of each trial against each setting, one panel per setting, the most important one first."""
    ended = study.get_trials(states=[TrialState.COMPLETE])
    names = list(ended[0].params)
    shares = dict.fromkeys(names, float("nan"))
    if len({trial.value for trial in ended}) > 1:  # otherwise importance is undefined
        shares = get_param_importances(study)
    figure = new_figure()
    figure.set_size_inches(3.2 * len(shares), 3.2)
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    for axes, (name, share) in zip(panels, shares.items(), strict=True):
        axes.scatter([trial.params[name] for trial in ended], [trial.value for trial in ended], color="#0072B2")
        axes.scatter(study.best_params[name], study.best_value, color="#E69F00", marker="*", s=150, label="best")
        axes.set(xlabel=name, title=f"importance {share:.2f}", xscale="log" if SPACE[name][2] else "linear")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(f"validation {metric}")
    figure.axes[0].legend()
    save_figure(figure, path)
