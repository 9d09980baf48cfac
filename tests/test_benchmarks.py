"""What a benchmark leaves, and that everyone in it did the same work."""

import json

import pytest
from PIL import Image

from hf_smile.benchmarks.measure import alternate, write_results
from hf_smile.benchmarks.predict import benchmark_predict, draw_images, make_model
from hf_smile.errors import SmileError


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


def test_wrong_use_is_told(tmp_path):
    with pytest.raises(SmileError, match="--rounds is 0"):
        alternate({}, rounds=0, desc="Test")
    with pytest.raises(SmileError, match=r"must end in \.json"):
        write_results({}, {}, tmp_path / "predict.txt", "A title")
