"""The drawn sample data set has the layout of users' data, is reproducible, and its smiles differ at the eyes."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_smile.data import sample
from hf_smile.data.sample import draw_face, draw_sample_dataset
from hf_smile.labels import LABEL_NAMES, NEGATIVE_SMILE, NOT_SMILE, POSITIVE_SMILE

FILES = ("happy_images.zip", "test.csv", "train.csv")


def read_csv(path: Path) -> list[tuple[str, ...]]:
    return [tuple(line.split(",")) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed_rows(one_label: int, other_label: int, seed: int) -> np.ndarray:
    """Mean difference of each of the 96 pixel rows between two expressions of the same person."""
    one, other = (draw_face(label_id, np.random.default_rng(seed), 96) for label_id in (one_label, other_label))
    return np.abs(np.asarray(one, float) - np.asarray(other, float)).mean(axis=(1, 2))


def test_same_seed_gives_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        draw_sample_dataset(tmp_path / name, train_size=6, test_size=4, size=32, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in FILES)


def test_files_agree_with_each_other_and_with_what_was_asked(tmp_path):
    folder = draw_sample_dataset(tmp_path / "new" / "sample", train_size=40, test_size=10, size=48)
    assert folder == tmp_path / "new" / "sample"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    train, test = read_csv(folder / "train.csv"), read_csv(folder / "test.csv")
    assert (len(train), len(test)) == (40, 10)
    image_ids = [image_id for image_id, _ in train + test]
    assert len(set(image_ids)) == 50
    with zipfile.ZipFile(folder / "happy_images.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"happy_images/{image_id}.jpg" for image_id in image_ids)
        for name in archive.namelist():
            image = Image.open(io.BytesIO(archive.read(name)))
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 48))


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_tiny_data_sets_have_every_label(tmp_path, count):
    draw_sample_dataset(tmp_path, train_size=count, test_size=count, size=24)
    for name in ("train.csv", "test.csv"):
        rows = read_csv(tmp_path / name)
        assert len(rows) == count
        assert {label for _, label in rows} == set(LABEL_NAMES)


def test_labels_are_mildly_unbalanced_and_mixed(tmp_path):
    draw_sample_dataset(tmp_path, train_size=50, test_size=3, size=16)
    labels = [label for _, label in read_csv(tmp_path / "train.csv")]
    assert [labels.count(name) for name in LABEL_NAMES] == [10, 15, 25]
    assert len(set(labels[:10])) == 3


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2), (0, 0)])
def test_too_few_images_are_refused(tmp_path, sizes):
    with pytest.raises(ValueError, match="at least 3"):
        draw_sample_dataset(tmp_path / "sample", *sizes)
    assert not (tmp_path / "sample").exists()


def test_interrupted_drawing_leaves_no_partial_files(tmp_path, monkeypatch):
    interrupt_after(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        draw_sample_dataset(tmp_path, train_size=6, test_size=3, size=24)
    assert contents(tmp_path) == {}


def test_interrupted_drawing_keeps_the_data_set_that_was_there(tmp_path, monkeypatch):
    draw_sample_dataset(tmp_path, train_size=6, test_size=3, size=24)
    before = contents(tmp_path)
    interrupt_after(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        draw_sample_dataset(tmp_path, train_size=6, test_size=3, size=24, seed=1)
    assert contents(tmp_path) == before


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(*args):
        if len(drawn) == count:
            raise KeyboardInterrupt
        drawn.append(draw_face(*args))
        return drawn[-1]

    monkeypatch.setattr(sample, "draw_face", draw)


@pytest.mark.parametrize("label_id", range(3))
@pytest.mark.parametrize("size", [16, 97])
def test_face_has_the_size_asked_for(label_id, size):
    face = draw_face(label_id, np.random.default_rng(0), size)
    assert (face.mode, face.size) == ("RGB", (size, size))


@pytest.mark.parametrize("label_id", [-1, 3])
def test_unknown_label_is_refused(label_id):
    with pytest.raises(ValueError, match="label_id"):
        draw_face(label_id, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(10))
def test_the_eyes_tell_the_smiles_apart_and_the_mouth_tells_who_does_not_smile(seed):
    smiles = changed_rows(NEGATIVE_SMILE, POSITIVE_SMILE, seed)
    mouth = changed_rows(NEGATIVE_SMILE, NOT_SMILE, seed)
    assert smiles.max() > 2 < mouth.max()
    assert not smiles[75:].any(), "the lower part of the face is the same in both smiles"
    assert np.average(range(96), weights=smiles) < np.average(range(96), weights=mouth)


def test_faces_vary():
    rng = np.random.default_rng(0)
    faces = [np.asarray(draw_face(POSITIVE_SMILE, rng, 32), float) for _ in range(10)]
    assert min(np.abs(a - b).mean() for i, a in enumerate(faces) for b in faces[:i]) > 10
