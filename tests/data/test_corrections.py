"""Label corrections: stored row by row, checked against the data, and applied without changing the data."""

import csv
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections import Counter

import pytest

from hf_smile.data.arguments import DataArguments
from hf_smile.data.corrections import Decision, append, corrections_sentence, facts_of, now, read_decisions, standing
from hf_smile.data.dataset import load_smile_dataset, read_tables
from hf_smile.data.prepare import save_prepared
from hf_smile.errors import SmileDataError
from hf_smile.labels import SMILE_LABELS
from hf_smile.shards.folder import load_shards
from hf_smile.shards.write import Sharding, write_shards

HEADER = "image_id,old_label,new_label,decision,reviewer,time\n"
TIME = "2026-11-25T23:47:13+00:00"
NEXT = {"negative smile": "positive smile", "positive smile": "NOT smile", "NOT smile": "negative smile"}


def annotated(folder, split):
    with (folder / f"{split}.csv").open() as file:
        return dict(csv.reader(file))


def labels_of(splits):
    return {
        split: dict(zip(rows["image_id"], (SMILE_LABELS[label] for label in rows["label"]), strict=True))
        for split, rows in splits.items()
    }


@pytest.fixture
def decide(tmp_path):
    """Append a decision about an image to the file, and return its path."""

    def decide(image_id="", old="NOT smile", decision="keep", reviewer="ann"):
        path = tmp_path / "corrections.csv"
        if image_id:
            new = NEXT[old] if decision == "relabel" else ""
            append(path, Decision(image_id, old, new, decision, reviewer, now()))
        return path

    return decide


def test_each_decision_is_a_row_and_comes_back_as_it_was(decide):
    for image_id in ("-7", 'a,"b', "é/1.jpg"):
        decide(image_id, decision="relabel")
    text = decide().read_text()
    assert text.startswith(HEADER) and "\n'-7,NOT smile,negative smile,relabel,ann,20" in text
    rows = read_decisions(decide(), SMILE_LABELS)
    assert [(row.image_id, row.line) for row in rows] == [("-7", 2), ('a,"b', 3), ("é/1.jpg", 4)]
    assert rows[0][1:5] == ("NOT smile", "negative smile", "relabel", "ann")


def test_a_row_is_in_the_file_when_append_returns(tmp_path):
    path = tmp_path / "corrections.csv"
    code = "import os, signal, sys; from hf_smile.data.corrections import Decision, append, now\n"
    code += "append(sys.argv[1], Decision('7', 'NOT smile', '', 'keep', 'ann', now()))\n"
    code += "os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, path], check=False)
    assert [row.image_id for row in read_decisions(path, SMILE_LABELS)] == ["7"]


def test_a_file_that_an_editor_left_open_ended_is_continued_on_a_line_of_its_own(decide):
    decide().write_text(HEADER + f"1,NOT smile,,keep,ann,{TIME}")
    decide("2")
    assert [row.image_id for row in read_decisions(decide(), SMILE_LABELS)] == ["1", "2"]


def test_a_full_disk_leaves_no_half_of_a_row(decide, monkeypatch):
    decide("1")
    before = decide().read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SmileDataError, match="No space left"):
        decide("2")
    assert decide().read_bytes() == before


def test_nothing_is_appended_to_a_file_that_is_something_else(decide):
    decide().write_text("image_id,label\n1,0\n")
    with pytest.raises(SmileDataError, match="first line is not image_id,old_label"):
        decide("2")


