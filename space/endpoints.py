"""The API: `/predict` and `/predict_batch`, with typed JSON."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, TypedDict

import gradio as gr
from engine import Engine, SeenFace, why
from gradio.processing_utils import check_all_files_in_cache

from hf_smile.errors import SmileDataError
from hf_smile.inference.classifier import NamedImage, load_image
from hf_smile.inference.prediction import NO_FACE, SmilePrediction
from hf_smile.labels import LabelSet


def verdict_type(labels: LabelSet) -> Any:
    """Return the type of `SmilePrediction.to_dict()`."""
    types = dict.fromkeys(SmilePrediction(labels=labels).to_dict(), str | None)
    types |= {name: float | None for name in types if name.startswith("p_") or name == "detector_score"}
    return TypedDict("Verdict", types | {"box": list[int] | None})  # type: ignore[operator]


def add_endpoints(engine: Engine, quick: dict[str, Any], long: dict[str, Any]) -> None:
    """Add the endpoints to the page that is being built.

    Args:
        engine: engine that gives the answers.
        quick: concurrency limit for photos, as keyword arguments of `gr.api`.
        long: concurrency limit for batches, as keyword arguments of `gr.api`.
    """

    def predict(photo: gr.FileData) -> list[dict[str, Any]]:
        """Classify each face in a photo: whether it smiles, and whether the smile is genuine or posed.

        The model is often wrong, and a picture cannot prove what somebody feels: do not judge anyone by it.

        Args:
            photo: an uploaded file. For the MCP tool, a data: URI such as data:image/jpeg;base64,... of at most 4 MB;
                paths and URLs are refused.

        Returns:
            One verdict per face, the largest face first. If no face is found, one verdict with a note and no label.
        """
        path = uploaded(photo)
        try:
            seen = [face.prediction for face in engine.look(load_image(path))]
            return [
                _to_json(prediction) for prediction in seen or [SmilePrediction(note=NO_FACE, labels=engine.labels)]
            ]
        except SmileDataError as error:
            return [_to_json(SmilePrediction(error=why(error, path), labels=engine.labels))]

    def predict_batch(files: list[gr.FileData]) -> list[dict[str, Any]]:
        """Classify each face in many photos: whether it smiles, and whether the smile is genuine or posed.

        Args:
            files: uploaded photos and zips of photos. For the MCP tool, photos as data: URIs of together at most 4 MB.

        Returns:
            One verdict per face, file by file. For a file that can't be read, `error` gives the reason.
        """
        if not isinstance(files, list):
            raise gr.Error("pass a list of files", print_exception=False)
        try:
            seen = list(engine.look_at_many([_given(number, file) for number, file in enumerate(files, start=1)]))
        except SmileDataError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return [_to_json(item.prediction if isinstance(item, SeenFace) else item) for item in seen]

    for endpoint in (predict, predict_batch):
        endpoint.__annotations__["return"] = list[verdict_type(engine.labels)]  # type: ignore[misc]
    gr.api(predict, api_name="predict", **quick)
    gr.api(predict_batch, api_name="predict_batch", **long)


def _given(number: int, file: gr.FileData | dict[str, Any] | str) -> Path | NamedImage:
    """Return an uploaded file, or a picture from a data: URI, which is not written to disk."""
    if not isinstance(file, str):
        return uploaded(file)
    kind, _, data = file.partition(";base64,")
    try:
        if not kind.startswith("data:"):
            raise ValueError
        content = base64.b64decode(data, validate=True)
    except ValueError:
        raise gr.Error(
            f"file {number} is not a data: URI such as data:image/jpeg;base64,...", print_exception=False
        ) from None
    return NamedImage(f"file {number}", lambda: content)


def uploaded(file: gr.FileData | dict[str, Any]) -> Path:
    """Return the path of an uploaded file, which may have been deleted since.

    Raises:
        gr.Error: the file was not uploaded. Clients must not read other files of the server, nor a folder, which could
            be the folder of all uploads.
    """
    if not isinstance(file, dict) or not isinstance(file.get("path"), str):
        raise gr.Error("pass the file as {'path': ..., 'meta': {'_type': 'gradio.FileData'}}", print_exception=False)
    check_all_files_in_cache(file)
    path = Path(file["path"])
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise gr.Error("not an uploaded file; upload it first", print_exception=False)
    return path


def _to_json(prediction: SmilePrediction) -> dict[str, Any]:
    row = prediction.to_dict()
    return row | {"box": row["box"] and list(row["box"])}
