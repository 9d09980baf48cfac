"""Fixtures: a Hub on this machine, a run to publish, and commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hub_server import TOKEN, LoopbackHub, running_hub

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Push = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def served_hub() -> Iterator[LoopbackHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(served_hub: LoopbackHub) -> LoopbackHub:
    """An empty Hub without faults."""
    for collection in (served_hub.repos, served_hub.blobs, served_hub.parts, served_hub.faults, served_hub.requests):
        collection.clear()
    served_hub.jobs.clear()
    served_hub.role = "write"
    return served_hub


@pytest.fixture
def hub_here(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """Make the Hub client of this process use it too."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.fixture
def run(hub: LoopbackHub, tmp_path: Path) -> Run:
    """Run a command in a new process with an empty cache, with this Hub."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1"}

    def run(*words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        settings: dict = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 240, "env": environment}
        return subprocess.run([sys.executable, *map(str, words)], **(settings | options))

    return run


@pytest.fixture
def push(hub_here: LoopbackHub, cli: Push) -> Push:
    """Run `hf-smile push` in this process; returns the exit code, the output and the errors."""
    return partial(cli, "push")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the client's waits in seconds, without waiting."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with a tiny untrained network, and other files of its owner."""
    import torch
    from datasets import Dataset, DatasetDict

    from hf_smile.hub.model_card import write_model_card
    from hf_smile.modeling import build_model
    from hf_smile.training.after import Folded
    from hf_smile.training.run_folder import finish_run, mark_finished, start_run

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = {"data_dir": "/home/ann/faces", "backbone": "test_resnet", "pretrained": False, "learning_rate": 0.1}
    recipe |= {"teachers": ["/home/ann/teacher", "me/net"], "teacher_weight": 0.8}
    start_run(folder, recipe | {"select_best": "macro_f1"})
    torch.manual_seed(0)
    build_model("test_resnet", pretrained=False, image_size=32).save_pretrained(folder)
    split = Dataset.from_dict({"image_id": [f"ann-{i}" for i in range(60)], "label": [i % 3 for i in range(60)]})
    validation_logits, logits = np.random.default_rng(0).normal(size=(2, 60, 3))
    folded = Folded(1.25, "fitted on the validation split", 0.5, np.array([0.1, 0.2, 0.7]), validation_logits)
    choice = {"epoch": 2.0, "epochs": 3, "metric": "macro_f1", "images": 60, "margin": 0.12}
    metrics = finish_run(folder, DatasetDict(validation=split, test=split), logits, folded, choice)
    write_model_card(folder, metrics, backbone="test_resnet", pretrained=False, plain_timm=True)
    mark_finished(folder, metrics)
    for name in ("bad_images.csv", "training_args.bin", "ann.jpg", ".secret", "checkpoint-2/optimizer.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("ann-1")
    return folder


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
