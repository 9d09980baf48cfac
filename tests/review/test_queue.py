"""The pictures are ordered by the value of a decision."""

import numpy as np
import pandas as pd
import pytest

from hf_smile.errors import SmileDataError
from hf_smile.labels import SMILE_LABELS
from hf_smile.review.opinions import NO_LIKENESS, Likeness, Opinion, read_audit
from hf_smile.review.queue import make_queue


def tables(train: dict[str, int], test: dict[str, int]) -> dict[str, pd.DataFrame]:
    return {
        split: pd.DataFrame({"image_id": [*ids], "file": [f"{name}.jpg" for name in ids], "label": [*ids.values()]})
        for split, ids in (("train", train), ("test", test))
    }


DATA = tables({"a": 0, "b": 1, "c": 2, "d": 0, "e": 1}, {"f": 0, "g": 1})
PROBE = Opinion(
    "linear probe",
    ["a", "b", "c", "d", "e", "f"],
    np.array([[0.8, 0.1, 0.1], [0.3, 0.3, 0.4], [0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.1, 0.85, 0.05], [0.7, 0.2, 0.1]]),
)


def likeness(*groups: list[str], neighbours: list[tuple[str, str, float]] = ()) -> Likeness:  # type: ignore[assignment]
    rows = [(number, image_id) for number, ids in enumerate(groups, 1) for image_id in ids]
    return Likeness(
        pd.DataFrame(rows, columns=["group", "image_id"]),
        pd.DataFrame(neighbours, columns=["image_id", "neighbour", "s"]),
    )


def ids(queue) -> str:
    return "".join(entry.image_id for entry in queue)


def test_the_surest_doubt_comes_first_and_every_picture_comes():
    queue = make_queue(DATA, [PROBE])
    assert ids(queue) == "cbdfaeg"
    assert [bool(entry.reason) for entry in queue] == [True, True, *[False] * 5]
    assert queue[0].split == "train" and queue[0].label == 2 and queue[0].opinions["linear probe"][0] == 0.9
    assert queue[-1].opinions == {}


def test_of_two_opinions_the_stronger_doubt_counts():
    model = Opinion("model", ["a", "g"], np.array([[0.02, 0.0, 0.98], [0.1, 0.8, 0.1]]))
    queue = make_queue(DATA, [PROBE, model])
    assert ids(queue)[:3] == "cab" and [*queue[1].opinions] == ["linear probe", "model"]


def test_one_picture_with_two_labels_is_doubted_and_its_copies_are_side_by_side():
    queue = make_queue(DATA, [PROBE], likeness(["d", "e"]))
    assert ids(queue)[:4] in ("cbde", "cbed")
    of_d = queue[ids(queue).index("d")]
    assert of_d.copies == ["e"] and of_d.reason == "The same picture has another label"


def test_a_picture_in_train_and_test_comes_after_the_doubts():
    queue = make_queue(DATA, [PROBE], likeness(["a", "f"], ["b", "e"]))
    assert ids(queue) == "cbfadeg" and queue[3].reason == "The same picture is in both train and test"
    assert not queue[5].reason  # duplicates with the same label in the same split


def test_without_an_opinion_the_findings_come_first():
    assert ids(make_queue(DATA, (), likeness(["c", "e"])))[:2] == "ce"


def test_neighbours_keep_their_order_and_those_that_are_gone_are_left_out():
    near = [("a", "b", 0.9), ("a", "gone", 0.8), ("a", "c", 0.7)]
    queue = make_queue(DATA, [PROBE], likeness(neighbours=near))
    assert queue[ids(queue).index("a")].neighbours == [("b", 0.9), ("c", 0.7)]


def test_a_blind_order_is_random_and_the_same_for_everyone():
    many = tables({f"i{number:03}": number % 3 for number in range(100)}, {"t": 0})
    first, again = ([entry.image_id for entry in make_queue(many, blind=True)] for _ in range(2))
    assert first == again != sorted(first) and len({*first}) == 101


def test_an_audit_of_other_data_is_refused():
    with pytest.raises(SmileDataError, match="'gone' of the audit is not in the data"):
        make_queue(DATA, [PROBE], likeness(["a", "gone"]))


def test_an_id_that_is_there_twice_is_refused():
    with pytest.raises(SmileDataError, match="'a' appears twice"):
        make_queue(tables({"a": 0}, {"a": 1}))


def test_a_folder_that_is_not_of_an_audit_is_refused(tmp_path):
    with pytest.raises(SmileDataError, match="hf-smile audit --output_dir"):
        read_audit(tmp_path, SMILE_LABELS)
    (tmp_path / "duplicates.csv").write_text("image_id\n1\n")
    with pytest.raises(SmileDataError, match=r"duplicates\.csv was not written by hf-smile audit"):
        read_audit(tmp_path, SMILE_LABELS)
    (tmp_path / "duplicates.csv").write_text("group,image_id\n")
    opinions, likeness = read_audit(tmp_path, SMILE_LABELS)
    assert opinions == [] and likeness.neighbours.equals(NO_LIKENESS.neighbours)
