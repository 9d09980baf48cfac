"""What the cards say, to people and to the Hub."""

import json

import pytest
from huggingface_hub import ModelCard

from hf_smile.hub.model_card import published_model_card


@pytest.fixture(scope="module")
def card(finished_run) -> ModelCard:
    """As the Hub reads it."""
    return ModelCard(str(published_model_card(finished_run, "me/smile", "mit", "me/faces")))


def test_the_metadata_hold_every_metric_with_its_interval(card, finished_run):
    metrics = json.loads((finished_run / "test_metrics.json").read_text())
    results = {result.metric_type: result for result in card.data.eval_results}
    assert set(results) == {name for name in metrics if not name.startswith("support_")}
    for name, result in results.items():
        assert result.metric_value == round(metrics[name], 4)
        low, high = result.metric_name.split("(95 % interval ")[1].removesuffix(")").split(" to ")
        assert float(low) <= float(high) <= 3
    assert {(r.dataset_type, r.dataset_split) for r in results.values()} == {("me/faces", "test")}


def test_the_metadata_say_what_it_is(card):
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "transformers", "image-classification")
    assert data.datasets == ["me/faces"] and data.base_model is None
    assert "timm" in data.tags


@pytest.mark.parametrize(
    "words",
    [
        'pipeline("image-classification", model="me/smile")',
        'AutoModelForImageClassification.from_pretrained("me/smile")',
        'timm.create_model("hf-hub:me/smile", pretrained=True)',
        'SmileClassifier.from_pretrained("me/smile")',
        "| learning_rate | 0.1 |",
        "chosen on a validation split by macro_f1",
        "expected calibration error",
        "A still image cannot prove a smile genuine",
        "Whom the data leave out",
        "Article 5(1)(f)",
        "Out of scope",
    ],
)
def test_the_card_says_it(card, words):
    assert words in card.text


def test_every_picture_in_the_card_is_published(card, finished_run):
    from hf_smile.hub.model import PUBLISHED

    pictures = {part.split(")")[0] for part in card.text.split("](")[1:]}
    assert len(pictures) == 6 and pictures <= PUBLISHED


def test_the_card_of_the_folder_loads_it_from_the_folder(finished_run):
    text = (finished_run / "README.md").read_text()
    assert 'timm.create_model("local-dir:tiny"' in text and 'model="tiny"' in text
    assert "reliability.png" not in text, "it is drawn when the model is published"


def test_a_base_model_on_the_hub_is_named(finished_run, tmp_path):
    for name in ("test_metrics.json", "recipe.yaml"):
        (tmp_path / name).write_text((finished_run / name).read_text())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("backbone: timm/resnet50.a1_in1k\nhead_hidden_size: 8\n")
    metrics = json.loads((tmp_path / "test_metrics.json").read_text()) | {"genuine_auc": float("nan")}
    (tmp_path / "test_metrics.json").write_text(json.dumps(metrics))
    card = ModelCard(str(published_model_card(tmp_path, "me/smile")))
    assert card.data.base_model == "timm/resnet50.a1_in1k"
    assert "genuine_auc" not in {result.metric_type for result in card.data.eval_results}
    assert "import hf_smile.modeling" in card.text and "timm.create_model" not in card.text
