"""`hf-smile tune`: better settings by the validation split only, and resuming a search."""

import shutil
import sys

import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from hf_smile.training.search import SPACE

SMALL = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", "32", "--use_cpu", "--num_train_epochs", "2"]
SMALL += ["--validation_size", "0.3", "--per_device_train_batch_size", "16", "--ema_decay", "0", "--select_best", "nll"]


@pytest.fixture
def command(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    return cli


@pytest.fixture
def tune(command, sample_dir):
    """A search with a tiny network with random weights."""

    def tune(*words, data_dir=sample_dir):
        return command("tune", "--data_dir", data_dir, *SMALL, *words)

    return tune


@pytest.fixture
def study(tmp_path):
    """The study stored by the command."""

    def study():
        return optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path}/outputs/tune/study.db")

    return study


def test_from_a_bad_start_it_finds_a_better_recipe_that_trains_to_the_value_it_promises(tune, command, study, tmp_path):
    code, out, errors = tune("--learning_rate", "1e-7", "--trials", "4")
    assert code == 0, errors
    first, best = study().trials[0], study().best_trial
    assert first.params["learning_rate"] == 1e-7 and best.value < first.value
    recipe = yaml.safe_load((tmp_path / "outputs/tune/best.yaml").read_text())
    assert best.params.items() <= recipe.items() and f"{best.value:.4f}" in out
    assert (tmp_path / "outputs/tune/search.png").read_bytes().startswith(b"\x89PNG")
    assert command("train", "outputs/tune/best.yaml")[0] == 0
    assert pd.read_csv("outputs/tune/best/training_history.csv")["validation_nll"].min() == pytest.approx(best.value)


def test_it_resumes_and_does_a_killed_trial_again(tune, study):
    assert tune("--trials", "1")[0] == 0
    space = {name: SPACE[name] for name in study().best_params}
    killed = study().ask()  # by a process that no longer exists
    params = {name: killed.suggest_float(name, *limits[:2], log=limits[2]) for name, limits in space.items()}
    assert tune("--trials", "2")[0] == 0
    states = [trial.state for trial in study().trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert study().trials[2].params == params
    code, out, errors = tune("--trials", "2")
    assert code == 0 and "epoch" not in errors and "Best:" in out and len(study().trials) == 3


def test_the_test_split_changes_nothing(tune, study, sample_dir, tmp_path):
    other = shutil.copytree(sample_dir, tmp_path / "other")
    table = pd.read_csv(other / "test.csv")
    table.iloc[:, -1] = table.iloc[::-1, -1].to_numpy()
    table.to_csv(other / "test.csv", index=False)
    found = []
    for folder, data_dir in (("a", sample_dir), ("b", other)):
        assert tune("--trials", "2", "--output_dir", folder, data_dir=data_dir)[0] == 0
        found.append(pd.read_csv(tmp_path / folder / "trials.csv").drop(columns="duration"))
        assert not list((tmp_path / folder).rglob("*test*"))
    pd.testing.assert_frame_equal(*found)


def test_a_trial_behind_the_others_is_pruned(tune, study):
    assert tune("--trials", "1")[0] == 0
    first = study().trials[0]
    for _ in range(5):
        values = dict.fromkeys(first.intermediate_values, 0.0)
        study().add_trial(
            optuna.trial.create_trial(
                params=first.params, distributions=first.distributions, value=0.0, intermediate_values=values
            )
        )
    assert tune("--trials", "7")[0] == 0
    pruned = study().trials[-1]
    assert pruned.state == TrialState.PRUNED and len(pruned.intermediate_values) == 1


def test_a_trial_that_diverges_does_not_end_the_search(tune, study):
    code, _, errors = tune("--trials", "1", "--weight_decay", "1000", "--learning_rate", "1000")
    assert code == 2 and "no trial completed" in errors and "Traceback" not in errors
    assert tune("--trials", "1", "--weight_decay", "1000", "--learning_rate", "1000")[0] == 0
    assert [trial.state for trial in study().trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_what_makes_no_search_is_refused(tune, monkeypatch):
    code, _, errors = tune("--select_best", "last")
    assert code == 2 and "--select_best accuracy --validation_size 0.2" in errors
    assert tune("--trials", "1")[0] == 0
    code, _, errors = tune("--trials", "1", "--seed", "3")
    assert code == 2 and "another recipe (seed)" in errors
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, errors = tune()
    assert code == 2 and "pip install 'hf_smile[tune]'" in errors
