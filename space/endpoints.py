"""The API: /predict and /predict_batch, with typed JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import gradio as gr
from engine import Engine, SeenFace, why
from gradio.processing_utils import check_all_files_in_cache

from hf_smile.errors import SmileDataError
from hf_smile.inference.classifier import NO_FACE, SmilePrediction, load_image


class Verdict(TypedDict):
    """What `SmilePrediction.to_dict` gives."""

    image_id: str | None
    true_label: str | None
    predicted_label: str | None
    p_negative_smile: float | None
    p_positive_smile: float | None
    p_not_smile: float | None
    p_smile: float | None
    p_genuine_given_smile: float | None
    box: list[int] | None
    detector_score: float | None
    note: str | None
    error: str | None


def add_endpoints(engine: Engine, quick: dict[str, Any], long: dict[str, Any]) -> None:
    """Add the endpoints to the page that is being built.

    Args:
        engine: gives the answers.
        quick: how many photos may be worked on at a time, as keyword arguments of `gr.api`.
        long: the same for batches.
    """

    def predict(photo: gr.FileData) -> list[Verdict]:
        """Verdicts on the faces of a photo, the largest first; one without a label where no face is found."""
        path = uploaded(photo)
        try:
            seen = [face.prediction for face in engine.look(load_image(path))]
            return [_to_json(prediction) for prediction in seen or [SmilePrediction(note=NO_FACE)]]
        except SmileDataError as error:
            return [_to_json(SmilePrediction(error=why(error, path)))]

    def predict_batch(files: list[gr.FileData]) -> list[Verdict]:
        """Verdicts on the faces of many images and zips, file by file. What can't be read has its `error`."""
        try:
            seen = list(engine.look_at_many(list(map(uploaded, files))))
        except SmileDataError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return [_to_json(item.prediction if isinstance(item, SeenFace) else item) for item in seen]

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


def _to_json(prediction: SmilePrediction) -> Verdict:
    row = prediction.to_dict()
    return Verdict(**(row | {"box": row["box"] and list(row["box"])}))  # type: ignore[typeddict-item]
