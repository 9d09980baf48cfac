"""One recipe with several seeds: one folder per seed, one table, one card."""

import json

import pandas as pd
import pytest

from hf_smile.commands.train import parse_arguments, run
from hf_smile.errors import SmileError, SmileModelError
from hf_smile.hub.seeds_card import write_seeds_card
from hf_smile.training.several import plan_seeds
from hf_smile.utils.model_files import read_config

TINY = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", "32", "--use_cpu", "--max_train_samples", "24"]
TINY += ["--num_train_epochs", "1"]


def test_each_seed_is_trained_once_and_all_are_on_one_card(sample_dir, tmp_path, capfd):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data_dir: {sample_dir}\noutput_dir: {tmp_path / 'runs'}\nseeds: [3, 5]\n")
    words = [str(recipe), *TINY]
    run(parse_arguments(words, "hf-smile train"))
    said, errors = capfd.readouterr()
    assert "accelerate" not in errors
    accuracy = [json.loads((tmp_path / f"runs/{seed}/test_metrics.json").read_text())["accuracy"] for seed in (3, 5)]
    table = pd.read_csv(tmp_path / "runs/seeds.csv", index_col="seed")
    assert table["accuracy"].to_dict() == dict(zip((3, 5), accuracy, strict=True))
    card = (tmp_path / "runs/README.md").read_text()
    numbers = (sum(accuracy) / 2, table["accuracy"].std(), *accuracy)
    line = f"| accuracy | {' | '.join(f'{number:.4f}' for number in numbers)} |"
    assert line in card and line in said
    assert "[3](3/README.md), [5](5/README.md)" in card and "**A first try**" in card
    one = (tmp_path / "runs/3/README.md").read_text()
    assert "# runs/3" in one and "**These are drawn faces**" in one and "**A first try**" in one.split("```")[0]
    with pytest.raises(SmileModelError, match=r"one model per seed; name one of them, for example .*runs/3"):
        read_config(tmp_path / "runs")
    weights = [(tmp_path / f"runs/{seed}/model.safetensors").read_bytes() for seed in (3, 5)]
    assert weights[0] != weights[1]
    run(parse_arguments(words, "hf-smile train"))
    assert capfd.readouterr().out.count("is already finished") == 2


def write_results(folder, seed, **metrics):
    (folder / str(seed)).mkdir(parents=True)
    sections = {"calibration": {}, "decision": {}, "choice": {}}
    (folder / str(seed) / "test_metrics.json").write_text(json.dumps(metrics | sections))
    (folder / str(seed) / "recipe.yaml").write_text(f"backbone: timm/resnet18\nseed: {seed}\n")


def test_what_is_undefined_with_a_seed_leaves_the_mean_of_the_others(tmp_path):
    for seed, auc in ((1, 0.8), (2, 0.9), (3, None)):
        write_results(tmp_path, seed, smile_auc=auc)
    assert "| AUC of smile or none | 0.8500 | 0.0707 | 0.8000 | 0.9000 | – |" in write_seeds_card(tmp_path, [1, 2, 3])
    assert "| seed |" not in (tmp_path / "README.md").read_text()
    assert "| AUC of smile or none | 0.8000 | – | 0.8000 |" in write_seeds_card(tmp_path, [1])


def test_seeds_are_not_published_one_over_the_other(tmp_path):
    words = ["--seeds", "1", "--push_to_hub", "--hub_model_id", "me/smile", "--output_dir", str(tmp_path)]
    with pytest.raises(SmileError, match="would publish one seed over the other"):
        plan_seeds([*TINY, *words])


def test_no_other_card_is_written_over(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(SmileError, match="another card"):
        plan_seeds([*TINY, "--seeds", "1", "2", "--output_dir", str(tmp_path)])


def test_the_words_of_a_run_are_those_without_the_seeds():
    plan = plan_seeds([*TINY, "--seeds", "7", "8", "--learning_rate", "1e-3"])
    assert plan.seeds == [7, 8] and "--seeds" not in plan.words
    assert plan.words[-4:] == ["--num_train_epochs", "1", "--learning_rate", "1e-3"]
