"""The model card (`README.md`) of a trained model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_smile.errors import SmileModelError
from hf_smile.evaluation.calibration import ece_if_calibrated
from hf_smile.evaluation.intervals import bootstrap_intervals
from hf_smile.evaluation.predictions import Predictions, read_predictions
from hf_smile.labels import LABEL_NAMES, label_slug

_REPORTED = ("accuracy", "macro_f1", "balanced_accuracy", "smile_auc", "genuine_auc", "ece", "nll", "brier")
_RECIPE_SHOWN: tuple[str, ...] = (
    "backbone",
    "image_size",
    "num_train_epochs",
    "per_device_train_batch_size",
    "learning_rate",
)
_RECIPE_SHOWN += ("lr_scheduler_type", "weight_decay", "label_smoothing_factor", "ema_decay", "seed")

_TEMPLATE = """\
---
{{ card_data }}
---

# {{ model_name }}

Tells from a picture of one face whether it is not smiling, smiling for real (positive, genuine) or smiling for show
(negative, posed). {{ origin }} with hf_smile.

![Confusion matrix on the test split](confusion_matrix.png)

## How to load it

With a pipeline of transformers:

```python
from transformers import pipeline

classify = pipeline("image-classification", model="{{ model_name }}")
classify("face.jpg")
```

With the classes of transformers:

```python
from transformers import AutoImageProcessor, AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained("{{ model_name }}")
processor = AutoImageProcessor.from_pretrained("{{ model_name }}")
```

{% if plain_timm -%}
With timm:

```python
import timm

model = timm.create_model("{{ timm_source }}:{{ model_name }}", pretrained=True)
```

{% else -%}
Its head has a hidden layer: `import hf_smile.modeling` first. timm does not load it.

{% endif -%}
With hf_smile, which finds the faces of a photo as well:

```python
from hf_smile.inference.classifier import SmileClassifier

classifier = SmileClassifier.from_pretrained("{{ model_name }}"{{ onnx }})
for prediction in classifier.predict_photo("group.jpg", faces="all"):
    print(prediction.box, prediction.label, prediction.p_smile, prediction.p_genuine_given_smile)
```

## Results on the test split

{{ results }}

{% if published -%}
![Precision and recall of each class](precision_recall.png)

{% endif -%}
The checkpoint was chosen on a validation split by {{ selected_by }}; the test split was looked at once, at the end.
`test_metrics.json` holds every metric.{{ withheld }}

{% if calibration %}## Calibration

{{ calibration }}

{% endif %}## Training

{% if recipe %}{{ recipe }}

{% endif -%}
`recipe.yaml` holds all settings, `versions.json` the versions of everything used, `training_history.csv` each epoch.

![Accuracy](accuracy.png) ![Loss](loss.png)

## Limits and responsible use

- A still image cannot prove a smile genuine. The labels are opinions, and many of them can be disputed.
- The model has seen faces of one data set only. How it does on other people, ages, cultures, cameras and light was
  not measured.