def test_the_last_decision_stands_that_its_reviewer_did_not_take_back(decide):
    for reviewer, word in (("ann", "unsure"), ("ben", "leave_out"), ("ann", "relabel"), ("ann", "undo")):
        decide("7", decision=word, reviewer=reviewer)
    assert standing(read_decisions(decide(), SMILE_LABELS))["7"].decision == "leave_out"
    decide("7", decision="undo", reviewer="ben")
    assert standing(read_decisions(decide(), SMILE_LABELS))["7"].decision == "unsure"
    decide("7", decision="undo")
    assert standing(read_decisions(decide(), SMILE_LABELS)) == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,smiling,,keep,ann,TIME", "corrections.csv:2: unknown label 'smiling'"),
        ("1,NOT smile,grin,relabel,ann,TIME", "corrections.csv:2: unknown label 'grin'"),
        ("1,NOT smile,,relabel,ann,TIME", "new_label must be another label"),
        ("1,NOT smile,not smile,relabel,ann,TIME", "new_label must be another label"),
        ("1,NOT smile,positive smile,keep,ann,TIME", "new_label must be another label"),
        ("1,NOT smile,,maybe,ann,TIME", "corrections.csv:2: unknown decision 'maybe'"),
        ("1,NOT smile,,keep,ann,yesterday", "corrections.csv:2: time 'yesterday' does not have the format"),
        (",NOT smile,,keep,ann,TIME", "corrections.csv:2: empty image_id"),
        ("1,NOT smile,,undo,ann,TIME", "corrections.csv:2: nothing to undo about '1' by 'ann'"),
        ("1,NOT smile,,keep", "corrections.csv:2: 4 columns where 6 are expected"),
        ('1,"NOT smile,,keep,ann,TIME', "corrections.csv: *2: not a CSV line"),
    ],
)
def test_a_row_that_cannot_be_right_is_refused_with_its_line(decide, row, message):
    decide().write_text(HEADER + row.replace("TIME", TIME) + "\n")
    with pytest.raises(SmileDataError, match=message):
        read_decisions(decide(), SMILE_LABELS)


def test_other_files_are_refused_by_name(decide):
    with pytest.raises(SmileDataError, match=r"corrections\.csv: .*No such file"):
        read_decisions(decide(), SMILE_LABELS)
    decide().write_text("image_id,label\n1,0\n")
    with pytest.raises(SmileDataError, match=r"no column 'old_label'; the header .* is image_id,old_label"):
        read_decisions(decide(), SMILE_LABELS)


@pytest.fixture
def corrected(sample_dir, decide):
    """Changes three labels of train and one of test, leaves out a training image, and has two other decisions."""
    train, test = (list(annotated(sample_dir, split).items()) for split in ("train", "test"))
    for image_id, label in [*train[:3], test[0]]:
        decide(image_id, label, "relabel")
    for (image_id, label), word in zip(train[3:6], ("leave_out", "unsure", "keep"), strict=True):
        decide(image_id, label, word)
    given = {"train": dict(train), "test": dict(test)}
    expected = {split: dict(rows) for split, rows in given.items()}
    for image_id, label in train[:3]:
        expected["train"][image_id] = NEXT[label]
    expected["test"][test[0][0]] = NEXT[test[0][1]]
    del expected["train"][train[3][0]]
    return decide(), expected


def test_labels_change_and_images_go_and_nothing_else_does(sample_dir, corrected, caplog):
    path, expected = corrected
    originals = {file: file.read_bytes() for file in sample_dir.iterdir() if file.suffix == ".csv"}
    with caplog.at_level(logging.INFO):
        splits = load_smile_dataset(sample_dir, 0, corrections=path)
    assert labels_of(splits) == expected
    before = load_smile_dataset(sample_dir, 0)
    assert splits["train"].features == before["train"].features
    assert splits["train"].column_names == before["train"].column_names
    assert splits["train"][0]["image"].tobytes() == before["train"][0]["image"].tobytes()
    assert {file: file.read_bytes() for file in originals} == originals
    (facts,) = facts_of(splits["train"]).values()
    pairs = Counter(f"{old} -> {NEXT[old]}" for old in list(annotated(sample_dir, "train").values())[:3])
    assert facts == {"file": "corrections.csv", "changed": dict(pairs), "left_out": 1}
    said = next(line for line in caplog.messages if "Labels were corrected" in line)
    assert "train 3 labels (" in said and "1 image left out" in said and "test 1 label (1 " in said


