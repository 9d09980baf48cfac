"""The model card (`README.md`) of a trained model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_smile.evaluation.decision import TRADED, best_strength
from hf_smile.labels import LABEL_NAMES, label_slug

_REPORTED = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "smile_auc": "AUC of smile or none",
    "genuine_auc": "AUC of genuine or posed smile",
    "ece": "calibration error (15 bins)",
}
_STAGES = {
    "as_trained": "as trained",
    "with_temperature": "with the temperature",
    "saved": "with the prior adjustment, as saved",
}

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
{{ import_first }}from transformers import pipeline

classify = pipeline("image-classification", model="{{ folder }}")
classify("face.jpg")
```

`AutoModelForImageClassification.from_pretrained` and `AutoImageProcessor.from_pretrained` load it as well{{ timm }}.

## Results on the test split

{{ results }}

{{ chosen }}; the test split was looked at once, at the end.{{ flipped }}
`test_metrics.json` holds every metric, `test_predictions.csv` and `validation_predictions.csv` every prediction.

## How sure it is

{{ calibration }}

## How it decides

{{ decision }}

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
    metrics: dict[str, Any],
    *,
    backbone: str,
    selected_by: str,
    pretrained: bool,
    plain_timm: bool,
    test_time_flip: bool = False,
) -> None:
    """Write `README.md` beside the model.

    Args:
        output_dir: folder of the model; its name becomes the model's. The examples load from it as given, or by its
            name where it is absolute: cards are published, and where somebody keeps their files is nobody's business.
        metrics: as `finish_run` of `hf_smile.training.run_folder` gives them.
        backbone: what was fine-tuned: a Hub id, a folder or a timm name.
        pretrained: whether the backbone came with its weights.
        selected_by: name of the validation metric that chose the checkpoint; `last` if none did.
        test_time_flip: whether the predictions are those of an image and its mirror image.
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
            if not math.isnan(metrics[metric])  # as it is where the split lacks a class
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
        else ",\nonce `hf_smile.modeling` is imported: it knows the hidden layer of the head",
        import_first="" if plain_timm else "import hf_smile.modeling\n",
        results=_results_table(metrics),
        calibration=_calibration(metrics["calibration"]),
        decision=_decision(metrics["decision"], metrics["calibration"]),
        chosen="The weights are those of the last epoch; no checkpoint was chosen"
        if selected_by == "last"
        else f"The checkpoint was chosen on a validation split by {selected_by}",
        flipped=" Predictions are the mean of\neach image and its mirror image; without that, they differ a little."
        if test_time_flip
        else "",
    )
    card.save(Path(output_dir) / "README.md")


def _results_table(metrics: dict[str, Any]) -> str:
    overall = ["| | value |", "| --- | --- |"]
    overall += [f"| {text} | {_number(metrics[name], 4)} |" for name, text in _REPORTED.items()]
    questions = [
        "**Is it a smile?** " + _pairs(metrics["smile_auc"], "a smiling face and one that does not smile"),
        "**Is the smile genuine?** " + _pairs(metrics["genuine_auc"], "a genuine smile and a posed one"),
    ]
    classes = ["| class | precision | recall | F1 | images |", "| --- | --- | --- | --- | --- |"]
    for label in LABEL_NAMES:
        support = metrics[f"support_{label_slug(label)}"]
        values = [
            metrics[f"{name}_{label_slug(label)}"] if support else math.nan for name in ("precision", "recall", "f1")
        ]
        classes.append(f"| {label} | {' | '.join(map(_number, values))} | {support:.0f} |")
    return "\n".join([*overall, "", "\n\n".join(questions), "", *classes])


def _pairs(auc: float, pair: str) -> str:
    if math.isnan(auc):
        return f"Cannot be told: the split does not hold both {pair}."
    return f"Of {pair}, drawn at random, it tells which is which {100 * auc:.0f} times in 100; guessing does 50 times."


def _calibration(calibration: dict[str, Any]) -> str:
    splits = [split for split in ("validation", "test") if split in calibration]
    names = [f"{split} {text}" for split in splits for text in ("calibration error", "NLL")]
    lines = [f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    adjusted = calibration["test"]["saved"] != calibration["test"]["with_temperature"]
    for stage, text in list(_STAGES.items())[: 2 + adjusted]:
        values = [calibration[split][stage][name] for split in splits for name in ("ece", "nll")]
        lines.append(f"| {text} | {' | '.join(map(_number, values))} |")
    temperature = (
        f"Temperature scaling (Guo et al., 2017): {calibration['temperature']:.3f}, {calibration['temperature_is']}.\n"
        "The logits are divided by it in the weights of the last layer, so whatever loads the model profits; no\n"
        "prediction changes."
    )
    return "\n".join([temperature, "", *lines])


def _decision(decision: dict[str, Any], calibration: dict[str, Any]) -> str:
    strength, shares = decision["prior_adjustment"], decision["class_shares"]
    parts = ["The highest probability decides."]
    if strength:
        meant = [share ** (1 - strength) if share else 0.0 for share in shares]
        ece = calibration["test"]["ece_where_it_is_meant"]
        parts = [
            "The highest probability decides, after each was divided by its class's share of train to the power of"
            f" {strength:g}\n(`--prior_adjustment {strength:g}`), so that rare classes are named more readily. **The"
            " probabilities are therefore those of a\nmore balanced population, not calibrated for one like train**:"
            f" they are meant for\n{_mixture([value / sum(meant) for value in meant])},\nwhere train has"
            f" {_mixture(shares)}.\nTest images counted so that their classes are as frequent as there give a"
            f" calibration error of {_number(ece)}."
        ]
    if not decision["trade_off"]:
        return parts[0]
    table = pd.DataFrame(decision["trade_off"])
    accuracy, macro_f1 = (best_strength(table, metric) for metric in ("accuracy", "macro_f1"))
    parts.append(
        "What other strengths would give, on the validation split (never choose by the test split): accuracy is highest"
        f" at\n{accuracy:g}, macro F1 at {macro_f1:g}. The training command with another `--prior_adjustment` changes"
        " the saved model without training\nanew; every such change is one more look at the test split."
    )
    lines = [f"| strength | {' | '.join(name.replace('_', ' ') for name in TRADED)} |"]
    lines.append("| --- |" + " --- |" * len(TRADED))
    for row in decision["trade_off"]:
        mark = "**" if math.isclose(row["strength"], strength, abs_tol=1e-9) else ""
        lines.append(f"| {mark}{row['strength']:g}{mark} | {' | '.join(_number(row[name]) for name in TRADED)} |")
    parts += ["\n".join(lines), "![Accuracy against macro F1 along the prior adjustment](prior_adjustment.png)"]
    return "\n\n".join(parts)


def _mixture(shares: list[float]) -> str:
    return ", ".join(f"{100 * share:.0f} % {name}" for share, name in zip(shares, LABEL_NAMES, strict=True))


def _number(value: float, decimals: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"
