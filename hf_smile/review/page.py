"""The page of a review: one picture large, what is said of it, a key for each decision. Served to this machine alone.

Pictures travel inside the answers, so that none is ever written to disk or has an address of its own.
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
_LARGE, _SMALL = 800, 160  # pixels of the longer side
_SIDE_BY_SIDE = 3  # copies of the picture, at most
_KEPT = 128  # pictures that are ready to be shown again


class Page:
    """What the page shows and does, without a server.

    Args:
        session: the decisions.
        images: where the images are.

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
        """Do what a key says, and describe the picture that comes next.

        Args:
            asked: `key`, and the position `at` and `image_id` of the picture that was shown; `at` is negative where
                there was none yet.

        Returns:
            `at`, `image_id` and `html` of the picture; or a `problem` in words.
        """
        session, at = self.session, int(asked["at"])
        try:
            at = session.start() if at < 0 else session.press(str(asked["key"]), at, str(asked["image_id"]))
        except SmileError as error:
            return {"problem": str(error)}
        entry = session.queue[at] if at < len(session.queue) else None
        html = self._render(entry, at)
        for later in session.queue[at + 1 : at + 3]:  # so that their pictures are ready when they are asked for
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
        """The address of a picture, which holds it; or why it can't be shown."""
        try:
            picture = decode_image(self.images.read(file))
        except (SmileDataError, OSError) as error:
            return first_line(error)
        picture.thumbnail((side, side))
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=90)
        return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def serve(page: Page, port: int | None = None, ready: Callable[[str], None] = print) -> None:
    """Serve the page on the loopback until Ctrl-C. Nothing is fetched from elsewhere, and nothing is told to anyone.

    Args:
        page: what is served.
        port: None for the first free one from 7860 on.
        ready: is told the address.

    Raises:
        SmileError: the port is taken.
    """
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    def press(asked: dict[str, Any]) -> dict[str, Any]:  # Gradio marks what may be called, which a method won't bear
        return page.press(asked)

    script = _FOLDER.joinpath("page.js").read_text("utf-8")
    with gr.Blocks(title="hf_smile review", analytics_enabled=False) as blocks:
        gr.HTML(html_template='<div class="hr"></div>', js_on_load=script, server_functions=[press])
    theme = gr.themes.Default(
        primary_hue="emerald", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )  # with fonts of the reviewer's own device: nothing is fetched
    # A page elsewhere must not reach this one through a name that it resolves to the loopback.
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
        raise SmileError(f"{HOST}:{port}: can't be served there ({first_line(error)}); name another --port") from None
    ready(blocks.local_url)
    blocks.block_thread()
