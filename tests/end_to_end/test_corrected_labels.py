"""Corrected labels from the command line to the card: what changes, what is reported, and what is refused."""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hf_smile import SmileTrainer, SmileTrainingArguments, build_model, load_smile_dataset
from hf_smile.data.corrections import Decision, append, now
from hf_smile.hub.dataset_card import dataset_card

ROOT = Path(__file__).parents[2]
NETWORK = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", "32", "--max_steps", "1", "--use_cpu"]
SAID = "Labels were corrected by corrections.csv (SHA-256 "


def run(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "hf_smile", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


def decide(folder: Path, sample_dir: Path, *decisions: str) -> Path:
    """A file of decisions about the first images of train that do not smile."""
    path = folder / "corrections.csv"
    with (sample_dir / "train.csv").open() as file:
        rows = [row for row in csv.reader(file) if row[1] == "NOT smile"]
    for (image_id, label), decision in zip(rows, decisions, strict=False):
        append(path, Decision(image_id, label, "positive smile" * (decision == "relabel"), decision, "ann", now()))
    return path


@pytest.fixture(scope="module")
def trained(sample_dir, tmp_path_factory):
    folder, path = tmp_path_factory.mktemp("run") / "model", tmp_path_factory.mktemp("review")
    path = decide(path, sample_dir, "relabel")
    words = ["train", "--data_dir", sample_dir, "--corrections", path, "--output_dir", folder, *NETWORK]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert SAID in done.stderr and "1 NOT smile -> positive smile" in done.stderr
    return folder, words


def test_the_run_records_the_file_and_the_card_says_what_it_changed(trained):
    folder, words = trained
    digest = hashlib.sha256(Path(words[4]).read_bytes()).hexdigest()
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["corrections_sha256"] == digest
    card = (folder / "README.md").read_text()
    assert f"{SAID}{digest[:12]})" in card and "(1 NOT smile -> positive smile)" in card
    assert "test 0 labels. The test split was not corrected." in card
    again = run("train", folder / "recipe.yaml")
    assert "holds the finished run of these settings" in again.stdout, again.stderr


def test_a_report_on_the_run_says_it_too(trained, tmp_path):
    folder, _ = trained
    done = run("evaluate", "--model", folder, "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "(1 NOT smile -> positive smile)" in (tmp_path / "report.md").read_text()
    assert "The test split was not corrected." in done.stdout


def test_a_run_is_not_resumed_with_other_corrections(trained, sample_dir, tmp_path):
    _, words = trained
    done = run(*words[:4], decide(tmp_path, sample_dir, "relabel", "keep"), *words[5:])
    assert done.returncode == 2 and "holds a run with other settings (corrections_sha256 " in done.stderr


@pytest.mark.parametrize("job", ["prepare", "shard", "audit"])
def test_other_jobs_say_what_they_correct(sample_dir, tmp_path, job):
    path = decide(tmp_path, sample_dir, "relabel")
    words = ["--data_dir", sample_dir, "--corrections", path, "--output_dir", tmp_path / "out"]
    done = run(job, *words)
    assert done.returncode == 0, done.stderr
    assert SAID in done.stderr and "1 NOT smile -> positive smile" in done.stderr
    if job == "shard":
        done = run("train", "--data_dir", tmp_path / "out", "--corrections", path, *NETWORK)
        assert done.returncode == 2 and "shards already contain labels; give it to hf-smile shard" in done.stderr


def test_the_cards_of_library_users_say_it(sample_dir, tmp_path):
    path = decide(tmp_path, sample_dir, "relabel", "leave_out")
    splits = load_smile_dataset(sample_dir, 0.25, corrections=path)
    assert f"or how. {SAID}" in str(dataset_card(splits, "me/faces", "cc-by-4.0"))
    args = SmileTrainingArguments(output_dir=str(tmp_path), max_steps=1, use_cpu=True, disable_tqdm=True)
    model = build_model("test_resnet", pretrained=False, image_size=32)
    trainer = SmileTrainer(model, args, splits["train"], splits["validation"])
    trainer.train()
    trainer.evaluate(splits["test"], metric_key_prefix="test")
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert SAID in card and "1 image left out" in card and "The test split was not corrected." in card
