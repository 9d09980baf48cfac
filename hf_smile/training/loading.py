"""The data loaders of a run, whose workers end with the run."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard
from torch.utils.data import BatchSampler, DataLoader, Dataset
from transformers import TrainingArguments

from hf_smile.data.transforms import collate


def training_loader(
    images: Dataset, batches: BatchSampler, args: TrainingArguments, device: torch.device
) -> DataLoaderShard:
    """A data loader that accelerate does not split, because `batches` are already those of this process."""
    options = _loader_options(args) | {"_non_blocking": args.accelerator_config.non_blocking}
    return DataLoaderShard(images, device=device, batch_sampler=batches, **options)


def evaluation_loader(images: Dataset, args: TrainingArguments) -> DataLoader:
    """A data loader of all images in order, for `Accelerator.prepare`."""
    return DataLoader(images, batch_size=args.eval_batch_size, **_loader_options(args))


def _loader_options(args: TrainingArguments) -> dict[str, Any]:
    return {
        "collate_fn": collate,
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory,
        "persistent_workers": args.dataloader_persistent_workers,
        "prefetch_factor": args.dataloader_prefetch_factor,
        "multiprocessing_context": args.dataloader_multiprocessing_context,
        "in_order": args.dataloader_in_order,
        # Otherwise it draws from training's generator, at different times in a resumed run.
        "generator": torch.Generator(),
        "worker_init_fn": partial(_start_worker, _exiting()),
    }


def end_workers(loaders: Iterable[Any]) -> None:
    """Stop data loading processes that wait for the next epoch.

    The garbage collector would close their queues first, so that they are never told to stop, and wait for them.
    """
    for loader in loaders:
        if workers := getattr(loader.base_dataloader, "_iterator", None):
            workers._shutdown_workers()
            loader.base_dataloader._iterator = None


@cache
def _exiting() -> Any:
    """A flag shared with the workers, set on exit before multiprocessing, which registered earlier, stops them."""
    exiting = multiprocessing.Value("b", False, lock=False)
    atexit.register(setattr, exiting, "value", True)
    return exiting


def _start_worker(exiting: Any, worker_id: int) -> None:
    """Make a data loader's worker ignore Ctrl-C, and SIGTERM until the training process exits.

    Terminals, Slurm and service managers signal all processes of a job, but the training process still needs its
    workers to finish the current step.
    """

    def receive(*_: Any) -> None:
        if exiting.value:
            os._exit(0)  # with any other exit code, torch reports that a worker was killed

    signal.signal(signal.SIGTERM, receive)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
