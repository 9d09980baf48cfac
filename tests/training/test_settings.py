"""Names of settings, and their help."""

from dataclasses import fields

import pytest
from transformers import TrainingArguments

from hf_smile.errors import SmileError
from hf_smile.training.arguments import parse_arguments
from hf_smile.training.checks import RANGES
from hf_smile.training.parser import check_words
from hf_smile.training.settings import COMMON, OTHER_NAMES, SETTINGS, help_text, read_words, setting_names

OURS = {setting.name for group in SETTINGS.values() for setting in fields(group)}


def test_the_names_are_those_of_the_installed_transformers():
    assert setting_names() == OURS | {setting.name for setting in fields(TrainingArguments)}


def test_what_other_programs_call_a_setting_is_none_of_ours():
    assert {*OTHER_NAMES.values()} <= setting_names()
    assert not {*OTHER_NAMES} & setting_names()


def test_all_wrong_names_are_told_in_one_message_with_the_right_ones():
    with pytest.raises(SmileError) as caught:
        read_words(["--lr", "0.1", "--epochs=3", "--batch-size", "8", "--learning_rat", "1", "--qwertz"])
    assert [line.rpartition("; ")[2] for line in str(caught.value).splitlines()] == [
        "did you mean 'learning_rate'?",
        "did you mean 'num_train_epochs'?",
        "did you mean 'per_device_train_batch_size'?",
        "did you mean 'learning_rate'?",
        "unknown setting 'qwertz' in the command line",
    ]


def test_help_is_a_screenful_that_names_all_of_ours():
    text = help_text("hf-smile train", width=100)
    assert len(text.splitlines()) <= 50 and max(map(len, text.splitlines())) <= 100
    assert COMMON <= OURS
    for group in SETTINGS.values():
        for setting in fields(group):
            assert setting.name in text or not setting.metadata
    assert "--no_pretrained" in text and "--gradient_accumulation_steps" not in text


def test_all_of_help_explains_every_setting_once():
    lines = help_text("hf-smile train", fields(TrainingArguments)).splitlines()
    names = [line.split()[0].removeprefix("--").removeprefix("no_") for line in lines if line.startswith("  --")]
    assert len(names) == len({*names})
    assert {*names} == {name for name in setting_names() if name not in OURS} | {
        setting.name for group in SETTINGS.values() for setting in fields(group) if setting.metadata
    }


def test_ranges_are_of_settings():
    assert RANGES.keys() <= setting_names()


def test_recipes_that_come_with_hf_smile_are_found_by_their_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = read_words(["quickstart", "--seed", "3"])
    assert words[-2:] == ["--seed", "3"] and words[words.index("--data_dir") + 1] == "data/sample"
    with pytest.raises(SmileError, match=r"quickstrat: no such recipe; name a file, or one that comes .*quickstart"):
        read_words(["quickstrat"])


@pytest.mark.parametrize(
    "words",
    [["--rotation", "-3"], ["--learning_rate", "fast"], ["--learning_rate", "-3"], ["--imbalance", "smote"]],
)
def test_the_early_check_says_the_same_as_the_late_one(words):
    messages = []
    for check in (check_words, parse_arguments):
        with pytest.raises(SmileError) as caught:
            check(words)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
