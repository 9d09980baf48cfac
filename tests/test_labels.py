import pytest

from hf_smile.labels import LABEL_NAMES, SMILE_LABELS, label_slug


def test_ids_are_those_of_the_original_annotations():
    assert LABEL_NAMES == ("negative smile", "positive smile", "NOT smile")


@pytest.mark.parametrize(
    ("text", "label_id"),
    [
        ("negative smile", 0),
        ("  Positive Smile\t", 1),
        ("not smile", 2),
        ("NOT_SMILE", 2),
        ("2", 2),
    ],
)
def test_labels_are_read_whatever_their_case_and_blanks(text, label_id):
    assert SMILE_LABELS.parse(text) == label_id


@pytest.mark.parametrize("text", ["", "smile", "3", "negative", "positive smiles"])
def test_an_unknown_label_is_named_with_the_right_ones(text):
    with pytest.raises(ValueError, match=r"one of 'negative smile', 'positive smile', 'NOT smile' \(or 0, 1, 2\)"):
        SMILE_LABELS.parse(text)


def test_a_slug_can_be_a_column_name():
    assert [label_slug(name).isidentifier() for name in LABEL_NAMES] == [True, True, True]
