"""Writing shards loses and duplicates no image, even after interruptions, and other libraries can read them."""

import csv
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import datasets
import pyarrow.parquet as pq
import pytest

from hf_smile.data import annotations
from hf_smile.data.dataset import load_smile_dataset
from hf_smile.data.images import encoded_bytes
from hf_smile.errors import SmileDataError
from hf_smile.shards import write
from hf_smile.shards.folder import is_sharded, load_shards, rows_of, shard_files
from hf_smile.shards.write import Sharding, write_shards

HOW = Sharding(images_per_shard=20, divisible_by=2)

KILLED = """
import os, signal, sys
from itertools import count
from hf_smile.data import annotations
from hf_smile.shards import write
number, decode = count(), write.decode_image
def decode_until_killed(data):
    if next(number) == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(data)
write.decode_image = decode_until_killed
write.write_shards(sys.argv[1], sys.argv[2], write.Sharding(images_per_shard=20, divisible_by=2))
"""


def table(folder, split, column="image_id"):
    return [value for file in shard_files(folder, split) for value in pq.read_table(file)[column].to_pylist()]


def annotated(folder, split):
    with (folder / f"{split}.csv").open() as file:
        return dict(csv.reader(file))


@pytest.fixture(scope="module")
def shards(sample_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    assert write_shards(sample_dir, folder, HOW) == {"train": 86, "validation": 10, "test": 32}
    return folder


@pytest.fixture
def unpacked(sample_dir, tmp_path):
    """The sample data set with its images in a plain folder."""
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(sample_dir / "happy_images.zip") as archive:
        archive.extractall(folder)
    for name in ("train.csv", "test.csv"):
        shutil.copy(sample_dir / name, folder)
    return folder


def test_every_image_is_in_one_shard_byte_for_byte(shards, sample_dir):
    train = table(shards, "train") + table(shards, "validation")
    assert sorted(train) == sorted(annotated(sample_dir, "train"))
    assert sorted(table(shards, "test")) == sorted(annotated(sample_dir, "test"))
    with zipfile.ZipFile(sample_dir / "happy_images.zip") as archive:
        for image_id, image in zip(table(shards, "test"), table(shards, "test", "image"), strict=True):
            assert image["bytes"] == archive.read(f"happy_images/{image_id}.jpg")


def test_shards_are_equally_full_and_mixed(shards):
    assert [rows_of(file) for file in shard_files(shards, "train")] == [14, 14, 15, 14, 14, 15]
    assert all(len(set(pq.read_table(file)["label"].to_pylist())) > 1 for file in shard_files(shards, "train"))
    assert set(table(shards, "validation", "label")) == {0, 1, 2}


def test_datasets_reads_the_folder_as_it_is(shards):
    stream = datasets.load_dataset(str(shards), streaming=True)
    assert {*stream} == {"train", "validation", "test"}
    row = next(iter(stream["test"]))
    assert row["image"].size == (64, 64) and stream["test"].features["label"].names[2] == "NOT smile"


def test_our_own_loader_reads_them(shards, sample_dir):
    splits = load_smile_dataset(shards)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 86, "validation": 10, "test": 32}
    row = splits["test"].cast_column("image", datasets.Image(decode=False))[0]
    assert splits["test"].features["label"].int2str(row["label"]) == annotated(sample_dir, "test")[row["image_id"]]
    assert encoded_bytes(row["image"])[:2] == b"\xff\xd8"
    assert load_shards(shards, train_images=False)["train"].column_names == ["label", "image_id"]


