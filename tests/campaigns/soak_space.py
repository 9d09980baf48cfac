"""Soak test with mixed traffic: start the demo, keep it fully busy, and plot latency and memory over time.

Run by hand: python tests/campaigns/soak_space.py --minutes 10
"""

from __future__ import annotations

import argparse
import csv
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from demo_traffic import Demo, Visitor, demo, wait_until_forgotten
from tqdm import tqdm

from hf_smile.errors import SmileError
from hf_smile.utils.console import run_script
from hf_smile.utils.figures import new_figure, save_figure

# Requests in twenty; the others are drawn faces.
TRAFFIC = {"portrait": 5, "page": 3, "refused": 2, "photo_tab": 2, "batch": 1, "video_tab": 0.4, "photo": 6.6}
_SAMPLE_EVERY = 5  # seconds
_SHOWN = ("photo", "portrait", "photo_tab")  # quick requests, shown together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="outputs/quickstart", metavar="DIR", help="a model (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the test (default: %(default)s)")
    parser.add_argument("--users", type=int, default=8, help="concurrent users (default: %(default)s)")
    parser.add_argument("--settle", type=float, default=8.0, help="minutes to wait for the last upload to be deleted")
    parser.add_argument("--output", type=Path, default=Path("outputs/soak"), metavar="DIR", help="default: %(default)s")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with demo(args.model) as running:
        for kind in TRAFFIC:  # one-time loading is not a leak
            getattr(Visitor(running.url), kind)()
        before = running.state()
        requests, states, errors = soak(running, args.minutes, args.users)
        print("waiting until the last upload is deleted ...", flush=True)
        after = wait_until_forgotten(running, args.settle)
    _write(args.output / "requests.csv", ("seconds", "kind", "latency", "failed"), requests)
    _write(args.output / "states.csv", ("seconds", *before), [(at, *state.values()) for at, state in states])
    report(requests, states, before, after)
    plot(requests, states, args.output / "soak.png")
    print(f"{args.output}: requests.csv, states.csv, soak.png")
    if errors or after["files"]:
        raise SmileError("\n".join([f"{len(errors)} requests failed, {after['files']} files are left", *errors[:5]]))


def soak(running: Demo, minutes: float, users: int) -> tuple[list[tuple], list[tuple[float, dict]], list[str]]:
    """Requests as (seconds since the start, kind, latency, failed), states over time, and errors."""
    begin, lock, end = time.monotonic(), threading.Lock(), time.monotonic() + 60 * minutes
    requests: list[tuple] = []
    states: list[tuple[float, dict]] = []
    errors: list[str] = []
    kinds, weights = list(TRAFFIC), np.array(list(TRAFFIC.values()))

    def one_user(seed: int) -> None:
        visitor = Visitor(running.url, seed)
        while time.monotonic() < end:
            kind, started, problem = visitor.rng.choice(kinds, p=weights / weights.sum()), time.monotonic(), ""
            try:
                getattr(visitor, kind)()
            except Exception as error:
                problem = f"{kind}: {type(error).__name__} {str(error)[:300]}"
            now = time.monotonic()
            with lock:
                requests.append((started - begin, str(kind), now - started, bool(problem)))
                if problem:
                    errors.append(problem)

    with ThreadPoolExecutor(users) as pool, tqdm(total=round(60 * minutes), unit="s") as bar:
        done = [pool.submit(one_user, seed) for seed in range(users)]
        while time.monotonic() < end:
            states.append((time.monotonic() - begin, running.state()))
            bar.set_postfix(requests=len(requests), failed=len(errors), rss=f"{states[-1][1]['rss_mb']:.0f}")
            time.sleep(min(_SAMPLE_EVERY, max(0.0, end - time.monotonic())))
            bar.n = min(bar.total, round(time.monotonic() - begin))
        for user in done:
            user.result()
    return requests, states, errors


def report(requests: list[tuple], states: list[tuple[float, dict]], before: dict, after: dict) -> None:
    failed, seconds = sum(row[3] for row in requests), max(row[0] + row[2] for row in requests)
    rate = len(requests) / seconds
    print(f"{len(requests):,} requests in {seconds / 60:.1f} minutes, {rate:.1f} per second, {failed} failed")
    print("                requests  p50 s  p95 s  p99 s  memory MB   (one photo each)")
    minutes = [(f"minute {start // 60 + 1:.0f}", start, start + 60) for start in np.arange(0, seconds, 60)]
    third = seconds / 3
    for name, start, end in (*minutes, ("first third", 0, third), ("last third", 2 * third, seconds)):
        latencies = [latency for at, kind, latency, _ in requests if kind in _SHOWN and start <= at < end]
        memory = [state["rss_mb"] for at, state in states if start <= at < end]
        if latencies and memory:
            p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
            print(f"{name:14}  {len(latencies):8}  {p50:5.2f}  {p95:5.2f}  {p99:5.2f}  {np.mean(memory):9.0f}")
    most = {key: max(state[key] for _, state in states) for key in before}
    for name, state in (("before", before), ("at most", most), ("after", after)):
        print(f"{name}: {state['rss_mb']:.0f} MB, {state['handles']} file handles, {state['files']} uploads on disk")


def plot(requests: list[tuple], states: list[tuple[float, dict]], path: Path) -> None:
    figure = new_figure(8.0, 5.0)
    above, below = figure.subplots(2, sharex=True)
    at, latencies = np.array([(row[0] / 60, row[2]) for row in requests if row[1] in _SHOWN]).T
    above.plot(at, latencies, ".", markersize=2, alpha=0.4)
    above.set(ylabel="seconds, one photo", ylim=(0, None))
    below.plot([t / 60 for t, _ in states], [state["rss_mb"] for _, state in states])
    below.set(xlabel="minutes", ylim=(0, None))
    below.set_ylabel("memory, MB", color="C0")
    handles = below.twinx()
    handles.plot([t / 60 for t, _ in states], [state["handles"] for _, state in states], "C1")
    handles.set(ylim=(0, None))
    handles.set_ylabel("file handles", color="C1")
    save_figure(figure, path)


def _write(path: Path, columns: tuple, rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


if __name__ == "__main__":
    run_script(main)
