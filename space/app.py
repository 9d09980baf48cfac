"""The demo: a photo, many photos, a clip, and what to think of the answers. `make demo` runs it.

The environment variable HF_SMILE_MODEL names the model, a folder or an id on the Hub.
"""

from __future__ import annotations

import io
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import environment
import gradio as gr
import pandas as pd
import views
from about import about
from endpoints import add_endpoints, uploaded
from engine import FPS, MAX_IMAGES, MAX_SECONDS, Engine, SeenFace, why
from forgetting import Uploads, keep_forgetting
from gate import Gate
from samples import write_samples
from starlette.middleware import Middleware

from hf_smile.errors import SmileDataError, SmileError, SmileModelError
from hf_smile.inference.classifier import load_image
from hf_smile.inference.files import make_writer
from hf_smile.inference.prediction import SmilePrediction
from hf_smile.labels import LabelSet
from hf_smile.utils.console import run_script

QUICKSTART = "outputs/quickstart"
MODEL = os.environ.get("HF_SMILE_MODEL", QUICKSTART)
MAX_UPLOAD = "30mb"
_WAITING = 100  # requests; the next one is told to come back later
_THREADS = 8  # that read and write files, and run what is let in
# What takes a second must not wait for what takes a minute.
_QUICK = {"concurrency_id": "quick", "concurrency_limit": 2}
_LONG = {"concurrency_id": "long", "concurrency_limit": 1}
_FROM_PAGE = {"preprocess": False, "api_visibility": "private"}  # paths come as they are: Engine reads them itself

_SMILES = """\
# Smile: for real or for show?

Give it a face. It says whether there is **no smile**, a **genuine smile** or a **posed smile**, and how sure it is. It
is often wrong: a picture cannot prove what somebody feels. Do not judge anyone by it.
"""
_OTHER_LABELS = """\
# What does this face show?

Give it a face. It says which of these it shows, and how sure it is: {}. It is often wrong: a picture cannot prove what
somebody feels. Do not judge anyone by it.
"""
_DRAWN_ONLY = "**This is the quick start's model. It has seen drawn faces only: what it says of people means nothing.**"

THEME = gr.themes.Default(
    primary_hue=gr.themes.colors.emerald,
    neutral_hue=gr.themes.colors.slate,
    radius_size="lg",
    font=["system-ui", "sans-serif"],  # of the visitor's device: nothing is fetched
    font_mono=["ui-monospace", "monospace"],
).set(  # Gradio's own greys are too faint to read
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_label_text_color="*neutral_600",
    block_label_text_color_dark="*neutral_300",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
)


class _Page(gr.Blocks):
    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        try:
            super().validate_inputs(block_fn, inputs)
        except ValueError as error:  # whose traceback, inputs included, would go to the log
            raise gr.Error("that is not what this function takes", print_exception=False) from error


def build_page(engine: Engine, samples: Path) -> gr.Blocks:
    """The page and the API.

    Args:
        engine: gives the answers.
        samples: folder for the example pictures.
    """
    page = _Page(title="hf_smile", analytics_enabled=False)
    with page:
        introduction = _SMILES if engine.labels.tells_genuine else _OTHER_LABELS.format(engine.labels)
        gr.Markdown(introduction + ("\n" + _DRAWN_ONLY if engine.model == QUICKSTART else ""))
        with gr.Tab("Photo"):
            _photo_tab(engine, write_samples(samples))
        with gr.Tab("Many photos"):
            _batch_tab(engine)
        if engine.labels.smile_ids:  # a clip is searched for smiles
            with gr.Tab("Video"):
                _video_tab(engine)
        with gr.Tab("About"):
            gr.Markdown(about(engine.model, engine.labels))
        add_endpoints(engine, _QUICK, _LONG)
    return page.queue(max_size=_WAITING, api_open=False)


def _photo_tab(engine: Engine, samples: dict[str, Path]) -> None:
    def look(file: dict[str, Any] | None) -> tuple[str, str, list[SeenFace]]:
        if file is None:
            return views.message("No photo yet", "Upload one, take one, paste one, or pick an example."), "", []
        path = uploaded(file)
        try:
            photo = load_image(path)
            faces = engine.look(photo)
        except SmileDataError as error:
            return views.message("This picture can't be read", f"{why(error, path)}.", "problem"), "", []
        return views.photo(photo, faces), views.details(faces, 0), faces

    def choose(faces: list[SeenFace] | None, event: gr.EventData) -> tuple[str, int]:
        if not faces:
            return views.message("Forgotten", "This photo was forgotten for privacy. Give it again."), 0
        index = _clamped(event.face, faces)
        return views.details(faces, index), index

    def explain(faces: list[SeenFace] | None, index: int) -> str:
        if not faces:
            return ""
        try:
            return views.heat_map(engine.explain(faces[_clamped(index, faces)]))
        except (SmileModelError, ImportError) as error:
            return views.message("No heat map", f"{error}.")

    with gr.Row():
        with gr.Column(min_width=280):
            photo = gr.Image(
                label="Your photo", sources=["upload", "webcam", "clipboard"], height=300, elem_id="photo", buttons=[]
            )
            files = [[str(path)] for path in samples.values()]
            gr.Examples(files, photo, example_labels=list(samples), label="Or try one of these")
        with gr.Column(min_width=280):
            picture = gr.HTML(look(None)[0], js_on_load=views.CHOOSE_FACE, elem_id="picture")
            details = gr.HTML(js_on_load=views.SPEAK, elem_id="details")
            heat = gr.HTML(elem_id="heat")
    faces, chosen = gr.State(), gr.State(0)
    shown = photo.change(look, photo, [picture, details, faces], **_QUICK, **_FROM_PAGE)
    shown.then(lambda: 0, None, chosen, **_FROM_PAGE).then(explain, [faces, chosen], heat, **_QUICK, **_FROM_PAGE)
    picked = picture.click(choose, faces, [details, chosen], **_FROM_PAGE)
    picked.then(explain, [faces, chosen], heat, **_QUICK, **_FROM_PAGE)


