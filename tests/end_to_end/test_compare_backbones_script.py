"""`hf-smile compare` as a user runs it: linear probe, fine-tuning, a second call, and mistakes."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from PIL import Image

from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.evaluation.predictions import read_predictions

ROOT = Path(__file__).parents[2]


def compare(*words: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "compare_backbones.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Two tiny networks with weights, in the Hub layout of timm models."""
    torch.manual_seed(0)
    folders = []
    for name in ("test_resnet", "test_efficientnet"):
        folders.append(tmp_path_factory.mktemp("backbones") / name)
        timm.models.save_for_hf(timm.create_model(name, pretrained=False), folders[-1], safe_serialization=True)
    return folders


def test_a_linear_probe_compares_backbones_and_keeps_their_features(backbones, sample_dir, tmp_path):
    words = ["--backbones", *backbones, "--data_dir", sample_dir, "--output_dir", tmp_path, "--validation_size", "0.25"]
    done = compare(*words)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert list(table["backbone"]) == ["test_resnet", "test_efficientnet"]
    assert set(table["split"]) == {"validation"} and set(table["seeds"]) == {3}
    assert table["parameters"].between(5e4, 1e6).all() and (table["images_per_second"] > 0).all()
    assert table["accuracy_mean"].between(0, 1).all() and (table["accuracy_std"] >= 0).all()
    assert f"± {100 * table['macro_f1_std'][0]:.1f} %" in (tmp_path / "comparison.md").read_text()
    assert Image.open(tmp_path / "comparison.png").width > 800

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.npy")}
    assert len(kept) == 2
    again = compare(*words)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.npy")} == kept
    columns = ["accuracy_mean", "macro_f1_mean", "balanced_accuracy_std"]
    assert pd.read_csv(tmp_path / "comparison.csv")[columns].equals(table[columns])


def test_fine_tuning_compares_runs_and_does_not_repeat_them(sample_dir, tmp_path):
    words = ["--mode", "fine_tune", "--backbones", "test_resnet", "--data_dir", sample_dir, "--seeds", "1"]
    words += ["--validation_size", "0.25", "--output_dir", tmp_path, "--no_pretrained", "--image_size", "32"]
    words += ["--use_cpu", "--num_train_epochs", "1", "--per_device_train_batch_size", "16"]
    done = compare(*words)
    assert done.returncode == 0, done.stderr
    assert "fine-tuning" in done.stdout and "Test accuracy" not in done.stdout
    assert set(pd.read_csv(tmp_path / "comparison.csv")["split"]) == {"validation"}
    run = tmp_path / "test_resnet" / "1"
    made = (run / "model.safetensors").stat().st_mtime_ns

    again = compare(*words, "--test")
    assert again.returncode == 0, again.stderr
    assert "test_resnet/1 is already finished" in again.stdout
    assert (run / "model.safetensors").stat().st_mtime_ns == made
    table = pd.read_csv(tmp_path / "comparison.csv").set_index("split")
    for split in ("validation", "test"):
        found = read_predictions(run / f"{split}_predictions.csv")
        macro_f1 = compute_metrics(found.probabilities, found.label_ids)["macro_f1"]
        assert table.loc[split, "macro_f1_mean"] == pytest.approx(macro_f1)
    assert table["macro_f1_std"].isna().all() and "±" not in (tmp_path / "comparison.md").read_text().split("|", 1)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backbones", "test_resnet"], "timm/test_resnet"),
        (["--backbones", "a/resnet", "b/resnet"], "two backbones are called resnet"),
        (["--backbones", "test_resnet", "--num_train_epochs", "3"], "--num_train_epochs is for --mode fine_tune"),
        (
            ["--backbones", "test_resnet", "--mode", "fine_tune", "--cache_dir", "x"],
            "--cache_dir is for --mode linear_",
        ),
        (["--backbones", "test_resnet", "--validation_size", "0"], "it must lie between 0 and 1"),
        (["--backbones", "test_resnet", "--seeds", "1", "1"], "--seeds 1 1: name each seed once"),
        (["--backbones", "test_resnet", "--mode", "fine_tune", "--epochs", "3"], "unknown setting 'epochs'"),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(words, message, sample_dir, tmp_path):
    done = compare(*words, "--data_dir", sample_dir, "--output_dir", tmp_path / "comparison")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
