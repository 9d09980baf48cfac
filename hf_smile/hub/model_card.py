"""The model card (`README.md`) of a trained model."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_smile.labels import LABEL_NAMES, label_slug

_REPORTED = ("accuracy", "macro_f1", "balanced_accuracy", "smile_auc", "genuine_auc", "ece")

_TEMPLATE = """\
---
{{ card_data }}
---

# {{ model_name }}

Tells from a picture of one face whether it is not smiling, smiling for real (positive, genuine) or smiling for show
(negative, posed). {{ origin }} with hf_smile.

![Confusion matrix on the test split](confusion_matrix.png)

## How to load it

```python
from transformers import pipeline

classify = pipeline("image-classification", model="{{ folder }}")
classify("face.jpg")
```

`AutoModelForImageClassification.from_pretrained` and `AutoImageProcessor.from_pretrained` load it as well{{ timm }}.

## Results on the test split

{{ results }}

The checkpoint was chosen on a validation split by {{ selected_by }}; the test split was looked at once, at the end.
`test_metrics.json` holds every metric, `test_predictions.csv` every prediction.

## Training

`recipe.yaml` holds all settings, `versions.json` the versions of everything used, `training_history.csv` each epoch.

![Accuracy](accuracy.png) ![Loss](loss.png)

## Limits and responsible use

- A still image cannot prove a smile genuine. The labels are opinions, and many of them can be disputed.
- The model has seen faces of one data set only. How it does on other people, ages, cultures, cameras and light was
  not measured.
- Do not use it for decisions about people. Inferring the emotions of people at work or in education is prohibited in
  the European Union (Regulation (EU) 2024/1689, the AI Act, Article 5(1)(f)).
"""


def write_model_card(
    output_dir: str | Path,
    metrics: dict[str, float],
    *,
    backbone: str,
    selected_by: str,
    pretrained: bool,
    plain_timm: bool,
) -> None:
    """Write `README.md` beside the model.

    Args:
        output_dir: folder of the model; its name becomes the model's. The examples load from it as given, or by its
            name where it is absolute: cards are published, and where somebody keeps their files is nobody's business.
        metrics: of the test split, as `compute_metrics` gives them.
        backbone: what was fine-tuned: a Hub id, a folder or a timm name.
        pretrained: whether the backbone came with its weights.
        selected_by: name of the validation metric that chose the checkpoint.
        plain_timm: whether timm loads the folder too (it does not with a hidden layer in the head).
    """
    name = Path(output_dir).resolve().name
    folder = name if Path(output_dir).is_absolute() else Path(output_dir).as_posix()
    is_hub_id = pretrained and backbone.count("/") == 1 and not Path(backbone).exists()
    card_data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["timm", "face", "smile"],
        base_model=backbone if is_hub_id else None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type="image-folder",
                dataset_name="test split",
                dataset_split="test",
                metric_type=metric,
                metric_value=round(metrics[metric], 4),
            )
            for metric in _REPORTED
            if metrics[metric] == metrics[metric]  # NaN where the split lacks a class
        ],
    )
    label = backbone if is_hub_id else Path(backbone).name
    card = ModelCard.from_template(
        card_data,
        template_str=_TEMPLATE,
        model_name=name,
        folder=folder,
        origin=f"Fine-tuned from `{label}`" if pretrained else f"`{label}`, trained from random weights",
        timm=f';\nso does `timm.create_model("local-dir:{folder}", pretrained=True)`'
        if plain_timm
        else "\nonce `hf_smile` is imported",
        results=_results_table(metrics),
        selected_by=selected_by,
    )
    card.save(Path(output_dir) / "README.md")


def _results_table(metrics: dict[str, float]) -> str:
    overall = ["| metric | value |", "| --- | --- |", *(f"| {name} | {metrics[name]:.4f} |" for name in _REPORTED)]
    classes = ["| class | precision | recall | F1 | images |", "| --- | --- | --- | --- | --- |"]
    for label in LABEL_NAMES:
        values = [f"{metrics[f'{metric}_{label_slug(label)}']:.3f}" for metric in ("precision", "recall", "f1")]
        classes.append(f"| {label} | {' | '.join(values)} | {metrics[f'support_{label_slug(label)}']:.0f} |")
    return "\n".join([*overall, "", *classes])
