"""Publish the folder of a finished run as a model on the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from hf_smile.errors import SmileError, SmileModelError
from hf_smile.evaluation.plots import plot_coverage, plot_precision_recall, plot_reliability
from hf_smile.evaluation.predictions import read_predictions
from hf_smile.hub.finished_run import read_whole_recipe
from hf_smile.hub.licenses import check_license
from hf_smile.hub.model_card import published_model_card
from hf_smile.hub.upload import Files, Target, push_files
from hf_smile.inference.runtimes import check_onnx_matches
from hf_smile.utils.model_files import read_config

_NEEDED = ("config.json", "model.safetensors", "test_metrics.json")
_TAKEN_ALONG = (
    "accuracy.png",
    "confusion_matrix.png",
    "loss.png",
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "preprocessor_config.json",
    "prior_adjustment.png",
    "training_history.csv",
    "versions.json",
)
_MADE = ("README.md", "recipe.yaml", "coverage.png", "precision_recall.png", "reliability.png")
PUBLISHED = frozenset({*_NEEDED, *_TAKEN_ALONG, *_MADE})
"""All files that a published model may have. Other files are not uploaded: predictions and lists of bad images contain
the ids of people's pictures, and checkpoints the training state."""


def model_files(
    output_dir: str | Path, repo_id: str, license: str | None = None, dataset: str | None = None
) -> dict[str, Path | bytes]:
    """Collect the files of a run to upload: weights, settings, card, metrics and plots.

    Args:
        output_dir: output folder of `hf-smile train`, with the ONNX files of `hf-smile export` if there are any.
        repo_id: target repository; the examples on the card load the model from there.
        license: licence of the weights as a Hub identifier, for example `apache-2.0`.
        dataset: Hub id of the data set; None if it is not on the Hub.

    Raises:
        SmileError: the Hub does not know the licence.
        SmileModelError: the folder has no finished run or a damaged `config.json`, or its ONNX files were exported from
            other weights.

    >>> sorted(model_files("outputs/model", "me/smile"))  # doctest: +SKIP
    ['README.md', 'accuracy.png', 'config.json', ...]
    """
    if license is not None:
        check_license(license)
    folder = Path(output_dir)
    if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
        raise SmileModelError(f"{folder} is not the folder of a finished run: there is no {missing[0]}")
    read_config(folder)
    check_onnx_matches(folder)
    files: dict[str, Path | bytes] = {
        name: folder / name for name in (*_NEEDED, *_TAKEN_ALONG) if (folder / name).is_file()
    }
    files |= _evaluation_pictures(folder / "test_predictions.csv")
    files["recipe.yaml"] = yaml.safe_dump(read_whole_recipe(folder), sort_keys=False).encode()
    files["README.md"] = str(published_model_card(folder, repo_id, license, dataset)).encode()
    return files


def left_here(output_dir: str | Path) -> list[str]:
    """Names in the folder of a run that are not uploaded.

    >>> left_here("outputs/model")  # doctest: +SKIP
    ['checkpoint-272', 'test_predictions.csv', 'validation_predictions.csv']
    """
    published = {name.split("/")[0] for name in PUBLISHED}
    return sorted(path.name for path in Path(output_dir).iterdir() if path.name not in published)


def push_model(files: Files, target: Target) -> str:
    """Publish the files of `model_files` in one commit, and return the address.

    Raises:
        SmileError: the Hub can't be reached or refuses. Then nothing is published.
    """
    return push_files(files, target, "Upload model with hf_smile", PUBLISHED.__contains__)


def publish_model(
    output_dir: str | Path,
    repo_id: str,
    private: bool = False,
    *,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Publish the folder of a finished run, and return the address. The arguments are those of `Target`.

    Raises:
        SmileError: the Hub can't be reached or refuses. The run is not affected, and the message says how to publish it
            later.
    """
    try:
        return push_model(
            model_files(output_dir, repo_id), Target(repo_id, private=bool(private), revision=revision, token=token)
        )
    except SmileError as error:
        raise SmileError(
            f"{error}\nThe finished run is in {output_dir}; publish it later with:"
            f" hf-smile push model {output_dir} {repo_id}{' --private' * private}"
        ) from None


def _evaluation_pictures(path: Path) -> dict[str, Path | bytes]:
    """Plots of the test predictions, which are not uploaded themselves."""
    if not path.is_file():
        return {}
    predictions = read_predictions(path)
    pictures: dict[str, Callable[..., None]] = {
        "coverage.png": plot_coverage,
        "precision_recall.png": partial(plot_precision_recall, labels=predictions.labels),
        "reliability.png": plot_reliability,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, plot in pictures.items():
            plot(predictions.probabilities, predictions.label_ids, Path(folder, name))
        return {name: Path(folder, name).read_bytes() for name in pictures}
