"""Benchmark of training: hf_smile's loop against its own compute limit, and against a plain transformers `Trainer`."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Dataset, DatasetDict
from torch.nn.utils import clip_grad_norm_
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToTensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.utils import logging

from hf_smile.benchmarks.measure import Row, alternate
from hf_smile.errors import SmileError
from hf_smile.modeling import build_model
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.device import keep_freed_memory, use_all_cores
from hf_smile.training.trainer import SmileTrainer


@dataclass(frozen=True)
class TrainSettings:
    """Settings of all contenders.

    Attributes:
        data: folder of a `DatasetDict` with enough training images for the run, saved by `save_to_disk`.
        backbone: timm name or local folder; its weights are random.
        image_size: side of the model's input in pixels.
        batch_size: images per step.
        steps: steps per round.
        rounds: number of counted rounds.
        bf16: whether to compute in bfloat16.
    """

    data: str
    backbone: str = "resnet50"
    image_size: int = 224
    batch_size: int = 32
    steps: int = 10
    rounds: int = 5
    bf16: bool = False

    @property
    def max_steps(self) -> int:
        """Steps of all rounds, including the warm-up round."""
        return self.steps * (self.rounds + 1)

    @property
    def training(self) -> dict[str, Any]:
        """Arguments for a trainer."""
        return {
            "per_device_train_batch_size": self.batch_size,
            "max_steps": self.max_steps,
            "bf16": self.bf16,
            "use_cpu": not torch.cuda.is_available(),
            "disable_tqdm": True,
        }

    def load_images(self) -> Dataset:
        """Load the training images."""
        return DatasetDict.load_from_disk(self.data)["train"]


Pause = Callable[[int], None]
"""Called after each round with its number of images, and with 0 before the first round."""


def benchmark_train(splits: DatasetDict, settings: TrainSettings) -> tuple[dict[str, Row], dict[str, float]]:
    """Measure training steps, including data loading. Each contender has its own process, and they take turns.

    - `ours`: the loop of `hf-smile train`.
    - `compute_limit`: the same step on one batch that stays in memory, without waiting for data.
    - `hf_loop`: transformers' `Trainer`, with images prepared as in `run_image_classification.py`.

    Args:
        splits: as returned by `load_smile_dataset`; train is repeated as often as needed.
        settings: the settings; `data` is filled in.

    Returns:
        Rows by name, and the ratios `ours/hf_loop` and `ours/compute_limit`.

    Raises:
        SmileError: a contender can't start (for example, no such backbone), or ended early.

    >>> rows, ratios = benchmark_train(splits, TrainSettings("", "resnet50", rounds=3))  # doctest: +SKIP
    >>> ratios["ours/compute_limit"]  # doctest: +SKIP
    0.96
    """
    contenders: dict[str, _Contender] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        settings = replace(settings, data=f"{folder}/data")
        enough_images(splits, settings).save_to_disk(settings.data)
        for name in CONTENDERS:
            contenders[name] = _Contender(name, settings)
            stack.callback(contenders[name].stop)
            contenders[name].receive()
        rows = alternate({name: contender.run for name, contender in contenders.items()}, settings.rounds, "Train")
        rows = {name: contenders[name].complete(row) for name, row in rows.items()}
    return rows, {f"ours/{name}": rows["ours"].times_as_fast_as(rows[name]) for name in ("hf_loop", "compute_limit")}


def enough_images(splits: DatasetDict, settings: TrainSettings) -> DatasetDict:
    """Repeat train until one epoch covers the entire benchmark, so that no epoch ends in it."""
    rows = np.resize(np.arange(len(splits["train"])), settings.max_steps * settings.batch_size)
    return DatasetDict(train=splits["train"].select(rows), test=splits["test"].select([0]))


def ours(settings: TrainSettings, pause: Pause) -> None:
    """Train as `hf-smile train` does."""
    _run(_our_trainer(settings), settings, pause)


def compute_limit(settings: TrainSettings, pause: Pause) -> None:
    """Repeat forward, loss, backward, clipping, optimizer, schedule and averaging of `ours` on its first batch."""
    trainer = _our_trainer(settings)
    args, accelerator = trainer.args, trainer.accelerator
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.create_optimizer_and_scheduler(settings.max_steps)
    model = accelerator.prepare_model(trainer.model).train()  # with the precision of the settings
    assert trainer.optimizer is not None and trainer.lr_scheduler is not None and trainer.ema is not None
    for step in range(settings.max_steps):
        if step % settings.steps == 0:
            pause(settings.steps * settings.batch_size if step else 0)
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, batch)
        accelerator.backward(loss)
        clip_grad_norm_(model.parameters(), args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        model.zero_grad()
        trainer.ema.update(model, step=step)
    pause(settings.steps * settings.batch_size)


def hf_loop(settings: TrainSettings, pause: Pause) -> None:
    """Train as transformers' `examples/pytorch/image-classification/run_image_classification.py` does."""
    model = build_model(settings.backbone, pretrained=False, image_size=settings.image_size)
    config = model.config.pretrained_cfg
    normalize = Normalize(config["mean"], config["std"])
    prepare = Compose([RandomResizedCrop(settings.image_size), RandomHorizontalFlip(), ToTensor(), normalize])

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return batch | {"pixel_values": [prepare(image.convert("RGB")) for image in batch["image"]]}

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixel_values = torch.stack([row["pixel_values"] for row in rows])
        return {"pixel_values": pixel_values, "labels": torch.tensor([row["label"] for row in rows])}

    args = TrainingArguments(
        output_dir=f"{settings.data}/hf_loop",
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),  # avoids a warning in each round
        **settings.training,
    )
    train = settings.load_images().with_transform(transform)
    _run(Trainer(model, args, data_collator=collate, train_dataset=train), settings, pause)


