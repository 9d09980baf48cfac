"""The card that a run leaves beside its model."""

import numpy as np
import pytest

from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.hub.model_card import write_model_card


@pytest.fixture
def card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(output_dir) -> str:
        (tmp_path / output_dir).mkdir(parents=True)
        metrics = compute_metrics(np.eye(3), range(3))
        about = {"backbone": "test_resnet", "selected_by": "accuracy", "pretrained": False, "plain_timm": True}
        write_model_card(output_dir, metrics, **about)
        return (tmp_path / output_dir / "README.md").read_text()

    return write


def test_its_examples_load_from_the_folder_of_the_run(card):
    text = card("outputs/faces")
    assert 'pipeline("image-classification", model="outputs/faces")' in text
    assert '"local-dir:outputs/faces"' in text


def test_it_does_not_tell_where_on_a_disk_the_run_was(card, tmp_path):
    text = card(tmp_path / "private" / "faces")
    assert 'model="faces"' in text and "private" not in text
