import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_smile.evaluation.predictions import write_predictions

ROOT = Path(__file__).parents[2]


def evaluate_model(*arguments):
    command = [sys.executable, ROOT / "scripts" / "evaluate_model.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.fixture
def predictions_file(simulate, tmp_path):
    probabilities, label_ids = simulate(60, seed=0)
    write_predictions(tmp_path / "predictions.csv", [str(n) for n in range(60)], label_ids, probabilities)
    return tmp_path / "predictions.csv"


def test_reports_on_predictions_and_compares_them(predictions_file, tmp_path):
    run = evaluate_model(
        "--predictions", predictions_file, "--compare", predictions_file, "--output_dir", tmp_path / "report"
    )
    assert run.returncode == 0, run.stderr
    assert "Accuracy" in run.stdout
    assert "both are right equally often" in run.stdout
    assert (tmp_path / "report" / "report.md").is_file()


def test_a_mistake_ends_in_one_message_and_code_2(tmp_path):
    run = evaluate_model("--predictions", tmp_path / "none.csv", "--output_dir", tmp_path / "report")
    assert run.returncode == 2
    assert run.stderr == f"error: {tmp_path / 'none.csv'} cannot be read: No such file or directory\n"
