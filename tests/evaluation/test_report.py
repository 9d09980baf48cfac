import json
import re

import numpy as np
import pytest
from PIL import Image

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.evaluation.plots import plot_confusion_matrix
from hf_smile.evaluation.predictions import Predictions, read_predictions
from hf_smile.evaluation.report import write_report


@pytest.fixture
def predictions(simulate):
    probabilities, label_ids = simulate(240, seed=0)
    return Predictions(
        [f"{n}.jpg" for n in range(240)], label_ids, probabilities, {"age": ["young", "old|er", "n/a"] * 80}
    )


def test_the_report_holds_together(predictions, simulate, tmp_path):
    other = Predictions(predictions.image_ids, predictions.label_ids, simulate(240, seed=1)[0]).take(range(240)[::-1])
    returned = write_report(
        tmp_path,
        predictions,
        title="Test split",
        compare_with=other,
        compare_name="chance",
        group_by="age",
        n_resamples=100,
    )

    content = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(returned))
    assert (content["n"], content["resamples"]) == (240, 100)
    expected = compute_metrics(predictions.probabilities, predictions.label_ids)
    assert {name: metric["value"] for name, metric in content["metrics"].items()} == expected
    assert all(metric["low"] <= metric["high"] for metric in content["metrics"].values())

    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"| Accuracy | {100 * expected['accuracy']:.1f} % |" in report
    assert "**Is it a smile?** AUC 0." in report
    assert "**Is the smile genuine?** AUC 0." in report
    assert "this model is more accurate by" in report
    assert r"| old\|er | 80 |" in report
    assert "one percentage point is 2.4 faces" in report
    pictures = re.findall(r"!\[.+\]\((.+)\)", report)
    assert sorted(pictures) == ["confusion_matrix.png", "coverage.png", "precision_recall.png", "reliability.png"]
    for picture in pictures:
        assert Image.open(tmp_path / picture).width > 600

    copied = read_predictions(tmp_path / "predictions.csv")
    assert (copied.probabilities == predictions.probabilities).all()
    assert copied.further_columns == predictions.further_columns


def test_another_way_of_asking_is_a_row_beside_the_single_forward_pass(predictions, simulate, tmp_path):
    flipped = simulate(240, seed=0, separation=1.8)[0]
    returned = write_report(tmp_path, predictions, variants={"Test-time flip": flipped}, n_resamples=50)
    plain = compute_metrics(predictions.probabilities, predictions.label_ids)
    other = compute_metrics(flipped, predictions.label_ids)
    assert plain["accuracy"] != other["accuracy"] and plain["ece"] != other["ece"]
    assert returned["metrics"]["accuracy"]["value"] == plain["accuracy"]
    assert returned["variants"]["Test-time flip"]["ece"]["value"] == other["ece"]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"| Accuracy | {100 * plain['accuracy']:.1f} % |" in report
    assert f"| Expected calibration error (ECE) | {plain['ece']:.3f} |" in report
    (row,) = [line for line in report.splitlines() if line.startswith("| Test-time flip |")]
    assert f"{100 * other['accuracy']:.1f} %" in row and f"| {other['ece']:.3f} (" in row
    assert (read_predictions(tmp_path / "predictions.csv").probabilities == predictions.probabilities).all()


def test_the_report_tells_where_the_model_looks_if_that_was_drawn(predictions, tmp_path):
    write_report(tmp_path, predictions, heat_maps="They can be trusted.", n_resamples=20)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Where the model looks" in report and "per class. They can be trusted." in report
    assert "(heat_maps.png)" in report and report.index("the model looks") < report.index("How to read an interval")
    write_report(tmp_path, predictions, n_resamples=20)
    assert "heat_maps.png" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_report_on_one_image_says_what_cannot_be_told(tmp_path):
    write_report(tmp_path, Predictions(["1.jpg"], np.array([2]), np.array([[0.1, 0.2, 0.7]])), n_resamples=20)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["genuine_auc"] == {"value": None, "low": None, "high": None}
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "**Is the smile genuine?** Not available" in report
    assert "| positive smile | 0 | – | – | – | – |" in report
    assert 'The class "negative smile" has only 0 images' in report
    assert "\n1 image. Intervals" in report and "1 images" not in report
    assert "nan" not in report


def test_text_of_the_data_is_no_markdown(tmp_path):
    text = {"<b>place": ["<img src=x>|[a](http://b)"]}
    one = Predictions(["1.jpg"], np.array([2]), np.array([[0.1, 0.2, 0.7]]), text)
    write_report(tmp_path, one, n_resamples=20, group_by="<b>place")
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert r"| \<img src=x\>\|\[a\](http://b) | 1 |" in report and "<b>" not in report.replace(r"\<b\>", "")


def test_a_mistake_leaves_no_half_report(predictions, tmp_path):
    with pytest.raises(SmileDataError, match=r"no column 'sex' to group by; the additional columns .* are: age"):
        write_report(tmp_path / "report", predictions, group_by="sex")
    assert not (tmp_path / "report").exists()
    with pytest.raises(SmileDataError, match=r"image_id '0\.jpg' is missing in other\.csv"):
        write_report(tmp_path / "report", predictions, compare_with=predictions.take([1]), compare_name="other.csv")
    (tmp_path / "report").write_text("a file")
    with pytest.raises(SmileDataError, match="report is a file; name a folder"):
        write_report(tmp_path / "report", predictions)


def test_confusion_matrix_of_one_class(tmp_path):
    plot_confusion_matrix([2, 2], [2, 0], tmp_path / "matrix.png", "One class only")
    assert Image.open(tmp_path / "matrix.png").width > 600
