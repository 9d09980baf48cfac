"""Load test of the demo: start it, send pictures of many visitors at once, and check every answer."""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_smile.errors import SmileError
from hf_smile.utils.console import run_script

if TYPE_CHECKING:
    from gradio_client import Client

APP = Path(__file__).parent.parent / "space" / "app.py"
_STARTING = 120  # seconds
_MEMORY_EVERY = 100  # requests
_LAST_LINES = 10


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="outputs/quickstart", metavar="DIR", help="a model (default: %(default)s)")
    parser.add_argument("--users", type=_positive, default=32, help="concurrent users (default: %(default)s)")
    parser.add_argument("--requests", type=_positive, default=20, help="requests per user (default: %(default)s)")
    parser.add_argument("--greedy", action="store_true", help="add a user who keeps sending 20 batches at a time")
    return parser.parse_args()


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main() -> None:
    args = parse_arguments()
    import numpy as np
    import psutil

    from hf_smile.data.sample import draw_face
    from hf_smile.inference.classifier import SmileClassifier

    with tempfile.TemporaryDirectory() as folder:
        classifier = SmileClassifier.from_pretrained(args.model, runtime="onnx")
        photos: list[Path] = []
        expected: list[dict[str, Any]] = []
        for seed in itertools.count():
            if len(photos) == args.users:
                break
            path = Path(folder, f"{seed}.png")
            draw_face(seed % 3, np.random.default_rng(seed), size=160).save(path)
            if predictions := classifier.predict_photo(path, faces="all"):  # the detector misses some drawn faces
                photos.append(path)
                expected.append(predictions[0].to_dict())
        if len({answer["p_smile"] for answer in expected}) < args.users:
            raise SmileError("two users would get the same answer, which would hide a mix-up; train the model")

        server, url, started = start_demo(args.model, folder)
        try:
            memory = psutil.Process(server.pid).memory_info
            print(f"started in {started:.1f} s", flush=True)
            with greedy_visitor(url, photos) if args.greedy else nullcontext() as batches:
                latencies, memories = visit(url, photos, expected, args.requests, lambda: memory().rss / 1e6)
        finally:
            server.terminate()
            server.wait()
    print(f"{len(latencies):,} requests of {args.users} concurrent users, all answers correct")
    if batches is not None:
        print(f"batches of the greedy user: {batches['done']} done, {batches['refused']} refused")
    print(f"latency: median {np.median(latencies):.2f} s, 95th percentile {np.percentile(latencies, 95):.2f} s")
    print(f"memory before and every {_MEMORY_EVERY} requests, MB: {', '.join(f'{value:.0f}' for value in memories)}")


def start_demo(model: str, folder: str) -> tuple[subprocess.Popen, str, float]:
    """Start the demo; return its process, its address, and the seconds until it answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"HF_SMILE_MODEL": model, "GRADIO_SERVER_PORT": str(port), "TMPDIR": folder}
    begin = time.perf_counter()
    log = Path(folder, "log")
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, str(APP)], env=os.environ | settings, stdout=file, stderr=file)
    while time.perf_counter() - begin < _STARTING and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}", time.perf_counter() - begin
        time.sleep(0.05)
    code = server.poll()
    server.kill()
    server.wait()
    how = f"did not start within {_STARTING} s" if code is None else f"ended at once with exit code {code}"
    raise SmileError("\n".join([f"the demo {how}; its last output:", *log.read_text().splitlines()[-_LAST_LINES:]]))


def visit(
    url: str, photos: list[Path], expected: list[dict[str, Any]], requests: int, memory: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Send the requests; return the seconds of each, and the memory of the server over time.

    Raises:
        SmileError: a request failed, or its answer was wrong.
    """
    from gradio_client import Client, handle_file

    lock = threading.Lock()
    latencies: list[float] = []
    memories = [memory()]
    # Each user has a separate address, because the demo limits requests per address.
    addresses = ({"X-Forwarded-For": f"10.0.{number // 256}.{number % 256}"} for number in range(len(photos)))
    clients = [Client(url, verbose=False, headers=address) for address in addresses]

    def one_user(client: Client, photo: Path, answer: dict[str, Any]) -> None:
        for _ in range(requests):
            begin = time.perf_counter()
            (verdict,) = client.predict(handle_file(photo), api_name="/predict")
            seconds = time.perf_counter() - begin
            if any(abs(verdict[name] - answer[name]) > 1e-5 for name in answer if name.startswith("p_")):
                raise SmileError(f"{photo.name} got the answer {verdict} instead of {answer}")
            with lock:
                latencies.append(seconds)
                if len(latencies) % _MEMORY_EVERY == 0:
                    memories.append(memory())

    with ThreadPoolExecutor(len(photos)) as pool:
        for done in [pool.submit(one_user, *who) for who in zip(clients, photos, expected, strict=True)]:
            done.result()
    return latencies, memories


@contextmanager
def greedy_visitor(url: str, photos: list[Path], at_once: int = 20) -> Iterator[Counter[str]]:
    """Meanwhile one visitor, from one address, always has this many batches of all photos on the way.

    Returns:
        How many were `done` and `refused` so far.
    """
    from gradio_client import Client, handle_file

    answers: Counter[str] = Counter()
    client, over = Client(url, verbose=False, headers={"X-Forwarded-For": "10.255.0.1"}), threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                client.predict([handle_file(photo) for photo in photos], api_name="/predict_batch")
                answers["done"] += 1
            except Exception:  # refused, by whatever the client makes of it
                answers["refused"] += 1
                over.wait(0.5)

    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(at_once):
            pool.submit(ask)
        yield answers
        over.set()


if __name__ == "__main__":
    run_script(main)
