"""The card (`README.md`) of a published data set."""

from __future__ import annotations

from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from hf_smile.data.corrections import corrections_sentence, facts_of
from hf_smile.data.plots import class_table
from hf_smile.data.rows import labels_of

_TEMPLATE = """\
---
{{ card_data }}
---

# {{ repo_id }}

{{ n_images }} pictures of faces, each labelled as {{ labelled }}.

```python
from datasets import load_dataset

splits = load_dataset("{{ repo_id }}")
```

## What is in it

{{ counts }}

![Images of each class](class_distribution.png)

| column | what |
| --- | --- |
| `image` | the picture as it was collected, not encoded anew |
| `label` | {{ labels }} |
| `image_id` | the name of the picture, different for every picture |

The splits share no `image_id`. Where the data had no validation split of their own, it came out of train, stratified by
class.

## Provenance

{{ provenance }}{{ corrections }}

## Licence and consent

Licence: {{ license }}. {{ consent }}

Whoever published this declared to have the right to do so. If you are in one of these pictures and want it removed,
open a discussion on this page.

## Limits and responsible use

- A still image cannot prove {{ unproven }}. The labels are opinions, and many of them can be disputed.
- Whom the data leave out: age, gender, skin colour, culture and health of the people in them were not recorded, so
  nobody can tell which groups are missing or few.
- Do not use the pictures to recognise people, nor a model that is trained on them for decisions about people. Inferring
  the emotions of people at work or in education is prohibited in the European Union (Regulation (EU) 2024/1689, the AI
  Act, Article 5(1)(f)).
"""


_SMILES = "not smiling, smiling for real (positive, genuine) or smiling for show\n(negative, posed)"


def dataset_card(
    splits: DatasetDict, repo_id: str, license: str, provenance: str | None = None, consent: str | None = None
) -> DatasetCard:
    """The card of a data set, with its counts.

    Args:
        splits: as `load_smile_dataset` gives them.
        repo_id: where they go, `owner/name`.
        license: as the Hub spells it, for example `cc-by-4.0`.
        provenance: who collected the pictures and the labels, when, where and how.
        consent: what the people in the pictures agreed to.

    >>> dataset_card(splits, "me/faces", "cc-by-4.0").data.license  # doctest: +SKIP
    'cc-by-4.0'
    """
    names = labels_of(next(iter(splits.values())))
    n_images = sum(map(len, splits.values()))
    sentence = corrections_sentence({split: facts_of(rows) for split, rows in splits.items()})
    card_data = DatasetCardData(
        license=license,
        task_categories=["image-classification"],
        pretty_name=repo_id.split("/")[-1],
        size_categories=_size_category(n_images),
        tags=["face", "smile"],
    )
    return DatasetCard.from_template(
        card_data,
        template_str=_TEMPLATE,
        repo_id=repo_id,
        n_images=f"{n_images:,}",
        counts=_counts(splits),
        labels=", ".join(f"{label_id} {name}" for label_id, name in enumerate(names)),
        labelled=_SMILES if names.tells_genuine else f"one of: {names}",
        unproven="a smile genuine" if names.tells_genuine else "what somebody feels",
        license=license,
        provenance=provenance or "Who collected the pictures and the labels, and how, was not stated.",
        corrections=f" {sentence}" if sentence else "",
        consent=consent or "What the people in the pictures agreed to was not stated.",
    )


def _counts(splits: DatasetDict) -> str:
    table = class_table(splits)
    lines = [f"| class | {' | '.join(splits)} |", f"| --- |{' ---: |' * len(splits)}"]
    for label in table.index:
        cells = [
            f"{table.loc[label, (split, 'images')]:,} ({table.loc[label, (split, 'share')]:.1%})" for split in splits
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines.append(f"| all | {' | '.join(f'{len(dataset):,}' for dataset in splits.values())} |")
    return "\n".join(lines)


def _size_category(n: int) -> str:
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if n < limit:
            return name
    return "100K<n<1M" if n < 1_000_000 else "1M<n<10M"
