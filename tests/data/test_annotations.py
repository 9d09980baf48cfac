"""Valid and invalid annotation files."""

import pytest

from hf_smile.data.annotations import read_annotations
from hf_smile.data.columns import Reading
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import SMILE_LABELS


@pytest.fixture
def read(tmp_path):
    """Write `content` to train.csv and return the rows and the problems."""

    def read(content: str | bytes, name: str = "train.csv", **reading):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        problems = Problems()
        return read_annotations(path, problems, Reading(**reading)), problems

    return read


TWO_ROWS = [("a", 0), ("b", 2)]


@pytest.mark.parametrize(
    "content",
    [
        "a,negative smile\nb,NOT smile\n",
        "a,negative smile\nb,NOT smile",
        "image_id,label\na,negative smile\nb,NOT smile\n",
        "Label,Image_ID\nnegative smile,a\nNOT smile,b\n",
        "IMG,Target\na,0\nb,2\n",
        "path;labels\na;0\nb;2\n",
        "a;negative smile\nb;NOT smile\n",
        "id\tclass\tage\na\t0\t1,5\nb\t2\t2,0\n",
        "image_id;label;share\r\na;0;0,1\r\nb;2;1,5\r\n",
        "a, negative_smile\nb, NOT-SMILE\n",
        "image_id,label\na,negative smile\nb,NOT smile\n".encode("utf-16"),
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
        ("picture,mood\nb,2\n", "train.csv:1: unknown label 'mood'; expected one of"),
        ("a,negative smile\n,NOT smile\n", "train.csv:2: empty id"),
        (".jpg,NOT smile\n", "train.csv:1: '.jpg' can't be the name of a file"),
        ("a,0\nb\n", "train.csv:2: 1 column where 2 are expected (image_id,label)"),
        ("a,0\nb;1\n", "train.csv:2: 1 column where 2 are expected"),
        ("negative smile,a\nNOT smile,b\nNOT smile,c\n", "train.csv: the labels are in the column of the ids"),
        ("image_id,label\n0,a\n2,b\n", "train.csv: the labels are in the column of the ids"),
        ("a,0,x\n", "train.csv:1: 3 columns where 2 are expected"),
        (
            "image_id,emotion\na,0\n",
            "train.csv: no column 'label'; the header has image_id, emotion (name it with --label_column)",
        ),
        ("person,label\na,0\n", "train.csv: no column 'image_id'"),
        ("image_id,label\n", "train.csv: empty file"),
        ("image_id,label,label\na,0,2\n", "train.csv: column 'label' appears twice"),
        ("", "train.csv: empty file"),
        ("\n\n", "train.csv: empty file"),
        ("a,0\nb,NOT smile\n".encode("utf-16-le"), "train.csv:1: wrong encoding"),
        ("a,0\nü,1\n".encode() + "ö,2\n".encode("latin-1"), "train.csv:3: wrong encoding: neither UTF-8 nor cp1252"),
        ("a,0\n" + "x" * 200_000 + ",1\n", "train.csv:2: not a CSV line"),
    ],
)
def test_each_problem_is_reported_with_file_and_line(read, content, problem):
    _, problems = read(content)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_an_unknown_header_is_told_how_to_name_its_columns(read):
    _, problems = read("picture,mood\na.jpg,2\n")
    assert problems[0].endswith("if this line is a header, name its columns with --image_column and --label_column")


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
    _, problems = read("".join(f"id{i},happy{i}\n" for i in range(25)) + ",1\n")
    with pytest.raises(SmileDataError) as caught:
        problems.raise_if_any("data/happy_images")
    lines = str(caught.value).splitlines()
    assert lines[0] == "26 problems in data/happy_images:"
    assert lines[19].startswith("  train.csv:19: unknown label") and lines[20] == "  train.csv:26: empty id"
    assert lines[21:] == ["  ... and 6 more"]


def test_problems_that_differ_only_in_place_share_a_line(read):
    _, problems = read("a,0\n" + "".join(f"id{i},{label}\n" for i in range(25) for label in ("happy", "sad")) + ",1\n")
    with pytest.raises(SmileDataError) as caught:
        problems.raise_if_any("data/happy_images")
    first, happy, sad, empty, hint = str(caught.value).splitlines()
    assert first == "51 problems in data/happy_images:" and empty == "  train.csv:52: empty id"
    assert happy.startswith("  train.csv:2: unknown label 'happy'") and happy.endswith(" (and 24 more like this)")
    assert sad.startswith("  train.csv:3: unknown label 'sad'") and sad.endswith(" (and 24 more like this)")
    assert hint.startswith('Map each one to a label: --label_map "happy=...,sad=...". Or name') and "--labels" in hint


