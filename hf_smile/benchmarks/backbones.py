"""Compare backbones on one data set with a linear probe or by fine-tuning, over several seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from hf_smile.data.arguments import DataArguments
from hf_smile.data.dataset import load_smile_dataset
from hf_smile.data.images import encoded_bytes
from hf_smile.data.record import images_of, refuse_trained_on
from hf_smile.data.rows import labels_of
from hf_smile.evaluation.backbones import METRICS
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.evaluation.predictions import read_predictions
from hf_smile.labels import LabelSet
from hf_smile.modeling.features import pooled_features
from hf_smile.modeling.probe import describe_backbone, probe, split_rows
from hf_smile.training.device import keep_freed_memory
from hf_smile.training.several import train_in

Compared = tuple[pd.DataFrame, pd.DataFrame]
"""The tables that `hf_smile.evaluation.backbones.write_comparison` takes: of the backbones, and of their scores."""


def probe_all(
    backbones: Sequence[str],
    data: DataArguments,
    seeds: Sequence[int],
    validation_size: float,
    with_test: bool,
    cache_dir: Path,
) -> Compared:
    """Fit a linear probe per backbone and seed. The features are computed once per backbone.

    Args:
        backbones: folders, Hub ids or timm names.
        data: data to load. If they have a validation split, only the first seed is used.
        seeds: seeds of the validation split.
        validation_size: share of train that becomes the validation split.
        with_test: score the test split too.
        cache_dir: folder for the features.
    """
    keep_freed_memory()
    # Backbones first, so that a wrong name is reported before the images are loaded.
    facts = [{"backbone": Path(name).name, **describe_backbone(name)._asdict()} for name in backbones]
    splits = load_smile_dataset(**vars(data))
    if "validation" in splits:
        seeds = seeds[:1]
        print("Note: the data have a validation split, so only the first seed is used", file=sys.stderr)
    if not with_test:
        splits.pop("test")
    labels = {split: np.array(dataset["label"]) for split, dataset in splits.items()}
    names = labels_of(splits["train"])
    rows = []
    for name in backbones:
        features = {}
        refuse_trained_on(name, chain(*map(images_of, splits.values())))
        for split, dataset in splits.items():
            images = dataset.cast_column("image", datasets.Image(decode=False))["image"]
            progress = tqdm(images, desc=f"{Path(name).name}, {split}", unit=" images", delay=1)
            features[split] = pooled_features(map(encoded_bytes, progress), name, cache_dir=cache_dir)
        for seed in seeds:
            x, y = dict(features), dict(labels)
            if "validation" not in splits:
                parts = split_rows(splits["train"], validation_size, seed, data.group_by)
                for split, chosen in zip(("train", "validation"), parts, strict=True):
                    x[split], y[split] = features["train"][chosen], labels["train"][chosen]
            further = [x["test"]] if with_test else []
            found = probe(x["train"], y["train"], x["validation"], y["validation"], *further, labels=names)
            for split, probabilities in zip(("validation", "test"), found, strict=False):
                rows.append(_scores(name, seed, split, probabilities, y[split], names))
    return pd.DataFrame(facts), pd.DataFrame(rows)


def tell(line: str) -> None:
    """Print a line of a run immediately."""
    print(line, flush=True)


def tell_but_test(line: str) -> None:
    """Print a line of a run, unless it reports the test split, which must not be used to choose."""
    if not line.startswith("Test "):
        tell(line)


def fine_tune_all(
    backbones: Sequence[str], settings: Sequence[str], seeds: Sequence[int], with_test: bool, output_dir: Path
) -> Compared:
    """Fine-tune once per backbone and seed, in `<output_dir>/<backbone>/<seed>`. Finished runs are not repeated.

    Args:
        backbones: folders, Hub ids or timm names.
        settings: words of `hf-smile train`, starting with the recipe if there is one.
        seeds: seeds of the runs.
        with_test: report the test split too.
        output_dir: folder for all runs.

    Raises:
        SmileError: a setting is wrong, or a run failed.
    """
    facts, rows = [], []
    for name in backbones:
        for seed in seeds:
            folder = output_dir / Path(name).name / str(seed)
            arguments = train_in(
                folder, [*settings, "--backbone", name, "--seed", str(seed)], tell if with_test else tell_but_test
            )
            for split in ("validation", "test")[: 1 + with_test]:
                found = read_predictions(folder / f"{split}_predictions.csv")
                rows.append(_scores(name, seed, split, found.probabilities, found.label_ids, found.labels))
        model = arguments[2]
        described = describe_backbone(name, pretrained=model.pretrained, image_size=model.image_size)
        facts.append({"backbone": Path(name).name, **described._asdict()})
    return pd.DataFrame(facts), pd.DataFrame(rows)


def _scores(
    name: str, seed: int, split: str, probabilities: np.ndarray, label_ids: np.ndarray, labels: LabelSet
) -> dict[str, Any]:
    metrics = compute_metrics(probabilities, label_ids, labels)
    named = {metric: metrics[metric] for metric in METRICS}
    return {"backbone": Path(name).name, "seed": seed, "split": split, **named}
