"""Precedence of defaults, recipe and command line, and messages about settings that do not exist."""

from pathlib import Path

import pytest
import yaml

from hf_smile.errors import SmileError
from hf_smile.shards.write import Sharding, write_shards
from hf_smile.training.arguments import SmileTrainingArguments, parse_arguments, to_recipe
from hf_smile.training.checks import WITHOUT_EFFECT

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


def test_a_folder_is_not_taken_for_a_backbone_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backbones" / "mine").mkdir(parents=True)
    for backbone, recorded in (("backbones/mine", "./backbones/mine"), ("timm/resnet18", "timm/resnet18")):
        assert to_recipe(parse_arguments(["--backbone", backbone, "--use_cpu"]))["backbone"] == recorded


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_valid_and_begins_with_what_it_takes_and_gives(path):
    arguments = parse_arguments([str(path)])
    assert to_recipe(arguments)["prior_adjustment"] == 0, "the probabilities of a recipe are not adjusted"
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
        (["--metric_for_best_model", "macro_f1"], "but select_best is 'accuracy'; use only --select_best"),
        (["--select_best", "last", "--early_stopping_patience", "2"], "needs a metric to watch"),
        (["--warmup_frozen_epochs", "3", "--num_train_epochs", "3"], "the backbone would never train"),
        (["--label_names", "smile"], "label_names is fixed to None"),
        (["--train_sampling_strategy", "group_by_length"], "train_sampling_strategy is fixed"),
        (["--save_only_model"], "save_only_model is fixed"),
        (["--bf16_full_eval"], "bf16_full_eval is fixed to False: evaluation uses the saved weights"),
        (["--ignore_data_skip"], "ignore_data_skip is fixed to False"),
        (
            ["--lr_scheduler_type", "reduce_lr_on_plateau", "--head_learning_rate", "1", "--warmup_frozen_epochs", "1"],
            "head_learning_rate is 1.0: reduce_lr_on_plateau",
        ),
        (["--no_pretrained", "--freeze_stages", "2"], "freeze_stages is 2: random weights would never be trained"),
        (["--no_pretrained", "--freeze_backbone"], "freeze_backbone is True: random weights would never be trained"),
        (["--fp16", "--use_cpu"], "fp16 is on, but there is no GPU"),
        (["--greater_is_better", "false"], "greater_is_better is fixed to None"),
        (["--load_best_model_at_end", "false"], "select_best chooses the model to save"),
        (["--imbalance", "smote"], "invalid choice: 'smote'"),
        (["--imbalance", "focal", "--loss", "gce"], "the focal loss would replace gce"),
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
        ("a: b: c", "not a valid YAML file"),
        ("just words", "write one 'setting: value' per line"),
        ("", "write one 'setting: value' per line"),
    ],
)
def test_a_wrong_recipe_is_said(recipe, text, message):
    with pytest.raises(SmileError, match=message):
        parse_arguments([recipe(text)])


def test_every_setting_without_effect_is_warned_about(caplog):
    words = {
        "logging_steps": ["5"],
        "save_steps": ["5"],
        "do_train": [],
        "hub_strategy": ["end"],
        "hub_model_id": ["me/smile"],
        "project": ["faces"],
        "trackio_space_id": ["me/faces"],
        "use_cache": [],
        "freeze_stages": ["1", "--freeze_backbone"],
        "warmup_frozen_epochs": ["1", "--freeze_backbone"],
        "logit_adjustment_tau": ["0.5"],
        "warmup_steps": ["0.3", "--lr_scheduler_type", "constant"],
        "num_train_epochs": ["3", "--max_steps", "9"],
        "early_stopping_patience": ["3", "--num_train_epochs", "3"],
        "shuffle_buffer_size": ["50"],
    }
    assert {*words} <= {*WITHOUT_EFFECT}
    for name, following in words.items():
        caplog.clear()
        parse_arguments([f"--{name}", *following, "--use_cpu"])
        assert len(caplog.records) == 1
        assert f"{name} = " in caplog.text and "has no effect: " in caplog.text


@pytest.mark.parametrize(
    "words",
    [
        *([str(path)] for path in RECIPES),
        ["--imbalance", "logit_adjustment", "--logit_adjustment_tau", "0.5"],
        ["--early_stopping_patience", "2", "--num_train_epochs", "3"],
        ["--freeze_stages", "1", "--warmup_frozen_epochs", "1"],
        ["--push_to_hub", "--hub_model_id", "me/smile"],
        ["--report_to", "tensorboard", "--project", "faces"],
        ["--lr_scheduler_type", "constant_with_warmup", "--warmup_steps", "0.3"],
        ["--logging_steps", "500", "--no_pretrained"],
    ],
)
def test_settings_that_have_an_effect_are_not_warned_about(words, caplog):
    parse_arguments([*words, "--use_cpu"])
    assert not caplog.records


def test_what_shards_fix_is_warned_about(sample_dir, tmp_path, caplog):
    write_shards(sample_dir, tmp_path, Sharding(images_per_shard=50, divisible_by=1))
    parse_arguments(
        ["--data_dir", str(tmp_path), "--validation_size", "0.3", "--shuffle_buffer_size", "9", "--use_cpu"]
    )
    assert "validation_size = 0.3 has no effect" in caplog.text and "shuffle_buffer_size" not in caplog.text


def test_a_run_is_named_after_its_folder_unless_told_otherwise(tmp_path):
    assert parse_arguments(["--output_dir", str(tmp_path / "faces"), "--use_cpu"])[3].run_name == "faces"
    assert parse_arguments(["--run_name", "mine", "--report_to", "tensorboard", "--use_cpu"])[3].run_name == "mine"


@pytest.mark.parametrize(("metric", "greater"), [("accuracy", True), ("macro_f1", True), ("nll", False)])
def test_the_best_checkpoint_is_the_best_by_the_chosen_metric(metric, greater):
    training = parse_arguments(["--select_best", metric, "--metric_for_best_model", metric, "--use_cpu"])[3]
    assert (training.metric_for_best_model, training.greater_is_better) == (metric, greater)
    assert training.load_best_model_at_end


def test_the_last_epoch_can_be_taken_without_choosing():
    data, _, _, training = parse_arguments(["--select_best", "last", "--validation_size", "0", "--use_cpu"])
    assert data.validation_size == 0
    assert training.metric_for_best_model is None and not training.load_best_model_at_end


@pytest.mark.parametrize("imbalance", ["class_weights", "oversample", "logit_adjustment"])
def test_class_shares_are_not_evened_twice(imbalance):
    with pytest.raises(SmileError, match=r"prior_adjustment is 0\.5: this imbalance already balances the class shares"):
        parse_arguments(["--imbalance", imbalance, "--prior_adjustment", "0.5", "--use_cpu"])


def test_a_tracker_that_is_misspelt_or_missing_is_told_at_once(monkeypatch):
    with pytest.raises(SmileError, match="report_to is 'tensorbored'; it must be tensorboard, trackio, wandb or none"):
        parse_arguments(["--report_to", "tensorbored", "--use_cpu"])
    monkeypatch.setattr("hf_smile.training.checks.find_spec", lambda _: None)
    with pytest.raises(SmileError, match="'wandb', which is not installed: pip install wandb"):
        parse_arguments(["--report_to", "wandb", "--use_cpu"])


def test_a_choice_is_checked_in_python_too():
    with pytest.raises(SmileError, match=r"select_best is 'acc'; it must be accuracy, macro_f1, "):
        SmileTrainingArguments(output_dir="outputs/model", use_cpu=True, select_best="acc")
