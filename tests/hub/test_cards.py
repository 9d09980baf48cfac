"""Contents of the cards, as text and as metadata for the Hub."""

import json
import re

import pytest
from huggingface_hub import ModelCard

from hf_smile.errors import SmileModelError
from hf_smile.hub.model_card import published_model_card


@pytest.fixture(scope="module")
def card(finished_run) -> ModelCard:
    """The card as the Hub reads it."""
    return ModelCard(str(published_model_card(finished_run, "me/smile", "mit", "me/faces")))


def test_the_metadata_hold_what_visitors_compare(card, finished_run):
    metrics = json.loads((finished_run / "test_metrics.json").read_text())
    results = {result.metric_name: result for result in card.data.eval_results}
    classes = ("f1 negative smile", "f1 positive smile", "f1 not smile")
    assert list(results) == ["accuracy", "macro f1", "balanced accuracy", *classes]
    for name, result in results.items():
        assert result.metric_value == round(metrics[name.replace(" ", "_")], 4)
    assert {result.metric_type for result in results.values()} == {"accuracy", "f1", "balanced_accuracy"}
    assert {(r.dataset_type, r.dataset_split) for r in results.values()} == {("me/faces", "test")}


def test_the_metadata_say_what_it_is(card):
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "transformers", "image-classification")
    assert data.datasets == ["me/faces"] and data.base_model is None
    assert "timm" in data.tags


@pytest.mark.parametrize(
    "words",
    [
        "**On 60 test images**: accuracy 0.",
        "Recall: negative smile 0.",
        'pipeline("image-classification", model="me/smile")',
        'AutoModelForImageClassification.from_pretrained("me/smile")',
        'timm.create_model("hf-hub:me/smile", pretrained=True)',
        'SmileClassifier.from_pretrained("me/smile")',
        "| learning_rate | 0.1 |",
        "Epoch 2 of 3 was chosen by macro F1 on 60 validation images: a difference in accuracy of less than 12 ",
        "The test split was looked at once, on 20",
        "expected calibration error",
        "Temperature scaling (Guo et al., 2017): 1.250",
        "`--prior_adjustment 0.5`",
        "**Is it a smile?** Given a smiling face",
        "A still image cannot prove that a smile is genuine",
        "Groups missing from the data",
        "Article 5(1)(f)",
        "Out of scope",
    ],
)
def test_the_card_says_it(card, words):
    assert words in card.text


def test_every_picture_in_the_card_is_published(card, finished_run):
    from hf_smile.hub.model import PUBLISHED

    pictures = set(re.findall(r"!\[[^]]*\]\((.*?)\)", card.text))
    assert len(pictures) == 7 and pictures <= PUBLISHED


def test_the_card_of_the_folder_loads_it_from_the_folder(finished_run):
    text = (finished_run / "README.md").read_text()
    assert 'timm.create_model("local-dir:tiny"' in text and 'model="tiny"' in text
    assert "reliability.png" not in text, "it is drawn when the model is published"
    assert "`test_predictions.csv` and `validation_predictions.csv` all predictions" in text
    assert "95 % interval" in text and text.count("## How sure it is") == 1


def test_a_base_model_on_the_hub_is_named(finished_run, tmp_path):
    for name in ("test_metrics.json", "recipe.yaml"):
        (tmp_path / name).write_text((finished_run / name).read_text())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("backbone: timm/resnet50.a1_in1k\nhead_hidden_size: 8\n")
    metrics = json.loads((tmp_path / "test_metrics.json").read_text()) | {"support_positive_smile": 0}
    (tmp_path / "test_metrics.json").write_text(json.dumps(metrics))
    card = ModelCard(str(published_model_card(tmp_path, "me/smile")))
    assert card.data.base_model == "timm/resnet50.a1_in1k"
    assert "f1 positive smile" not in {result.metric_name for result in card.data.eval_results}
    assert "import hf_smile.modeling" in card.text and "timm.create_model" not in card.text


@pytest.mark.parametrize(
    ("tag", "pretrained", "base_model"),
    [("r160_in1k", True, "timm/test_resnet.r160_in1k"), ("mine", True, None), ("r160_in1k", False, None)],
)
@pytest.mark.parametrize("backbone", ["/home/ann/test_resnet.{tag}", "./backbones/test_resnet.{tag}", "test_resnet"])
def test_the_base_model_of_a_local_folder_is_read_from_its_weights_tag(
    run_folder, backbone, tag, pretrained, base_model
):
    config = json.loads((run_folder / "config.json").read_text())
    config["pretrained_cfg"]["tag"] = tag
    (run_folder / "config.json").write_text(json.dumps(config))
    recipe = f"backbone: {backbone.format(tag=tag)}\npretrained: {str(pretrained).lower()}\n"
    (run_folder / "recipe.yaml").write_text(recipe)
    card = ModelCard(str(published_model_card(run_folder, "me/smile")))
    assert card.data.base_model == base_model
    assert not re.search(r"\bann\b", card.text.split("## Training")[0])


def test_the_base_of_an_earlier_stage_is_named_too(run_folder):
    config = json.loads((run_folder / "config.json").read_text())
    (run_folder / "recipe.yaml").write_text("backbone: ../outputs/first\npretrained: true\n")
    for models, base_model, words in (
        (["first", "timm/resnet50.a1_in1k"], "timm/resnet50.a1_in1k", "`first`, itself fine-tuned from `timm/resnet50"),
        (["me/first", "someone/faces"], "me/first", "`me/first`, itself fine-tuned from `someone/faces`, with"),
        (["first"], None, "`first` with"),
    ):
        (run_folder / "config.json").write_text(json.dumps(config | {"base_models": models}))
        card = ModelCard(str(published_model_card(run_folder, "me/smile")))
        assert card.data.base_model == base_model
        assert f"Fine-tuned from {words}" in card.text


def test_a_run_of_which_no_checkpoint_was_chosen_says_so(finished_run, tmp_path):
    metrics = json.loads((finished_run / "test_metrics.json").read_text())
    metrics["choice"] = {"epoch": 6.0, "epochs": 6, "metric": "last"}
    (tmp_path / "test_metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "recipe.yaml").write_text("backbone: test_resnet\nselect_best: last\n")
    text = published_model_card(tmp_path, "me/smile").text
    assert "The weights are those of the last epoch, epoch 6; no checkpoint was chosen." in text
    assert "The number of looks at the test split was not recorded." in text


def test_metrics_of_an_older_run_are_refused_in_words(finished_run, tmp_path):
    (tmp_path / "recipe.yaml").write_text("backbone: test_resnet\n")
    (tmp_path / "test_metrics.json").write_text('{"accuracy": 0.5}')
    with pytest.raises(SmileModelError, match="older hf_smile"):
        published_model_card(tmp_path, "me/smile")
