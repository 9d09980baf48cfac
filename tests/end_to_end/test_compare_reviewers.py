"""`hf-smile review --compare`: agreement of two reviewers, and of one reviewer and the annotations."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from hf_smile.commands import review
from hf_smile.data.corrections import Decision, append, now
from hf_smile.errors import SmileDataError, SmileError
from hf_smile.labels import LABEL_NAMES

ROOT = Path(__file__).parents[2]


def annotated(folder, split):
    with (folder / f"{split}.csv").open() as file:
        return dict(csv.reader(file))


def write(path, opinions, given, others=()):
    """Write the file of a reviewer with these opinions (names by image id), and other decisions."""
    for image_id, name in opinions.items():
        old = given[image_id]
        new, word = ("", "keep") if name == old else (name, "relabel")
        append(path, Decision(image_id, old, new, word, path.stem, now()))
    for image_id, word in others:
        append(path, Decision(image_id, given[image_id], "", word, path.stem, now()))
    return path


@pytest.fixture
def files(sample_dir, tmp_path):
    """Two reviewers of 40 images, who disagree on 10; each has other decisions that do not count."""
    given = annotated(sample_dir, "train")
    ids = [*given]
    ann = {image_id: given[image_id] for image_id in ids[:40]}
    turned = {name: LABEL_NAMES[number - 1] for number, name in enumerate(LABEL_NAMES)}
    ben = {image_id: turned[name] if number < 10 else name for number, (image_id, name) in enumerate(ann.items())}
    kappa = cohen_kappa_score([*ann.values()], [*ben.values()])
    write(tmp_path / "ann.csv", ann, given, [(ids[41], "unsure"), (ids[42], "leave_out"), (ids[43], "keep")])
    write(tmp_path / "ben.csv", ben, given, [(ids[41], "keep"), (ids[42], "keep"), (ids[43], "unsure")])
    return tmp_path / "ann.csv", tmp_path / "ben.csv", kappa


def compare(sample_dir, *paths):
    words = ["--data_dir", str(sample_dir), "--compare", *map(str, paths)]
    review.run(review.parse_arguments(words, "hf-smile review"))


def test_two_reviewers_get_the_kappa_of_scikit_learn_on_what_both_decided(files, sample_dir):
    ann, ben, kappa = files
    command = [sys.executable, "-m", "hf_smile", "review", "--data_dir", sample_dir, "--compare", ann, ben]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{ann}: 41 labels; not counted: 1 unsure, 1 left out" in done.stdout
    assert f"{ben}: 42 labels; not counted: 1 unsure, 0 left out" in done.stdout
    assert f"40 images: agreement 75.0 % (59.8 to 85.8 %), Cohen's kappa {kappa:.3f} (" in done.stdout
    assert "| ann.csv \\ ben.csv | negative smile | positive smile | NOT smile |" in done.stdout


def test_one_reviewer_is_compared_with_the_annotations_of_each_split(files, sample_dir, capsys):
    _, ben, _ = files
    test = annotated(sample_dir, "test")
    write(ben, dict(list(test.items())[:8]), test)
    compare(sample_dir, ben)
    said = capsys.readouterr().out
    assert "train, 42 images: agreement 76.2 % (" in said
    assert "test, 8 images: agreement 100.0 % (" in said
    assert "| ben.csv \\ annotations |" in said


def test_files_on_different_images_or_other_data_are_refused(files, sample_dir, tmp_path):
    test = annotated(sample_dir, "test")
    other = write(tmp_path / "other.csv", test, test)
    with pytest.raises(SmileDataError, match="no image was labelled by both"):
        compare(sample_dir, files[0], other)
    append(other, Decision("nobody", "NOT smile", "", "keep", "other", now()))
    with pytest.raises(SmileDataError, match=r"other\.csv:34: the data have no image 'nobody'"):
        compare(sample_dir, files[0], other)


def test_a_comparison_opens_no_page():
    for words in (["--blind"], ["--model", "m"], ["b.csv", "c.csv"]):
        with pytest.raises(SmileError, match="opens no page"):
            review.parse_arguments(["--compare", "a.csv", *words], "hf-smile review")
