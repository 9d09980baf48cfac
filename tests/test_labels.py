import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smile.evaluation.predictions import read_predictions, write_predictions
from hf_smile.labels import LABEL_NAMES, SMILE_LABELS, LabelSet, label_slug
from hf_smile.utils.figures import class_colors


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


NAMES = st.lists(st.from_regex(r"\A[a-zA-Z][a-zA-Z0-9 _-]{0,8}[a-zA-Z0-9]\Z"), min_size=2, max_size=12)
SETS = NAMES.filter(
    lambda names: len({label_slug(name).replace("_", "").replace("-", "") for name in names}) == len(names)
)


@given(SETS)
def test_every_way_to_write_a_label_gives_its_id_and_back(names):
    labels = LabelSet.of(names)
    assert LabelSet.of(labels.id2label) == labels == LabelSet.of(list(labels)) and len(labels) == len(names)
    for label_id, name in labels.id2label.items():
        for text in (name, f"  {name.upper()} ", name.lower().replace(" ", "_"), str(label_id)):
            assert labels.parse(text) == label_id
    assert len({*labels.slugs}) == len(labels) and [*class_colors(labels)] == names


@given(SETS)
def test_predictions_are_read_with_the_labels_they_were_written_with(tmp_path_factory, names):
    labels, path = LabelSet.of(names), tmp_path_factory.mktemp("predictions") / "predictions.csv"
    ids = list(range(len(names)))
    rows = [[0.0] * label_id + [1.0] + [0.0] * (len(names) - 1 - label_id) for label_id in ids]
    write_predictions(path, list(map(str, ids)), ids, rows, labels=labels)
    assert read_predictions(path).labels == labels and read_predictions(path).label_ids.tolist() == ids


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["smile"], "1 labels; there must be 2 to 100"),
        ([f"class {number}" for number in range(101)], "101 labels"),
        (["smile", "Smile "], "can't be a label"),
        (["big smile", "Big_Smile"], "spelled alike"),
        (["007", "smile"], "'007' can't be a label: a number is the id"),
        (["=cmd()", "smile"], "'=cmd..' can't be a label"),
        (["<b>", "smile"], "can't be a label"),
        (["a/b", "smile"], "can't be a label"),
        (["x" * 51, "smile"], "up to 50 letters"),
        (LABEL_NAMES[::-1], "in this spelling and order"),
    ],
)
def test_what_cannot_be_labels_is_said(names, message):
    with pytest.raises(ValueError, match=message):
        LabelSet.of(names)


@pytest.mark.parametrize(
    ("names", "smiles"),
    [
        (LABEL_NAMES, [0, 1]),
        (["NOT smile", "smile"], [1]),
        (["not_smiling", "smiling"], [1]),
        (["non-smile", "big smile", "small smile"], [1, 2]),
        (["nosmile", "smile"], [1]),
        (["smile", "neutral"], []),
        (["big smile", "small smile"], []),
        (["grin", "smirk"], []),
    ],
)
def test_which_are_smiles_is_told_by_the_names_or_not_at_all(names, smiles):
    assert list(LabelSet.of(names).smile_ids) == smiles


def test_the_default_is_taken_for_any_of_its_spellings():
    assert LabelSet.adopted(["Positive-Smile", "not_smile"]) is SMILE_LABELS
    assert LabelSet.adopted(["genuine", "fake"], SMILE_LABELS.parse_map("genuine=1,fake=0")) is SMILE_LABELS
    assert LabelSet.adopted(["smile", "NOT smile"]) is SMILE_LABELS  # refused later: `smile` is not one of these labels
    assert LabelSet.adopted(["smile", "neutral"]).names == ("smile", "neutral")
