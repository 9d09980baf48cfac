"""From training to publishing, training images are never used for measurements, however the data were split."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from layouts import in_class_folder, of_people, test, train, two_csvs, write_images

ROOT = Path(__file__).parents[2]
NETWORK = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", "32", "--max_steps", "1", "--use_cpu"]


def run(script: str, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def own_validation(folder: Path) -> None:
    for split, rows in (("train", train()[:18]), ("val", train()[18:]), ("test", test())):
        write_images(folder / split, rows, in_class_folder)


def as_shards(folder: Path) -> None:
    from hf_smile.shards.write import Sharding, write_shards

    two_csvs(folder.with_name("collected"))
    write_shards(folder.with_name("collected"), folder, Sharding(images_per_shard=10, divisible_by=1))


CASES = {
    "own validation split": (own_validation, []),
    "another seed and size": (two_csvs, ["--seed", "1", "--validation_size", "0.3"]),
    "no validation split": (two_csvs, ["--validation_size", "0", "--select_best", "last"]),
    "shards": (as_shards, []),
    "people": (of_people, ["--test_size", "0.2", "--group_by", "person"]),
}


@pytest.mark.parametrize("case", CASES)
def test_no_held_out_image_was_trained_on(tmp_path, case):
    build, settings = CASES[case]
    build(tmp_path / "DATA")
    done = run("train.py", "--data_dir", "DATA", "--output_dir", "model", *settings, *NETWORK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "model" / "splits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    split_of = {row["image_id"]: row["split"] for row in rows}
    assert len(split_of) == len(rows) == 30, "each image is in one split"
    held_out = [split for split in ("validation", "test") if split in split_of.values()]
    assert held_out == (["test"] if case == "no validation split" else ["validation", "test"])
    if case == "people":
        sides = {(image_id.split("/")[0], split) for image_id, split in split_of.items()}
        assert len(sides) == len({person for person, _ in sides}) == 6

    for split in held_out:
        done = run("evaluate.py", "--model", "model", "--split", split, "--output_dir", f"on_{split}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with (tmp_path / f"on_{split}" / "predictions.csv").open(newline="") as file:
            measured = {row["image_id"] for row in csv.DictReader(file)}
        assert measured == {image_id for image_id, own in split_of.items() if own == split}
        assert measured

    done = run("export_onnx.py", "--model", "model", "--quantize", "int8", cwd=tmp_path)
    if case == "no validation split":
        assert done.returncode == 2 and "trained on all of train" in done.stderr
        done = run("evaluate.py", "--model", "model", "--split", "validation", "--output_dir", "no", cwd=tmp_path)
        assert done.returncode == 2 and "there is no validation split" in done.stderr
    else:
        # A network trained for one step may fail the check of its int8 weights; only the images of the check matter.
        assert "logits within" in done.stdout and "Traceback" not in done.stderr, done.stderr
        assert "were used for training" not in done.stderr and "held out" not in done.stderr, done.stderr

    others = ["--seed", "5", "--validation_size", "0.4"]
    done = run("evaluate.py", "--model", "model", "--split", "validation", *others, "--output_dir", "no", cwd=tmp_path)
    if case in ("own validation split", "shards"):  # independent of the seed
        assert done.returncode == 0
    else:
        assert done.returncode == 2 and "were used for training" in done.stderr

    if case == "another seed and size":
        words = ["--data_dir", "DATA", "--output_dir", "next", *NETWORK[2:], "--backbone", "model"]
        words.remove("--no_pretrained")
        done = run("train.py", *words, "--seed", "5", "--validation_size", "0.4", cwd=tmp_path)
        assert done.returncode == 2 and "the backbone model was trained on" in done.stderr, done.stderr
        words = [*words[:4], *NETWORK, "--teachers", "model"]
        done = run("train.py", *words, "--seed", "5", "--validation_size", "0.4", cwd=tmp_path)
        assert done.returncode == 2 and "the teacher model was trained on" in done.stderr, done.stderr

    done = run("push_to_hub.py", "model", "model", "me/smile", "--license", "mit", "--dry_run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "splits.csv" in done.stdout.partition("not uploaded")[2]
    metrics = json.loads((tmp_path / "model" / "test_metrics.json").read_text())
    assert sum(metrics[f"support_{name}"] for name in ("negative_smile", "positive_smile", "not_smile")) == sum(
        split == "test" for split in split_of.values()
    )
    shutil.rmtree(tmp_path / "model")
