import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.predictions import Predictions, align, read_predictions, write_predictions

HEADER = "image_id,true_label,predicted_label,p_negative_smile,p_positive_smile,p_not_smile"
GOOD = "1.jpg,NOT smile,positive smile,0.1,0.7,0.2"
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], include_characters="\n"), min_size=1)
TEXT |= st.text("'=+-@1", min_size=1)


def write(path, *lines):
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5, unique=True), TEXT, st.integers(0, 2**32))
def test_what_is_written_is_read_back_exactly(tmp_path_factory, image_ids, remark, seed):
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([0.3, 0.3, 0.3], len(image_ids))
    label_ids = generator.integers(3, size=len(image_ids))
    write_predictions(path, image_ids, label_ids, probabilities, {"remark": [remark] * len(image_ids)})
    found = read_predictions(path)
    assert found.image_ids == image_ids
    assert (found.label_ids == label_ids).all()
    assert (found.probabilities == probabilities).all()
    assert found.further_columns == {"remark": [remark] * len(image_ids)}


def test_the_file_reads_as_documented(tmp_path):
    path = tmp_path / "made" / "predictions.csv"
    write_predictions(path, ["1=1.jpg", "'2.jpg"], [2, 0], [[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]], {"age": [-31, "old"]})
    assert path.read_text(encoding="utf-8").splitlines() == [
        HEADER + ",age",
        "1=1.jpg,NOT smile,positive smile,0.25,0.5,0.25,-31",
        "'2.jpg,negative smile,negative smile,1.0,0.0,0.0,old",
    ]


def test_no_cell_is_a_formula_to_a_spreadsheet_and_every_text_comes_back(tmp_path):
    path = tmp_path / "predictions.csv"
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''-1", "'plain", "plain=1"]
    remarks = {"=remark": list(reversed(texts))}
    write_predictions(path, texts, [0] * len(texts), np.eye(3)[[0] * len(texts)], remarks)
    with path.open(encoding="utf-8", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    found = read_predictions(path)
    assert found.image_ids == texts and found.further_columns == remarks


def test_a_file_from_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "predictions.csv"
    lines = [
        "age,p_not_smile,p_positive_smile,p_negative_smile,predicted_label,true_label,image_id",
        "31,0.2,0.7,0.1,1,not_smile,x",
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ",,,,,,", ""]).encode())
    found = read_predictions(path)
    assert found.image_ids == ["x"]
    assert found.label_ids.tolist() == [2]
    assert found.probabilities.tolist() == [[0.1, 0.7, 0.2]]
    assert found.further_columns == {"age": ["31"]}


