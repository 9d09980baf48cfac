"""Fit the run to the machine it is on."""

from __future__ import annotations

import os

import torch


def use_all_cores() -> None:
    """Share this machine's cores among its processes, where training runs on them.

    `accelerate launch` gives each process one thread (`OMP_NUM_THREADS=1`) unless told otherwise, which leaves the
    other cores of a CPU idle. A larger number that the user set is kept.
    """
    if torch.cuda.is_available() or os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
