"""Chromium of Debian, driven by Playwright. Each test saves a screenshot in outputs/screenshots, which git ignores."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data

from hf_smile.data.sample import draw_face
from hf_smile.inference.classifier import SmileClassifier

SCREENSHOTS = Path(__file__).parents[2] / "outputs" / "screenshots"
_SEEN = (11, 14, 16)  # seeds of faces that the detector finds


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """The browser, which ends with the file: while Playwright runs, other tests can't run an event loop."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no Chromium: apt-get install -y chromium")
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream"]
        browser = running.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_demo(chromium, demo_url, request) -> Iterator[Callable]:
    """Open the demo in a new window: `open_demo(width=360, dark=True)`.

    At the end a screenshot is taken. The page must not have contacted another server or logged an error, except one
    about the address `http://127.0.0.1:9/`, which tests ask for.
    """
    asked, complaints, logged, pages = set(), [], [], []

    def open_page(width: int = 1200, height: int = 800, dark: bool = False, at: str = "", **context):
        window = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            accept_downloads=True,
            **context,
        )
        page = window.new_page()
        page.on("request", lambda asking: asked.add(asking.url))
        page.on("pageerror", lambda error: complaints.append(error))
        page.on("console", lambda line: logged.append(line.text) if line.type == "error" else None)
        page.set_default_timeout(60_000)
        page.goto(demo_url + at)
        page.get_by_role("tab", name="Photo", exact=True).wait_for()
        if not at:  # the tabs stand before what is in them
            page.locator("#photo .hs-intake").wait_for()
        pages.append(page)
        return page

    yield open_page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for page in pages:
        page.screenshot(path=SCREENSHOTS / f"{request.node.name}.png", full_page=True)
        page.context.close()
    assert not {url for url in asked if not url.startswith((demo_url, "data:", "blob:"))}
    assert not complaints and not [line for line in logged if "127.0.0.1:9/" not in line]


@pytest.fixture(scope="session")
def classifier(demo_model) -> SmileClassifier:
    return SmileClassifier.from_pretrained(demo_model, runtime="onnx")


@pytest.fixture(scope="session")
def hopper() -> Path:
    return Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))


@pytest.fixture
def drawn(tmp_path) -> list[Path]:
    """Three drawn faces as files."""
    paths = [tmp_path / f"face_{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        draw_face(i, np.random.default_rng(_SEEN[i])).save(path)
    return paths


@pytest.fixture
def clip(hopper, tmp_path) -> Path:
    """33 seconds of a portrait."""
    cv2 = pytest.importorskip("cv2")
    from PIL import Image

    portrait = np.asarray(Image.open(hopper).convert("RGB").resize((256, 300)))[:, :, ::-1]
    writer = cv2.VideoWriter(str(tmp_path / "clip.webm"), cv2.VideoWriter_fourcc(*"VP80"), 8, (256, 300))
    for _ in range(8 * 33):
        writer.write(portrait)
    writer.release()
    return tmp_path / "clip.webm"
