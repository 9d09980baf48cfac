"""How many CPU cores this process may use, and a parallel `map`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def own_cores() -> int:
    """The number of CPU cores available to this process, which a container or `taskset` may limit.

    If a launcher started several processes on this machine, the cores are divided among them.

    >>> own_cores() >= 1
    True
    """
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, granted // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map` with several threads, in order. Reads items lazily and keeps at most `threads` finished results.

    >>> list(in_order(abs, iter([-1, 2, -3]), threads=2))
    [1, 2, 3]
    """
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
