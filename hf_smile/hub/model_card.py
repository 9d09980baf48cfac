"""The model card (`README.md`) of a trained model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_smile.data.sample import DRAWN
from hf_smile.evaluation.intervals import confidence_intervals
from hf_smile.evaluation.predictions import images_digest, read_predictions
from hf_smile.hub.card_sections import (
    calibration_section,
    choice_sentence,
    corrections_section,
    decision_section,
    headline,
    looks_sentence,
    reach_section,
    recipe_section,
    results_section,
)
from hf_smile.hub.finished_run import read_looks, read_metrics, read_recipe, read_whole_recipe
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.hub_id import is_hub_id
from hf_smile.utils.model_files import read_timm_config


def write_model_card(
    output_dir: str | Path,
    metrics: dict[str, Any],
    *,
    backbone: str,
    pretrained: bool,
    plain_timm: bool,
) -> None:
    """Write the model card `README.md` to the folder of a model.

    Args:
        output_dir: folder of the model; its name becomes the model's name. The examples load the model from this path,
            or from its name if the path is absolute, because cards are published and must not show private paths.
        metrics: as returned by `finish_run` of `hf_smile.training.run_folder`.
        backbone: the fine-tuned backbone: a Hub id, a folder or a timm name.
        pretrained: whether the backbone started with its pretrained weights.
        plain_timm: whether timm can load the folder too (not with a hidden layer in the head).
    """
    folder = Path(output_dir)
    _make_card(folder, metrics, backbone, pretrained, plain_timm).save(folder / "README.md")


def published_model_card(
    output_dir: str | Path, repo_id: str, license: str | None = None, dataset: str | None = None
) -> ModelCard:
    """Write the card for the Hub, whose examples load the model from there, with licence and data set.

    Args:
        output_dir: folder of a finished run.
        repo_id: target repository, `owner/name`.
        license: licence of the weights as a Hub identifier, for example `apache-2.0`; left out if None.
        dataset: Hub id of the data set; None if it is not on the Hub.

    Raises:
        SmileModelError: the folder has no finished run.

    >>> published_model_card("outputs/model", "me/smile").data.license  # doctest: +SKIP
    """
    folder = Path(output_dir)
    recipe = read_recipe(folder)
    backbone, pretrained = recipe.get("backbone", "a timm model"), recipe.get("pretrained", True)
    plain_timm = recipe.get("head_hidden_size") is None
    return _make_card(folder, read_metrics(folder), backbone, pretrained, plain_timm, repo_id, license, dataset)


def _make_card(
    folder: Path,
    metrics: dict[str, Any],
    backbone: str,
    pretrained: bool,
    plain_timm: bool,
    repo_id: str | None = None,
    license: str | None = None,
    dataset: str | None = None,
) -> ModelCard:
    name = folder.resolve().name
    if name.isdigit():  # one of several seeds
        name = f"{folder.resolve().parent.name}/{name}"
    path = folder / "test_predictions.csv"
    predictions = read_predictions(path) if path.exists() else None
    config = read_timm_config(folder) if (folder / "config.json").is_file() else {}
    labels = LabelSet.of(config.get("label_names") or SMILE_LABELS)
    intervals = {}
    if predictions:
        intervals = confidence_intervals(predictions.probabilities, predictions.label_ids, labels=labels)
    # The metrics that the Hub compares models by, with the Hub's names.
    compared = {"accuracy": "accuracy", "macro_f1": "f1", "balanced_accuracy": "balanced_accuracy"}
    compared |= {f"f1_{slug}": "f1" for slug in labels.slugs}
    recipe = read_whole_recipe(folder) if (folder / "recipe.yaml").exists() else {}
    calibration, numbers = metrics["calibration"], _defined_numbers(metrics, labels)
    began_with = _base_models(config, backbone) if pretrained else [Path(backbone).name]
    card_data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["timm", "face", "smile"] + ["onnx"] * (folder / "onnx").is_dir(),
        license=license,
        datasets=[dataset] if dataset else None,
        base_model=next(filter(is_hub_id, began_with), None),
        model_name=repo_id.split("/")[-1] if repo_id else name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=dataset or "image-folder",
                dataset_name=dataset or Path(recipe.get("data_dir", "test split")).name,
                dataset_split="test",
                metric_type=metric_type,
                metric_name=metric.replace("_", " "),
                metric_value=round(numbers[metric], 4),
            )
            for metric, metric_type in compared.items()
            if not math.isnan(numbers[metric])
        ],
    )
    return ModelCard.from_template(
        card_data,
        template_path=str(Path(__file__).with_suffix(".md")),
        published=repo_id is not None,
        soup="soup" in metrics["choice"],
        title=repo_id or name,
        source=repo_id or (name if folder.is_absolute() else folder.as_posix()),
        labels=labels,
        genuine=labels.tells_genuine,
        origin=_origin(began_with) if pretrained else f"`{began_with[0]}`, trained from random weights",
        plain_timm=plain_timm,
        onnx=', runtime="onnx"' if (folder / "onnx" / "model.onnx").exists() else "",
        drawn=predictions is not None and all(str(name).startswith(DRAWN) for name in predictions.image_ids),
        headline=headline(numbers, intervals, labels),
        results=results_section(numbers, intervals, labels),
        reach=reach_section(recipe, metrics.get("budget")),
        chosen=choice_sentence(metrics["choice"]),
        corrections=corrections_section(metrics.get("corrections", {})),
        looks=looks_sentence(read_looks(folder, images_digest(predictions.image_ids) if predictions else None)),
        validated="validation" in calibration,
        calibration=calibration_section(calibration, metrics["ece"], predictions, picture=repo_id is not None),
        decision=decision_section(metrics["decision"], calibration, labels),
        recipe=recipe_section(recipe),
    )


def _origin(models: list[str]) -> str:
    """The models as text, for example "Fine-tuned from `a`, itself fine-tuned from `b`,"."""
    chain = ", itself fine-tuned from ".join(f"`{name}`" for name in models)
    return f"Fine-tuned from {chain}" + "," * (len(models) > 1)


def _base_models(config: dict[str, Any], backbone: str) -> list[str]:
    """The models that training started from, the latest first: as recorded by the run, or from its settings."""
    from hf_smile.modeling.origin import pretrained_hub_id

    if noted := config.get("base_models"):
        return noted
    if is_hub_id(backbone) and not Path(backbone).exists():
        return [backbone]
    return [pretrained_hub_id(config) or Path(backbone).name]


def _defined_numbers(metrics: dict[str, Any], labels: LabelSet) -> dict[str, float]:
    """The metrics that are numbers; precision, recall and F1 are NaN for a class that is not in the split."""
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, dict)}
    for slug in labels.slugs:
        if not numbers[f"support_{slug}"]:
            numbers |= {f"{metric}_{slug}": math.nan for metric in ("precision", "recall", "f1")}
    return numbers
