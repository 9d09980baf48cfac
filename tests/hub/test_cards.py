"""What the cards say, to people and to the Hub."""

import json

import pytest
from huggingface_hub import ModelCard

from hf_smile.errors import SmileModelError
from hf_smile.hub.model_card import published_model_card


@pytest.fixture(scope="module")
def card(finished_run) -> ModelCard:
    """As the Hub reads it."""
    return ModelCard(str(published_model_card(finished_run, "me/smile", "mit", "me/faces")))


def test_the_metadata_hold_every_metric_with_its_interval(card, finished_run):
    metrics = json.loads((finished_run / "test_metrics.json").read_text())
    results = {result.metric_type: result for result in card.data.eval_results}
    others = ("support_", "calibration", "decision")
    assert set(results) == {name for name in metrics if not name.startswith(others)}
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
        "Temperature scaling (Guo et al., 2017): 1.250",
        "`--prior_adjustment 0.5`",
        "**Is it a smile?** Of a smiling face",
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
    assert len(pictures) == 7 and pictures <= PUBLISHED


def test_the_card_of_the_folder_loads_it_from_the_folder(finished_run):
    text = (finished_run / "README.md").read_text()
    assert 'timm.create_model("local-dir:tiny"' in text and 'model="tiny"' in text
    assert "reliability.png" not in text, "it is drawn when the model is published"
    assert "`test_predictions.csv` and `validation_predictions.csv` every prediction" in text
    assert "95 % interval" in text and text.count("## How sure it is") == 1


def test_a_base_model_on_the_hub_is_named(finished_run, tmp_path):
    for name in ("test_metrics.json", "recipe.yaml"):
        (tmp_path / name).write_text((finished_run / name).read_text())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("backbone: timm/resnet50.a1_in1k\nhead_hidden_size: 8\n")
    metrics = json.loads((tmp_path / "test_metrics.json").read_text()) | {"genuine_auc": None}
    (tmp_path / "test_metrics.json").write_text(json.dumps(metrics))
    card = ModelCard(str(published_model_card(tmp_path, "me/smile")))
    assert card.data.base_model == "timm/resnet50.a1_in1k"
    assert "genuine_auc" not in {result.metric_type for result in card.data.eval_results}
    assert "import hf_smile.modeling" in card.text and "timm.create_model" not in card.text


def test_a_run_of_which_no_checkpoint_was_chosen_says_so(finished_run, tmp_path):
    (tmp_path / "test_metrics.json").write_text((finished_run / "test_metrics.json").read_text())
    (tmp_path / "recipe.yaml").write_text("backbone: test_resnet\nselect_best: last\ntest_time_flip: true\n")
    text = published_model_card(tmp_path, "me/smile").text
    assert "no checkpoint was chosen; the test split" in text and "each image and its mirror image" in text


def test_metrics_of_an_older_run_are_refused_in_words(finished_run, tmp_path):
    (tmp_path / "recipe.yaml").write_text("backbone: test_resnet\n")
    (tmp_path / "test_metrics.json").write_text('{"accuracy": 0.5}')
    with pytest.raises(SmileModelError, match="older hf_smile"):
        published_model_card(tmp_path, "me/smile")