def test_which_split_an_image_is_in_does_not_depend_on_corrections(sample_dir, corrected):
    before, after = (load_smile_dataset(sample_dir, 0.25, corrections=path) for path in (None, corrected[0]))
    gone = {row.image_id for row in read_decisions(corrected[0], SMILE_LABELS) if row.decision == "leave_out"}
    for split, rows in before.items():
        assert [image for image in rows["image_id"] if image not in gone] == list(after[split]["image_id"])


def test_the_audit_sees_the_corrected_labels(sample_dir, corrected):
    path, expected = corrected
    tables, _ = read_tables(DataArguments(str(sample_dir), corrections=str(path)))
    found = {split: dict(zip(table["image_id"], table["label"], strict=True)) for split, table in tables.items()}
    assert {
        split: {key: SMILE_LABELS[value] for key, value in rows.items()} for split, rows in found.items()
    } == expected


def test_shards_hold_them_and_say_so_and_so_do_prepared_data(sample_dir, corrected, tmp_path):
    path, expected = corrected
    how = Sharding(images_per_shard=20, divisible_by=2, validation_size=0, corrections=path)
    assert write_shards(sample_dir, tmp_path / "shards", how) == {"train": 95, "test": 32}
    direct = load_smile_dataset(sample_dir, 0, corrections=path)
    save_prepared(direct, tmp_path / "prepared")
    write_shards(tmp_path / "prepared", tmp_path / "from prepared", Sharding(validation_size=0))
    for splits in (
        load_shards(tmp_path / "shards"),
        load_shards(tmp_path / "from prepared"),
        load_smile_dataset(tmp_path / "shards", 0),
        load_smile_dataset(tmp_path / "prepared", 0),
    ):
        assert labels_of(splits) == expected
        assert {split: facts_of(rows) for split, rows in splits.items()} == {
            split: facts_of(rows) for split, rows in direct.items()
        }
    assert hashlib.sha256(path.read_bytes()).hexdigest() in json.dumps(facts_of(splits["test"]))
    with pytest.raises(SmileDataError, match="shards of other data or settings"):
        write_shards(sample_dir, tmp_path / "shards", Sharding(20, 2, 0))


def test_what_does_not_fit_the_data_is_refused_by_line(sample_dir, decide, tmp_path):
    image_id, label = next(iter(annotated(sample_dir, "train").items()))
    decide(image_id, NEXT[label], "relabel")
    decide("nobody")
    with pytest.raises(SmileDataError) as refused:
        load_smile_dataset(sample_dir, corrections=decide())
    was = f"the label of '{image_id}' is now '{label}', but it was '{NEXT[label]}' when it was reviewed"
    assert f"corrections.csv:2: {was}" in str(refused.value)
    assert "corrections.csv:3: the data have no image 'nobody'" in str(refused.value)
    with pytest.raises(SmileDataError, match=r"corrections\.csv:3"):
        write_shards(sample_dir, tmp_path / "shards", Sharding(corrections=decide()))
    with pytest.raises(SmileDataError, match=r"corrections\.csv:3"):
        read_tables(DataArguments(str(sample_dir), corrections=str(decide())))


def test_corrections_that_leave_nothing_in_a_split_are_refused(sample_dir, decide):
    for image_id, label in annotated(sample_dir, "test").items():
        decide(image_id, label, "leave_out")
    with pytest.raises(SmileDataError, match="no image is left in test"):
        load_smile_dataset(sample_dir, corrections=decide())


def test_two_files_one_after_the_other_are_both_told_of():
    one = {"aa": {"file": "a.csv", "changed": {"x -> y": 2}, "left_out": 0}}
    two = {"bb": {"file": "b.csv", "changed": {"x -> y": 1}, "left_out": 3}}
    assert corrections_sentence({"test": one, "train": one | two}) == (
        "Labels were corrected by a.csv (SHA-256 aa) and b.csv (SHA-256 bb): "
        "train 3 labels (3 x -> y) and 3 images left out; test 2 labels (2 x -> y)."
    )
    assert corrections_sentence({"train": {}, "test": {}}) == ""
