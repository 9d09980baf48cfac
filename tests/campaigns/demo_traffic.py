"""Start the demo for a campaign, and send requests of visitors."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from matplotlib.cbook import get_sample_data
from PIL import Image

from hf_smile.data.sample import draw_face

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from load_test import start_demo

HOPPER = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False))).read_bytes()
BROKEN = HOPPER[:5000]


class Demo:
    """The running demo, with its memory, file handles and temporary files."""

    def __init__(self, server: Any, url: str, folder: Path) -> None:
        self.url, self.folder, self.process = url, folder, psutil.Process(server.pid)
        self.samples = set(self.files())

    def files(self) -> list[Path]:
        uploads = self.folder.glob("hf_smile_*")  # os.walk, because folders may disappear meanwhile
        return [Path(folder, name) for path in uploads for folder, _, names in os.walk(path) for name in names]

    def state(self) -> dict[str, float]:
        left = [path for path in self.files() if path not in self.samples]
        return {"rss_mb": self.process.memory_info().rss / 1e6, "handles": self.process.num_fds(), "files": len(left)}


@contextmanager
def demo(model: str) -> Iterator[Demo]:
    with tempfile.TemporaryDirectory() as folder:
        server, url, _ = start_demo(model, folder)
        try:
            yield Demo(server, url, Path(folder))
        finally:
            server.terminate()
            server.wait()


class Visitor:
    """A visitor with the requests of the page and of `gradio_client`. Each method raises if an answer is wrong."""

    def __init__(self, url: str, seed: int = 0) -> None:
        limits = httpx.Limits(keepalive_expiry=2)  # the server disconnects after five seconds
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=300, limits=limits)
        self.name, self.rng = uuid.uuid4().hex, np.random.default_rng(seed)
        self.face = as_png(draw_face(seed % 3, self.rng, size=160))
        self._tabs = tabs(self.http.get("/config").json())

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        answer = self.http.post("/gradio_api/upload", files={"files": (name, content)}).raise_for_status()
        return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}

    def call(self, api: str, argument: object) -> list[dict[str, Any]]:
        posted = self.http.post(f"/gradio_api/call/{api}", json={"data": [argument]}).raise_for_status()
        text = self.http.get(f"/gradio_api/call/{api}/{posted.json()['event_id']}").text
        assert "event: complete" in text, text
        return json.loads(text.split("event: complete\ndata: ")[1])[0]

    def tab(self, part: str, file: dict[str, Any]) -> str:
        given = {"data": [], "event_data": {"path": file["path"]}} if part == "photo" else {"data": [file]}
        join = {**given, "session_hash": self.name, "fn_index": self._tabs[part]}
        self.http.post("/gradio_api/queue/join", json=join).raise_for_status()
        text = self.http.get(f"/gradio_api/queue/data?session_hash={self.name}").text
        assert '"success":true' in text, text
        return text

    def photo(self) -> None:
        (verdict,) = self.call("predict", self.upload("face.png", self.face))
        assert verdict["error"] is None

    def portrait(self) -> None:
        (verdict,) = self.call("predict", self.upload("hopper.jpg", HOPPER))
        assert verdict["box"]

    def batch(self) -> None:
        verdicts = self.call("predict_batch", [self.upload("many.zip", zipped([self.face, BROKEN, HOPPER, b"<svg/>"]))])
        assert [verdict["error"] is None for verdict in verdicts] == [True, False, True, False], verdicts

    def page(self) -> None:
        for path in ("/", "/config", "/theme.css"):
            self.http.get(path).raise_for_status()

    def photo_tab(self) -> None:
        file = self.upload("hopper.jpg", HOPPER)
        assert self.http.get(f"/gradio_api/file={file['path']}").content == HOPPER
        assert "hs-result" in self.tab("photo", file)

    def video_tab(self) -> None:
        assert "no frame can be read" not in self.tab("video", self.upload("clip.avi", clip()))

    def refused(self) -> None:
        (verdict,) = self.call("predict", self.upload("broken.jpg", BROKEN))
        assert verdict["error"]
        for path in ("file=/etc/passwd", "file=..%2f..%2fapp.py", "file=http://127.0.0.1/", "vibe-code"):
            assert self.http.get(f"/gradio_api/{path}").status_code in (403, 404)
        for data in (
            b"{",
            b'{"data": [], "session_hash": "a", "fn_index": -1}',
            b'{"data": [{"path": "/etc/passwd"}]}',
        ):
            answer = self.http.post(
                "/gradio_api/call/predict", content=data, headers={"Content-Type": "application/json"}
            )
            assert 400 <= answer.status_code < 500 or b"fn_index" in data, answer


def tabs(config: dict[str, Any]) -> dict[str, int]:
    """Index of the function for each input component, or for uploads to it, by its element id."""
    parts = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
    found = {}
    for each in config["dependencies"]:
        given = each["inputs"] or [part for part, event in each["targets"] if event == "upload"]
        if len(given) == 1 and parts.get(given[0]):
            found[parts[given[0]]] = each["id"]
    return found


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def zipped(contents: list[bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number}.png", content)
    return file.getvalue()


def clip() -> bytes:
    """One second of a face."""
    import cv2

    face = np.asarray(Image.open(io.BytesIO(HOPPER)).convert("RGB").resize((256, 256)))[..., ::-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.avi")
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 8, (256, 256))
        for _ in range(8):
            writer.write(face)
        writer.release()
        return path.read_bytes()


def wait_until_forgotten(demo: Demo, minutes: float) -> dict[str, float]:
    """The state when no upload is left, or after the given time."""
    end = time.monotonic() + 60 * minutes
    while demo.state()["files"] and time.monotonic() < end:
        time.sleep(2)
    time.sleep(min(15, 60 * minutes))  # one more round of deletion
    return demo.state()
