"""Defaults, recipe, command line: which wins, and what is said about a setting that does not exist."""

from pathlib import Path

import pytest
import yaml

from hf_smile.errors import SmileError
from hf_smile.training.arguments import parse_arguments, to_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "recipe.yaml").write_text(text)
        return str(tmp_path / "recipe.yaml")

    return write


def test_the_command_line_goes_over_the_recipe_over_the_defaults(recipe):
    path = recipe("learning_rate: 1e-3\nrotation: 40\npretrained: false\nuse_cpu: true")
    data, augmentation, model, training = parse_arguments([path, "--rotation", "5"])
    assert training.learning_rate == 1e-3
    assert augmentation.rotation == 5
    assert model.pretrained is False
    assert data.data_dir == "data/happy_images"


def test_no_recipe_means_the_default_recipe():
    default = to_recipe(parse_arguments([]))
    assert (default["data_dir"], default["backbone"]) == ("data/happy_images", "timm/resnet50.a1_in1k")
    assert default == to_recipe(parse_arguments([str(RECIPES[0].parent / "resnet50.yaml")]))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_valid_and_begins_with_what_it_takes_and_gives(path):
    parse_arguments([str(path)])
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("Command:", "Hardware:", "Time:", "Result:"):
        assert any(word in line for line in head), word


def test_the_resolved_recipe_gives_the_same_settings_again(recipe):
    words = ["--use_cpu", "--rotation", "7", "--label_smoothing_factor", "0.1", "--seed", "5"]
    arguments = parse_arguments([*words, "--lr_scheduler_kwargs", '{"num_cycles": 2}'])
    again = parse_arguments([recipe(yaml.safe_dump(to_recipe(arguments) | {"processes": 2}))])
    assert again[3].lr_scheduler_kwargs == {"num_cycles": 2}
    assert to_recipe(again) == to_recipe(arguments)
    assert again[3].label_smoothing_factor == 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rat", "1"], "unknown setting 'learning_rat' in the command line; did you mean 'learning_rate'?"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--on_bad_image", "ignore"], "invalid choice: 'ignore'"),
        (["--ema_decay", "1.5"], "ema_decay is 1.5"),
        (["--rotation", "-3"], "rotation is -3.0"),
        (["--select_best", "f1"], "invalid choice: 'f1'"),
        (["--metric_for_best_model", "macro_f1"], "but select_best is 'accuracy'; leave it out"),
        (["--select_best", "last", "--early_stopping_patience", "2"], "needs a metric to watch"),
        (["--warmup_frozen_epochs", "3", "--num_train_epochs", "3"], "the backbone would never train"),
        (["--greater_is_better", "false"], "greater_is_better is fixed to None"),
        (["--load_best_model_at_end", "false"], "select_best says which model is saved"),
        (["--imbalance", "smote"], "invalid choice: 'smote'"),
        (["--imbalance", "focal", "--loss", "gce"], "the focal loss takes the place of gce"),
        (["--layer_decay", "0"], "layer_decay is 0.0"),
        (["--mixup", "-1"], "mixup is -1.0"),
        (["--save_strategy", "steps"], "save_strategy is fixed to 'epoch'"),
        (["--lr_scheduler_type", "zigzag"], "zigzag"),
        (["--num_train_epochs", "0"], "num_train_epochs is 0.0"),
        (["--num_train_epochs", "nan"], "num_train_epochs is nan"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size is 0"),
        (["--per_device_eval_batch_size", "-1"], "per_device_eval_batch_size is -1"),
        (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps is 0"),
        (["--learning_rate", "-1"], "learning_rate is -1.0"),
        (["--seed", "-1"], "seed is -1"),
        (["--dataloader_num_workers", "-1"], "dataloader_num_workers is -1"),
        (["--resume_from_checkpoint", "x"], "resume_from_checkpoint is fixed"),
        (["--remove_unused_columns", "true"], "remove_unused_columns is fixed"),
        (["no_such.yaml"], "no_such.yaml: no such recipe"),
    ],
)
def test_a_wrong_setting_is_said_in_one_message(words, message):
    with pytest.raises(SmileError) as caught:
        parse_arguments(words)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3", "unknown setting 'epochs' in"),
        ("a: b: c", "not a readable YAML file"),
        ("just words", "a list of 'setting: value' lines"),
        ("", "a list of 'setting: value' lines"),
    ],
)
def test_a_wrong_recipe_is_said(recipe, text, message):
    with pytest.raises(SmileError, match=message):
        parse_arguments([recipe(text)])


@pytest.mark.parametrize(("metric", "greater"), [("accuracy", True), ("macro_f1", True), ("nll", False)])
def test_the_best_checkpoint_is_the_best_by_the_chosen_metric(metric, greater):
    training = parse_arguments(["--select_best", metric, "--metric_for_best_model", metric, "--use_cpu"])[3]
    assert (training.metric_for_best_model, training.greater_is_better) == (metric, greater)
    assert training.load_best_model_at_end


def test_the_last_epoch_can_be_taken_without_choosing():
    data, _, _, training = parse_arguments(["--select_best", "last", "--validation_size", "0", "--use_cpu"])
    assert data.validation_size == 0
    assert training.metric_for_best_model is None and not training.load_best_model_at_end