def test_problems_without_a_place_do_not_share_a_line():
    with pytest.raises(SmileDataError, match=r"train has no image\n  test has no image$"):
        Problems(["train has no image", "test has no image"]).raise_if_any("data")


@pytest.mark.parametrize("text", ["ü.jpg", "a,b.jpg", " a.jpg ", "person0\\a.jpg", "person0/a.jpg", "img.2022"])
def test_an_id_is_what_the_file_says(read, text):
    table, problems = read(f'"{text}",0\n')
    assert problems == []
    assert table["image_id"].tolist() == table["file"].tolist() == [text.strip().replace("\\", "/")]


def test_id_and_path_may_be_two_columns(read):
    table, problems = read("id,path,label\n7,person0/a.jpg,0\n")
    assert problems == []
    assert table.iloc[0].to_dict() == {"image_id": "7", "file": "person0/a.jpg", "label": 0, "where": "train.csv:2"}


def test_what_excel_writes_is_read_and_said(read, caplog):
    table, problems = read("Image_ID;Label;Größe\r\nä;NOT smile;1,5\r\n".encode("cp1252"))
    assert problems == []
    assert table.iloc[0].to_dict() == {"image_id": "ä", "file": "ä", "label": 2, "where": "train.csv:2", "größe": "1,5"}
    assert caplog.messages == ["Note: train.csv is read as cp1252 text with semicolons"]
    caplog.clear()
    read("a,0\n")
    assert not caplog.messages


def test_columns_can_be_named(read):
    names = {"image_column": "Picture", "label_column": "emotion", "id_column": "nr"}
    table, problems = read("nr,picture,emotion\n1,a.jpg,0\n", **names)
    assert problems == []
    assert table.iloc[0].to_dict() == {"image_id": "1", "file": "a.jpg", "label": 0, "where": "train.csv:2"}
    _, problems = read("nr,picture\n1,a.jpg\n", **names)
    assert problems == ["train.csv: no column 'emotion' (--label_column); the columns are nr, picture"]
    _, problems = read("foto,gefuehl\na.jpg,0\n", image_column="pic")
    assert problems == ["train.csv: no column 'pic' (--image_column); the columns are foto, gefuehl"]
    table, problems = read("a,0\nb,1\n", label_column="label")
    assert problems == [] and len(table) == 2


def test_unknown_labels_are_mapped_or_the_line_to_add_is_printed(read):
    text = "a,genuine\nb,Fake\nc,none\nd,fake\n"
    _, problems = read(text)
    with pytest.raises(SmileDataError, match=r'--label_map "genuine=\.\.\.,Fake=\.\.\.,none=\.\.\.,fake'):
        problems.raise_if_any("data")
    label_map = SMILE_LABELS.parse_map("genuine=positive smile,fake=negative smile,none=NOT smile")
    table, problems = read(text, label_map=label_map)
    assert problems == [] and table["label"].tolist() == [1, 0, 2, 0]
    table, problems = read("0,0\n1,2\n", label_map=SMILE_LABELS.parse_map({"0": "NOT smile", "2": "negative smile"}))
    assert table["label"].tolist() == [2, 0]


def test_json_lines_and_parquet_are_annotations_too(read, tmp_path):
    table, problems = read(
        '{"file_name": "a.jpg", "label": 0}\n\n{"file_name": "b.jpg", "label": "NOT smile"}\n', "m.jsonl"
    )
    assert (
        problems == [] and table["label"].tolist() == [0, 2] and table["where"].tolist() == ["m.jsonl:1", "m.jsonl:3"]
    )
    table[["file", "label"]].rename(columns={"file": "file_name"}).to_parquet(tmp_path / "m.parquet")
    again = read_annotations(tmp_path / "m.parquet", problems)
    assert problems == [] and again["file"].tolist() == ["a.jpg", "b.jpg"] and again["label"].tolist() == [0, 2]
    for content, problem in (
        ("[1]\n", "m.jsonl:1: each line must be a JSON object"),
        ("\n", "m.jsonl: empty file"),
        ('{"a": 1', "m.jsonl:1:"),
    ):
        _, problems = read(content, "m.jsonl")
        assert len(problems) == 1 and problems[0].startswith(problem)
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    _, problems = read(b"PAR1", "m.parquet")
    assert problems[0].startswith("m.parquet: not a readable Parquet file")


def test_of_many_problems_each_kind_is_shown(read):
    _, problems = read("".join(f"id{i},happy{i}\n" for i in range(50)) + ",1\nx,0,1\n")
    with pytest.raises(SmileDataError) as caught:
        problems.raise_if_any("data")
    assert "train.csv:51: empty id" in str(caught.value) and "train.csv:52: 3 columns" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 22
