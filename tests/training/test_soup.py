"""The mean of several runs' weights: what is averaged, what validation decides, and what the user gets."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from timm.models import save_for_hf

from hf_smile.commands.train import parse_arguments, run
from hf_smile.data.record import read_splits, run_data
from hf_smile.errors import SmileError
from hf_smile.hub.finished_run import read_whole_recipe
from hf_smile.hub.seeds_card import write_seeds_card
from hf_smile.modeling import build_model
from hf_smile.modeling.calibrate import fold_into_output_layer
from hf_smile.modeling.layers import freeze_stages
from hf_smile.training import several, soup
from hf_smile.training.several import plan_seeds
from hf_smile.training.soup import find_soup, mean_weights, refresh_batch_norm, trained_weights

TINY = ["--image_size", "32", "--use_cpu", "--validation_size", "0.3", "--max_train_samples", "96"]
TINY += ["--num_train_epochs", "2", "--warmup_frozen_epochs", "1"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_model("test_resnet", pretrained=False, image_size=32)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({(1,): 0.7, (2,): 0.8, (3,): 0.6, (2, 1): 0.7, (2, 3): 0.7, (1, 2, 3): 0.75}, ("seed 2", (2,))),
        ({(1,): 0.7, (2,): 0.8, (3,): 0.6, (2, 1): 0.7, (2, 3): 0.7, (1, 2, 3): 0.8}, ("seed 2", (2,))),
        ({(1,): 0.7, (2,): 0.8, (3,): 0.6, (2, 1): 0.7, (2, 3): 0.7, (1, 2, 3): 0.9}, ("uniform soup", (1, 2, 3))),
        ({(1,): 0.7, (2,): 0.8, (3,): 0.6, (2, 1): 0.7, (2, 3): 0.9, (1, 2, 3): 0.8}, ("greedy soup", (2, 3))),
    ],
)
def test_a_soup_is_chosen_only_if_it_is_better_than_each_seed(scores, best):
    assert find_soup([1, 2, 3], scores.__getitem__)[0][:2] == best


def test_counters_are_not_averaged():
    states = [{"weight": torch.tensor([value]), "batches": torch.tensor(7)} for value in (1.0, 3.0)]
    assert mean_weights(states) == {"weight": torch.tensor([2.0]), "batches": torch.tensor(7)}


def test_what_was_folded_into_a_run_does_not_enter_the_mean(network, tmp_path):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    shift = np.array([0.5, 0.2, -0.1])
    fold_into_output_layer(network, 1.7, shift)
    network.save_pretrained(tmp_path)
    for name, value in trained_weights(tmp_path, 1.7, shift).items():
        torch.testing.assert_close(value, before[name], rtol=1e-5, atol=1e-6)


def test_batch_statistics_are_those_of_the_images_but_for_frozen_layers(network):
    freeze_stages(network, 1)
    images = torch.rand(2, 16, 3, 32, 32)
    before = {name: value.clone() for name, value in network.state_dict().items() if "running_mean" in name}
    refresh_batch_norm(network, images)
    changed = {name for name, value in before.items() if not torch.equal(value, network.state_dict()[name])}
    frozen = {name for name in before if name.removeprefix("timm_model.").startswith(("conv1.", "bn1.", "layer1."))}
    assert frozen and changed == {*before} - frozen
    again = {name: value.clone() for name, value in network.state_dict().items() if name in before}
    refresh_batch_norm(network, images)
    for name, value in again.items():
        torch.testing.assert_close(network.state_dict()[name], value)
    assert not any(module.training for module in network.modules())


@pytest.fixture
def words(network, sample_dir, tmp_path, monkeypatch):
    """Two seeds and their soup, from a backbone with weights. All runs are in this process, which is faster."""
    monkeypatch.setattr(
        several,
        "train_in",
        lambda folder, words, tell: run(parse_arguments([*words, "--output_dir", str(folder)], "hf-smile train")),
    )
    save_for_hf(network.timm_model, str(tmp_path / "backbone"), safe_serialization=True)
    own = ["--backbone", str(tmp_path / "backbone"), "--data_dir", str(sample_dir)]
    return [*TINY, *own, "--output_dir", str(tmp_path / "runs"), "--seeds", "3", "5", "--soup"]


def wins(name):
    """Instead of validation: the candidate of that name."""
    find = soup.find_soup
    return lambda *words: sorted(find(*words), key=lambda candidate: candidate.name != name)


def test_a_soup_is_a_run_like_any_other(words, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(soup, "find_soup", wins("uniform soup"))
    words = [*words, "--prior_adjustment", "0.2", "--select_best", "nll"]
    run(parse_arguments(words, "hf-smile train"))
    said = capfd.readouterr().out
    folder = tmp_path / "runs"
    splits = [read_splits(folder / name) for name in ("head", "3", "5", "soup")]
    assert all(split == splits[0] for split in splits[1:])
    assert run_data(folder / "5", {})[1] == 3, "the splits are those of the first seed"
    metrics = json.loads((folder / "soup/test_metrics.json").read_text())
    assert metrics["choice"]["soup"] == [3, 5]
    with (folder / "soup.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["candidate"]: row["seeds"] for row in rows} == {"seed 3": "3", "seed 5": "5", "uniform soup": "3 5"}
    alone = {f"seed {seed}": json.loads((folder / f"{seed}/test_metrics.json").read_text()) for seed in (3, 5)}
    for name, found in alone.items():
        nll = next(float(row["nll"]) for row in rows if row["candidate"] == name)
        assert nll == pytest.approx(found["calibration"]["validation"]["as_trained"]["nll"], abs=1e-5)
    single = [float(row["nll"]) for row in rows if row["candidate"].startswith("seed")]
    assert single == sorted(single), "the lowest first"
    card = (folder / "README.md").read_text()
    assert "| num_train_epochs | 2.0 |" in card and "| warmup_frozen_epochs | 1.0 |" in card
    assert "| soup |" in card and f"| {metrics['accuracy']:.4f} |" in card and "(soup/README.md)" in card
    of_the_soup = (folder / "soup/README.md").read_text()
    assert "the mean of those of seeds 3 and 5" in of_the_soup and "loss.png" not in of_the_soup
    assert parse_arguments([str(folder / "soup/recipe.yaml")], "hf-smile train")[-1].seed == 3
    assert "the mean of those of seeds 3 and 5" in said
    run(parse_arguments(words, "hf-smile train"))
    assert f"{folder / 'soup'} is already finished" in capfd.readouterr().out

    monkeypatch.setattr(soup, "find_soup", wins("seed 5"))
    run(parse_arguments([*words, "--temperature", "1.5"], "hf-smile train"))
    assert not (folder / "soup/model.safetensors").exists()
    assert "No soup was better" in (folder / "README.md").read_text()
    assert "No soup is better on validation than seed 5 alone" in capfd.readouterr().out
    shutil.rmtree(folder / "soup")
    (folder / "soup").mkdir()
    (folder / "soup/splits.csv.part").touch()  # as if the first start had been killed
    with monkeypatch.context() as patch:
        patch.setattr(soup, "find_soup", None)  # no candidate is evaluated again
        run(parse_arguments([*words, "--temperature", "1.5"], "hf-smile train"))
    assert "No soup is better on validation than seed 5 alone" in capfd.readouterr().out
    assert not (folder / "soup").exists()

    weights = (folder / "5/model.safetensors").read_bytes()
    with pytest.raises(SmileError, match="a run with other settings"):
        run(parse_arguments([*words, "--head_learning_rate", "0.1"], "hf-smile train"))
    run(parse_arguments([*words, "--head_learning_rate", "0.1", "--overwrite"], "hf-smile train"))
    assert (folder / "5/model.safetensors").read_bytes() != weights, "all are trained again"


def test_another_run_in_the_place_of_the_soup_is_kept(words, tmp_path):
    (tmp_path / "runs/soup").mkdir(parents=True)
    (tmp_path / "runs/soup/recipe.yaml").write_text("seed: 1\nmixup: 0.2\n")
    with pytest.raises(SmileError, match="contains another run"):
        plan_seeds(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--soup"], "add --seeds"),
        (["--soup", "--seeds", "1"], "at least two"),
        (["--soup", "--seeds", "1", "2", "--warmup_frozen_epochs", "0"], "start from the same head"),
        (["--soup", "--seeds", "1", "2", "--max_hours", "1"], "length in epochs"),
        (["--soup", "--seeds", "1", "2", "--no_pretrained"], "pretrained weights"),
    ],
)
def test_what_makes_no_soup_is_refused(tmp_path, words, message):
    with pytest.raises(SmileError, match=message):
        plan_seeds([*TINY, *words, "--output_dir", str(tmp_path)])


def test_without_validation_images_it_ends_after_the_head(words, tmp_path):
    words = [*words, "--validation_size", "0", "--select_best", "last"]
    with pytest.raises(SmileError, match="set --validation_size"):
        run(parse_arguments(words, "hf-smile train"))
    assert not (tmp_path / "runs/3").exists()


def test_a_card_without_soup_says_nothing_of_it(tmp_path):
    folder = tmp_path / "runs"
    (folder / "1").mkdir(parents=True)
    sections = {"calibration": {}, "decision": {}, "choice": {}}
    (folder / "1/test_metrics.json").write_text(json.dumps({"accuracy": 0.8, **sections}))
    (folder / "1/recipe.yaml").write_text("backbone: timm/resnet18\n")
    write_seeds_card(folder, [1])
    assert "oup" not in (folder / "README.md").read_text()


def test_another_run_called_head_is_not_a_part_of_the_schedule(tmp_path):
    for name, recipe in {
        "head": "backbone: timm/a\nnum_train_epochs: 10\nlearning_rate: 0.1\nfreeze_backbone: false\n",
        "second": f"backbone: {tmp_path / 'head'}\nnum_train_epochs: 3\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(recipe)
    assert read_whole_recipe(tmp_path / "second") == {"backbone": "head", "num_train_epochs": 3}
    with (tmp_path / "head" / "recipe.yaml").open("a") as file:
        file.write("freeze_backbone: true\n")
    expected = {"backbone": "timm/a", "num_train_epochs": 13, "warmup_frozen_epochs": 10, "head_learning_rate": 0.1}
    assert read_whole_recipe(tmp_path / "second") == expected
