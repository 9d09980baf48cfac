"""The tabs of the page: photo, many photos, video, live camera."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
import pandas as pd
import views
from endpoints import uploaded
from engine import MAX_IMAGES, MAX_SECONDS, Clip, Engine, SeenFace, why
from samples import write_samples

from hf_smile.errors import SmileDataError, SmileModelError
from hf_smile.inference.classifier import load_image
from hf_smile.inference.files import make_writer
from hf_smile.inference.prediction import SmilePrediction
from hf_smile.labels import LabelSet

# Separate queues: requests that take a second must not wait for those that take a minute.
QUICK = {"concurrency_id": "quick", "concurrency_limit": 2}
LONG = {"concurrency_id": "long", "concurrency_limit": 1}
_LIVE = {"concurrency_id": "live", "concurrency_limit": 1}
_FROM_PAGE = {"preprocess": False, "api_visibility": "private"}  # pass paths unchanged: Engine reads the files
_DATA_URI = "data:image/jpeg;base64,"


def _told(event: gr.EventData, name: str) -> Any:
    """Return a value sent with a page event; None if the event does not have it."""
    try:
        return getattr(event, name)
    except (AttributeError, TypeError):
        return None


class _Latest:
    """Tells whether a visitor has called a function again meanwhile, because answers can overtake each other."""

    def __init__(self) -> None:
        self._running: dict[str | None, list[int]] = {}
        """By visitor: how many calls are running, and the highest number of these and of those they overlapped."""
        self._lock = Lock()

    @contextmanager
    def call(self, visitor: str | None, number: Any) -> Iterator[Callable[[], bool]]:
        """Begin the call with this number, and yield a function that tells whether it is still the latest."""
        number = number if isinstance(number, int) else 0
        with self._lock:
            running = self._running.setdefault(visitor, [0, number])
            running[:] = running[0] + 1, max(running[1], number)
        try:
            yield lambda: running[1] == number
        finally:
            with self._lock:
                running[0] -= 1
                if not running[0]:
                    del self._running[visitor]


def photo_tab(engine: Engine, samples: Path, drawn: bool) -> None:
    """Build the tab for one photo: the verdicts on its faces, and where the network looked.

    Args:
        engine: engine that gives the answers.
        samples: folder for the example photos.
        drawn: whether to include drawn faces.
    """
    files = write_samples(samples, drawn)

    looks, explanations = _Latest(), _Latest()

    def look(event: gr.EventData, request: gr.Request) -> tuple[Any, Any, Any]:
        example = _told(event, "example")
        if isinstance(example, int) and 0 <= example < len(files):
            path = [*files.values()][example]
        else:
            path = uploaded({"path": _told(event, "path")})
        with looks.call(request.session_hash, _told(event, "number")) as is_latest:
            try:
                image = load_image(path)
                faces = engine.look(image, whole=_told(event, "whole") is True)
                result = views.photo(image, faces, engine.metrics)
            except SmileDataError as error:
                faces, result = [], views.message("This picture can't be read", f"{why(error, path)}.", "problem")
            if not is_latest():
                return gr.skip(), gr.skip(), gr.skip()
            return result, gr.update(visible=bool(faces), open=False), faces

    def explain(faces: list[SeenFace] | None, asked: Any, request: gr.Request) -> Any:
        if not faces:
            return "<p>This photo was deleted for privacy. Upload it again.</p>"
        index, number = (asked.get("face"), asked.get("number")) if isinstance(asked, dict) else (0, 0)
        # An index from an earlier photo, or an invalid one, selects the first face.
        face = faces[index if isinstance(index, int) and 0 <= index < len(faces) else 0]
        with explanations.call(request.session_hash, number) as is_latest:
            try:
                result = views.heat_map(engine.explain(face))
            except (SmileModelError, ImportError) as error:
                result = f"<p>No heat map: {html.escape(str(error))}.</p>"
            return result if is_latest() else gr.skip()

    with gr.Column(elem_id="photo-tab"):
        intake = gr.HTML(views.intake(files), js_on_load="hs.intake(element, trigger, upload)", elem_id="photo")
        picture = gr.HTML(js_on_load="hs.result(element, watch); hs.faces(element, trigger)", elem_id="picture")
        with gr.Accordion("Where it looked", open=False, visible=False, elem_id="where") as where:
            heat = gr.HTML(elem_id="heat", min_height=180)
    faces = gr.State()
    # By default, Gradio drops an event while an earlier one is unanswered.
    each_one = {"trigger_mode": "multiple", **QUICK, **_FROM_PAGE}
    for given in (intake.upload, intake.select):
        given(look, None, [picture, where, faces], show_progress_on=picture, **each_one)
    # Only the page knows which face is selected.
    picture.select(None, None, where, js="() => ({ __type__: 'update', open: false })")
    where.expand(None, None, heat, js="() => ''")  # the heat map of another face
    where.expand(explain, [faces, picture], heat, js="(faces) => [faces, hs.asked()]", **each_one)


def batch_tab(engine: Engine) -> None:
    """Build the tab for many photos and zips: a sortable table, the faces, and a CSV file."""
    nothing = gr.update(visible=False), ""

    def look(files: list[dict[str, Any]] | None, progress: gr.Progress = gr.Progress()) -> Iterator[Any]:  # noqa: B008
        if not files:
            yield views.message("No photos yet", "Choose photos first, and wait until they are uploaded."), *nothing
            return
        seen: list[SeenFace | SmilePrediction] = []
        try:
            for item in engine.look_at_many(
                list(map(uploaded, files)), lambda done, total: progress((done, total), desc="Classifying photos")
            ):
                seen.append(item)
                yield gr.skip(), gr.skip(), gr.skip()  # a point at which Gradio can stop the task
        except SmileDataError as error:
            yield views.message("Too many photos", f"{error}.", "problem"), *nothing
            return
        predictions = [item.prediction if isinstance(item, SeenFace) else item for item in seen]
        faces = [item for item in seen if isinstance(item, SeenFace)]
        headers, rows = views.table(predictions)
        table = gr.Dataframe({"headers": headers, "data": rows}, visible=bool(rows))
        yield views.batch(predictions, faces), table, views.download("verdicts.csv", _csv(predictions, engine.labels))

    files = gr.File(
        label=f"Up to {MAX_IMAGES} photos, or a zip of them",
        file_count="multiple",
        file_types=["image", ".zip"],
        elem_id="files",
        height=180,
    )
    start, stop = _buttons("Classify photos")
    verdicts = gr.HTML(js_on_load="hs.result(element, watch)", elem_id="verdicts")
    table = gr.Dataframe(
        visible=False,
        interactive=False,
        wrap=True,
        column_widths=["26%", "24%", "24%", "26%"],
        label="All verdicts",
        buttons=[],
        max_height=400,
        elem_id="table",
    )
    link = gr.HTML(elem_id="csv")
    _run(start, stop, look, files, [verdicts, table, link], nothing)


def _buttons(words: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        return (
            gr.Button(words, variant="primary", scale=3, min_width=120),
            gr.Button("Stop", scale=1, min_width=80, interactive=False),
        )


def _run(start: gr.Button, stop: gr.Button, work: Any, given: Any, shown: list[Any], nothing: tuple[Any, ...]) -> None:
    """Connect a button that starts a long task, and one that stops it and replaces the results by `nothing`."""

    def ready(running: bool) -> Any:
        return lambda: (gr.Button(interactive=not running), gr.Button(interactive=running))

    at_once = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    begun = start.click(ready(True), None, [start, stop], **at_once)
    working = begun.then(work, given, shown, show_progress_on=shown[0], **LONG, **_FROM_PAGE)
    working.then(ready(False), None, [start, stop], **at_once)
    stopped = views.message("Stopped", "There are no results. Start again to get them.")
    stop.click(lambda: (*ready(False)(), stopped, *nothing), None, [start, stop, *shown], cancels=working, **at_once)


def _csv(predictions: list[SmilePrediction], labels: LabelSet) -> str:
    file = io.StringIO()
    write = make_writer("csv", file, labels)
    for prediction in predictions:
        write(prediction)
    return file.getvalue()


def video_tab(engine: Engine) -> None:
    """Build the tab for a clip: who smiles when."""
    nothing = (gr.update(visible=False),)

    def follow(file: dict[str, Any] | None, progress: gr.Progress = gr.Progress()) -> Iterator[Any]:  # noqa: B008
        if file is None:
            yield views.message("No clip yet", "Upload or record a clip first."), *nothing
            return
        path, seen = uploaded(file), Clip()
        try:
            for seen in engine.follow(path):
                progress(seen.seconds / MAX_SECONDS, desc=f"{seen.seconds:.0f} s analysed")
                yield gr.skip(), gr.skip()  # a point at which Gradio can stop the task
        except SmileDataError as error:
            yield views.message("This clip can't be read", f"{error}.", "problem"), *nothing
            return
        data = pd.DataFrame(seen.rows, columns=["seconds", "who", "smiling, %"])
        plot = gr.LinePlot(data, visible=bool(seen.rows), color_map=views.people_colors(seen.people))
        yield views.clip(seen, MAX_SECONDS), plot

    video = gr.Video(
        label=f"A clip (its first {MAX_SECONDS:.0f} seconds)",
        sources=["upload", "webcam"],
        height=260,
        elem_id="video",
        buttons=[],
    )
    start, stop = _buttons("Track the faces")
    plot = gr.LinePlot(
        x="seconds",
        y="smiling, %",
        color="who",
        y_lim=[0, 100],
        height=220,
        visible=False,
        buttons=[],
        elem_id="timeline",
        render=False,
    )
    seen = gr.HTML(js_on_load="hs.result(element, watch)", elem_id="peaks")
    plot.render()
    _run(start, stop, follow, video, [seen, plot], nothing)


def live_tab(engine: Engine) -> None:
    """Build the camera tab. Each frame is sent after the answer to the previous one; none is written to disk."""

    def look(event: gr.EventData) -> str:
        frame, number = _told(event, "frame"), _told(event, "number")
        if not isinstance(frame, str) or not frame.startswith(_DATA_URI) or not isinstance(number, int):
            raise gr.Error("not a camera frame", print_exception=False)
        try:
            image = load_image(base64.b64decode(frame.removeprefix(_DATA_URI)))
            return views.frame(image, engine.look(image), number)
        except (SmileDataError, ValueError) as error:
            raise gr.Error(f"this frame can't be read: {error}", print_exception=False) from None

    camera = gr.HTML(views.CAMERA, js_on_load="hs.camera(element, trigger)", elem_id="live")
    answer = gr.HTML(js_on_load="hs.answer(element, watch)", elem_id="live-answer")
    # With the default trigger mode, Gradio drops a frame that arrives while the page is still showing the last answer.
    camera.input(look, None, answer, show_progress="hidden", trigger_mode="multiple", **_LIVE, **_FROM_PAGE)
