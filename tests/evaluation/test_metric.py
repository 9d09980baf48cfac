import socket

import pytest

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.metric import SmileMetric
from hf_smile.evaluation.metrics import compute_metrics


def test_batches_give_what_one_call_gives(simulate):
    probabilities, label_ids = simulate(50, seed=0)
    metric = SmileMetric()
    for start in range(0, 50, 20):
        metric.add_batch(
            predictions=probabilities[start : start + 20], references=label_ids[start : start + 20].tolist()
        )
    assert metric.compute() == compute_metrics(probabilities, label_ids)
    assert metric.compute(predictions=probabilities, references=label_ids) == compute_metrics(probabilities, label_ids)


def test_needs_no_network_and_leaves_no_files(simulate, monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("the metric went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    probabilities, label_ids = simulate(20, seed=0)
    SmileMetric(cache_dir=str(tmp_path)).compute(predictions=probabilities, references=label_ids)
    assert list(tmp_path.iterdir()) == []


def test_describes_itself():
    metric = SmileMetric()
    assert metric.name == "smile_metric"
    assert "ROC AUC" in metric.description
    assert "@inproceedings" in metric.citation
    assert set(metric.features) == {"predictions", "references"}


def test_bad_input_is_told_in_words():
    with pytest.raises(SmileDataError, match="If these are logits, apply softmax first"):
        SmileMetric().compute(predictions=[[2.0, 1.0, 3.0]], references=[0])
    with pytest.raises(ValueError, match=r"Mismatch in the number of predictions \(2\) and references \(1\)"):
        SmileMetric().compute(predictions=[[1.0, 0.0, 0.0]] * 2, references=[0])
