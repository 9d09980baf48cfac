"""How many CPU cores this process may use."""

from __future__ import annotations

import os


def own_cores() -> int:
    """Those that the system grants this process (a container or `taskset` may grant fewer than there are).

    Where a launcher started several processes on the machine, this one's share of them.

    >>> own_cores() >= 1
    True
    """
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, granted // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
