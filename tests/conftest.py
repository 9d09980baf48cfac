"""Shared fixtures. No test needs a network: the Hub client runs offline, and caches go to a temporary folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf_smile_tests_")

import pytest

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data" / "happy_images"
REAL_BACKBONE = ROOT.parent / "shared" / "backbones" / "tf_efficientnet_lite0.in1k"


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `hf-smile` as a user does, but in this process; returns the exit code, the output and the errors."""
    from hf_smile.commands.main import main

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hf-smile", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set in a typical layout: 96 faces in train, 32 in test, 64 pixels wide."""
    from hf_smile.data.sample import draw_sample_dataset

    return draw_sample_dataset(tmp_path_factory.mktemp("sample"), train_size=96, test_size=32, size=64)


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real data set is not at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def real_backbone() -> Path:
    if not REAL_BACKBONE.is_dir():
        pytest.skip(f"no pretrained backbone at {REAL_BACKBONE}")
    return REAL_BACKBONE


def _train_tiny(folder: Path, n_faces: int = 24, **options: Any) -> Path:
    """Save a tiny network of `build_model`, trained for seconds so that its predictions differ between faces."""
    import numpy as np
    import torch

    from hf_smile.data.preprocessing import Preprocessor
    from hf_smile.data.sample import draw_face
    from hf_smile.modeling import build_model

    torch.manual_seed(0)
    model = build_model("test_resnet", pretrained=False, image_size=64, **options).train()
    preprocess, rng = Preprocessor(model.config.pretrained_cfg), np.random.default_rng(0)
    targets = torch.arange(n_faces) % model.config.num_labels
    faces = torch.from_numpy(np.stack([preprocess(draw_face(int(target), rng, size=64)) for target in targets]))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(pixel_values=faces).logits, targets, label_smoothing=0.3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def train_tiny() -> Callable[..., Path]:
    return _train_tiny


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained tiny network with a card and metrics."""
    from hf_smile.inference.onnx_export import export_onnx

    folder = _train_tiny(tmp_path_factory.mktemp("models") / "demo_model")
    export_onnx(folder)
    card = "# demo\n\n## Results\n\nSome.\n\n## Limits and responsible use\n\n- Proves nothing.\n"
    (folder / "README.md").write_text(card)
    metrics = {"accuracy": 0.875, "precision_not_smile": 1.0, "recall_not_smile": 0.75, "support_not_smile": 32.0}
    (folder / "test_metrics.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture(scope="session")
def demo_url(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The running demo with that model."""
    folder = tmp_path_factory.mktemp("demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = {"HF_SMILE_MODEL": str(demo_model), "GRADIO_SERVER_PORT": port, "TMPDIR": str(folder)}
    settings["SPACE_ID"] = "me/smile-demo"  # in a Space, Gradio contacts more servers
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, ROOT / "space" / "app.py"], env=os.environ | settings, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process, folder / "log")
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    pytest.fail(f"the demo did not start: {log.read_text()}")
