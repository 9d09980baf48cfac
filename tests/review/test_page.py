"""What the page answers, and what the command refuses."""

import sys

import pytest
from test_queue import DATA, PROBE

from hf_smile.commands.main import main
from hf_smile.data.arguments import DataArguments
from hf_smile.data.dataset import read_tables
from hf_smile.errors import SmileDataError
from hf_smile.labels import LABEL_NAMES, SMILE_LABELS
from hf_smile.review.page import Page
from hf_smile.review.queue import make_queue
from hf_smile.review.session import Session


class NoImages:
    def read(self, file: str) -> bytes:
        raise SmileDataError(f"{file} is <gone>")


def test_a_picture_that_cannot_be_read_is_said_so_and_can_be_left_out(tmp_path):
    page = Page(Session(make_queue(DATA, [PROBE]), SMILE_LABELS, tmp_path / "c.csv", "ann"), NoImages())
    answer = page.press({"key": "", "at": -1, "image_id": ""})
    assert "c.jpg is &lt;gone&gt;" in answer["parts"]["picture"]
    answer = page.press({"key": "x", "at": answer["at"], "image_id": answer["image_id"]})
    assert answer["at"] == 1 and "<strong>1 of 2</strong>" in answer["parts"]["progress"]


def test_a_decision_that_cannot_be_written_is_told_in_words(tmp_path):
    page = Page(Session(make_queue(DATA, [PROBE]), SMILE_LABELS, tmp_path / "nowhere" / "c.csv", "ann"), NoImages())
    assert "can't be written" in page.press({"key": "k", "at": 0, "image_id": "c"})["problem"]


def test_blind_no_part_of_the_page_holds_a_label(sample_dir, tmp_path):
    tables, images = read_tables(DataArguments(str(sample_dir)))
    page = Page(Session(make_queue(tables, blind=True), tables.labels, tmp_path / "c.csv", "ann", blind=True), images)
    answer = page.press({"key": "", "at": -1, "image_id": ""})
    assert answer["parts"]["picture"].count("data:image/jpeg") == 1
    assert not any(name in part for part in answer["parts"].values() for name in LABEL_NAMES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing says which labels are doubted; name --audit DIR"),
        (["--audit", "nowhere"], "make it with hf-smile audit"),
        (["--backbone", "resnet18"], "--backbone needs --audit DIR"),
        (["--blind", "--audit", "a"], "--blind shows nothing of --audit"),
        (["--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_mistakes_are_told_in_words(sample_dir, monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["hf-smile", "review", "--data_dir", str(sample_dir), *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and message in capsys.readouterr().err
