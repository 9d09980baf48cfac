"""Attacks on the demo that take time, one after another, while another visitor keeps requesting predictions.

Run by hand: python tests/campaigns/attack_space.py --seconds 60 --connections 200
"""

from __future__ import annotations

import argparse
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import httpx
import numpy as np
from demo_traffic import BROKEN, HOPPER, Demo, Visitor, as_png, demo, wait_until_forgotten, zipped
from PIL import Image
from tqdm import tqdm

from hf_smile.errors import SmileError
from hf_smile.utils.console import run_script

_UPLOAD = (
    b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
)
_CALL = (
    b"POST /gradio_api/call/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n"
    b'Content-Type: application/json\r\n\r\n{"data": ["'
)
_SMALL = 10  # connections per request, for requests that cost the server seconds


class Attacks:
    """Each method is one attack, and returns its number of requests."""

    def __init__(self, url: str, connections: int, seconds: float) -> None:
        self.url, self.connections, self.seconds = url, connections, seconds
        self.address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))

    def slow_headers(self) -> int:
        return self._drip(b"GET / HTTP/1.1\r\nX-Slow: ")

    def slow_calls(self) -> int:
        return self._drip(_CALL)

    def slow_uploads(self) -> int:
        return self._drip(_UPLOAD)

    def slow_readers(self) -> int:
        return self._drip(b"GET /config HTTP/1.1\r\nHost: a\r\n\r\n", drip=b"")

    def hangs_up_in_mid_upload(self) -> int:
        return self._hang_up(_UPLOAD + 300_000 * b"a")

    def hangs_up_in_mid_request(self) -> int:
        return self._hang_up(b"GET /config HTTP/1.1\r\nHost: a\r\n\r\n", _CALL, b"GET / HT")

    def never_fetches_the_answer(self) -> int:
        visitor = Visitor(self.url)
        for _ in range(self.connections):
            with suppress(httpx.HTTPStatusError):  # the queue is full
                join = {"data": [visitor.upload("hopper.jpg", HOPPER)]}
                visitor.http.post("/gradio_api/call/predict", json=join).raise_for_status()
        return self.connections

    def without_a_name(self) -> int:
        visitor = Visitor(self.url)
        batch = [visitor.upload("many.zip", zipped(3 * [HOPPER]))]
        for number in range(self.connections // 10):
            join = {"data": [batch], "session_hash": "" if number % 3 == 2 else str(number)}
            visitor.http.post("/gradio_api/call/predict_batch", json=join)
        return self.connections // 10

    def senseless_requests(self) -> int:
        visitor = Visitor(self.url)
        for _ in range(self.connections):
            visitor.refused()
        return self.connections

    def uploads_over_the_limit(self) -> int:
        visitor, count = Visitor(self.url), max(1, self.connections // 20)
        for _ in range(count):
            with suppress(httpx.TransportError):  # disconnected while still sending
                answer = visitor.http.post("/gradio_api/upload", files={"files": ("a.png", bytes(31 << 20))})
                assert answer.status_code == 413, answer
        return count

    def huge_calls(self) -> int:
        visitor, count = Visitor(self.url), max(1, self.connections // 20)
        for _ in range(count):
            with suppress(httpx.TransportError):
                answer = visitor.http.post("/gradio_api/call/predict", json={"data": ["a" * (100 << 20)]})
                assert answer.status_code == 413, answer
        return count

    def photos_of_50_megapixels(self) -> int:
        large, count = as_png(Image.new("RGB", (7000, 7000), "tan")), max(1, self.connections // _SMALL)
        for _ in tqdm(range(count), leave=False):
            visitor = Visitor(self.url)  # a new visitor each time, whose photo is stored
            visitor.tab("photo", visitor.upload("large.png", large))
        return count

    def poison_in_batches(self) -> int:
        bomb = as_png(Image.new("L", (8000, 8000)))  # 64 megapixels in 80 kB
        poison = [HOPPER, bomb, BROKEN, b"<svg/>", b"", as_png(Image.new("RGB", (1, 20_000))), HOPPER]
        visitor, count = Visitor(self.url), max(1, self.connections // _SMALL)
        for _ in tqdm(range(count), leave=False):
            verdicts = visitor.call("predict_batch", [visitor.upload("poison.zip", zipped(poison))])
            assert [verdict["error"] is None for verdict in verdicts] == [True, *5 * [False], True], verdicts
        return count

    def _drip(self, beginning: bytes, drip: bytes = b"a") -> int:
        with ExitStack() as open_lines:
            lines = []
            for _ in range(self.connections):
                lines.append(open_lines.enter_context(socket.create_connection(self.address)))
                lines[-1].sendall(beginning)
            for _ in tqdm(range(round(self.seconds)), leave=False):
                time.sleep(1)
                for line in lines:
                    with suppress(OSError):  # disconnected
                        line.sendall(drip)
        return self.connections

    def _hang_up(self, *beginnings: bytes) -> int:
        for number in range(self.connections):
            with socket.create_connection(self.address) as line:
                line.sendall(beginnings[number % len(beginnings)])
        return self.connections


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="outputs/quickstart", metavar="DIR", help="a model (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=200, help="parallel connections (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of slow attacks (default: %(default)s)")
    parser.add_argument("--settle", type=float, default=8.0, help="minutes to wait for the last upload to be deleted")
    args = parser.parse_args()
    failed = 0
    with demo(args.model) as running:
        for kind in ("photo", "portrait", "photo_tab", "batch", "refused"):  # one-time loading is not a leak
            getattr(Visitor(running.url), kind)()
        before = running.state()
        print(f"before: {_words(before)}", flush=True)
        attacks = Attacks(running.url, args.connections, args.seconds)
        for attack in (value for name, value in vars(Attacks).items() if not name.startswith("_")):
            count, latencies, problems = under(running, lambda attack=attack: attack(attacks))
            failed += len(problems)
            print(
                f"{attack.__name__}, {count} times: bystander got {len(latencies)} right answers, median "
                f"{np.median(latencies or [np.nan]):.2f} s, longest {max(latencies, default=np.nan):.2f} s, "
                f"{len(problems)} failures; {_words(running.state())}",
                *problems[:3],
                sep="\n  ",
                flush=True,
            )
        print("waiting until the last upload is deleted ...", flush=True)
        after = wait_until_forgotten(running, args.settle)
        print(f"after: {_words(after)}")
        said = [line for line in (running.folder / "log").read_text().splitlines() if line.startswith("Traceback")]
        print(f"tracebacks in the server's log: {len(said)}")
    if failed or after["files"]:
        raise SmileError(f"{failed} requests failed, {after['files']} files are left")


def under(running: Demo, attack: Callable[[], int]) -> tuple[int, list[float], list[str]]:
    """Number of requests of an attack, seconds of the other visitor's correct answers meanwhile, and failures."""
    bystander, over = Visitor(running.url, seed=1), threading.Event()
    latencies: list[float] = []
    problems: list[str] = []

    def ask() -> None:
        while not over.is_set() or not latencies:
            begin = time.monotonic()
            try:
                bystander.photo()
                latencies.append(time.monotonic() - begin)
            except Exception as error:
                problems.append(f"bystander: {type(error).__name__} {str(error)[:200]}")
                if over.is_set():
                    return
            time.sleep(0.5)

    asking = threading.Thread(target=ask)
    asking.start()
    count = 0
    try:
        count = attack()
    except Exception as error:
        problems.append(f"{type(error).__name__} {str(error)[:300]}")
    over.set()
    asking.join()
    return count, latencies, problems


def _words(state: dict[str, float]) -> str:
    return f"{state['rss_mb']:.0f} MB, {state['handles']} file handles, {state['files']} uploads on disk"


if __name__ == "__main__":
    run_script(main)
