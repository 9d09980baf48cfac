"""Custom labels from annotations to the demo: two named by `--labels`, four from class folders."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.data.rows import labels_of
from hf_smile.data.sample import draw_face
from hf_smile.evaluation.predictions import read_predictions
from hf_smile.hub.dataset_card import dataset_card
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.labels import LABEL_NAMES, LabelSet

SPACE = Path(__file__).parents[2] / "space"
TWO, FOUR = ("smile", "NOT smile"), ("grin", "laugh", "neutral", "smirk")
STEPS = ["--use_cpu", "--max_steps", "2"]
TINY = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", "32", *STEPS]

# One process for all jobs, because importing torch and transformers takes most of the time.
JOBS = """
import contextlib, io, json, sys
from hf_smile.commands.main import main
for line in sys.stdin:
    job, *words = json.loads(line)
    sys.argv[1:] = words
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(job)
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, printed.getvalue()]), flush=True)
"""


class Run(NamedTuple):
    folder: Path
    printed: dict[str, str]


def do(folder: Path, jobs: dict[str, list[str]]) -> Run:
    """Run jobs in a folder, one after another; each must succeed, except those named `refused...`."""
    lines = "\n".join(json.dumps([name.split("_")[-1], *words]) for name, words in jobs.items())
    done = subprocess.run(
        [sys.executable, "-c", JOBS], input=lines, cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    answers = dict(zip(jobs, map(json.loads, done.stdout.splitlines()), strict=True))
    for name, (code, printed) in answers.items():
        assert code == (2 if name.startswith("refused") else 0), f"{name}: {printed}"
    return Run(folder, {name: printed for name, (_, printed) in answers.items()})


def draw(path: Path, label_id: int, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_face(label_id, rng, size=48).save(path)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Run:
    folder, rng = tmp_path_factory.mktemp("two"), np.random.default_rng(0)
    rows = [(f"{number:03}.jpg", number % 2) for number in range(40)]
    for name, label_id in rows:
        draw(folder / "data" / name, 2 * label_id, rng)
    for split, part in (("train", rows[:30]), ("test", rows[30:])):
        text = "".join(f"{name},{TWO[label_id]}\n" for name, label_id in part)
        (folder / "data" / f"{split}.csv").write_text(text)
    for number in range(30):
        draw(folder / "kinds" / LABEL_NAMES[number % 3] / f"{number:03}.jpg", number % 3, rng)
    shutil.copytree(folder / "data", folder / "swapped")
    shutil.copy(folder / "data" / "test.csv", folder / "swapped" / "train.csv")
    shutil.copy(folder / "data" / "train.csv", folder / "swapped" / "test.csv")
    data, swapped = (["--data_dir", name, "--labels", *TWO] for name in ("data", "swapped"))
    fifth, watched = ["--validation_size", "0.2"], ["--report_to", "tensorboard"]
    kinds = [*STEPS, "--data_dir", "kinds", "--test_size", "0.2", *fifth]
    jobs = {
        "refused_train": [*TINY, "--data_dir", "data", "--output_dir", "model"],
        "train": [*TINY, *data, "--output_dir", "model", *fifth, "--prior_adjustment", "0.5", *watched],
        "evaluate": ["--model", "model", "--output_dir", "report", "--heat_maps", "--test_time_flip"],
        "export": ["--model", "model"],
        "predict": ["data", "--model", "model", "--faces", "whole", "--output", "verdicts.csv", "--annotate", "shown"],
        "table_predict": ["data/000.jpg", "--model", "model", "--faces", "whole"],
        "refused_evaluate": ["--model", "model", "--output_dir", "other", "--labels", "happy", "sad"],
        "audit": [*data, "--output_dir", "audit"],
        "second_train": ["--backbone", "model", *kinds, "--output_dir", "second"],
        "third_train": ["--backbone", "second", *kinds, "--output_dir", "third", "--freeze_backbone"],
        "refused_stage_train": ["--backbone", "second", *STEPS, *swapped, "--output_dir", "fourth", *fifth],
    }
    return do(folder, jobs)


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> Run:
    folder, rng = tmp_path_factory.mktemp("four"), np.random.default_rng(0)
    for number in range(64):
        draw(folder / "faces" / FOUR[number % 4] / f"{number:03}.jpg", number % 3, rng)
    sizes = ("--test_size", "0.25", "--validation_size", "0.2")
    jobs = {
        "prepare": [
            "--data_dir",
            "faces",
            "--test_size",
            "0.25",
            "--validation_size",
            "0.2",
            "--output_dir",
            "prepared",
        ],
        "train": [
            *TINY,
            "--data_dir",
            "prepared",
            "--output_dir",
            "model",
            "--imbalance",
            "oversample",
            "--mixup",
            "0.2",
        ],
        "evaluate": ["--model", "model", "--output_dir", "report"],
        "compare_evaluate": [
            *("--predictions", "model/test_predictions.csv", "--output_dir", "compared"),
            *("--compare", "report/predictions.csv"),
        ],
        "shard": ["--data_dir", "faces", *sizes, "--output_dir", "shards", "--divisible_by", "1"],
        "streamed_train": [*TINY, "--data_dir", "shards", "--output_dir", "streamed"],
        "bulk": ["--model", "model", "--data", "shards", "--output_dir", "predictions", "--runtime", "torch"],
        "table_predict": ["faces/grin/000.jpg", "--model", "model", "--faces", "whole"],
    }
    return do(folder, jobs)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_labels_from_training_to_the_verdict(two):
    assert "unknown label 'smile'" in two.printed["refused_train"] and "--labels" in two.printed["refused_train"]
    config = json.loads((two.folder / "model" / "config.json").read_text())
    assert config["label_names"] == [*TWO] and config["num_classes"] == 2
    metrics = json.loads((two.folder / "model" / "test_metrics.json").read_text())
    assert metrics["smile_auc"] == pytest.approx(metrics["roc_auc_smile"]) and "genuine_auc" not in metrics
    assert len(metrics["decision"]["class_shares"]) == 2 and {"recall_smile", "recall_not_smile"} < set(
        metrics["decision"]["trade_off"][0]
    )
    rows = rows_of(two.folder / "verdicts.csv")
    assert [*rows[0]][:5] == ["image_id", "true_label", "predicted_label", "p_smile", "p_not_smile"]
    assert "p_genuine_given_smile" not in rows[0]
    assert all(float(row["p_smile"]) + float(row["p_not_smile"]) == pytest.approx(1, abs=1e-5) for row in rows)
    assert two.printed["table_predict"].splitlines()[0].split() == ["label", "smile", "image"]
    assert "happy, sad: model has the labels smile, NOT smile" in two.printed["refused_evaluate"]


def test_every_runtime_knows_the_labels(two):
    images = sorted((two.folder / "data").glob("*.jpg"))[:4]
    found = [
        SmileClassifier.from_pretrained(two.folder / "model", runtime=runtime).predict(images)
        for runtime in ("torch", "onnx")
    ]
    assert {prediction.labels.names for run in found for prediction in run} == {TWO}
    for torch, onnx in zip(*found, strict=True):
        assert torch.p_smile == pytest.approx(onnx.p_smile, abs=1e-4) and torch.p_genuine_given_smile is None


def test_a_tracker_gets_the_classes_of_the_data(two):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (run,) = (two.folder / "model" / "runs").iterdir()
    tags = accumulator.EventAccumulator(str(run)).Reload().Tags()["scalars"]
    assert {"test/recall_smile", "test/recall_not_smile", "eval/recall_smile"} <= {*tags}
    assert not [tag for tag in tags if "positive" in tag or "genuine" in tag]


def test_two_labels_in_report_and_card(two):
    report = (two.folder / "report" / "report.md").read_text()
    assert "## One question" in report and "Is the smile genuine?" not in report and "| NOT smile | 5 |" in report
    card = (two.folder / "model" / "README.md").read_text()
    assert "Classifies a picture of one face as one of: smile, NOT smile." in card and "genuine" not in card
    assert "prediction.probabilities" in card and "f1 smile" in card
    audit = json.loads((two.folder / "audit" / "audit.json").read_text())
    assert audit["classes"]["train"] == {"smile": 15, "NOT smile": 15}


def test_a_run_is_the_backbone_of_the_next_which_has_other_labels(two):
    first, second = (json.loads((two.folder / name / "config.json").read_text()) for name in ("model", "second"))
    assert (first["label_names"], second["label_names"]) == ([*TWO], [*LABEL_NAMES])
    assert second["pretrained_cfg"]["input_size"] == first["pretrained_cfg"]["input_size"] == [3, 32, 32]
    (prediction,) = SmileClassifier.from_pretrained(two.folder / "third").predict(two.folder / "data" / "000.jpg")
    assert prediction.labels.names == LABEL_NAMES
    card = (two.folder / "third" / "README.md").read_text()
    assert "Fine-tuned from `second`, itself fine-tuned from `model`, with hf_smile." in card
    refused = two.printed["refused_stage_train"]
    assert "the backbone second was trained or selected on 24 of the test images" in refused, "by the stage before it"


def test_two_labels_in_the_demo(two, monkeypatch, tmp_path):
    pytest.importorskip("gradio")
    monkeypatch.syspath_prepend(str(SPACE))
    import app
    import views
    from endpoints import verdict_type
    from engine import Engine, SeenFace
    from PIL import Image

    engine = Engine(str(two.folder / "model"))
    (prediction,) = engine.classifier.predict(two.folder / "data" / "000.jpg")
    picture = Image.new("RGB", (40, 40))
    html = views.photo(picture, [SeenFace(prediction, picture)], {})
    assert html.count('class="hs-bar"') == 2 and "genuine" not in html.lower()
    assert all(f">{name}<" in html.lower() for name in ("smile", "no smile"))
    assert views.table([prediction])[0] == ["file", "verdict", "smiling %"]
    assert [*verdict_type(engine.labels).__annotations__][3:5] == ["p_smile", "p_not_smile"]
    texts = [str(block.value) for block in app.build_page(engine, tmp_path).blocks.values() if hasattr(block, "value")]
    assert any("says which of these classes the face shows" in text and "smile, NOT smile" in text for text in texts)


def test_four_class_folders_are_the_labels(four):
    assert "the labels are those of the data: grin, laugh, neutral, smirk" in four.printed["prepare"]
    config = json.loads((four.folder / "model" / "config.json").read_text())
    assert config["label_names"] == [*FOUR]
    metrics = json.loads((four.folder / "report" / "metrics.json").read_text())["metrics"]
    assert "smile_auc" not in metrics and metrics["support_smirk"]["value"] == 4
    predictions = read_predictions(four.folder / "report" / "predictions.csv")
    assert predictions.labels.names == FOUR and predictions.probabilities.shape == (16, 4)
    compared = four.printed["compare_evaluate"]
    assert "correct equally often" in compared or "same probabilities" in compared
    assert "question" not in (four.folder / "report" / "report.md").read_text()
    assert four.printed["table_predict"].splitlines()[0].split() == ["label", "sure", "image"]


def test_shards_hold_the_labels(four):
    settings = json.loads((four.folder / "shards" / "shards.json").read_text())
    assert settings["labels"] == [*FOUR]
    config = json.loads((four.folder / "streamed" / "config.json").read_text())
    assert config["label_names"] == [*FOUR]
    table = pd.concat(pq.read_table(path).to_pandas() for path in (four.folder / "predictions").rglob("*.parquet"))
    assert len(table) == 64 and set(table["true_label"]) == {*FOUR}
    assert np.allclose(table[[f"p_{name}" for name in FOUR]].sum(axis=1), 1, atol=1e-5)


def test_the_card_of_a_data_set_names_its_labels(four):
    splits = load_smile_dataset(four.folder / "prepared")
    assert labels_of(splits["test"]) == LabelSet(FOUR)
    card = str(dataset_card(splits, "me/faces", "cc-by-4.0"))
    assert "labelled as one of: grin, laugh, neutral, smirk." in card and "0 grin, 1 laugh" in card


def test_data_with_other_labels_than_the_model_are_refused_by_name(two, four, tmp_path):
    from hf_smile.errors import SmileDataError
    from hf_smile.training.held_out import held_out_split

    given = {"data_dir": str(four.folder / "prepared")}
    with pytest.raises(SmileDataError, match=r"unknown label 'grin'; expected one of 'smile', 'NOT smile'"):
        held_out_split(str(two.folder / "model"), "test", given, True, tmp_path / "bad.csv")


def test_some_folders_of_ours_among_others_are_refused_with_two_ways_out(tmp_path):
    from hf_smile.errors import SmileDataError

    for number, name in enumerate([*LABEL_NAMES, "laugh"] * 2):
        draw(tmp_path / name / f"{number}.jpg", 0, np.random.default_rng(number))
    with pytest.raises(SmileDataError, match=r"unknown label 'laugh'(.|\n)*--label_map \"laugh=...\"(.|\n)*--labels"):
        load_smile_dataset(tmp_path, test_size=0.5)
