"""Output folders that are new, interrupted, finished, or not from a run."""

import json

import pytest

from hf_smile.errors import SmileError
from hf_smile.training.checkpoints import UNFINISHED, last_whole_checkpoint, seal
from hf_smile.training.run_folder import (
    LOOKS,
    RESULT,
    clear_run,
    is_finished,
    mark_finished,
    open_run,
    record_look,
    start_run,
)

RECIPE = {"learning_rate": 0.1, "num_train_epochs": 3, "data_dir": "here"}


def add_checkpoint(folder, step: int, state: str | None = "{}"):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt"):
        (checkpoint / name).write_bytes(b"")
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)
        seal(checkpoint)
    return checkpoint


def test_a_new_folder_is_a_fresh_start(tmp_path):
    assert open_run(tmp_path / "new", RECIPE) is None


def test_a_run_whose_checkpoints_are_all_damaged_is_not_overwritten(tmp_path):
    start_run(tmp_path, RECIPE)
    add_checkpoint(tmp_path, 110, state=None)
    with pytest.raises(SmileError, match="can't resume from any of them"):
        open_run(tmp_path, RECIPE)
    assert open_run(tmp_path, RECIPE, overwrite=True) is None


def test_an_interrupted_run_goes_on_from_its_newest_whole_checkpoint(tmp_path):
    start_run(tmp_path, RECIPE)
    add_checkpoint(tmp_path, 90)
    newest = add_checkpoint(tmp_path, 100)
    add_checkpoint(tmp_path, 110, state=None)
    cut = add_checkpoint(tmp_path, 120)
    (cut / "trainer_state.json").write_text('{"epoch": ')
    assert open_run(tmp_path, RECIPE) == newest


def test_other_settings_are_named_and_refused(tmp_path):
    start_run(tmp_path, RECIPE)
    add_checkpoint(tmp_path, 1)
    with pytest.raises(SmileError, match=r"learning_rate 0\.1 -> 0\.2"):
        open_run(tmp_path, RECIPE | {"learning_rate": 0.2})
    assert open_run(tmp_path, RECIPE | {"data_dir": "moved", "num_train_epochs": 9}) is not None


def test_a_finished_run_is_not_repeated_but_may_go_on(tmp_path):
    start_run(tmp_path, RECIPE)
    checkpoint = add_checkpoint(tmp_path, 1)
    (tmp_path / RESULT).write_text("{}")
    with pytest.raises(SmileError, match="holds a finished run"):
        open_run(tmp_path, RECIPE)
    assert open_run(tmp_path, RECIPE | {"num_train_epochs": 5}) == checkpoint


def test_a_finished_run_is_recognised_by_its_settings(tmp_path):
    start_run(tmp_path, RECIPE | {"processes": 1})
    assert not is_finished(tmp_path, RECIPE)
    mark_finished(tmp_path, {"accuracy": 0.5, "genuine_auc": float("nan")})
    assert json.loads((tmp_path / RESULT).read_text())["genuine_auc"] is None
    assert is_finished(tmp_path, RECIPE | {"data_dir": "moved", "processes": 2})
    assert not is_finished(tmp_path, RECIPE | {"num_train_epochs": 5})
    assert not is_finished(tmp_path, RECIPE | {"prior_adjustment": 0.5})


def test_a_finished_run_may_decide_otherwise(tmp_path):
    start_run(tmp_path, RECIPE | {"prior_adjustment": 0.0})
    checkpoint = add_checkpoint(tmp_path, 1)
    (tmp_path / RESULT).write_text("{}")
    assert open_run(tmp_path, RECIPE | {"prior_adjustment": 0.5}) == checkpoint
    assert open_run(tmp_path, RECIPE | {"prior_adjustment": 0.0, "temperature": 1.5}) == checkpoint
    with pytest.raises(SmileError, match="another --prior_adjustment"):
        open_run(tmp_path, RECIPE | {"prior_adjustment": 0.0})


