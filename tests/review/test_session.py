"""Decisions are on disk immediately, can be undone, and the next session resumes after them."""

import csv
import os

import pytest
from test_queue import DATA, PROBE

from hf_smile.data.corrections import COLUMNS
from hf_smile.errors import SmileDataError
from hf_smile.labels import LABEL_NAMES, SMILE_LABELS, LabelSet
from hf_smile.review.queue import make_queue
from hf_smile.review.session import Session

QUEUE = make_queue(DATA, [PROBE])


def open_session(folder, reviewer: str = "ann", **options) -> Session:
    return Session(QUEUE, SMILE_LABELS, folder / "corrections.csv", reviewer, **options)


def press(session: Session, at: int, keys: str) -> int:
    for key in keys:
        at = session.press(key, at, QUEUE[at].image_id if at < len(QUEUE) else "")
    return at


def rows(folder) -> list[tuple[str, ...]]:
    with (folder / "corrections.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    return [tuple(line[:-1]) for line in lines]


def test_each_key_is_a_row_before_the_next_picture(tmp_path):
    session, at = open_session(tmp_path), 0
    old = [LABEL_NAMES[entry.label] for entry in QUEUE]
    for number, (key, decision, new) in enumerate(
        [("k", "keep", ""), ("1", "relabel", LABEL_NAMES[0]), ("u", "unsure", ""), ("x", "leave_out", "")]
    ):
        at = press(session, at, key)
        assert rows(tmp_path)[-1] == (QUEUE[number].image_id, old[number], new, decision, "ann")
        assert at == number + 1
    assert session.changes() == {old[1]: 1}


def test_the_number_of_the_given_label_keeps_it(tmp_path):
    press(open_session(tmp_path), 0, str(QUEUE[0].label + 1))
    assert rows(tmp_path)[0][2:4] == ("", "keep")


def test_undo_takes_back_one_decision_after_the_other_and_shows_its_picture(tmp_path):
    session = open_session(tmp_path)
    at = press(session, 0, "k1u")
    assert press(session, at, "z") == 2 and press(session, 2, "z") == 1
    assert [row[3] for row in rows(tmp_path)] == ["keep", "relabel", "unsure", "undo", "undo"]
    assert [*session.standing] == [QUEUE[0].image_id] and not session.changes()
    assert press(session, 1, "z") == 0 and press(session, 0, "z") == 0
    assert len(rows(tmp_path)) == 6  # nothing left to undo


def test_a_picture_decided_twice_has_its_first_decision_again_after_undo(tmp_path):
    session = open_session(tmp_path)
    press(session, 0, "k")
    press(session, 0, "u")
    press(session, 1, "z")
    assert session.standing[QUEUE[0].image_id].decision == "keep"


def test_it_resumes_after_the_last_decision_and_comes_back_to_what_was_skipped(tmp_path):
    at = press(open_session(tmp_path), 0, "ksk")
    assert at == 3
    session = open_session(tmp_path)
    assert session.start() == 3
    assert press(session, 3, "kkkk") == 1  # the skipped one
    assert press(session, 1, "k") == len(QUEUE)


def test_arrows_and_unknown_keys_decide_nothing(tmp_path):
    session = open_session(tmp_path)
    assert session.press("right", 0, "") == 1 and session.press("left", 0, "") == 0
    assert press(session, 0, "?4") == 0
    assert session.press("k", 0, "another picture") == 0
    assert not (tmp_path / "corrections.csv").exists()


def test_another_reviewer_does_not_undo_mine(tmp_path):
    press(open_session(tmp_path), 0, "k")
    session = open_session(tmp_path, "bob")
    assert session.start() == 1
    press(session, 1, "z")
    assert len(rows(tmp_path)) == 1


def test_blind_a_label_is_named_and_never_kept(tmp_path):
    session = open_session(tmp_path, blind=True)
    assert press(session, 0, "k") == 0
    press(session, 0, str(QUEUE[0].label + 1) + "1")
    assert rows(tmp_path)[0][3] == "keep"


def test_a_file_of_other_data_is_refused_with_its_line(tmp_path):
    press(open_session(tmp_path), 0, "k")
    with pytest.raises(SmileDataError, match=r"corrections\.csv:2: the data have no image"):
        Session(QUEUE[1:], SMILE_LABELS, tmp_path / "corrections.csv", "ann")


def test_a_decision_that_cannot_be_written_is_told_and_not_taken(tmp_path):
    session = open_session(tmp_path)
    (tmp_path / "corrections.csv").mkdir()
    with pytest.raises(SmileDataError, match="can't be written"):
        session.press("k", 0, QUEUE[0].image_id)
    assert not session.standing


def test_more_labels_than_keys_are_refused(tmp_path):
    with pytest.raises(SmileDataError, match="keys"):
        Session([], LabelSet.of([f"label {n}" for n in range(40)]), tmp_path / "c.csv", "ann")


def test_what_was_decided_survives_a_process_that_is_killed(tmp_path):
    if (child := os.fork()) == 0:
        press(open_session(tmp_path), 0, "k1")
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert open_session(tmp_path).start() == 2
