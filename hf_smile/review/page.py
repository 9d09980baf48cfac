"""The page of a review: one picture large, what is said of it, a key for each decision. Served to this machine alone.

Pictures travel inside the answers, so that none is ever written to disk or has an address of its own.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from hf_smile.data.corrections import LEAVE_OUT, UNSURE, Decision
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
_SAYS = {"keep": "kept", UNSURE: "unsure", LEAVE_OUT: "left out"}


class Page:
    """What the page shows and does, without a server.

    Args:
        session: the decisions.
        images: where the images are.

    >>> Page(session, images).press({"key": "", "at": -1})["parts"]["about"]  # doctest: +SKIP
    """

    def __init__(self, session: Session, images: Images) -> None:
        self.session, self.images = session, images
        self.colors = class_colors(session.labels)
        self.doubted = [entry.image_id for entry in session.queue if entry.reason and not session.blind]
        self.picture = lru_cache(_KEPT)(self._picture)
        self._ahead = ThreadPoolExecutor(1)

    def press(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what a key says, and describe the picture that comes next.

        Args:
            asked: `key`, and the position `at` and `image_id` of the picture that was shown; `at` is negative where
                there was none yet.

        Returns:
            `at`, `image_id`, and HTML by the name of its part of the page; or a `problem` in words.
        """
        session, at = self.session, int(asked["at"])
        try:
            at = session.start() if at < 0 else session.press(str(asked["key"]), at, str(asked["image_id"]))
        except SmileError as error:
            return {"problem": str(error)}
        entry = session.queue[at] if at < len(session.queue) else None
        for later in session.queue[at + 1 : at + 3]:  # so that they are ready when they are asked for
            self._ahead.submit(self._parts, later)
        parts = {
            "progress": self._progress(),
            "about": self._about(entry, at) if entry else self._end(),
            **(self._parts(entry) if entry else dict.fromkeys(("picture", "opinions", "others"), "")),
        }
        return {"at": at, "image_id": entry.image_id if entry else "", "parts": parts}

    def _parts(self, entry: Entry) -> dict[str, str]:
        """Those that no decision changes."""
        return {
            "picture": self._pictures(entry),
            "opinions": self._opinions(entry),
            "others": self._neighbours(entry),
        }

    def skeleton(self) -> str:
        """The page before its first picture: the parts, and the keys, which stay."""
        labels = [
            _button(key, name, f' style="--class:{self.colors[name]}" class="hr-label"')
            for key, name in zip(LABEL_KEYS, self.session.labels, strict=False)
        ]
        keep = "" if self.session.blind else _button("k", "Keep", ' class="hr-keep"', "Enter")
        rest = [("u", "Unsure", "u"), ("x", "Leave out", "x"), ("s", "Skip", "s"), ("z", "Undo", "z")]
        moves = _button("left", "Back", shown="←") + _button("right", "Next", shown="→")
        return (
            '<div class="hr"><div data-part="progress"></div><div class="hr-stage"><div data-part="picture"></div>'
            '<div class="hr-panel"><div data-part="about" aria-live="polite"></div>'
            f'<div class="hr-keys">{keep}{"".join(labels)}</div>'
            f'<div class="hr-keys hr-few">{"".join(_button(*word[:2]) for word in rest)}{moves}</div>'
            '<p class="hr-problem" role="alert"></p><div data-part="opinions"></div></div></div>'
            '<div data-part="others"></div></div>'
        )

    def _picture(self, file: str, side: int) -> str:
        """Its address, which holds it."""
        picture = decode_image(self.images.read(file))
        picture.thumbnail((side, side))
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=90)
        return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"

    def _figure(self, entry: Entry, side: int, caption: str) -> str:
        try:
            shown = f'<img src="{self.picture(entry.file, side)}" alt="{escape(entry.image_id)}">'
        except (SmileDataError, OSError) as error:
            shown = f'<p class="hr-broken">This picture can\'t be shown: {escape(first_line(error))}</p>'
        return f"<figure>{shown}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"

    def _label(self, label_id: int) -> str:
        name = self.session.labels[label_id]
        return f'<span class="hr-name" style="--class:{self.colors[name]}">{escape(name)}</span>'

    def _pictures(self, entry: Entry) -> str:
        if self.session.blind or not entry.copies:
            return f'<div class="hr-large">{self._figure(entry, _LARGE, "")}</div>'
        figures = [self._figure(entry, _LARGE, f"this one: {self._label(entry.label)}, {escape(entry.split)}")]
        for other in self._entries(entry.copies[:_SIDE_BY_SIDE]):
            figures.append(self._figure(other, _LARGE, f"the same: {self._label(other.label)}, {escape(other.split)}"))
        return f'<div class="hr-large hr-beside">{"".join(figures)}</div>'

    def _about(self, entry: Entry, at: int) -> str:
        session, decision = self.session, self.session.standing.get(entry.image_id)
        where = f"{at + 1:,} of {len(session.queue):,} · {escape(entry.split)} · {escape(entry.image_id)}"
        asked = "Which label fits?"
        if not session.blind:
            asked = f"<small>Given label</small>{self._label(entry.label)}"
        reason = f"<p>{escape(entry.reason)}.</p>" if entry.reason and not session.blind else ""
        said = f'<p class="hr-decided">Decided: {escape(self._says(decision))}</p>' if decision else ""
        return f'<p class="hr-where">{where}</p><h2>{asked}</h2>{reason}{said}'

    def _says(self, decision: Decision) -> str:
        if self.session.blind:
            return (
                decision.new_label
                or (decision.old_label if decision.decision == "keep" else "")
                or _SAYS[decision.decision]
            )
        return decision.new_label or _SAYS[decision.decision]

    def _opinions(self, entry: Entry) -> str:
        if self.session.blind:
            return ""
        blocks = []
        for who, probabilities in entry.opinions.items():
            bars = "".join(
                f'<div class="hr-bar" style="--class:{self.colors[name]}"><span>{escape(name)}</span>'
                f'<span>{100 * p:.0f}&nbsp;%</span><div><div style="width:{100 * p:.1f}%"></div></div></div>'
                for name, p in zip(self.session.labels, probabilities, strict=True)
            )
            blocks.append(f"<section><h3>The {escape(who)} says</h3>{bars}</section>")
        return "".join(blocks)

    def _neighbours(self, entry: Entry) -> str:
        if self.session.blind or not entry.neighbours:
            return ""
        of_others = dict(entry.neighbours)
        figures = (
            self._figure(other, _SMALL, f"{self._label(other.label)}<br>similarity {of_others[other.image_id]:.2f}")
            for other in self._entries(of_others)
        )
        return f'<h3>Most like it</h3><div class="hr-strip">{"".join(figures)}</div>'

    def _entries(self, image_ids: Iterable[str]) -> list[Entry]:
        return [self.session.queue[self.session.position_of[image_id]] for image_id in image_ids]

    def _progress(self) -> str:
        session = self.session
        wanted = self.doubted or [entry.image_id for entry in session.queue]
        done = sum(image_id in session.standing for image_id in wanted)
        what = "doubted pictures" if self.doubted else "pictures"
        text = f"<strong>{done:,} of {len(wanted):,}</strong> {what} decided"
        if beyond := len(session.standing) - done:
            text += f", and {counted(beyond, 'other')}"
        changed = "" if session.blind else self._changed()
        return (
            f'<div class="hr-done" role="progressbar" aria-label="decided" aria-valuemax="{len(wanted)}" '
            f'aria-valuenow="{done}"><div style="width:{100 * done / max(len(wanted), 1):.2f}%"></div></div>'
            f"<p>{text}{changed}</p>"
        )

    def _changed(self) -> str:
        changes = self.session.changes()
        by_class = ", ".join(f"{escape(name)} {changes[name]:,}" for name in self.session.labels if changes[name])
        return f" · {counted(changes.total(), 'label')} changed" + (f": {by_class}" if by_class else "")

    def _end(self) -> str:
        return f"<h2>Every picture is decided</h2><p>The decisions are in {escape(str(self.session.path))}.</p>"


