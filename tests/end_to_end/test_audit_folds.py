"""`hf-smile audit --folds` as a user runs it: models predict images that they were not trained on."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from hf_smile.audit.dataset import audit_dataset
from hf_smile.audit.run import doubt_labels
from hf_smile.benchmarks import folds
from hf_smile.data.arguments import DataArguments
from hf_smile.data.dataset import load_smile_dataset, read_tables
from hf_smile.data.sample import draw_sample_dataset
from hf_smile.evaluation.predictions import read_predictions, write_predictions
from hf_smile.labels import LABEL_NAMES, SMILE_LABELS
from hf_smile.modeling.probe import linear_probes
from hf_smile.review.opinions import read_audit

RECIPE = """
backbone: test_resnet
pretrained: false
image_size: 32
num_train_epochs: 1
per_device_train_batch_size: 16
use_cpu: true
group_by: a column that only the recipe's own data have
"""


@pytest.fixture
def data(tmp_path) -> Path:
    """84 drawn faces in train, 24 in test with a copy of a train image, and a file in train that is not an image."""
    folder = draw_sample_dataset(tmp_path / "data", train_size=84, test_size=24, size=64, seed=7)
    rows = list(csv.reader((folder / "train.csv").open()))
    shutil.unpack_archive(folder / "happy_images.zip", folder / "images")
    (folder / "happy_images.zip").unlink()
    copied = next((folder / "images").rglob(f"{rows[0][0]}.*"))
    shutil.copy(copied, copied.with_stem("again"))  # a train image is in test too
    (copied.parent / f"broken{copied.suffix}").write_bytes(copied.read_bytes()[:200])
    with (folder / "test.csv").open("a") as file:
        file.write(f"again,{rows[0][1]}\n")
    with (folder / "train.csv").open("a") as file:
        file.write(f"broken,{rows[0][1]}\n")
    return folder


def test_every_image_is_judged_by_a_model_that_has_not_seen_it(cli, data, tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    words = ["--data_dir", data, "--output_dir", out, "--folds", "2", "--recipe", recipe]
    code, stdout, stderr = cli("audit", *words)
    assert code == 0, stderr
    assert stdout.count("fine-tuning") == 2 and "Test accuracy" not in stdout

    said = read_predictions(out / "fold_predictions.csv")
    probability = dict(zip(said.image_ids, said.probabilities.tolist(), strict=True))
    tables, _ = read_tables(DataArguments(str(data)))
    train, test = ({*tables[split]["image_id"]} - {"broken"} for split in ("train", "test"))
    assert {*probability} == train | test and len(said) == 109
    first, runs = tables["train"]["image_id"].iloc[0], sorted((out / "folds").iterdir())
    asked: list[str] = []
    for run in runs:
        splits = pd.read_csv(run / "splits.csv", dtype=str).groupby("split")["image_id"].agg(set)
        assert splits["train"] | splits["validation"] == train - splits["test"]
        assert ("again" in splits["test"]) == (first in splits["test"])
        own = read_predictions(run / "test_predictions.csv")
        assert [probability[image_id] for image_id in own.image_ids] == own.probabilities.tolist()
        asked += own.image_ids
    assert len(runs) == 2 and sorted(asked) == sorted(probability)
    assert [opinion.name for opinion in read_audit(out, SMILE_LABELS)[0]] == ["fine-tuned models"]
    assert "2 fine-tuned models, each on images it was not trained on" in (out / "audit.md").read_text()

    made = [(run / "model.safetensors").stat().st_mtime_ns for run in runs]
    code, stdout, stderr = cli("audit", *words, "--leave_out", "0.1")
    assert code == 0 and stdout.count("is already finished") == 2, stderr
    assert [(run / "model.safetensors").stat().st_mtime_ns for run in runs] == made
    suspects = pd.read_csv(out / "suspicious_labels.csv", dtype=str).query("split == 'train'")["image_id"][:8]
    loaded = {"on_bad_image": "skip", "bad_image_list": tmp_path / "bad.csv", "validation_size": 0}
    left = load_smile_dataset(data, corrections=out / "leave_out.csv", **loaded)
    assert {*left["train"]["image_id"]} == train - {*suspects} and len(suspects) > 0
    assert {*left["test"]["image_id"]} == test


def test_planted_errors_come_first_and_changed_labels_are_judged_again(tmp_path, monkeypatch):
    runs = []

    def learn(run: Path, words: list[str], tell: object) -> None:
        """Instead of a network: a linear probe on the edges, which distinguish drawn faces."""
        runs.append(run.name)
        splits = load_smile_dataset(words[words.index("--data_dir") + 1], validation_size=0)
        edges = cv2.HOGDescriptor((64, 64), (16, 16), (8, 8), (8, 8), 9)
        x = {
            split: np.stack([edges.compute(np.asarray(face.convert("L"))).ravel() for face in rows["image"]])
            for split, rows in splits.items()
        }
        labels = np.array(splits["train"]["label"])
        ((probabilities,),) = linear_probes(x["train"], labels, x["test"], classes=3, penalties=[0.2])
        test = splits["test"]
        write_predictions(run / "test_predictions.csv", test["image_id"], test["label"], probabilities)

    monkeypatch.setattr(folds, "train_in", learn)
    data = draw_sample_dataset(tmp_path / "data", train_size=240, test_size=60, size=64, seed=5)
    rows = list(csv.reader((data / "train.csv").open()))
    flipped = {image_id for image_id, _ in rows[:24]}
    wrong = [(image_id, LABEL_NAMES[LABEL_NAMES.index(label) - 1]) for image_id, label in rows[:24]]
    (data / "train.csv").write_text("".join(f"{image_id},{label}\n" for image_id, label in [*wrong, *rows[24:]]))

    found = audit_dataset(data)
    images = read_tables(DataArguments(str(data)))[1]
    doubt_labels(found, *folds.fold_probabilities(found, images, [], 5, tmp_path / "folds"))
    first = found.scan["image_id"].iloc[found.noise.suspicious["row"]][:45]
    assert len(flipped.intersection(first)) >= 0.5 * len(flipped)  # 45 random images of 300 have 15 % of them
    assert found.summary["labels"]["models"] == len(set(runs)) == 5

    again = found.scan.assign(label=(found.scan["label"] + (found.scan.index == 100)) % 3)  # a label is changed
    folds.fold_probabilities(replace(found, scan=again), images, [], 5, tmp_path / "folds")
    assert not {*runs[:5]} & {*runs[5:]}


def test_a_mistake_gets_one_message_and_exit_code_2(cli, data, tmp_path):
    out, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 3\n")
    load_smile_dataset(data, 0, on_bad_image="skip", bad_image_list=tmp_path / "bad.csv").save_to_disk(
        tmp_path / "rows"
    )
    for words, message in (
        (["--data_dir", data, "--folds", "5"], "--folds and --recipe go together"),
        (["--data_dir", data, "--folds", "1", "--recipe", "quickstart"], "--folds must be at least 2"),
        (["--data_dir", data, "--folds", "5", "--recipe", recipe], "unknown setting 'epochs'"),
        (["--data_dir", tmp_path / "rows", "--folds", "5", "--recipe", "quickstart"], "--folds writes CSV files"),
        (["--data_dir", data, "--leave_out", "0.1"], "--leave_out needs --backbone or --folds"),
        (["--data_dir", data, "--leave_out", "1", "--backbone", "b"], "it must lie between 0 and 1"),
        (
            ["--data_dir", data, "--leave_out", "0.1", "--backbone", "b", "--corrections", "c.csv"],
            "train takes only one",
        ),
    ):
        code, _, stderr = cli("audit", *words, "--output_dir", out)
        assert code == 2 and message in stderr, stderr
        assert stderr.count("error: ") == 1 and "Traceback" not in stderr
    assert not out.exists()
