"""The card (`README.md`) of a published data set."""

from __future__ import annotations

from pathlib import Path

from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from hf_smile.data.corrections import corrections_sentence, facts_of
from hf_smile.data.plots import class_table
from hf_smile.data.rows import labels_of
from hf_smile.evaluation.numbers import markdown_table


def dataset_card(
    splits: DatasetDict, repo_id: str, license: str, provenance: str | None = None, consent: str | None = None
) -> DatasetCard:
    """Write the card of a data set, with its counts.

    Args:
        splits: as returned by `load_smile_dataset`.
        repo_id: target repository, `owner/name`.
        license: licence as a Hub identifier, for example `cc-by-4.0`.
        provenance: who collected the pictures and the labels, when, where and how.
        consent: what the people in the pictures agreed to.

    >>> dataset_card(splits, "me/faces", "cc-by-4.0").data.license  # doctest: +SKIP
    'cc-by-4.0'
    """
    names = labels_of(next(iter(splits.values())))
    n_images = sum(map(len, splits.values()))
    card_data = DatasetCardData(
        license=license,
        task_categories=["image-classification"],
        pretty_name=repo_id.split("/")[-1],
        size_categories=_size_category(n_images),
        tags=["face", "smile"],
    )
    return DatasetCard.from_template(
        card_data,
        template_path=str(Path(__file__).with_suffix(".md")),
        repo_id=repo_id,
        n_images=f"{n_images:,}",
        counts=_counts(splits),
        labels=", ".join(f"{label_id} {name}" for label_id, name in enumerate(names)),
        names=names,
        genuine=names.tells_genuine,
        license=license,
        provenance=provenance,
        corrections=corrections_sentence({split: facts_of(rows) for split, rows in splits.items()}),
        consent=consent,
    )


def _counts(splits: DatasetDict) -> str:
    table = class_table(splits)
    rows = [
        [label, *(f"{row[split, 'images']:,.0f} ({row[split, 'share']:.1%})" for split in splits)]
        for label, row in table.iterrows()
    ]
    rows.append(["all", *(f"{len(dataset):,}" for dataset in splits.values())])
    return markdown_table(["class", *splits], rows)


def _size_category(n: int) -> str:
    limits = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for limit, name in limits.items() if n < limit), "1M<n<10M")