def _button(key: str, text: str, further: str = "", shown: str = "") -> str:
    return f'<button type="button" data-key="{key}"{further}><kbd>{shown or key}</kbd> {escape(text)}</button>'


def serve(page: Page, port: int | None = None, ready: Callable[[str], None] = print) -> None:
    """Serve the page on the loopback until Ctrl-C. Nothing is fetched from elsewhere, and nothing is told to anyone.

    Args:
        page: what is served.
        port: None for the first free one from 7860 on.
        ready: is told the address.

    Raises:
        SmileError: Gradio is not installed, or the port is taken.
    """
    try:
        import gradio as gr
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as error:
        raise SmileError(f"the page needs {error.name}: pip install gradio") from None

    def press(asked: dict[str, Any]) -> dict[str, Any]:  # Gradio marks what may be called, which a method won't bear
        return page.press(asked)

    script = _FOLDER.joinpath("page.js").read_text("utf-8")
    with gr.Blocks(title="hf_smile review", analytics_enabled=False) as blocks:
        gr.HTML(html_template=page.skeleton(), js_on_load=script, server_functions=[press])
    theme = gr.themes.Default(
        primary_hue=gr.themes.colors.emerald,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "sans-serif"],  # of the reviewer's own device: nothing is fetched
        font_mono=["ui-monospace", "monospace"],
    )
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
