"""`hf-smile shard` as a user runs it, also with mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

from hf_smile.data.sample import draw_sample_dataset

ROOT = Path(__file__).parents[2]


def run(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "shard_dataset.py"), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_it_says_what_it_wrote_and_what_to_do_with_it(sample_dir, tmp_path):
    done = run("--data_dir", sample_dir, "--output_dir", tmp_path / "shards", "--divisible_by", 4)
    assert done.returncode == 0, done.stderr
    assert "train: 86 images in 4 shards\nvalidation: 10 images in 1 shards\n" in done.stdout
    assert f"hf-smile train --data_dir {tmp_path}/shards" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data_dir", "nowhere"], "nowhere: no such folder"),
        (["--data_dir", "{prepared}"], "prepared: the saved data set is damaged"),
        (["--data_dir", "{empty}"], "no data set found"),
        (["--data_dir", "{sample}", "--images_per_shard", "0"], "must be a whole number of at least 1"),
        (["--data_dir", "{sample}", "--validation_size", "1"], "between 0 and 1"),
        (["--data_dir", "{sample}", "--on_bad_image", "guess"], "invalid choice"),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(words, message, sample_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "dataset_dict.json").write_text("{}")
    folders = {"sample": sample_dir, "empty": tmp_path / "empty", "prepared": tmp_path / "prepared"}
    words = [word.format(**folders) for word in words]
    done = run(*words, "--output_dir", tmp_path / "out")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_broken_image_is_named(tmp_path):
    draw_sample_dataset(tmp_path / "data", train_size=12, test_size=6, size=32)
    archive = (tmp_path / "data" / "happy_images.zip").read_bytes()
    (tmp_path / "data" / "happy_images.zip").write_bytes(archive.replace(b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xff", 1))
    done = run("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "shards")
    assert done.returncode == 2 and "csv:" in done.stderr and "--on_bad_image skip" in done.stderr
