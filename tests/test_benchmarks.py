"""The results of benchmarks, and that all contenders do the same work."""

import json
import runpy
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook

from hf_smile.benchmarks.data import benchmark_data
from hf_smile.benchmarks.measure import Row, alternate, write_results
from hf_smile.benchmarks.predict import benchmark_predict, draw_images, make_contenders, make_model
from hf_smile.benchmarks.train import CONTENDERS, TrainSettings, _report_and_wait, benchmark_train, enough_images
from hf_smile.data.dataset import load_smile_dataset
from hf_smile.errors import SmileError

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"


def test_contenders_take_turns_and_the_first_round_does_not_count():
    turns = []
    rows = alternate({name: lambda name=name: turns.append(name) or 10 for name in "ab"}, rounds=2, desc="Test")
    assert turns == ["a", "b"] * 3
    assert all(row.slowest <= row.images_per_second <= row.fastest for row in rows.values())


def test_a_ratio_is_that_of_rounds_which_met_the_machine_in_the_same_state():
    ours, theirs = Row(20, 10, 40, rounds=(10, 20, 40)), Row(8, 5, 20, rounds=(5, 8, 20))
    assert ours.times_as_fast_as(theirs) == 2


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


def test_train_measures_our_loop_its_limit_and_the_plain_one_side_by_side(sample_dir, tmp_path):
    splits = load_smile_dataset(sample_dir, validation_size=0)
    settings = TrainSettings("", "test_resnet", image_size=64, batch_size=4, steps=2, rounds=1)
    rows, ratios = benchmark_train(splits, settings)
    assert list(rows) == ["ours", "compute_limit", "hf_loop"]
    assert ratios["ours/hf_loop"] == rows["ours"].images_per_second / rows["hf_loop"].images_per_second
    assert all(row.cpu_ms_per_image > 0 and row.peak_memory_mb > 100 for row in rows.values())
    table = write_results(rows, ratios, tmp_path / "train.json", "A title")
    assert "| peak memory, MB |" in table and f"{rows['ours'].peak_memory_mb:,.1f}" in table

    with pytest.raises(SmileError, match="timm has no model 'nope'"):
        benchmark_train(splits, replace(settings, backbone="nope"))


@pytest.mark.parametrize("name", ["ours", "compute_limit", "hf_loop"])
def test_a_contender_pauses_before_the_first_step_and_after_each_round(sample_dir, tmp_path, name):
    settings = TrainSettings(str(tmp_path / "data"), "test_resnet", image_size=64, batch_size=30, steps=2, rounds=2)
    data = enough_images(load_smile_dataset(sample_dir, validation_size=0), settings)
    assert len(data["train"]) == 180 > 96  # repeated, so that no epoch ends
    data.save_to_disk(settings.data)
    pauses = []
    CONTENDERS[name](settings, pauses.append)
    assert pauses == [0, 60, 60, 60]


def test_processes_that_load_data_do_not_get_ahead_while_another_contender_has_its_turn():
    loading = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    seen = []

    def note(stopped):
        for _ in range(100):  # a busy machine may be slow
            if (psutil.Process(loading.pid).status() == psutil.STATUS_STOPPED) == stopped:
                seen.append(stopped)
                break
            time.sleep(0.1)

    class Waiting:
        def send(self, _):
            note(False)

        def recv(self):
            note(True)
            raise EOFError

    with pytest.raises(SystemExit):
        _report_and_wait(Waiting(), [0.0], 1)
    note(False)
    loading.kill()
    loading.wait()
    assert seen == [False, True, False]


@pytest.mark.parametrize("name", ["ours", "compute_limit", "hf_loop"])
def test_contenders_compute_in_the_same_precision(sample_dir, tmp_path, name):
    settings = TrainSettings(str(tmp_path), "test_resnet", 64, batch_size=4, steps=1, rounds=1, bf16=True)
    enough_images(load_smile_dataset(sample_dir, validation_size=0), settings).save_to_disk(settings.data)
    dtypes = set()

    def note(module, inputs, output):
        if isinstance(module, torch.nn.Conv2d):
            dtypes.add(output.dtype)

    with register_module_forward_hook(note):
        CONTENDERS[name](settings, lambda images: None)
    assert dtypes == {torch.bfloat16}


def test_data_measures_decoding_and_both_transforms(sample_dir):
    images = load_smile_dataset(sample_dir, validation_size=0)["test"]
    threads = torch.get_num_threads()
    rows, ratios = benchmark_data(images, image_size=64, batch_size=8, rounds=1)
    assert list(rows) == ["decode", "evaluation", "training", "training, all cores"]
    assert set(ratios) == {"training/decode", "all_cores/one_core"} and torch.get_num_threads() == threads


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
        (["predict", "--output", "speed.txt"], "must end in .json"),
        (
            ["predict", "--output", "speed.json", "--rounds", "0"],
            "--rounds: it is 0; it must be a whole number of at least 1",
        ),
        (["predict", "--output", "speed.json", "--model", "nope"], "nope: no such folder"),
        (
            ["predict", "--output", "speed.json", "--batch_sizes", "4", "0"],
            "--batch_sizes: it is 0; it must be",
        ),
        (
            ["train", "--output", "speed.json", "--steps", "0"],
            "--steps: it is 0; it must be a whole number of at least 1",
        ),
        (["train", "--output", "speed.json", "--data_dir", "nope"], "nope: no such folder"),
        (["data", "--output", "speed.json", "--image_size", "8"], "--image_size is 8"),
    ],
)
def test_the_script_tells_mistakes_before_it_measures(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exit.value.code == 2 and message in capsys.readouterr().err
