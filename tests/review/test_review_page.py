"""Answers of the review page, and errors of the command."""

import sys

import pytest
import timm
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
    assert "c.jpg is &lt;gone&gt;" in answer["html"]
    answer = page.press({"key": "x", "at": answer["at"], "image_id": answer["image_id"]})
    assert answer["at"] == 1 and "<strong>1 of 2</strong>" in answer["html"]


def test_a_decision_that_cannot_be_written_is_told_in_words(tmp_path):
    page = Page(Session(make_queue(DATA, [PROBE]), SMILE_LABELS, tmp_path / "nowhere" / "c.csv", "ann"), NoImages())
    assert "can't be written" in page.press({"key": "k", "at": 0, "image_id": "c"})["problem"]


def test_blind_the_labels_are_on_their_buttons_alone(sample_dir, tmp_path):
    tables, images = read_tables(DataArguments(str(sample_dir)))
    page = Page(Session(make_queue(tables, blind=True), tables.labels, tmp_path / "c.csv", "ann", blind=True), images)
    answer = page.press({"key": "", "at": -1, "image_id": ""})
    assert answer["html"].count("data:image/jpeg") == 1
    assert all(answer["html"].count(name) == 1 for name in LABEL_NAMES)  # on its button only


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to review; add --audit DIR"),
        (["--audit", "nowhere"], "run hf-smile audit"),
        (["--backbone", "resnet18"], "--backbone needs --audit DIR"),
        (["--blind", "--audit", "a"], "--blind does not show --audit"),
        (["--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_mistakes_are_told_in_words(sample_dir, monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["hf-smile", "review", "--data_dir", str(sample_dir), *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_with_a_backbone_the_audit_is_made_first(sample_dir, tmp_path, monkeypatch):
    pytest.importorskip("cleanlab")
    backbone, audit, pages = tmp_path / "backbone", tmp_path / "audit", []
    timm.models.save_for_hf(timm.create_model("test_resnet", pretrained=False), backbone, safe_serialization=True)
    monkeypatch.setattr("hf_smile.review.page.serve", lambda page, *_: pages.append(page))
    words = ["--data_dir", sample_dir, "--audit", audit, "--backbone", backbone, "--output", tmp_path / "c.csv"]
    monkeypatch.setattr(sys, "argv", ["hf-smile", "review", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0 and (audit / "audit.md").is_file()
    (page,) = pages
    assert len(page.session.queue) == 128 and all("linear probe" in entry.opinions for entry in page.session.queue)
