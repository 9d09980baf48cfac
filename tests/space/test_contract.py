"""Undocumented parts of Gradio and uvicorn that the demo uses; a version without one fails here by name."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

pytest.importorskip("cv2")
pytest.importorskip("gradio")

import gradio as gr
import uvicorn
from gradio.queueing import Event
from gradio.routes import file_upload_statuses
from uvicorn.protocols.http import h11_impl
from uvicorn.server import ServerState

SPACE = Path(__file__).parents[2] / "space"


@pytest.fixture(scope="module")
def page() -> Iterator:
    with gr.Blocks(analytics_enabled=False) as page:
        gr.State()
    page.queue()
    page.app.configure_app(page)
    return page


@pytest.mark.parametrize(
    "name",
    [
        "_queue.pending_messages_per_session",
        "_queue.pending_event_ids_session",
        "_queue.event_ids_to_events",
        "app.state_holder.session_data",
        "app.state_holder.time_last_used",
        "temp_file_sets",
        "validate_inputs",
    ],
)
def test_of_a_page(page, name):
    attrgetter(name)(page)


def test_of_the_state_of_a_visitor(page):
    assert page.app.state_holder["somebody"].state_data == {}


@pytest.mark.parametrize("name", ["session_hash", "request"])
def test_of_a_request(page, name):
    function = next(iter(gr.Interface(str, None, "text", analytics_enabled=False).fns.values()))
    assert hasattr(Event("somebody", function, None, None), name)


def test_how_far_uploads_are_is_forgotten_by_a_fresh_start():
    file_upload_statuses.track("an upload")
    file_upload_statuses.__init__()
    assert "an upload" not in str(vars(file_upload_statuses))


@pytest.mark.parametrize("name", ["self.cycle", "self.transport", "self.response_complete"])
def test_of_a_connection(name):
    assert name in inspect.getsource(h11_impl)


def test_of_a_server():
    assert ServerState().connections == set()
    assert "server_state" in inspect.getsource(uvicorn.Server)


@pytest.mark.parametrize("name", ["check_all_files_in_cache"])
def test_of_the_checks_of_files(name):
    from gradio import processing_utils

    assert callable(getattr(processing_utils, name))


@pytest.mark.parametrize("name", ["GRADIO_ANALYTICS_MAX_EVENTS", "GRADIO_ANALYTICS_CACHE_FREQUENCY"])
def test_of_the_environment(name):
    from gradio import queueing

    assert name in inspect.getsource(queueing)


def test_of_the_backend_of_matplotlib():
    from gradio.utils import MatplotlibBackendMananger

    assert "matplotlib.get_backend()" in inspect.getsource(MatplotlibBackendMananger)
    code = "import environment, matplotlib, sys; matplotlib.get_backend(); sys.exit('matplotlib.pyplot' in sys.modules)"
    without = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    done = subprocess.run([sys.executable, "-c", code], cwd=SPACE, env=without, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