def test_killed_and_started_again_nothing_is_lost_or_doubled(sample_dir, shards, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(sample_dir), str(tmp_path)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    whole = shard_files(tmp_path, "train")
    assert 0 < len(whole) < 6
    with pytest.raises(SmileDataError, match="to resume"):
        is_sharded(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in whole}
    write_shards(sample_dir, tmp_path, HOW)
    assert {file: file.stat().st_mtime_ns for file in whole} == before  # skipped, not written again
    for split in ("train", "validation", "test"):
        assert table(tmp_path, split) == table(shards, split)
    assert is_sharded(tmp_path) and not [*tmp_path.glob("*/*.part"), *tmp_path.glob(".index-*")]


def test_a_plain_folder_gives_the_same_shards_piece_by_piece(unpacked, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_PIECE", 7)
    second = unpacked / "happy_images" / f"{list(annotated(unpacked, 'train'))[1]}.jpg"
    second.rename(second.with_suffix(".JPG"))
    write_shards(unpacked, tmp_path / "out", HOW)
    assert table(tmp_path / "out", "train") == table(shards, "train")


@pytest.mark.parametrize("piece", [7, 5000])
def test_problems_are_found_in_their_lines_across_pieces(unpacked, tmp_path, monkeypatch, piece):
    monkeypatch.setattr(write, "_PIECE", piece)
    lines = (unpacked / "train.csv").read_text().splitlines()
    lines[20], lines[40] = f"{lines[20].split(',')[0]},grin", lines[3]
    (unpacked / "train.csv").write_text("\n".join(["image_id,label", *lines, "", *[""] * 7]))
    with pytest.raises(SmileDataError) as error:
        write_shards(unpacked, tmp_path / "out", HOW)
    assert "2 problems" in str(error.value)
    assert "train.csv:22: unknown label 'grin'" in str(error.value)
    assert "train.csv:42: id" in str(error.value) and "first in train.csv:5" in str(error.value)


@pytest.mark.parametrize(
    ("end", "problem"), [(b"\x81,1\n", "wrong encoding"), (b'"a,1\n', "a quotation mark opens here")]
)
def test_what_is_no_csv_is_found_in_its_line_in_a_later_piece(unpacked, tmp_path, monkeypatch, end, problem):
    monkeypatch.setattr(write, "_PIECE", 7)
    with (unpacked / "test.csv").open("ab") as file:
        file.write(end)
    with pytest.raises(SmileDataError, match=rf"test.csv:33: .*{problem}"):
        write_shards(unpacked, tmp_path / "out", HOW)


@pytest.mark.parametrize("data", ["unpacked", "sample_dir"])
def test_annotations_too_large_for_memory_are_sharded_all_the_same(request, shards, tmp_path, monkeypatch, data):
    folder = request.getfixturevalue(data)
    for limit, problem in (("_MAX_LINES", "more than 50 lines"), ("_MAX_BYTES", "over the limit of 50")):
        monkeypatch.setattr(annotations, limit, 50)
        with pytest.raises(SmileDataError, match=f"train.csv.*{problem}; .* convert it with hf-smile shard"):
            load_smile_dataset(folder)
    write_shards(folder, tmp_path / "out", HOW)
    assert table(tmp_path / "out", "train") == table(shards, "train")


def test_further_columns_stay(unpacked, tmp_path):
    for name in ("train.csv", "test.csv"):
        lines = (unpacked / name).read_text().splitlines()
        (unpacked / name).write_text(
            "\n".join(["image_id,label,age", *(f"{line},{i}" for i, line in enumerate(lines))])
        )
    write_shards(unpacked, tmp_path / "out", replace(HOW, validation_size=0))
    assert sorted(map(int, table(tmp_path / "out", "train", "age"))) == list(range(96))
    assert not shard_files(tmp_path / "out", "validation")


def test_bad_images_are_named_or_left_out_and_listed(unpacked, tmp_path):
    (unpacked / "happy_images" / f"{(bad := list(annotated(unpacked, 'train'))[5])}.jpg").write_bytes(b"no image")
    (unpacked / "happy_images" / f"{(gone := list(annotated(unpacked, 'test'))[5])}.jpg").unlink()
    with pytest.raises(SmileDataError, match=f"train.csv:6: image '{bad}': not a JPEG") as caught:
        write_shards(unpacked, tmp_path / "out", HOW)
    assert f"test.csv:6: image '{gone}': image missing" in str(caught.value)
    how = replace(HOW, on_bad_image="skip")
    for _ in range(2):  # the second time, all shards exist, and the list is written again
        assert sum(write_shards(unpacked, tmp_path / "out", how).values()) == 126
        listed = (tmp_path / "out" / "bad_images.csv").read_text()
        assert f'test.csv:6,{gone},"image missing' in listed and f'train.csv:6,{bad},"not a JPEG' in listed
        (tmp_path / "out" / "bad_images.csv").unlink()


def test_a_split_of_which_no_image_is_left_is_said(unpacked, tmp_path):
    for image_id in annotated(unpacked, "test"):
        (unpacked / "happy_images" / f"{image_id}.jpg").write_bytes(b"no image")
    with pytest.raises(SmileDataError, match=r"no image is left in test; see .*bad_images\.csv"):
        write_shards(unpacked, tmp_path / "out", replace(HOW, on_bad_image="skip"))


def test_other_settings_or_data_do_not_mix(shards, sample_dir, unpacked, tmp_path):
    with pytest.raises(SmileDataError, match=r"other data or settings \(seed, annotations\)"):
        write_shards(sample_dir, shards, replace(HOW, seed=1))
    (unpacked / "train.csv").write_text("\n".join((unpacked / "train.csv").read_text().splitlines()[1:]))
    with pytest.raises(SmileDataError, match=r"settings \(annotations\)"):
        write_shards(unpacked, shards, HOW)
    (tmp_path / "train").mkdir()
    with pytest.raises(SmileDataError, match=r"has no shards|contains data"):
        write_shards(sample_dir, tmp_path, HOW)


def test_a_damaged_shard_is_named_and_made_again(shards, sample_dir, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    file = shard_files(tmp_path / "copy", "train")[1]
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(SmileDataError, match=rf"{file.name}: not a readable Parquet file"):
        load_shards(tmp_path / "copy", train_images=False)
    write_shards(sample_dir, tmp_path / "copy", HOW)
    assert table(tmp_path / "copy", "train") == table(shards, "train")  # written again


def test_shards_do_not_go_among_the_images_they_are_made_of(unpacked):
    with pytest.raises(SmileDataError, match="lies in the data folder"):
        write_shards(unpacked, unpacked / "..." / "..", HOW)
    assert not (unpacked / "train").exists()
