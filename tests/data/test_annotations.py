"""Every way an annotation file can be, good or bad."""

import pandas as pd
import pytest

from hf_smile.data.annotations import check_disjoint, normalize_image_id, read_annotations
from hf_smile.errors import Problems, SmileDataError


@pytest.fixture
def read(tmp_path):
    """Write `content` to train.csv; give back the rows and the problems."""

    def read(content: str | bytes, name: str = "train.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        problems = Problems()
        return read_annotations(path, problems), problems

    return read


TWO_ROWS = [("a", 0), ("b", 2)]


@pytest.mark.parametrize(
    "content",
    [
        "a,negative smile\nb,NOT smile\n",
        "a,negative smile\nb,NOT smile",
        "image_id,label\na,negative smile\nb,NOT smile\n",
        "Label,Image_ID\nnegative smile,a\nNOT smile,b\n",
        "filename,class\na.jpg,0\nb.png,2\n",
        "a.jpg,negative smile\nb.JPEG,NOT smile\n",
        "happy_images/a.jpg,negative smile\nhappy_images/b.jpg,NOT smile\n",
        "a, NEGATIVE Smile \n b ,not smile\n",
        "a,negative smile\r\nb,NOT smile\r\n",
        "\n a,negative smile\n\n\nb,NOT smile\n\n",
        '"a","negative smile"\n"b","NOT smile"\n',
        b"\xef\xbb\xbfa,negative smile\nb,NOT smile\n",
        b"\xef\xbb\xbfimage_id,label\r\na,negative smile\r\nb,NOT smile\r\n",
    ],
)
def test_all_forms_of_a_good_file_are_read(read, content):
    table, problems = read(content)
    assert problems == []
    assert list(zip(table["image_id"], table["label"], strict=True)) == TWO_ROWS


def test_further_columns_of_a_file_with_header_are_kept(read):
    table, problems = read("image_id,label,person\na,0,Ann\nb,2,Bob\n")
    assert problems == []
    assert list(table["person"]) == ["Ann", "Bob"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a,negative smile\nb,happy\n", "train.csv:2: unknown label 'happy'"),
        ("a,negative smile\n,NOT smile\n", "train.csv:2: empty id"),
        (".jpg,NOT smile\n", "train.csv:1: empty id"),
        ("a,0\nb,1\na.jpg,0\n", "train.csv:3: id 'a' is there twice, first in line 1"),
        ("a,0\nb,1\na,1\n", "train.csv:3: id 'a' is there twice, first in line 1 with another label, 'negative smile'"),
        ("a,0\nb\n", "train.csv:2: 1 column where 2 are expected"),
        ("a;negative smile\nb;NOT smile\n", "train.csv: the cells are separated by semicolons; save"),
        ("image_id;label;note\na;0;well, yes\n", "train.csv: the cells are separated by semicolons; save"),
        ("image_id\tlabel\na\t0\nb\t2\n", "train.csv: the cells are separated by tabs; save"),
        ("a,0\nb;1\n", "train.csv:2: 1 column where 2 are expected"),
        ("negative smile,a\nNOT smile,b\nNOT smile,c\n", "train.csv: the labels stand where the ids should"),
        ("image_id,label\n0,a\n2,b\n", "train.csv: the labels stand where the ids should"),
        ("a,0,x\n", "train.csv:1: 3 columns where 2 are expected"),
        ("image_id,emotion\na,0\n", "train.csv:1: no column 'label'; the header has image_id, emotion"),
        ("person,label\na,0\n", "train.csv:1: no column 'image_id'"),
        ("image_id,label\n", "train.csv: empty file"),
        ("image_id,label,label\na,0,2\n", "train.csv:1: column 'label' is there twice"),
        ("image_id,label,image\na,0,x\n", "train.csv:1: column 'image' is there twice, or its name is reserved"),
        ("", "train.csv: empty file"),
        ("\n\n", "train.csv: empty file"),
        ("a,0\nb,NOT smile\n".encode("utf-16"), "train.csv:1: wrong encoding: not UTF-8"),
        ("a,0\nü,1\n".encode("latin-1"), "train.csv:2: wrong encoding: not UTF-8"),
        ("a,0\n" + "x" * 200_000 + ",1\n", "train.csv:2: not a CSV line"),
    ],
)
def test_each_problem_is_reported_with_file_and_line(read, content, problem):
    _, problems = read(content)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_ids_that_are_numbers_do_not_pass_for_labels(read):
    table, problems = read("0,2\n1,0\n2,1\n")
    assert problems == [] and list(table["image_id"]) == ["0", "1", "2"]
    _, problems = read("".join(f"{i},happy\n" for i in range(10)))
    assert problems[0].startswith("train.csv:1: unknown label 'happy'")


def test_a_mistyped_label_in_the_first_line_is_no_header(read):
    _, problems = read("a,negativ smile\nb,NOT smile\n")
    assert problems[0].startswith("train.csv:1: unknown label 'negativ smile'")


def test_line_numbers_count_blank_lines_and_lines_inside_quotes(read):
    _, problems = read('image_id,label,note\na,0,"two\nlines"\n\nb,what,x\n')
    assert problems[0].startswith("train.csv:5: unknown label 'what'")


def test_all_problems_come_together_the_first_20_and_a_total(read):
    _, problems = read("".join(f"id{i},happy\n" for i in range(25)) + ",1\n")
    with pytest.raises(SmileDataError) as caught:
        problems.raise_if_any("data/happy_images")
    lines = str(caught.value).splitlines()
    assert lines[0] == "26 problems in data/happy_images:"
    assert lines[20].startswith("  train.csv:20: unknown label")
    assert lines[21:] == ["  ... and 6 more"]


def test_an_image_in_train_and_test_is_a_problem(read):
    train, problems = read("a,0\nb,1\n")
    test, _ = read("c,0\nb.jpg,1\n", "test.csv")
    check_disjoint(train, test, problems)
    assert problems == ["test.csv:2: id 'b' is in train.csv:2 too; no image may be in train and test"]


def test_an_empty_file_does_not_hide_the_problems_of_the_other(read):
    empty, problems = read("")
    test, _ = read("c,0\n", "test.csv")
    check_disjoint(empty, test, problems)
    check_disjoint(test, empty, problems)
    assert problems == ["train.csv: empty file"]
    assert isinstance(empty, pd.DataFrame)


def test_an_id_keeps_dots_that_are_no_image_suffix():
    assert normalize_image_id("img.2022.jpg") == "img.2022"
    assert normalize_image_id("img.2022") == "img.2022"