def test_another_length_of_the_run_is_said_to_bend_the_learning_rate(tmp_path, caplog):
    start_run(tmp_path, RECIPE | {"lr_scheduler_type": "cosine"})
    add_checkpoint(tmp_path, 1)
    for changes, said in (
        ({}, False),
        ({"data_dir": "moved", "prior_adjustment": 0.5}, False),
        ({"num_train_epochs": 5}, True),
        ({"max_steps": 50}, True),
    ):
        caplog.clear()
        open_run(tmp_path, RECIPE | {"lr_scheduler_type": "cosine"} | changes)
        assert ("changes the learning rate schedule (cosine)" in caplog.text) == said
    start_run(tmp_path, RECIPE | {"lr_scheduler_type": "constant"})
    caplog.clear()
    open_run(tmp_path, RECIPE | {"lr_scheduler_type": "constant", "num_train_epochs": 5})
    assert not caplog.records


def looks(folder):
    return [look["changed"] for look in json.loads((folder / LOOKS).read_text())]


def test_each_look_at_test_is_recorded_with_what_changed(tmp_path):
    for recipe in (
        RECIPE,
        RECIPE,  # killed, and started again
        RECIPE | {"data_dir": "moved"},  # the same images
        RECIPE | {"num_train_epochs": 5},
        RECIPE | {"num_train_epochs": 5, "prior_adjustment": 0.3},
    ):
        start_run(tmp_path, recipe)
        record_look(tmp_path, ["b", "a"])
    changes = [{}, {"num_train_epochs": [3, 5]}, {"prior_adjustment": [None, 0.3]}]
    assert looks(tmp_path) == changes
    start_run(tmp_path, RECIPE, overwrite=True)
    record_look(tmp_path, ["a", "b"])
    assert len(looks(tmp_path)) == 4, "results that were seen stay seen"
    record_look(tmp_path, ["c"])
    assert looks(tmp_path)[-1] == {}, "another test split"


def test_overwrite_removes_what_a_run_left_and_nothing_else(tmp_path):
    start_run(tmp_path, RECIPE)
    add_checkpoint(tmp_path, 1)
    add_checkpoint(tmp_path / UNFINISHED, 2)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint-best-of-mine").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    other = RECIPE | {"learning_rate": 9}
    assert open_run(tmp_path, other, overwrite=True) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == before, (
        "nothing is removed before everything else was checked"
    )
    start_run(tmp_path, other, overwrite=True)
    left = {"checkpoint-best-of-mine", "notes.txt", "recipe.yaml", "versions.json"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert "learning_rate: 9" in (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_are_no_run_s_are_not_touched(tmp_path, overwrite):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(SmileError, match=r"contains a README\.md that is not from a run"):
        open_run(tmp_path, RECIPE, overwrite)


def test_another_number_of_processes_is_another_run(tmp_path):
    start_run(tmp_path, RECIPE | {"processes": 1})
    add_checkpoint(tmp_path, 1)
    with pytest.raises(SmileError, match="processes 1 -> 2"):
        open_run(tmp_path, RECIPE | {"processes": 2})


def test_checkpoints_without_settings_are_not_gone_on_with(tmp_path):
    add_checkpoint(tmp_path, 1)
    with pytest.raises(SmileError, match="without a readable recipe"):
        open_run(tmp_path, RECIPE)


def test_the_versions_of_everything_used_are_kept(tmp_path):
    start_run(tmp_path, RECIPE)
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert {"python", "torch", "transformers", "timm", "datasets"} <= set(versions)


def test_starting_again_removes_the_onnx_files_of_the_old_weights(tmp_path):
    start_run(tmp_path, RECIPE)
    (tmp_path / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx", "mine.onnx"):
        (tmp_path / "onnx" / name).write_bytes(b"")
    start_run(tmp_path, RECIPE, overwrite=True)
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["mine.onnx"]


def test_clearing_a_folder_that_is_not_there_does_nothing(tmp_path):
    clear_run(tmp_path / "nothing")
    assert last_whole_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("content", ["[{", "{}x", "3", "[3]", '[{"date": "2026-11-25"}]', "\udcff"])
def test_damaged_looks_are_said_before_anything_is_trained(tmp_path, content):
    start_run(tmp_path, RECIPE)
    (tmp_path / LOOKS).write_text(content, errors="surrogateescape")
    for overwrite in (False, True):
        with pytest.raises(SmileError, match=r"test_looks\.json: damaged"):
            open_run(tmp_path, RECIPE, overwrite)
    with pytest.raises(SmileError, match=r"test_looks\.json: damaged"):
        record_look(tmp_path, ["a"])
