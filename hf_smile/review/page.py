"""The review page: one large picture, the opinions about it, and a key for each decision. Only served to this machine.

Pictures are embedded in the page, so none is written to disk or has its own URL.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from hf_smile.data.corrections import KEEP
from hf_smile.data.images import decode_image
from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError, SmileError, first_line
from hf_smile.review.queue import Entry
from hf_smile.review.session import LABEL_KEYS, Session
from hf_smile.utils.figures import class_colors
from hf_smile.utils.words import counted

HOST = "127.0.0.1"
_FOLDER = Path(__file__).parent
_LARGE, _SMALL = 800, 160  # longer side in pixels
_SIDE_BY_SIDE = 3  # maximum number of duplicates shown
_KEPT = 128  # pictures kept in memory


class Page:
    """Contents and actions of the page, without a server.

    Args:
        session: session with the decisions.
        images: source of the images.

    >>> Page(session, images).press({"key": "", "at": -1, "image_id": ""})["at"]  # doctest: +SKIP
    0
    """

    def __init__(self, session: Session, images: Images) -> None:
        self.session, self.images = session, images
        self.doubted = [entry.image_id for entry in session.queue if entry.reason]
        self._picture = lru_cache(_KEPT)(self._draw)
        self._template = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True).get_template("page.html")
        self._ahead = ThreadPoolExecutor(1)

    def press(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Handle a key, and return the next picture.

        Args:
            asked: `key`, and the position `at` and `image_id` of the picture shown. `at` is negative at the start.

        Returns:
            `at`, `image_id` and `html` of the next picture, or an error message `problem`.
        """
        session, at = self.session, int(asked["at"])
        try:
            at = session.start() if at < 0 else session.press(str(asked["key"]), at, str(asked["image_id"]))
        except SmileError as error:
            return {"problem": str(error)}
        entry = session.queue[at] if at < len(session.queue) else None
        html = self._render(entry, at)
        for later in session.queue[at + 1 : at + 3]:  # prepare the next pictures in advance
            self._ahead.submit(self._render, later, at)
        return {"at": at, "image_id": entry.image_id if entry else "", "html": html}

    def _render(self, entry: Entry | None, at: int) -> str:
        session = self.session
        wanted = self.doubted or [*session.position_of]
        done = sum(image_id in session.standing for image_id in wanted)
        copies = self._entries(*entry.copies[:_SIDE_BY_SIDE]) if entry else []
        neighbours = (
            [(*self._entries(image_id), similarity) for image_id, similarity in entry.neighbours] if entry else []
        )
        return self._template.render(
            entry=entry,
            at=at,
            total=len(session.queue),
            copies=copies,
            neighbours=neighbours,
            decided=self._decided(entry) if entry else "",
            wanted=len(wanted),
            done=done,
            others=len(session.standing) - done,
            doubted=self.doubted,
            changes=session.changes(),
            labels=session.labels,
            blind=session.blind,
            path=session.path,
            colors=class_colors(session.labels),
            keys=LABEL_KEYS,
            picture=self._picture,
            large=_LARGE,
            small=_SMALL,
            counted=counted,
        )

    def _entries(self, *image_ids: str) -> list[Entry]:
        return [self.session.queue[self.session.position_of[image_id]] for image_id in image_ids]

    def _decided(self, entry: Entry) -> str:
        decision = self.session.standing.get(entry.image_id)
        if decision is None:
            return ""
        kept = decision.old_label if decision.decision == KEEP else ""
        return decision.new_label or kept or decision.decision.replace("_", " ")

    def _draw(self, file: str, side: int) -> str:
        """The picture as a data URL, or the reason why it can't be shown."""
        try:
            picture = decode_image(self.images.read(file))
        except (SmileDataError, OSError) as error:
            return first_line(error)
        picture.thumbnail((side, side))
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=90)
        return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def serve(page: Page, port: int | None = None, ready: Callable[[str], None] = print) -> None:
    """Serve the page on the loopback interface until Ctrl-C, without any requests to other servers.

    Args:
        page: page to serve.
        port: port; None for the first free one from 7860.
        ready: called with the URL when the server is ready.

    Raises:
        SmileError: if the port is in use.
    """
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A function, because Gradio sets an attribute on it, which is not possible for a bound method.
    def press(asked: dict[str, Any]) -> dict[str, Any]:
        return page.press(asked)

    script = _FOLDER.joinpath("page.js").read_text("utf-8")
    with gr.Blocks(title="hf_smile review", analytics_enabled=False) as blocks:
        gr.HTML(html_template='<div class="hr"></div>', js_on_load=script, server_functions=[press])
    theme = gr.themes.Default(
        primary_hue="emerald", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )  # with system fonts, so that nothing is downloaded
    # Check the host name, so that other websites can't reach the server through DNS rebinding.
    own = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    try:
        blocks.launch(
            theme=theme,
            css_paths=_FOLDER / "page.css",
            server_name=HOST,
            server_port=port,
            share=False,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            footer_links=[],
            app_kwargs={"middleware": [own]},
            prevent_thread_lock=True,
            quiet=True,
        )
    except OSError as error:
        raise SmileError(f"can't serve at {HOST}:{port} ({first_line(error)}); choose another --port") from None
    ready(blocks.local_url)
    blocks.block_thread()
