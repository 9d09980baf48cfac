"""The library API: the loop in the README, data sets in memory, and models by Hub id."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image

import hf_smile
from hf_smile import SmileClassifier, SmileTrainer, SmileTrainingArguments, build_model
from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileDataError, SmileError, SmileModelError

ROOT = Path(__file__).parents[2]
QUICK = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "use_cpu": True, "disable_tqdm": True}


def test_the_loop_of_the_readme(hub_here, sample_dir, tmp_path, monkeypatch, capsys):
    """Run the code of the README unchanged, in a folder where its names are drawn faces and a tiny network."""
    (code,) = re.findall(
        r"```python\n(from hf_smile import [^`]*?SmileTrainer.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert len(code.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/happy_images").symlink_to(sample_dir)
    torch.manual_seed(0)
    build_model("test_resnet", pretrained=False, image_size=32).save_pretrained("timm/resnet50.a1_in1k")
    draw_face(1, np.random.default_rng(0), size=64).save("face.jpg")
    names: dict = {}
    exec(code, names)
    assert capsys.readouterr().out == "", "the library prints nothing"
    files = hub_here.repo("me/smile").files()
    assert {"model.safetensors", "config.json", "README.md", "test_metrics.json", "recipe.yaml"} <= set(files)
    assert not [name for name in files if "predictions" in name or "checkpoint" in name]
    card = files["README.md"].decode()
    assert "## Results on the test split" in card and "looked at once" in card
    assert f"accuracy | {names['trainer'].evaluated['test'][1].metrics['test_accuracy']:.4f}" in card
    assert names["trainer"].evaluated["test"][1].num_samples == 32
    (here,) = SmileClassifier.from_pretrained("outputs/model", runtime="torch").predict("face.jpg")
    (there,) = SmileClassifier.from_pretrained("me/smile", revision="main").predict("face.jpg")
    assert there.probabilities == pytest.approx(here.probabilities)


def two_classes(names=("smile", "NOT smile"), n=24):
    """A data set in memory of drawn faces, the smiling ones first."""
    rng = np.random.default_rng(0)
    faces = [draw_face(2 * (number % 2), rng, size=48) for number in range(n)]
    features = Features({"picture": Image(), "labels": ClassLabel(names=[*names])})
    return Dataset.from_dict({"picture": faces, "labels": [number % 2 for number in range(n)]}, features=features)


def test_two_classes_of_a_data_set_in_memory(tmp_path):
    splits = two_classes().train_test_split(8, seed=0)
    torch.manual_seed(0)
    model = build_model("test_resnet", pretrained=False, image_size=32, labels=splits["train"].features["labels"].names)
    trainer = SmileTrainer(
        model=model,
        args=SmileTrainingArguments(output_dir=str(tmp_path), **QUICK),
        train_dataset=splits["train"],
        eval_dataset=splits["test"],
    )
    trainer.train()
    metrics = trainer.evaluate(splits["test"], metric_key_prefix="test")
    assert metrics["test_support_smile"] + metrics["test_support_not_smile"] == 8
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "| smile |" in card and "`test_resnet`, trained from random weights" in card
    (prediction,) = SmileClassifier.from_pretrained(tmp_path).predict(splits["test"][0]["picture"])
    assert set(prediction.probabilities) == {"smile", "NOT smile"}


def test_labels_go_by_name_and_what_is_missing_is_said(tmp_path):
    args = SmileTrainingArguments(output_dir=str(tmp_path), select_best="last", **QUICK)
    model = build_model("test_resnet", pretrained=False, image_size=32, labels=["smile", "NOT smile"])
    turned = two_classes(("not_smile", "Smile"))
    trainer = SmileTrainer(model, args, turned)
    rows = trainer.encode(turned)[:3]
    assert rows["labels"] == [1, 0, 1] and len(set(rows["image_ids"])) == 3
    as_text = turned.cast_column("labels", ClassLabel(names=["NOT smile", "smile"]))
    as_text = as_text.map(lambda row: {"labels": "smile" if row["labels"] else "NOT smile"}, features=None)
    for dataset, message in (
        (two_classes(("happy", "sad")), "unknown label '(happy|sad)'.*labels="),
        (turned.remove_columns("labels"), "no column 'label'.*picture"),
        (turned.remove_columns("picture"), "no column 'image'.*labels"),
    ):
        with pytest.raises(SmileDataError, match=message):
            SmileTrainer(model, args, dataset)
    for wrong in ([1, 2], {"train": turned}):
        with pytest.raises(TypeError, match=r"must be a datasets\.Dataset"):
            SmileTrainer(model, args, wrong)
    with pytest.raises(TypeError, match="build_model"):
        SmileTrainer(torch.nn.Linear(2, 2), args, turned)


def test_a_card_needs_the_results_of_the_weights_as_they_are(tmp_path):
    args = SmileTrainingArguments(output_dir=str(tmp_path), select_best="last", **QUICK)
    model = build_model("test_resnet", pretrained=False, image_size=32, labels=["smile", "NOT smile"])
    trainer = SmileTrainer(model, args, two_classes())
    trainer.evaluate(two_classes(n=8), metric_key_prefix="test")
    trainer.train()
    with pytest.raises(SmileModelError, match="evaluate first"):
        trainer.create_model_card()


def test_what_the_caller_gives_means_what_it_means_in_transformers(tmp_path):
    from transformers import AutoImageProcessor, TrainerCallback

    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, *args, **kwargs):
            self.steps += 1

    count, model = Count(), build_model("test_resnet", pretrained=False, image_size=32, labels=["smile", "NOT smile"])
    model.save_pretrained(tmp_path / "model")
    trainer = SmileTrainer(
        model,
        SmileTrainingArguments(output_dir=str(tmp_path), **QUICK),
        two_classes(),
        two_classes(n=8),
        callbacks=[count],
        compute_metrics=lambda prediction: {"accuracy": float(len(prediction.label_ids))},
        processing_class=AutoImageProcessor.from_pretrained(tmp_path / "model"),
        optimizers=(torch.optim.SGD(model.parameters(), lr=1e-9), None),
    )
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer.train()
    assert count.steps == 3 and trainer.state.best_metric == 8
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in model.named_parameters())


def test_a_revision_and_a_cache_of_ones_own(hub_here, finished_run, tmp_path):
    SmileClassifier.from_pretrained(finished_run, runtime="torch").push_to_hub("me/smile", revision="tried")
    assert "model.safetensors" in hub_here.repo("me/smile").files("tried")
    with pytest.raises(SmileModelError, match=r"config\.json of me/smile"):
        SmileClassifier.from_pretrained("me/smile", cache_dir=tmp_path / "cache")
    classifier = SmileClassifier.from_pretrained("me/smile", revision="tried", cache_dir=tmp_path / "cache")
    assert classifier.labels == SmileClassifier.from_pretrained(finished_run).labels
    assert list((tmp_path / "cache").rglob("model.safetensors"))


def test_the_token_that_is_given_is_the_one_that_is_shown(hub_here, finished_run, monkeypatch, tmp_path):
    from hub_server import TOKEN

    monkeypatch.delenv("HF_TOKEN")
    classifier = SmileClassifier.from_pretrained(finished_run, runtime="torch")
    with pytest.raises(SmileError, match="no token"):
        classifier.push_to_hub("me/private", private=True)
    classifier.push_to_hub("me/private", private=True, token=TOKEN)
    with pytest.raises(SmileModelError):
        SmileClassifier.from_pretrained("me/private", cache_dir=tmp_path)
    SmileClassifier.from_pretrained("me/private", token=TOKEN, cache_dir=tmp_path)


def test_public_names_are_imported_when_they_are_used():
    code = (
        "import sys, hf_smile\n"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'datasets'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert {'SmileTrainer', 'LabelSet', '__version__'} <= set(dir(hf_smile))\n"
        "from hf_smile import *\n"
        "assert all(getattr(hf_smile, name) is globals()[name] for name in hf_smile.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    with pytest.raises(AttributeError, match="no attribute 'SmileTrainr'"):
        hf_smile.SmileTrainr  # noqa: B018