def test_a_file_of_an_earlier_version_is_read_and_its_label_is_the_true_one(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text(HEADER.replace("true_label", "label").replace("predicted_label", "prediction") + f"\n{GOOD}\n")
    old, new = read_predictions(path), read_predictions(write(tmp_path / "new.csv", GOOD))
    assert old.label_ids.tolist() == new.label_ids.tolist() == [2] and old.predicted_ids.tolist() == [1]
    # With the current columns, these are additional columns.
    write_predictions(path, ["x"], [0], [[1, 0, 0]], {"label": ["NOT smile"], "prediction": ["?"]})
    found = read_predictions(path)
    assert found.label_ids.tolist() == [0] and found.further_columns == {"label": ["NOT smile"], "prediction": ["?"]}


def test_all_problems_are_reported_together_with_their_lines(tmp_path):
    path = write(
        tmp_path / "p.csv",
        GOOD,
        "2.jpg,smirk,positive smile,0.1,0.7,0.2",
        "1.jpg,NOT smile,positive smile,0.1,0.7,0.2",
        "3.jpg,NOT smile,positive smile,0.1,0.7,0.1",
        "4.jpg,NOT smile,positive smile,0.1,much,0.2",
        "5.jpg,NOT smile,positive smile,nan,0.8,0.2",
        "6.jpg,NOT smile,positive smile,-0.1,0.9,0.2",
        "7.jpg,NOT smile,NOT smile,0.1,0.7,0.2",
        "8.jpg,NOT smile",
        ",NOT smile,positive smile,0.1,0.7,0.2",
    )
    with pytest.raises(SmileDataError) as error:
        read_predictions(path)
    assert str(error.value).splitlines() == [
        f"9 problems in {path}:",
        "  p.csv:3: unknown label 'smirk'; "
        "expected one of 'negative smile', 'positive smile', 'NOT smile' (or 0, 1, 2)",
        "  p.csv:4: image_id '1.jpg' appears twice, first in line 2",
        "  p.csv:5: probabilities must sum to 1; 0.1, 0.7, 0.1 sum to 0.9",
        "  p.csv:6: probabilities must be numbers; got 0.1, much, 0.2",
        "  p.csv:7: probabilities must lie between 0 and 1; got nan, 0.8, 0.2",
        "  p.csv:8: probabilities must lie between 0 and 1; got -0.1, 0.9, 0.2",
        "  p.csv:9: predicted_label is 'NOT smile', but 'positive smile' has the highest probability",
        "  p.csv:10: 2 cells, but the header has 6",
        "  p.csv:11: empty image_id",
    ]


def test_a_long_list_of_problems_is_cut(tmp_path):
    path = write(tmp_path / "p.csv", *[f"{n}.jpg,smirk{n},NOT smile,0,0,1" for n in range(30)])
    with pytest.raises(SmileDataError, match=r"30 problems in .*(?s:.*)\.\.\. and 10 more$"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: it needs a header"),
        (HEADER.encode() + b"\n", "is empty: it needs a header"),
        (b"image_id;label\n1.jpg;NOT smile\n", "not separated by commas"),
        (b"image_id,label\n1.jpg,NOT smile\n", "no column 'predicted_label'; the header has image_id, label"),
        (HEADER.encode() + b",age,age\n" + GOOD.encode() + b",1,2\n", "column 'age' appears twice"),
        (HEADER.encode() + b"\n1.jpg,,positive smile,0.1,0.7,0.2\n", "has no true labels"),
        (b"\xff\xfe\x00", "is not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_words(tmp_path, content, message):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(SmileDataError, match=message):
        read_predictions(tmp_path / "p.csv")


def test_a_file_that_is_not_there():
    with pytest.raises(SmileDataError, match=r"no_such\.csv can't be read: No such file"):
        read_predictions("no_such.csv")


def test_writing_checks_its_columns(tmp_path):
    with pytest.raises(SmileDataError, match=r"column 'image_id' has 2 values for 1 prediction$"):
        write_predictions(tmp_path / "p.csv", ["1", "2"], [0], [[1, 0, 0]])
    with pytest.raises(SmileDataError, match="'true_label' is a column of every predictions file"):
        write_predictions(tmp_path / "p.csv", ["1"], [0], [[1, 0, 0]], {"true_label": ["x"]})
    assert not (tmp_path / "p.csv").exists()


def test_align_brings_the_same_images_into_the_same_order():
    a = Predictions(["x", "y", "z"], np.array([0, 1, 2]), np.eye(3))
    shuffled = Predictions(["z", "x", "y"], np.array([2, 0, 1]), np.eye(3)[[2, 0, 1]], {"age": ["3", "1", "2"]})
    aligned = align(a, shuffled)
    assert aligned.image_ids == a.image_ids
    assert (aligned.probabilities == np.eye(3)).all()
    assert aligned.further_columns == {"age": ["1", "2", "3"]}


def test_align_reports_missing_and_unknown_images_and_other_labels():
    a = Predictions(["x", "y"], np.array([0, 1]), np.eye(3)[:2])
    b = Predictions(["y", "z"], np.array([2, 1]), np.eye(3)[:2])
    with pytest.raises(SmileDataError) as error:
        align(a, b, "new.csv", "old.csv")
    assert str(error.value).splitlines() == [
        "3 problems in new.csv and old.csv, which must be predictions for the same images:",
        "  image_id 'x' is missing in old.csv",
        "  image_id 'z' is missing in new.csv",
        "  image_id 'y' has the label 'positive smile' in new.csv and 'NOT smile' in old.csv",
    ]


def test_predictions_of_other_images_are_told_in_one_sentence():
    a, b = (Predictions([f"{split} {n}" for n in range(99)], np.zeros(99, int), np.eye(3)[[0] * 99]) for split in "ab")
    with pytest.raises(SmileDataError, match="A and B have no image in common"):
        align(a, b)
