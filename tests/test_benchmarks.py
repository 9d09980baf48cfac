"""What a benchmark leaves, and that everyone in it did the same work."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from hf_smile.benchmarks.measure import alternate, write_results
from hf_smile.benchmarks.predict import benchmark_predict, draw_images, make_contenders, make_model
from hf_smile.errors import SmileError

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"


def test_contenders_take_turns_and_the_first_round_does_not_count():
    turns = []
    rows = alternate({name: lambda name=name: turns.append(name) or 10 for name in "ab"}, rounds=2, desc="Test")
    assert turns == ["a", "b"] * 3
    assert all(row.slowest <= row.images_per_second <= row.fastest for row in rows.values())


def test_predict_measures_every_runtime_and_leaves_json_table_and_chart(tmp_path):
    images = draw_images(tmp_path / "faces", 5, size=64)
    make_model(tmp_path / "model", "test_resnet", 64, images)
    rows, ratios = benchmark_predict(tmp_path / "model", images, batch_sizes=(1, 4), rounds=1)
    assert len(rows) == 8 and all(row.images_per_second > 0 for row in rows.values())
    expected = rows["onnx-int8, batch 4"].images_per_second / rows["pipeline, batch 4"].images_per_second
    assert ratios["onnx_int8/pipeline"] == pytest.approx(expected)

    table = write_results(rows, ratios, tmp_path / "out" / "predict.json", "A title")
    content = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert content["ratios"] == ratios and {row["name"] for row in content["rows"]} == set(rows)
    assert "onnx_int8 / pipeline" in table and (tmp_path / "out" / "predict.md").read_text() == table
    assert Image.open(tmp_path / "out" / "predict.png").width > 600


def test_pipeline_and_ours_say_the_same_of_the_same_images(demo_model, tmp_path):
    images = draw_images(tmp_path / "faces", 7, size=96)
    contenders = make_contenders(demo_model, images, runtimes=("torch", "onnx"))
    tops = [answers[0] for answers in contenders.pop("pipeline")(3)]
    assert len(tops) == 7 and len({top["label"] for top in tops}) > 1
    for run in contenders.values():
        predictions = run(3)
        assert [prediction.label for prediction in predictions] == [top["label"] for top in tops]
        scores = [prediction.probabilities[prediction.label] for prediction in predictions]
        assert scores == pytest.approx([top["score"] for top in tops], abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "speed.txt"], "must end in .json"),
        (["--output", "speed.json", "--rounds", "0"], "at least 1"),
        (["--output", "speed.json", "--model", "nope"], "nope: no such folder"),
        (["--output", "speed.json", "--batch_sizes", "4", "0"], "at least 1"),
    ],
)
def test_the_script_tells_mistakes_before_it_measures(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "predict", *words])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exit.value.code == 2 and message in capsys.readouterr().err


def test_wrong_use_is_told(tmp_path):
    with pytest.raises(SmileError, match="--rounds is 0"):
        alternate({}, rounds=0, desc="Test")
    with pytest.raises(SmileError, match=r"must end in \.json"):
        write_results({}, {}, tmp_path / "predict.txt", "A title")