CONTENDERS = {contender.__name__: contender for contender in (ours, compute_limit, hf_loop)}


def _our_trainer(settings: TrainSettings) -> SmileTrainer:
    keep_freed_memory()
    args = SmileTrainingArguments(output_dir=f"{settings.data}/ours", select_best="last", **settings.training)
    args.save_strategy, args.logging_strategy = SaveStrategy.NO, IntervalStrategy.NO
    model = build_model(settings.backbone, pretrained=False, image_size=settings.image_size)
    return SmileTrainer(model, args, settings.load_images())


def _run(trainer: Trainer, settings: TrainSettings, pause: Pause) -> None:
    """Train, and pause before the first step and after each round, before the next batch is loaded."""

    class Rounds(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            pause(0)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % settings.steps == 0:
                pause(settings.steps * settings.batch_size)

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Rounds())
    trainer.train()


_PATIENCE = 5.0  # seconds
# Not fork, which would share the memory of the measuring process.
_START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class _Contender:
    """A process that trains one round at a time, on request."""

    def __init__(self, name: str, settings: TrainSettings) -> None:
        self.name = name
        self.cpu_ms: list[float] = []
        self.peak_memory_mb = 0.0
        context = multiprocessing.get_context(_START)
        if _START == "forkserver":
            context.set_forkserver_preload([__name__])  # slow imports happen only once
            _start_server()
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(name, settings, theirs))  # type: ignore[attr-defined]
        self.process.start()
        theirs.close()  # otherwise this process would not notice the end of the other

    def receive(self) -> int:
        """Wait for the end of a round, and return its number of images."""
        try:
            answer = self._connection.recv()
        except EOFError:
            raise SmileError(f"{self.name} ended early; its message is above") from None
        if isinstance(answer, SmileError):
            raise answer
        images, cpu_seconds, self.peak_memory_mb = answer
        self.cpu_ms.append(1000 * cpu_seconds / max(1, images))
        return images

    def run(self) -> int:
        self._connection.send("go")
        return self.receive()

    def stop(self) -> None:
        """End the process: it exits when its connection is closed while it waits for the next round."""
        self._connection.close()
        self.process.join(_PATIENCE)
        self.process.kill()  # not terminate: on SIGTERM, `ours` would save a checkpoint
        self.process.join()

    def complete(self, row: Row) -> Row:
        """Add CPU time and memory of the process. Set-up and the first round are not counted."""
        return replace(row, cpu_ms_per_image=median(self.cpu_ms[2:]), peak_memory_mb=self.peak_memory_mb)


def _start_server() -> None:
    """Start the fork server without SIGINT, so that only the measuring process handles Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def _work(name: str, settings: TrainSettings, connection: Connection) -> None:
    """The main function of a contender's process."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    use_all_cores()
    try:
        CONTENDERS[name](settings, partial(_report_and_wait, connection, [0.0]))
    except SmileError as error:
        connection.send(SmileError(str(error)))


def _report_and_wait(connection: Connection, cpu_before: list[float], images: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    connection.send((images, cpu_seconds() - cpu_before[0], peak_memory_mb()))
    loading = psutil.Process().children()
    for process in loading:  # otherwise they would load ahead while other contenders run
        process.suspend()
    try:
        connection.recv()
    except EOFError:  # the measuring process has ended
        raise SystemExit from None
    finally:
        for process in loading:
            process.resume()
    cpu_before[0] = cpu_seconds()


def cpu_seconds() -> float:
    """CPU time of this process and of its data loading processes."""
    loading = [process.cpu_times() for process in psutil.Process().children()]
    return time.process_time() + sum(times.user + times.system for times in loading)


def peak_memory_mb() -> float:
    """Peak memory of this process in 10^6 bytes: GPU memory if there is a GPU, otherwise resident memory.

    Resident memory includes the current unshared memory of its data loading processes.
    """
    import resource

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    loading = sum(process.memory_full_info().uss for process in psutil.Process().children()) / 1e6
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage includes the time before exec
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6 + loading
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6 + loading
