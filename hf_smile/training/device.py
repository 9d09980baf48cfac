"""Adapt a run to its machine: cores, memory, launchers."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

import torch

from hf_smile.utils.cores import own_cores
from hf_smile.utils.words import counted

if TYPE_CHECKING:
    from transformers import TrainingArguments


def device_line(args: TrainingArguments) -> str:
    """Describe in one line what the run computes on.

    >>> device_line(TrainingArguments(use_cpu=True))  # doctest: +SKIP
    'Device: cpu, 2 threads, float32, channels_last, 0 workers'
    """
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else args.device.type
    parts = [name if args.world_size == 1 else f"{args.world_size} processes on {name}"]
    if args.device.type == "cpu":
        parts.append(counted(torch.get_num_threads(), "thread"))
    parts.append({"bf16": "bfloat16", "fp16": "float16"}.get(args.mixed_precision, "float32"))
    return f"Device: {', '.join(parts)}, channels_last, {counted(args.dataloader_num_workers, 'worker')}"


def use_all_cores() -> None:
    """Share this machine's cores among its processes, if training runs on the CPU.

    `accelerate launch` by default gives each process one thread (`OMP_NUM_THREADS=1`), which leaves the other cores
    idle. A larger number set by the user is kept.
    """
    if not torch.cuda.is_available() and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(own_cores())


def keep_freed_memory() -> None:
    """Make glibc's malloc keep the memory that a training step frees for the next step, if training runs on the CPU.

    By default it returns large blocks to the system, which has to clear each page again for the next step: a fifth of
    the time. Source: mallopt(3). Other C libraries are not changed.
    """
    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)  # other arenas can't hold large blocks


_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h


def join_launcher() -> None:
    """Set up a process that `accelerate launch` may have started, with its share of the cores."""
    stop_with_launcher()
    start_all_processes()
    use_all_cores()


def stop_with_launcher() -> None:
    """Receive SIGTERM when `accelerate launch` ends, which does not pass SIGTERM on to its processes.

    They would keep running in the background, and write to the same folder as a restarted command. Source: prctl(2) of
    Linux.
    """
    if sys.platform.startswith("linux") and any(name.startswith("ACCELERATE_") for name in os.environ):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_PR_SET_PDEATHSIG = 1  # prctl.h


def start_all_processes() -> None:
    """Make `accelerate launch --cpu --num_processes N` mean N processes.

    Without MPI, accelerate (1.15) announces N processes on a CPU and starts a single one. That one then becomes
    `torch.distributed.run` with N workers. Under any other launcher, and with one process, nothing happens.
    """
    announced = "MASTER_ADDR" in os.environ and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if not announced or "WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ or "OMPI_COMM_WORLD_SIZE" in os.environ:
        return
    import psutil
    from accelerate.commands.config import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    words = psutil.Process().parent().cmdline()
    launch, _ = launch_command_parser().parse_known_args(
        words[words.index("launch") + 1 :] if "launch" in words else []
    )
    if launch.config_file:
        defaults = load_config_from_file(launch.config_file)
        launch.num_processes = launch.num_processes or defaults.num_processes
        launch.num_machines = launch.num_machines or defaults.num_machines
    if (launch.num_processes or 1) > 1 and (launch.num_machines or 1) == 1:
        workers = ["--standalone", f"--nproc_per_node={launch.num_processes}"]
        os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *workers, *sys.argv])
