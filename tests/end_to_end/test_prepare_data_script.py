"""`hf-smile prepare` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "prepare_data.py"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_it_writes_the_data_shows_them_and_counts(sample_dir, tmp_path):
    done = run(
        "--data_dir", sample_dir, "--output_dir", tmp_path / "prepared", "--export_imagefolder", tmp_path / "sorted"
    )
    assert done.returncode == 0, done.stderr
    assert "test: 32 images: negative smile" in done.stdout
    for name in ("class_distribution.png", "samples.png"):
        assert Image.open(tmp_path / "prepared" / name).width > 500
    assert len(list((tmp_path / "sorted").glob("train/[012]/*.jpg"))) == 96
    assert len(list((tmp_path / "sorted").glob("test/[012]/*.jpg"))) == 32
    again = run("--data_dir", tmp_path / "prepared", "--output_dir", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[:3] == done.stdout.splitlines()[:3]


def test_it_draws_the_sample_data_set(tmp_path):
    done = run("--draw_sample", "--data_dir", "data/sample", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "data" / "sample").iterdir()) == [
        "happy_images.zip",
        "test.csv",
        "train.csv",
    ]


def test_it_does_not_draw_over_data_that_are_there(tmp_path):
    (tmp_path / "train.csv").write_text("mine")
    done = run("--draw_sample", "--data_dir", tmp_path)
    assert done.returncode == 2
    assert "train.csv already exists" in done.stderr
    assert (tmp_path / "train.csv").read_text() == "mine"


def test_a_place_that_can_not_be_written_to_is_said(sample_dir, tmp_path):
    (tmp_path / "file").write_text("")
    done = run("--data_dir", sample_dir, "--output_dir", tmp_path / "file" / "below")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, "no data set found"),
        ("a,happy\n", "train.csv:1: unknown label 'happy'"),
        ("a,0\nb,1\nc,2\n", "contains no images"),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(train, message, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    if train is not None:
        (data_dir / "train.csv").write_text(train)
        (data_dir / "test.csv").write_text("x,2\n")
    done = run("--data_dir", data_dir, "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
