"""How many CPU cores this process may use, and work that is shared by them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def own_cores() -> int:
    """Those that the system grants this process (a container or `taskset` may grant fewer than there are).

    Where a launcher started several processes on the machine, this one's share of them.

    >>> own_cores() >= 1
    True
    """
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, granted // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map` by several threads. Never more than `threads` results wait, and no item is taken before it is needed.

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