def _clamped(index: Any, faces: list[SeenFace]) -> int:
    """The index of a face; 0 for one of an earlier photo, and for what no click of ours sends."""
    return index if isinstance(index, int) and 0 <= index < len(faces) else 0


def _batch_tab(engine: Engine) -> None:
    def look(files: list[dict[str, Any]] | None, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        if not files:
            return views.message("No pictures yet", "Choose some first.")
        try:
            seen = list(
                engine.look_at_many(
                    list(map(uploaded, files)), lambda done, total: progress((done, total), desc="Looking at pictures")
                )
            )
        except SmileDataError as error:
            return views.message("That was too much", f"{error}.", "problem")
        predictions = [item.prediction if isinstance(item, SeenFace) else item for item in seen]
        faces = [item for item in seen if isinstance(item, SeenFace)]
        faces.sort(key=lambda face: -max((face.prediction.probabilities or {}).values(), default=0.0))
        return views.batch(predictions, faces) + views.download("verdicts.csv", _csv(predictions, engine.labels))

    files = gr.File(
        label=f"Up to {MAX_IMAGES} pictures, or a zip of them",
        file_count="multiple",
        file_types=["image", ".zip"],
        elem_id="files",
        height=200,
    )
    button = gr.Button("Look at them", variant="primary")
    verdicts = gr.HTML(js_on_load=views.SPEAK, elem_id="verdicts")
    button.click(look, files, verdicts, **_LONG, **_FROM_PAGE)


def _csv(predictions: list[SmilePrediction], labels: LabelSet) -> str:
    file = io.StringIO()
    write = make_writer("csv", file, labels)
    for prediction in predictions:
        write(prediction)
    return file.getvalue()


def _video_tab(engine: Engine) -> None:
    def follow(file: dict[str, Any] | None, progress: gr.Progress = gr.Progress()) -> tuple[str, Any]:  # noqa: B008
        if file is None:
            return views.message("No clip yet", "Upload one or record one first."), gr.LinePlot(visible=False)
        try:
            clip = engine.follow(
                uploaded(file), lambda seconds: progress(seconds / MAX_SECONDS, desc=f"{seconds:.0f} s looked at")
            )
        except SmileDataError as error:
            return views.message("This clip can't be read", f"{error}.", "problem"), gr.LinePlot(visible=False)
        data = pd.DataFrame(clip.rows, columns=["seconds", "face", "p_smile"])
        return views.peaks(clip, MAX_SECONDS), gr.LinePlot(data, visible=bool(clip.rows))

    video = gr.Video(
        label=f"A clip; the first {MAX_SECONDS:.0f} seconds are looked at, {FPS:.0f} frames of each",
        sources=["upload", "webcam"],
        height=300,
        elem_id="video",
        buttons=[],
    )
    button = gr.Button("Follow the faces", variant="primary")
    peaks = gr.HTML(js_on_load=views.SPEAK, elem_id="peaks")
    plot = gr.LinePlot(
        x="seconds",
        y="p_smile",
        color="face",
        y_lim=[0, 1],
        y_title="probability of a smile",
        label="Smile over time",
        visible=False,
        elem_id="timeline",
    )
    button.click(follow, video, [peaks, plot], **_LONG, **_FROM_PAGE)


def main() -> None:
    port = _port(environment.PORT)
    engine = Engine(MODEL)
    uploads = Uploads(environment.UPLOADS.name)
    with tempfile.TemporaryDirectory() as samples:
        page = build_page(engine, Path(samples))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, and leaves no uploads behind
        try:
            page.launch(
                theme=THEME,
                css_paths=Path(__file__).with_name("style.css"),
                server_port=port,
                max_file_size=MAX_UPLOAD,
                max_threads=_THREADS,
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                footer_links=["api", "settings"],
                app_kwargs={
                    "middleware": [Middleware(Gate, uploads=uploads)],
                    "lifespan": keep_forgetting(page, uploads),
                },
                prevent_thread_lock=True,
                quiet=True,
            )
        except OSError as error:
            where = f"{os.environ.get('GRADIO_SERVER_NAME', '127.0.0.1')}:{port or ''}"
            raise SmileError(
                f"the demo can't be served at {where}: is another server there? GRADIO_SERVER_NAME and "
                "GRADIO_SERVER_PORT name another host and port"
            ) from error
        print(f"The demo runs at {page.local_url} (Ctrl-C ends it)", flush=True)
        engine.warm_up()
        page.block_thread()


def _port(text: str) -> int | None:
    """The port that is asked for; None lets Gradio choose the first free one from 7860 on.

    Raises:
        SmileError: it is no port.

    >>> _port("8080"), _port("")
    (8080, None)
    """
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise SmileError(f"GRADIO_SERVER_PORT is {text!r}; it must be a whole number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    run_script(main)