- Whom the data leave out: age, gender, skin colour, culture and health of the people in them were not recorded, so
  nobody can tell which groups are missing or few, and no group has numbers of its own. Faces that move in other ways
  (after a stroke, with facial palsy or Parkinson's disease), covered faces, profiles and children were not looked at
  apart.
- Out of scope: telling emotions, moods, honesty or character; watching people; hiring, teaching, policing, lending,
  insuring, medicine; anything that decides about a person, and anything done to people who do not know of it.
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
        output_dir: folder of the model; its name becomes the model's.
        metrics: of the test split, as `compute_metrics` gives them.
        backbone: what was fine-tuned: a Hub id, a folder or a timm name.
        pretrained: whether the backbone came with its weights.
        selected_by: name of the validation metric that chose the checkpoint.
        plain_timm: whether timm loads the folder too (it does not with a hidden layer in the head).
    """
    card = _make_card(
        Path(output_dir),
        metrics,
        backbone=backbone,
        selected_by=selected_by,
        pretrained=pretrained,
        plain_timm=plain_timm,
    )
    card.save(Path(output_dir) / "README.md")


def published_model_card(
    output_dir: str | Path, repo_id: str, license: str | None = None, dataset: str | None = None
) -> ModelCard:
    """The card as it goes to the Hub: it loads the model from there, and names licence and data set.

    Args:
        output_dir: folder of a finished run.
        repo_id: where the model goes, `owner/name`.
        license: of the weights, as the Hub spells it, for example `apache-2.0`; left out if None.
        dataset: id of the data set on the Hub; None for one that is not there.

    Raises:
        SmileModelError: the folder holds no finished run.

    >>> published_model_card("outputs/model", "me/smile").data.license  # doctest: +SKIP
    """
    folder = Path(output_dir)
    recipe = read_recipe(folder)
    try:
        metrics = json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SmileModelError(f"{folder} holds no finished run: there is no readable test_metrics.json") from None
    return _make_card(
        folder,
        {name: math.nan if value is None else value for name, value in metrics.items()},
        backbone=recipe.get("backbone", "a timm model"),
        selected_by=recipe.get("metric_for_best_model", "accuracy"),
        pretrained=recipe.get("pretrained", True),
        plain_timm=recipe.get("head_hidden_size") is None,
        repo_id=repo_id,
        license=license,
        dataset=dataset,
    )


def read_recipe(folder: Path) -> dict[str, Any]:
    """The settings of a run, without the paths of the machine that it ran on.

    Raises:
        SmileModelError: there is no readable `recipe.yaml`.
    """
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        recipe = None
    if not isinstance(recipe, dict):
        raise SmileModelError(f"{folder} is no folder of a run: there is no readable recipe.yaml")
    return {name: Path(value).name if _is_path(value) else value for name, value in recipe.items()}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and (Path(value).is_absolute() or value.startswith(("~", "..")))


def _make_card(
    folder: Path,
    metrics: dict[str, float],
    *,
    backbone: str,
    selected_by: str,
    pretrained: bool,
    plain_timm: bool,
    repo_id: str | None = None,
    license: str | None = None,
    dataset: str | None = None,
) -> ModelCard:
    name = repo_id or folder.resolve().name
    predictions = _read_if_there(folder / "test_predictions.csv")
    intervals = bootstrap_intervals(predictions.probabilities, predictions.label_ids) if predictions else {}
    recipe = read_recipe(folder) if (folder / "recipe.yaml").exists() else {}
    is_hub_id = pretrained and backbone.count("/") == 1 and not Path(backbone).exists()
    card_data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["timm", "face", "smile"] + ["onnx"] * (folder / "onnx").is_dir(),
        license=license,
        datasets=[dataset] if dataset else None,
        base_model=backbone if is_hub_id else None,
        model_name=name.split("/")[-1],
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=dataset or "image-folder",
                dataset_name=dataset or Path(recipe.get("data_dir", "test split")).name,
                dataset_split="test",
                metric_type=metric,
                metric_name=_metric_name(metric, intervals),
                metric_value=round(value, 4),
            )
            for metric, value in metrics.items()
            if not metric.startswith("support_") and not math.isnan(value)  # NaN where the split lacks a class
        ],
    )
    label = backbone if is_hub_id else Path(backbone).name
    return ModelCard.from_template(
        card_data,
        template_str=_TEMPLATE,
        model_name=name,
        origin=f"Fine-tuned from `{label}`" if pretrained else f"`{label}`, trained from random weights",
        plain_timm=plain_timm,
        timm_source="hf-hub" if repo_id else "local-dir",
        onnx=', runtime="onnx"' if (folder / "onnx" / "model.onnx").exists() else "",
        results=_results_table(metrics, intervals),
        published=repo_id is not None,
        withheld=_WITHHELD if repo_id else " `test_predictions.csv` holds every prediction.",
        calibration=_calibration(predictions, metrics["ece"], picture=repo_id is not None) if predictions else "",
        recipe=_recipe_table(recipe),
        selected_by=selected_by,
    )


_WITHHELD = " The predictions are not published: they carry the ids of people's\npictures."


def _read_if_there(path: Path) -> Predictions | None:
    return read_predictions(path) if path.exists() else None


def _metric_name(metric: str, intervals: dict[str, tuple[float, float]]) -> str:
    """The schema of `model-index` has no field for an interval, but the Hub shows the name beside the value."""
    name = metric.replace("_", " ")
    if metric not in intervals or math.isnan(intervals[metric][0]):
        return name
    low, high = intervals[metric]
    return f"{name} (95 % interval {low:.4f} to {high:.4f})"


def _results_table(metrics: dict[str, float], intervals: dict[str, tuple[float, float]]) -> str:
    overall = ["| metric | value | 95 % interval |", "| --- | --- | --- |"]
    overall += [f"| {name} | {_number(metrics[name], 4)} | {_range(name, intervals, 4)} |" for name in _REPORTED]
    classes = ["| class | precision | recall | F1 | images |", "| --- | --- | --- | --- | --- |"]
    for label in LABEL_NAMES:
        keys = [f"{metric}_{label_slug(label)}" for metric in ("precision", "recall", "f1")]
        values = [f"{_number(metrics[key])} ({_range(key, intervals)})" for key in keys]
        classes.append(f"| {label} | {' | '.join(values)} | {metrics[f'support_{label_slug(label)}']:.0f} |")
    note = ["", "In brackets and in the last column: 95 % intervals of a bootstrap over the test images."] * bool(
        intervals
    )
    return "\n".join([*overall, "", *classes, *note])


def _number(value: float, decimals: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def _range(metric: str, intervals: dict[str, tuple[float, float]], decimals: int = 3) -> str:
    low, high = intervals.get(metric, (math.nan, math.nan))
    return "–" if math.isnan(low) else f"{low:.{decimals}f} to {high:.{decimals}f}"


def _calibration(predictions: Predictions, ece: float, picture: bool) -> str:
    expected, highest = ece_if_calibrated(predictions.probabilities)
    sentences = (
        f"The model's confidence is off by {100 * ece:.1f} points on average (expected calibration error). A\n"
        f"perfectly calibrated model would show {100 * expected:.1f} points on these {len(predictions):,} images, and"
        f" up to {100 * highest:.1f} in 95 of 100 draws."
    )
    pictures = "\n\n![Reliability diagram](reliability.png) ![Accuracy if it may abstain](coverage.png)"
    return sentences + pictures * picture


def _recipe_table(recipe: dict[str, Any]) -> str:
    lines = [f"| {name} | {recipe[name]} |" for name in _RECIPE_SHOWN if name in recipe]
    return "\n".join(["| setting | value |", "| --- | --- |", *lines]) if lines else ""
