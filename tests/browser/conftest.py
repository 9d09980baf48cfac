"""Debian's Chromium, driven by Playwright. Each test leaves a screenshot in outputs/screenshots, which git ignores."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCREENSHOTS = Path(__file__).parents[2] / "outputs" / "screenshots"


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no Chromium: apt-get install -y chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_demo(chromium, demo_url, request) -> Iterator[Callable]:
    """Opens the demo in a new window, `open_demo(width=360, dark=True)`.

    In the end the window is photographed, and must have asked no other server for anything, nor complained.
    """
    asked, complaints, pages = set(), [], []

    def open_page(width: int = 1200, dark: bool = False):
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        page = context.new_page()
        page.on("request", lambda asking: asked.add(asking.url))
        page.on("pageerror", lambda error: complaints.append(error))
        page.set_default_timeout(60_000)
        page.goto(demo_url)
        page.get_by_text("No photo yet").wait_for()
        pages.append(page)
        return page

    yield open_page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for page in pages:
        page.screenshot(path=SCREENSHOTS / f"{request.node.name}.png", full_page=True)
        page.context.close()
    assert not {url for url in asked if not url.startswith((demo_url, "data:", "blob:"))}
    assert not complaints
