"""One card for runs that only differ in their seed: mean and spread of the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from hf_smile.evaluation.numbers import markdown_table, number
from hf_smile.hub.card_sections import REPORTED, reach_section, recipe_section
from hf_smile.hub.finished_run import read_metrics, read_whole_recipe
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.model_files import read_timm_config
from hf_smile.utils.words import counted


def write_seeds_card(output_dir: str | Path, seeds: Sequence[int]) -> str:
    """Write `README.md` and `seeds.csv` (one row per seed, one column per metric) to the folder of the runs.

    Args:
        output_dir: folder that contains the finished run of each seed in `<seed>`.
        seeds: seeds of the runs.

    Returns:
        The table of the card, in Markdown: the main metrics on the test split, with mean and standard deviation over
        the seeds.

    Raises:
        SmileModelError: a folder does not contain a finished run.

    >>> print(write_seeds_card("outputs/model", [1, 2, 3]))  # doctest: +SKIP
    """
    folder = Path(output_dir)
    scores = pd.DataFrame([_numbers(folder / str(seed)) for seed in seeds], index=pd.Index(seeds, name="seed"))
    candidates = pd.read_csv(folder / "soup.csv") if (folder / "soup.csv").is_file() else None
    has_soup = candidates is not None and candidates["candidate"][0].endswith("soup")
    soup = _numbers(folder / "soup") if has_soup else {}
    shown = REPORTED | {name: name.replace("_", " ") for name in scores if name.startswith("recall_")}
    rows = [
        [
            text,
            *(number(value, 4) for value in (scores[name].mean(), scores[name].std(), *scores[name])),
            *([number(soup[name], 4)] if soup else []),
        ]
        for name, text in shown.items()
        if name in scores
    ]
    columns = [f"seed {seed}" for seed in seeds] + ["soup"] * has_soup
    table = markdown_table(["", "mean", "spread", *columns], rows)
    config = folder / str(seeds[0]) / "config.json"
    names = read_timm_config(config.parent).get("label_names") if config.is_file() else None
    labels = LabelSet.of(names or SMILE_LABELS)
    recipe = read_whole_recipe(folder / str(seeds[0]))
    card = ModelCard.from_template(
        ModelCardData(library_name="transformers", pipeline_tag="image-classification", tags=["timm", "face", "smile"]),
        template_path=str(Path(__file__).with_suffix(".md")),
        title=folder.resolve().name,
        labels=", ".join(labels),
        genuine=labels.tells_genuine,
        headline=_headline(scores),
        seeds=seeds,
        table=table,
        has_soup=has_soup,
        candidates=None if candidates is None else _candidates_table(candidates),
        reach=reach_section(recipe, None),
        recipe=recipe_section({name: value for name, value in recipe.items() if name != "seed"}),
    )
    scores.to_csv(folder / "seeds.csv")
    card.save(folder / "README.md")
    return table


def _headline(scores: pd.DataFrame) -> str:
    """Accuracy and macro F1 of all seeds."""
    images = scores.filter(like="support_").iloc[0].sum()
    parts = [
        f"{REPORTED[name]} {number(scores[name].mean())}"
        + (f" ± {number(scores[name].std())}" if len(scores) > 1 else "")
        for name in ("accuracy", "macro_f1")
        if name in scores
    ]
    note = " (mean ± standard deviation of the seeds)" * (len(scores) > 1)
    return f"**On {counted(int(images), 'test image')}**{note}: {', '.join(parts)}."


def _numbers(run: Path) -> dict[str, float]:
    return {name: float(value) for name, value in read_metrics(run).items() if not isinstance(value, dict)}


def _candidates_table(candidates: pd.DataFrame) -> str:
    *_, metric = candidates.columns
    rows = [[row["candidate"], row["seeds"], number(row[metric], 4)] for _, row in candidates.iterrows()]
    return markdown_table(["", "seeds", f"{metric.replace('_', ' ')} on validation"], rows)
