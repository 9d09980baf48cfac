"""Experiment trackers get one run, named after the folder, with separate train, validation and test metrics."""

import json
import logging
import sqlite3

import numpy as np
import pytest
import torch
from PIL import Image

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.modeling import build_model
from hf_smile.training.after import fold_after_training
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.run_folder import clear_run
from hf_smile.training.trainer import SmileTrainer

METRICS = {"accuracy": 0.75, "genuine_auc": float("nan"), "calibration": {"temperature": 1.0}}


@pytest.fixture
def report(sample_dir, tmp_path):
    """Train with a tracker as `hf-smile train` does; returns the folder of the run."""

    def report(tracker, epochs=2, resume=None):
        splits = load_smile_dataset(sample_dir, validation_size=0.25)
        folder = tmp_path / "faces"
        torch.manual_seed(0)
        model = build_model("test_resnet", pretrained=False, image_size=32)
        settings = {"num_train_epochs": epochs, "use_cpu": True, "disable_tqdm": True, "report_to": tracker}
        trainer = SmileTrainer(
            model, SmileTrainingArguments(output_dir=str(folder), **settings), splits["train"], splits["validation"]
        )
        trainer.train(resume_from_checkpoint=resume)
        fold_after_training(trainer)
        trainer.predict(splits["test"])
        Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(folder / "confusion_matrix.png")
        trainer.reporting.finish(METRICS, folder / "confusion_matrix.png")
        return folder

    return report


def test_tensorboard_gets_one_run(report):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    folder = report("tensorboard")
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    assert [path.name for path in (folder / "runs").iterdir()] == ["faces"]
    events = accumulator.EventAccumulator(str(folder / "runs" / "faces")).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "train/accuracy", "eval/loss", "eval/accuracy", "eval/macro_f1", "test/accuracy"} <= scalars
    assert {tag for tag in scalars if tag.startswith("test/")} == {"test/accuracy"}, "no other prediction is test"
    assert len(events.Scalars("eval/accuracy")) == 2
    assert [event.value for event in events.Scalars("test/accuracy")] == [0.75]
    assert (events.Images("test/confusion_matrix")[0].width, len(events.Images("test/confusion_matrix"))) == (60, 1)

    checkpoint = max(folder.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    report("tensorboard", epochs=3, resume=str(checkpoint))
    assert [path.name for path in (folder / "runs").iterdir()] == ["faces"], "a resumed run continues the tracked run"
    clear_run(folder)
    assert not list((folder / "runs" / "faces").iterdir())


def test_trackio_gets_one_run(report, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read on import
    pytest.importorskip("trackio", reason="trackio is not installed")
    report("trackio")
    with sqlite3.connect(tmp_path / "trackio" / "huggingface.db") as database:
        rows = database.execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in rows} == {"faces"}
    logged = [name for _, metrics in rows for name in json.loads(metrics)]
    assert logged.count("eval/accuracy") == logged.count("train/accuracy") == 2
    assert [name for name in logged if name.startswith("test/")] == ["test/accuracy", "test/confusion_matrix"]


def test_without_a_tracker_nothing_is_reported(report):
    assert not (report("none") / "runs").exists()
