"""The mean of the weights of networks that started from the same head; kept if it is better on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_smile.evaluation.decision import prior_shift
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.modeling.calibrate import fold_into_output_layer
from hf_smile.modeling.checkpoint import load_model
from hf_smile.modeling.layers import keep_frozen_in_eval_mode
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.run_folder import RESULT
from hf_smile.training.several import SOUP_TABLE
from hf_smile.training.trainer import SmileTrainer
from hf_smile.utils.files import write_text

State = dict[str, torch.Tensor]
BATCH_NORM_IMAGES = 768


class Candidate(NamedTuple):
    """A set of runs whose mean weights were evaluated on the validation split.

    Attributes:
        name: `seed 1`, `uniform soup` or `greedy soup`.
        seeds: Seeds of the runs in it.
        score: Validation metric; higher is better.
    """

    name: str
    seeds: tuple[int, ...]
    score: float


def mean_weights(states: Sequence[State]) -> State:
    """Mean of each floating-point tensor; other tensors, such as counters, come from the first state.

    >>> mean_weights([{"w": torch.zeros(2)}, {"w": torch.ones(2)}])
    {'w': tensor([0.5000, 0.5000])}
    """
    first = states[0]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def find_soup(seeds: Sequence[int], score: Callable[[tuple[int, ...]], float]) -> list[Candidate]:
    """Evaluate each seed alone, the soup of all, and a greedy soup.

    The greedy soup starts with the best seed and adds the next best as long as the score does not fall (Wortsman et
    al., "Model soups", ICML 2022, https://arxiv.org/abs/2203.05482).

    Args:
        seeds: Seeds of the runs.
        score: Validation score of the mean weights of these seeds; higher is better.

    Returns:
        The candidates, the best one first. A soup comes before a single seed only if it is better.

    >>> scores = {(1,): 0.7, (2,): 0.8, (1, 2): 0.75}
    >>> find_soup([1, 2], scores.get)[0]
    Candidate(name='seed 2', seeds=(2,), score=0.8)
    """
    singles = [Candidate(f"seed {seed}", (seed,), score((seed,))) for seed in seeds]
    ranked = sorted(singles, key=lambda candidate: -candidate.score)
    uniform = Candidate("uniform soup", tuple(seeds), score(tuple(seeds)))
    greedy = ranked[0]
    for single in ranked[1:]:
        tried = greedy.seeds + single.seeds
        found = uniform.score if len(tried) == len(seeds) else score(tried)
        if found >= greedy.score:
            greedy = Candidate("greedy soup", tried, found)
    soups = [uniform]
    if 1 < len(greedy.seeds) < len(seeds):
        soups.append(greedy)
    return sorted([*singles, *soups], key=lambda candidate: -candidate.score)


def trained_weights(folder: Path, temperature: float, shift: np.ndarray | float) -> State:
    """Weights of a finished run, without the temperature and the shift (K,) that its last layer contains."""
    model = load_model(str(folder))
    if temperature != 1 or np.any(shift):
        fold_into_output_layer(model, 1 / temperature, -temperature * np.asarray(shift))
    return model.state_dict()


@torch.no_grad()
def refresh_batch_norm(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Compute the batch statistics again, which are not linear in the weights; those of frozen layers stay.

    Args:
        model: Called with `pixel_values`; left in evaluation mode.
        batches: Training images as the model takes them, (N, 3, H, W) each.
    """
    model.train()
    keep_frozen_in_eval_mode(model)
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    model.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean of the batches
        layer.train()
    if layers:
        for pixel_values in batches:
            model(pixel_values=pixel_values)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


def write_candidates(candidates: Sequence[Candidate], metric: str, output_dir: Path) -> None:
    """Write `soup.csv`: one row per candidate, the best one first, with its seeds and its validation metric."""
    rows = [(name, " ".join(map(str, seeds)), abs(score)) for name, seeds, score in candidates]
    table = pd.DataFrame(rows, columns=["candidate", "seeds", metric])
    write_text(output_dir / SOUP_TABLE, table.to_csv(index=False))


def best_alone(runs: Mapping[int, Path], metric: str, output_dir: Path) -> str | None:
    """The single seed that an earlier start found to be better than each soup, according to `soup.csv`.

    Returns:
        Its name. None if a soup was better, or if these runs were not evaluated yet, or have changed since.
    """
    path = output_dir / SOUP_TABLE
    changed = max((folder / RESULT).stat().st_mtime_ns for folder in runs.values())
    if not path.is_file() or path.stat().st_mtime_ns <= changed:
        return None
    try:
        table = pd.read_csv(path)
    except ValueError:  # damaged
        return None
    if "candidate" not in table or table.empty:
        return None
    single = [name for name in table["candidate"] if name.startswith("seed ")]
    is_of_these = metric in table and {*single} == {f"seed {seed}" for seed in runs}
    return single[0] if is_of_these and table["candidate"][0] == single[0] else None


def ranking_metric(args: SmileTrainingArguments) -> str:
    """The metric that ranks the candidates: `select_best`, or NLL if that is `last`."""
    return "nll" if args.select_best == "last" else args.select_best


def cook(trainer: SmileTrainer, runs: Mapping[int, Path], after: Mapping[int, tuple[float, float]]) -> list[Candidate]:
    """Load the best candidate into the model of a trainer.

    Args:
        trainer: With the training and validation split of the runs. Its model has their architecture.
        runs: Folder of each finished run, by seed.
        after: Temperature and prior adjustment of each run, by seed.

    Returns:
        The candidates, the best one first.
    """
    metric = ranking_metric(trainer.args)
    shares = trainer.class_counts / trainer.class_counts.sum()
    states = {
        seed: trained_weights(folder, after[seed][0], prior_shift(shares, after[seed][1]))
        for seed, folder in runs.items()
    }
    trainer.ema = None
    device = trainer.accelerator.device

    def load(seeds: tuple[int, ...]) -> None:
        trainer.model.load_state_dict(mean_weights([states[seed] for seed in seeds]))
        trainer.model.to(device)
        if len(seeds) > 1:
            batches = islice(trainer.get_train_dataloader(), ceil(BATCH_NORM_IMAGES / trainer.args.train_batch_size))
            refresh_batch_norm(trainer.model, (batch["pixel_values"].to(device) for batch in batches))

    def score(seeds: tuple[int, ...]) -> float:
        load(seeds)
        output = trainer.predict(trainer.eval_dataset)
        probabilities = softmax(output.predictions.astype(np.float64), axis=1)
        found = compute_metrics(probabilities, output.label_ids, trainer.labels)[metric]
        return -found if metric == "nll" else found

    candidates = find_soup([*runs], score)
    load(candidates[0].seeds)
    trainer.choice = {"metric": metric, "images": len(trainer.eval_dataset), "soup": [*candidates[0].seeds]}
    trainer.forget_evaluations()
    return candidates
