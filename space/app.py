"""The demo: photos, clips and the camera, and how reliable the answers are. `make demo` runs it.

Environment variables: HF_SMILE_MODEL sets the model, a folder or an id on the Hub; HF_SMILE_DETECTOR the face detector,
as in `SmileClassifier.from_pretrained`; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT the address.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import environment
import gradio as gr
from about import about
from endpoints import add_endpoints
from engine import Engine
from forgetting import Health, Uploads, keep_forgetting, waiting_of
from gate import Gate
from starlette.middleware import Middleware
from tabs import LONG, QUICK, batch_tab, live_tab, photo_tab, video_tab

from hf_smile.errors import SmileError
from hf_smile.utils.console import run_script

TITLE = "Smile: for real or for show?"
DESCRIPTION = "Is a face not smiling, smiling genuinely or posing? Photos, clips and the camera; nothing is kept."
QUICKSTART = "outputs/quickstart"
MODEL = os.environ.get("HF_SMILE_MODEL", QUICKSTART)
DETECTOR = os.environ.get("HF_SMILE_DETECTOR", "auto")
MAX_UPLOAD = "30mb"
_WAITING = 100  # requests in the queue; further requests are refused
_THREADS = 8  # threads that read and write files and run the accepted requests

_SMILES = """\
# Smile: for real or for show?

Give it a face. It says whether there is **no smile**, a **genuine smile** or a **posed smile**, and how sure it is. It
is often wrong: a picture cannot prove what somebody feels. Do not judge anyone by it.
"""
_OTHER_LABELS = """\
# What does this face show?

Give it a face. It says which of these classes the face shows, and how sure it is: {}. It is often wrong: a picture
cannot prove what somebody feels. Do not judge anyone by it.
"""
# Keep the layout stable when a scroll bar appears.
_HEAD = f'<meta name="description" content="{DESCRIPTION}"><style>html {{ scrollbar-gutter: stable }}</style>'
_DRAWN_ONLY = "**This is the quick start's model. It was trained on drawn faces only; ignore its answers on people.**"

THEME = gr.themes.Default(
    primary_hue=gr.themes.colors.emerald,
    neutral_hue=gr.themes.colors.slate,
    radius_size="lg",
    font=["system-ui", "sans-serif"],  # fonts of the visitor's device: nothing is downloaded
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
        if block_fn.fn is None:  # it runs in the page
            raise gr.Error("the server has no such function", print_exception=False)
        try:
            super().validate_inputs(block_fn, inputs)
        except ValueError as error:  # its traceback would write the inputs to the log
            raise gr.Error("invalid input for this function", print_exception=False) from error


def build_page(engine: Engine, samples: Path) -> gr.Blocks:
    """Build the page and the API.

    Args:
        engine: engine that gives the answers.
        samples: folder for the example pictures.
    """
    page = _Page(title=TITLE, analytics_enabled=False)
    drawn = Path(engine.model).resolve() == Path(QUICKSTART).resolve()
    with page:
        introduction = _SMILES if engine.labels.tells_genuine else _OTHER_LABELS.format(engine.labels)
        gr.Markdown(introduction + ("\n" + _DRAWN_ONLY if drawn else ""))
        with gr.Tab("Photo"):
            photo_tab(engine, samples, drawn)
        with gr.Tab("Live"):
            live_tab(engine)
        with gr.Tab("Many photos"):
            batch_tab(engine)
        if engine.labels.smile_ids:  # clips are only searched for smiles
            with gr.Tab("Video"):
                video_tab(engine)
        with gr.Tab("About"):
            gr.Markdown(about(engine.model, engine.labels))
        add_endpoints(engine, QUICK, LONG)
    return page.queue(max_size=_WAITING, api_open=False)


def __getattr__(name: str) -> gr.Blocks:
    """Build the page for tools that look for `demo` in this module. Its example photos are removed with the uploads."""
    if name != "demo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return build_page(Engine(MODEL, DETECTOR), Path(tempfile.mkdtemp(dir=environment.UPLOADS.name)))


def main() -> None:
    if sys.argv[1:]:
        raise SmileError(
            "the demo takes no arguments; set the environment variables HF_SMILE_MODEL, HF_SMILE_DETECTOR, "
            "GRADIO_SERVER_NAME and GRADIO_SERVER_PORT"
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C and removes the uploads
    port = _port(environment.PORT)
    engine = Engine(MODEL, DETECTOR)
    engine.warm_up()
    uploads, health = Uploads(environment.UPLOADS.name), Health()
    with tempfile.TemporaryDirectory() as samples:
        page = build_page(engine, Path(samples))
        try:
            page.launch(
                theme=THEME,
                css_paths=Path(__file__).with_name("style.css"),
                head=_HEAD + f"<script>{Path(__file__).with_name('page.js').read_text('utf-8')}</script>",
                server_port=port,
                max_file_size=MAX_UPLOAD,
                max_threads=_THREADS,
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=find_spec("mcp") is not None,
                footer_links=["api"],
                app_kwargs={
                    "middleware": [Middleware(Gate, uploads=uploads, health=health, waiting=partial(waiting_of, page))],
                    "lifespan": keep_forgetting(page, uploads, health),
                },
                prevent_thread_lock=True,
                quiet=True,
            )
        except OSError as error:
            where = f"{os.environ.get('GRADIO_SERVER_NAME', '127.0.0.1')}:{port or ''}"
            raise SmileError(
                f"the demo can't be served at {where}, perhaps because another server uses this address; set another "
                "host or port with GRADIO_SERVER_NAME and GRADIO_SERVER_PORT"
            ) from error
        print(f"The demo runs at {page.local_url} (Ctrl-C ends it)", flush=True)
        page.block_thread()


def _port(text: str) -> int | None:
    """Parse the requested port; None lets Gradio choose the first free port from 7860.

    Raises:
        SmileError: the text is not a port.

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
