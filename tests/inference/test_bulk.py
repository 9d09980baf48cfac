"""Bulk prediction: parts, restarts, images that fail, and several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as DatasetImage

from hf_smile.errors import SmileDataError
from hf_smile.inference.bulk import find_parts, open_predictions, parts_digest, verdicts_of
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.labels import LABEL_NAMES
from hf_smile.shards.folder import shard_files
from hf_smile.shards.write import Sharding, write_shards

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "scripts" / "predict.py")

KILLED = """
import os, runpy, signal, sys
from itertools import count
from hf_smile.inference import bulk
number, read = count(), bulk.encoded_bytes
def read_until_killed(image):
    if next(number) == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(image)
bulk.encoded_bytes = read_until_killed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def shards(sample_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(sample_dir, folder, Sharding(images_per_shard=20, divisible_by=2))
    return folder


def predict(model, data, output_dir, *words, launcher=(sys.executable,), **environment) -> subprocess.CompletedProcess:
    command = [*launcher, SCRIPT, "--model", str(model), "--data", str(data), "--output_dir", str(output_dir), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environment)


def rows_of(folder):
    return [row for file in sorted(folder.rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]


@pytest.fixture(scope="module")
def finished(demo_model, shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions")
    done = predict(demo_model, shards, folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_each_shard_gets_a_part_with_the_verdicts_of_the_classifier(finished, demo_model, shards):
    folder, done = finished
    relative = [file.relative_to(shards) for file in sorted(shards.rglob("*.parquet"))]
    assert [file.relative_to(folder) for file in sorted(folder.rglob("*.parquet"))] == relative
    part, shard = relative[0], pq.read_table(shards / relative[0]).to_pylist()
    predictions = pq.read_table(folder / part).to_pylist()
    expected = SmileClassifier.from_pretrained(demo_model, "onnx").predict([row["image"]["bytes"] for row in shard])
    for row, mine, its in zip(shard, predictions, expected, strict=True):
        assert mine["image_id"] == row["image_id"] and mine["true_label"] == LABEL_NAMES[row["label"]]
        assert mine["predicted_label"] == its.label and mine["error"] is None
        assert mine["p_not_smile"] == pytest.approx(its.probabilities["NOT smile"], abs=1e-5)
    assert "128 images in 9 parts, 0 of them from earlier" in done.stdout


def test_an_exported_model_needs_no_torch_without_a_gpu(finished, demo_model, shards, tmp_path):
    code = (
        "import ctypes, runpy, sys\n"
        "def no_driver(name): raise OSError\n"
        "ctypes.CDLL, sys.argv = no_driver, sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules)"
    )
    done = predict(demo_model, shards, tmp_path, launcher=(sys.executable, "-c", code))
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path) == rows_of(finished[0])


def test_killed_and_started_again_nothing_is_lost_or_doubled(finished, demo_model, shards, tmp_path):
    killed = predict(demo_model, shards, tmp_path, launcher=(sys.executable, "-c", KILLED))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    whole = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    assert 0 < len(whole) < 9
    again = predict(demo_model, shards, tmp_path)
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in whole} == whole  # skipped, not predicted again
    assert rows_of(tmp_path) == rows_of(finished[0])
    summary = finished[1].stdout.partition("images/s: ")[2]
    assert summary and again.stdout.endswith(summary)  # earlier parts count too
    assert not list(tmp_path.rglob("*.part"))


def test_processes_share_the_parts(finished, demo_model, shards, tmp_path):
    for rank in "01":
        done = predict(demo_model, shards, tmp_path, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2")
        assert done.returncode == 0, done.stderr
        assert f"process {int(rank) + 1} of 2: " in done.stdout and "0 of them from earlier" in done.stdout
    assert rows_of(tmp_path) == rows_of(finished[0])


def test_images_of_a_zip_and_one_that_fails(sample_dir, demo_model, tmp_path):
    with zipfile.ZipFile(sample_dir / "happy_images.zip") as archive:
        archive.extractall(tmp_path / "images")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    archive = shutil.make_archive(str(tmp_path / "faces"), "zip", tmp_path / "images")
    done = predict(demo_model, archive, tmp_path / "out", "--part_size", "50")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len({row["image_id"] for row in rows}) == 129 and len(find_parts(archive, 50)) == 3
    (broken,) = [row for row in rows if row["error"]]
    assert broken["image_id"] == "broken.jpg" and "not a JPEG" in broken["error"] and broken["predicted_label"] is None
    assert "129 images in 3 parts" in done.stdout and "1 error" in done.stdout
    done = predict(demo_model, archive, tmp_path / "whole", "--part_size", "500")
    assert "129 images in 1 part, " in done.stdout


def test_parquet_of_other_origin_gets_a_row_for_every_image(sample_dir, demo_model, tmp_path):
    with zipfile.ZipFile(sample_dir / "happy_images.zip") as archive:
        photo = archive.read(next(name for name in archive.namelist() if name.endswith(".jpg")))
    structs = [{"bytes": photo, "path": None}, None, {"bytes": None, "path": None}]
    columns = {"structs": structs, "bytes": [photo, None, b""], "text": ["a.jpg", "", None]}
    (tmp_path / "data").mkdir()
    for name, images in columns.items():
        pq.write_table(pa.table({"image_id": [0, 7, None], "image": images}), tmp_path / "data" / f"{name}.parquet")
    done = predict(demo_model, tmp_path / "data", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name in columns:
        rows = pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        assert [row["image_id"] for row in rows] == ["0", "7", f"{name}.parquet:0"]
        assert [bool(row["error"]) for row in rows] == [name == "text", True, True]


def test_a_label_that_has_no_name_is_unknown(sample_dir, demo_model, tmp_path):
    features = Features(image=DatasetImage(), label=ClassLabel(names=[*LABEL_NAMES]))
    with zipfile.ZipFile(sample_dir / "happy_images.zip") as archive:
        photo = archive.read(next(name for name in archive.namelist() if name.endswith(".jpg")))
    table = Dataset.from_dict({"image": [{"bytes": photo, "path": None}] * 2, "label": [1, 0]}, features=features)
    table = table.data.table.set_column(1, "label", pa.array([1, 7]))
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(table, tmp_path / "a.parquet")
    done = predict(demo_model, tmp_path / "a.parquet", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [row["true_label"] for row in rows_of(tmp_path / "out")] == [LABEL_NAMES[1], None]


def test_other_images_are_not_taken_for_those_already_predicted(shards, tmp_path):
    for folder, name, content in (("a", "x", b"1"), ("b", "y", b"1"), ("c", "x", b"12"), ("d", "x", b"1")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.jpg").write_bytes(content)
        shutil.make_archive(str(tmp_path / folder), "zip", tmp_path / folder)
    for suffix in ("", ".zip"):
        first, renamed, changed, same = (parts_digest(find_parts(tmp_path / f"{name}{suffix}")) for name in "abcd")
        assert len({first, renamed, changed}) == 3 and same == first
    shutil.copytree(shards, tmp_path / "shards")
    assert parts_digest(find_parts(tmp_path / "shards")) == parts_digest(find_parts(shards))
    train = shard_files(tmp_path / "shards", "train")
    train[0].replace(train[1])
    shutil.copy(train[1], train[0])
    assert parts_digest(find_parts(tmp_path / "shards")) != parts_digest(find_parts(shards))


def test_a_shard_need_not_know_every_label(shards, tmp_path):
    file = shard_files(shards, "train")[0]
    images = Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
    known = images[0]["label"]
    for number, label in enumerate([known, None, -1]):
        images.select([number]).remove_columns("label").add_column(
            "label", [label], feature=ClassLabel(names=list(LABEL_NAMES))
        ).to_parquet(tmp_path / f"{number}.parquet")
    true_labels = [label for part in find_parts(tmp_path) for _, label in part.rows()]
    assert true_labels == [LABEL_NAMES[known], None, None]


def test_a_mistake_gets_one_message_and_exit_code_2(finished, demo_model, shards, tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.parquet").write_bytes(b"PAR1")
    shutil.copytree(shards, tmp_path / "incomplete")
    shard_files(tmp_path / "incomplete", "train")[2].unlink()
    for model, data, output_dir, message in (
        (demo_model, shards / "test", finished[0], "other settings (images)"),
        (demo_model, tmp_path / "nowhere", tmp_path / "out", "no such folder"),
        (demo_model, tmp_path / "damaged", tmp_path / "out", "a.parquet: not a readable Parquet file"),
        (demo_model, finished[0], tmp_path / "out", "no column 'image'"),
        (demo_model, tmp_path / "incomplete", tmp_path / "out", "5 of 6 shards of train"),
    ):
        done = predict(model, data, output_dir)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert json.loads((finished[0] / "predictions.json").read_text())["runtime"] == "onnx"
    assert len(shard_files(shards, "train")) == 6


def test_damaged_files_of_an_output_folder_are_told_in_words(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    for content in (b'{"weights": ', b"[1, 2]", b"\xff"):
        (folder / "predictions.json").write_bytes(content)
        with pytest.raises(SmileDataError, match=r"predictions\.json can't be read .*; delete the folder"):
            open_predictions(folder, {})
    part = sorted(folder.rglob("*.parquet"))[0]
    assert verdicts_of(part).total() > 0
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(SmileDataError, match=r"not a readable file of predictions .*; delete it and run"):
        verdicts_of(part)


def test_parts_with_other_columns_are_not_mixed_with_those_of_an_earlier_version(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "earlier")
    settings = json.loads((folder / "predictions.json").read_text())
    open_predictions(folder, settings)
    (folder / "predictions.json").write_text(json.dumps({**settings, "columns": None}))
    with pytest.raises(SmileDataError, match=r"other settings \(columns\)"):
        open_predictions(folder, settings)
