"""`hf-smile evaluate` as a user runs it: with a model, with predictions, and with mistakes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_smile.evaluation.predictions import read_predictions, write_predictions

ROOT = Path(__file__).parents[2]


def evaluate(*words: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.fixture
def predictions_file(tmp_path):
    draw = np.random.default_rng(0)
    probabilities, label_ids = draw.dirichlet([1, 1, 1], size=60), draw.integers(0, 3, size=60)
    write_predictions(tmp_path / "predictions.csv", [str(n) for n in range(60)], label_ids, probabilities)
    return tmp_path / "predictions.csv"


def test_it_reports_on_a_model_and_a_split(sample_dir, tmp_path):
    from hf_smile.modeling import build_model

    torch.manual_seed(0)
    build_model("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "model")
    done = evaluate(
        "--model", tmp_path / "model", "--data_dir", sample_dir, "--held_out", "--output_dir", tmp_path / "report"
    )
    assert done.returncode == 0, done.stderr
    predictions = read_predictions(tmp_path / "report" / "predictions.csv")
    assert len(predictions.image_ids) == 32
    report = json.loads((tmp_path / "report" / "metrics.json").read_text())
    accuracy = report["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx((predictions.predicted_ids == predictions.label_ids).mean())
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    for path in (tmp_path / "report").glob("*.png"):
        assert Image.open(path).width > 500
        assert path.name in (tmp_path / "report" / "report.md").read_text()


def test_the_headline_is_one_forward_pass_and_the_flip_a_row_beside_it(sample_dir, tmp_path):
    from hf_smile.modeling import build_model

    torch.manual_seed(0)
    build_model("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "model")
    words = ["--model", tmp_path / "model", "--data_dir", sample_dir, "--held_out", "--output_dir"]
    plain, both = evaluate(*words, tmp_path / "plain"), evaluate(*words, tmp_path / "both", "--test_time_flip")
    assert plain.returncode == both.returncode == 0, both.stderr
    reports = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "both")]
    assert reports[0]["metrics"] == reports[1]["metrics"] and "variants" not in reports[0]
    (flipped,) = reports[1]["variants"].values()
    assert flipped["nll"]["value"] != reports[1]["metrics"]["nll"]["value"]
    assert "mirror image (test-time flip): Accuracy" in both.stdout and "ECE 0." in plain.stdout
    assert "test-time flip" in (tmp_path / "both" / "report.md").read_text()


def test_it_reports_on_predictions_and_compares_them(predictions_file, tmp_path):
    done = evaluate(
        "--predictions", predictions_file, "--compare", predictions_file, "--output_dir", tmp_path / "report"
    )
    assert done.returncode == 0, done.stderr
    assert "Accuracy" in done.stdout
    assert "give the same probabilities for every image" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--group_by", "person", "--output_dir", "{folder}/report"], "there is no column 'person' to group by"),
        (["--output_dir", "{folder}/model"], "is a model folder, and the report would overwrite"),
        (["--output_dir", "{folder}/model/config.json/report"], "can't be created or written to (Not a directory)"),
    ],
)
def test_what_can_be_known_before_predicting_is_told_before(words, message, sample_dir, tmp_path):
    from hf_smile.modeling import build_model

    build_model("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "model")
    words = [word.format(folder=tmp_path) for word in words]
    done = evaluate("--model", tmp_path / "model", "--data_dir", sample_dir, "--held_out", *words)
    assert done.returncode == 2
    assert message in done.stderr and "Predicting" not in done.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--predictions", "none.csv"], "none.csv can't be read: No such file or directory"),
        (["--predictions", "{predictions}", "--compare", "none.csv"], "none.csv can't be read"),
        (["--predictions", "{predictions}", "--group_by", "person"], "person"),
        (["--predictions", "{predictions}", "--test_time_flip"], "--test_time_flip needs --model"),
        (["--predictions", "{predictions}", "--split", "validation"], "--split needs --model"),
        (["--predictions", "{predictions}", "--held_out"], "--held_out needs --model"),
        (["--predictions", "{predictions}", "--data_dir", "data"], "--data_dir needs --model"),
        (["--model", "./nothing/here"], "no such folder"),
        (["--model", "{folder}"], "the folder has no config.json"),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(words, message, predictions_file, tmp_path):
    words = [word.format(predictions=predictions_file, folder=tmp_path) for word in words]
    done = evaluate(*words, "--output_dir", tmp_path / "report")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
