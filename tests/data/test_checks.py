"""Every image is decoded once, and again only if its file changes."""

import os
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import datasets
import pytest
from PIL import Image

from hf_smile.data import checks
from hf_smile.data.checks import check_images
from hf_smile.data.dataset import load_smile_dataset
from hf_smile.data.prepare import save_prepared
from hf_smile.data.sources import ImageSource


@pytest.fixture
def decoded(monkeypatch, tmp_path) -> list[int]:
    """The size in bytes of each image that is decoded, with an empty cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    sizes: list[int] = []
    decode = checks.decode_image
    monkeypatch.setattr(checks, "decode_image", lambda data: (sizes.append(len(data)), decode(data))[1])
    return sizes


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (8 + number, 8)).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def test_a_second_start_decodes_no_good_image_and_says_so(folder, decoded, caplog):
    files = sorted(path.name for path in folder.iterdir())
    first = check_images(ImageSource(folder), files)
    assert len(decoded) == 7 and [problem != "" for _, problem in first] == [False] * 6 + [True]
    decoded.clear()
    caplog.set_level("INFO", "hf_smile")
    assert check_images(ImageSource(folder), files) == first
    assert decoded == [len(b"no image")]  # it may have been fixed without changing the file
    assert caplog.messages == ["6 of 7 images were already checked"]


def test_what_changed_is_decoded_again(folder, decoded):
    check_images(ImageSource(folder), ["0.png", "1.png", "bad.png"])
    decoded.clear()
    Image.new("RGB", (8, 8), "red").save(folder / "bad.png")
    status = (folder / "1.png").stat()
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes())
    os.utime(folder / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns))  # as copying tools do
    checked = check_images(ImageSource(folder), ["0.png", "1.png", "2.png", "bad.png"])
    assert len(decoded) == 3 and all(digest and not problem for digest, problem in checked)


def test_a_zip_is_known_by_its_size_and_time(folder, decoded, tmp_path):
    for name in ("0.png", "1.png"):
        with zipfile.ZipFile(tmp_path / "faces.zip", "a") as archive:
            archive.write(folder / name, name)
        before = len(decoded)
        names = list(ImageSource(tmp_path / "faces.zip").names)
        for _ in range(2):
            check_images(ImageSource(tmp_path / "faces.zip"), names)
        assert len(decoded) - before == len(names)


def test_another_version_looks_again(folder, decoded, monkeypatch):
    check_images(ImageSource(folder), ["0.png"])
    monkeypatch.setattr(checks, "_CHECKED_BY", "something newer")
    check_images(ImageSource(folder), ["0.png"])
    assert len(decoded) == 2


def test_without_a_place_for_the_memory_all_is_decoded(folder, decoded, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    for _ in range(2):
        check_images(ImageSource(folder), ["0.png"])
    assert len(decoded) == 2


def test_a_damaged_memory_is_not_needed(folder, decoded, tmp_path):
    check_images(ImageSource(folder), ["0.png"])
    (memory,) = (tmp_path / "cache" / "hf_smile_checked").iterdir()
    memory.write_bytes(memory.read_bytes()[:60] + b"damaged" * 100)
    assert check_images(ImageSource(folder), ["0.png"])[0][1] == "" and len(decoded) == 2


def test_a_memory_with_more_columns_is_read(folder, decoded, tmp_path):
    """That of another version, for example."""
    check_images(ImageSource(folder), ["0.png"])
    (memory,) = (tmp_path / "cache" / "hf_smile_checked").iterdir()
    with closing(sqlite3.connect(memory)) as database:
        database.execute("ALTER TABLE checked ADD COLUMN size INT")
    check_images(ImageSource(folder), ["0.png", "1.png"])
    assert len(decoded) == 2


def test_saved_data_are_checked_like_all_others(sample_dir, decoded, tmp_path):
    splits = load_smile_dataset(sample_dir)
    splits.save_to_disk(tmp_path / "theirs")
    decoded.clear()
    for _ in range(2):
        load_smile_dataset(tmp_path / "theirs")
        assert len(decoded) == 128


def test_prepared_data_are_known_to_be_good(sample_dir, decoded, tmp_path):
    save_prepared(load_smile_dataset(sample_dir), tmp_path / "prepared")
    decoded.clear()
    load_smile_dataset(tmp_path / "prepared")
    assert decoded == []


def test_bad_images_of_saved_data_are_left_out_and_listed(sample_dir, tmp_path, caplog):
    def spoil(row, number):
        return row | ({"image": {"bytes": b"no image", "path": None}} if number == 3 else {})

    splits = load_smile_dataset(sample_dir).cast_column("image", datasets.Image(decode=False))
    splits["test"] = splits["test"].map(spoil, with_indices=True)
    spoiled = splits["test"][3]["image_id"]
    splits.save_to_disk(tmp_path / "theirs")
    with pytest.raises(Exception, match=rf"test, row 3: image '{spoiled}': not a JPEG"):
        load_smile_dataset(tmp_path / "theirs")
    kept = load_smile_dataset(tmp_path / "theirs", on_bad_image="skip", bad_image_list=tmp_path / "bad.csv")
    assert len(kept["test"]) == 31 and spoiled not in kept["test"]["image_id"]
    assert "Left out 1 of 128 images" in caplog.text
    assert f'"test, row 3",{spoiled},' in (tmp_path / "bad.csv").read_text()
