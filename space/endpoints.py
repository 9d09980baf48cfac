"""The API: /predict and /predict_batch, with typed JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import gradio as gr
from engine import Engine, SeenFace, why
from gradio.processing_utils import check_all_files_in_cache

from hf_smile.errors import SmileDataError
from hf_smile.inference.classifier import load_image
from hf_smile.inference.prediction import NO_FACE, SmilePrediction
from hf_smile.labels import LabelSet


def verdict_type(labels: LabelSet) -> Any:
    """What `SmilePrediction.to_dict` gives."""
    types = dict.fromkeys(SmilePrediction(labels=labels).to_dict(), str | None)
    types |= {name: float | None for name in types if name.startswith("p_") or name == "detector_score"}
    return TypedDict("Verdict", types | {"box": list[int] | None})  # type: ignore[operator]


def add_endpoints(engine: Engine, quick: dict[str, Any], long: dict[str, Any]) -> None:
    """Add the endpoints to the page that is being built.

    Args:
        engine: gives the answers.
        quick: how many photos may be worked on at a time, as keyword arguments of `gr.api`.
        long: the same for batches.
    """

    def predict(photo: gr.FileData) -> list[dict[str, Any]]:
        """Tell of each face in a photo whether it smiles, and whether the smile is genuine or posed.

        It is often wrong, and a picture cannot prove what somebody feels: do not judge anyone by it.

        Args:
            photo: an uploaded file; of the MCP tool, a data: URI such as data:image/jpeg;base64,... (at most 7 MB).

        Returns:
            One verdict a face, the largest first; one without a label and with a note where no face is found.
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
        """Tell of each face in many photos whether it smiles, and whether the smile is genuine or posed.

        Args:
            files: uploaded photos and zips of photos; of the MCP tool, data: URIs.

        Returns:
            One verdict a face, file by file. What can't be read has its reason in `error`.
        """
        try:
            seen = list(engine.look_at_many(list(map(uploaded, files))))
        except SmileDataError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return [_to_json(item.prediction if isinstance(item, SeenFace) else item) for item in seen]

    for endpoint in (predict, predict_batch):
        endpoint.__annotations__["return"] = list[verdict_type(engine.labels)]  # type: ignore[misc]
    gr.api(predict, api_name="predict", **quick)
    gr.api(predict_batch, api_name="predict_batch", **long)


def uploaded(file: gr.FileData | dict[str, Any]) -> Path:
    """The path of an uploaded file, or of one that was and is deleted by now.

    Raises:
        gr.Error: it is no uploaded file. Nobody may have other files of the server read, nor a folder, which may be
            that of all uploads.
    """
    if not isinstance(file, dict) or not isinstance(file.get("path"), str):
        raise gr.Error("give the file as {'path': ..., 'meta': {'_type': 'gradio.FileData'}}", print_exception=False)
    check_all_files_in_cache(file)
    path = Path(file["path"])
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise gr.Error("that is no uploaded file", print_exception=False)
    return path


def _to_json(prediction: SmilePrediction) -> dict[str, Any]:
    row = prediction.to_dict()
    return row | {"box": row["box"] and list(row["box"])}
