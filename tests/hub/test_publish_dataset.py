"""Data are published as private, completely and only with a licence, and download byte for byte."""

import json
from pathlib import Path

import datasets
import pytest
from hub_server import Fault
from huggingface_hub import DatasetCard

from hf_smile.data.dataset import load_smile_dataset

RIGHTS = ("--license", "cc-by-4.0", "--i_have_the_right_to_publish")

DIGESTS = """
import hashlib, json, datasets
splits = datasets.load_dataset("me/faces").cast_column("image", datasets.Image(decode=False))
print(json.dumps({split: {
    "label": dataset.features["label"].names,
    "rows": [[r["image_id"], r["label"], hashlib.md5(r["image"]["bytes"]).hexdigest()] for r in dataset],
} for split, dataset in splits.items()}))
"""


@pytest.fixture
def push_data(push, hub, monkeypatch, sample_dir):
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    return lambda *words, data=sample_dir: push("dataset", data, "me/faces", *words)


def rows_of(folder: Path) -> dict:
    import hashlib

    splits = load_smile_dataset(folder).cast_column("image", datasets.Image(decode=False))
    return {
        split: [[r["image_id"], r["label"], hashlib.md5(r["image"]["bytes"]).hexdigest()] for r in dataset]
        for split, dataset in splits.items()
    }


def test_the_data_come_back_the_same_and_nobody_else_sees_them(push_data, run, hub, sample_dir):
    code, out, errors = push_data(*RIGHTS)
    assert code == 0, errors
    assert out.splitlines()[-1] == f"{hub.url}/datasets/me/faces"
    repo = hub.repo("me/faces", "datasets")
    assert repo.private
    assert repo.history["main"] == ["initial commit", "Upload data set with hf_smile"] and list(repo.refs) == ["main"]
    done = run("-c", DIGESTS)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    assert {split: content["rows"] for split, content in there.items()} == rows_of(sample_dir)
    assert there["test"]["label"] == ["negative smile", "positive smile", "NOT smile"]


def test_the_card_counts_and_names_licence_provenance_and_consent(push_data, hub):
    words = ["--provenance", "Drawn by a program.", "--consent", "Nobody is in them."]
    assert push_data(*RIGHTS, *words)[0] == 0
    files = hub.repo("me/faces", "datasets").files()
    card = DatasetCard(files["README.md"].decode())
    assert card.data.license == "cc-by-4.0" and card.data.task_categories == ["image-classification"]
    for text in ("128 pictures", "| all | 86 | 10 | 32 |", "Drawn by a program.", "Nobody is in them.", "5(1)(f)"):
        assert text in card.text
    assert files["class_distribution.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("words", [(), ("--license", "mit"), ("--i_have_the_right_to_publish",)])
def test_faces_are_not_published_without_licence_and_right(push_data, hub, words):
    code, _, errors = push_data(*words)
    assert code == 2 and "--license" in errors and "--i_have_the_right_to_publish" in errors
    assert hub.requests == []


def test_further_columns_stay_here(push_data, hub, sample_dir, tmp_path):
    (tmp_path / "happy_images.zip").symlink_to(sample_dir / "happy_images.zip")
    for name in ("train.csv", "test.csv"):
        rows = (sample_dir / name).read_text().splitlines()
        (tmp_path / name).write_text("image_id,label,person\n" + "".join(f"{row},Ann\n" for row in rows))
    assert push_data(*RIGHTS, data=tmp_path)[0] == 0
    files = hub.repo("me/faces", "datasets").files()
    assert any(path.startswith("data/train-") for path in files)
    assert not [path for path, content in files.items() if b"person" in content or b"Ann" in content]


def test_a_dry_run_lists_names_and_sizes(push_data, hub):
    code, out, _ = push_data(*RIGHTS, "--dry_run")
    assert code == 0 and hub.requests == []
    assert "kB  data/train-*.parquet" in out and "README.md" in out and "5 files" in out


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PUT", "^/lfs/", 403), ("POST", "/commit/staging", 409), ("POST", "/commit/main", 0)],
)
def test_what_breaks_in_the_middle_publishes_nothing(push_data, hub, waits, method, path, status):
    hub.faults.append(Fault(method, path, status, times=99))
    code, _, errors = push_data(*RIGHTS)
    assert code == 2 and "me/faces" in errors and "Traceback" not in errors
    repo = hub.repo("me/faces", "datasets")
    assert repo.files() == {} and list(repo.refs) == ["main"]


def test_a_shaky_hub_gets_the_data_all_the_same(push_data, hub, waits):
    hub.faults += [Fault("PUT", "^/lfs/", 0), Fault("POST", "/commit/staging", 500), Fault("POST", "/commit/main", 503)]
    hub.faults += [Fault("POST", "/branch/", 502), Fault("DELETE", "/branch/", 500), Fault("POST", "/preupload/", 429)]
    code, _, errors = push_data(*RIGHTS)
    assert code == 0, errors
    repo = hub.repo("me/faces", "datasets")
    assert repo.history["main"] == ["initial commit", "Upload data set with hf_smile"] and list(repo.refs) == ["main"]


def test_a_smaller_data_set_replaces_a_larger_one_on_a_branch_or_in_a_pull_request(push_data, hub):
    assert push_data(*RIGHTS, "--revision", "v2")[0] == 0
    repo = hub.repo("me/faces", "datasets")
    repo.tree("v2")["data/old-00000-of-00001.parquet"] = repo.tree("v2")["README.md"]
    assert push_data(*RIGHTS, "--revision", "v2", "--seed", "1")[0] == 0
    assert "data/old-00000-of-00001.parquet" not in repo.files("v2") and repo.files() == {}
    code, out, _ = push_data(*RIGHTS, "--create_pr")
    assert (code, out.splitlines()[-1]) == (0, f"{hub.url}/datasets/me/faces/discussions/1")
    assert "data/train-00000-of-00001.parquet" in repo.files("refs/pr/1") and repo.files() == {}
