"""Heat maps: on the right half, dependent on what was learned, and on pixels that matter."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileModelError
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.labels import LABEL_NAMES

pytest.importorskip("captum")
from hf_smile.inference.explain import Explanation, deletion_curve, explain
from hf_smile.inference.heat_maps import check_sanity, mean_heat_maps, plot_heat_maps
from hf_smile.inference.hirescam import feature_layer
from hf_smile.inference.onnx_export import export_onnx


def picture(label_id: int, rng: np.random.Generator, at_top: bool) -> Image.Image:
    """Noise with a red (0), green (1) or blue (2) patch in its upper or lower half."""
    pixels = rng.integers(60, 140, (64, 64, 3))
    top, left = rng.integers(2, 12) + (0 if at_top else 38), rng.integers(4, 46)
    pixels[top : top + 12, left : left + 12, label_id] = 255
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SmileClassifier:
    """A small network trained on the colours, which takes some seconds."""
    from hf_smile.modeling import build_model

    torch.manual_seed(0)
    model = build_model("test_resnet", pretrained=False, image_size=64)
    preprocess = Preprocessor(model.config.pretrained_cfg)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(40):
        labels = rng.integers(0, 3, 24)
        inputs = torch.from_numpy(np.stack([preprocess(picture(label, rng, rng.random() < 0.5)) for label in labels]))
        loss = torch.nn.functional.cross_entropy(model(pixel_values=inputs).logits, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("trained")
    model.save_pretrained(folder)
    return SmileClassifier.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def exported(trained) -> SmileClassifier:
    """The same network on ONNX Runtime."""
    export_onnx(trained.source)
    return SmileClassifier.from_pretrained(trained.source, runtime="onnx")


@pytest.fixture(scope="module", params=["trained", "exported"])
def classifier(request) -> SmileClassifier:
    """The network on torch, which is explained by HiResCAM, and on ONNX Runtime, which is explained by occlusion."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(7)
    return [picture(i % 3, rng, at_top=i % 2 == 1) for i in range(12)]


def test_the_heat_lies_on_the_half_with_the_patch(classifier, pictures):
    shares = [explain(classifier, image, LABEL_NAMES[i % 3]).upper_share for i, image in enumerate(pictures)]
    assert np.mean(shares[0::2]) < 0.4 < 0.6 < np.mean(shares[1::2])


def test_an_explanation_is_of_the_prediction_and_changes_no_weight(classifier, pictures):
    before = classifier.predict(pictures)
    explanation = explain(classifier, pictures[0])
    assert explanation.label == before[0].label
    assert explanation.heat.shape == (64, 64) and explanation.heat.min() >= 0 and explanation.heat.max() == 1
    assert explanation.upper_share + explanation.lower_share == pytest.approx(1)
    assert np.array_equal(explanation.image, pictures[0])
    assert explanation.overlay().size == (64, 64)
    assert explanation.method == ("HiResCAM" if hasattr(classifier.runtime, "model") else "occlusion")
    assert classifier.predict(pictures) == before
    curve = deletion_curve(classifier, explanation, np.arange(64 * 64), steps=4)
    assert len(curve) == 5 and curve[0] == pytest.approx(before[0].probabilities[explanation.label], abs=1e-5)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_mambaout", "resnet26"])
def test_the_map_is_of_all_that_a_network_computes(name):
    """Without the layer's output the logits are constant: no shortcut bypasses it."""
    from hf_smile.modeling import build_model

    network = build_model(name, pretrained=False, image_size=64).timm_model.eval()
    layer, channel_axis = feature_layer(network, (64, 64))
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output) or output * 0)
    with torch.inference_mode():
        a, b = network(torch.rand(1, 3, 64, 64)), network(torch.rand(1, 3, 64, 64))
    assert torch.equal(a, b)
    height_and_width = [size for axis, size in enumerate(seen[0].shape) if axis not in (0, channel_axis)]
    assert height_and_width == [8, 8]


@pytest.mark.parametrize("name", ["test_convnext", "test_mambaout"])
def test_other_cnns_have_maps_too(tmp_path, name, pictures):
    from hf_smile.modeling import build_model

    build_model(name, pretrained=False, image_size=64).save_pretrained(tmp_path)
    explanation = explain(SmileClassifier.from_pretrained(tmp_path, device="cpu"), pictures[0])
    assert explanation.heat.shape == (64, 64) and np.isfinite(explanation.heat).all()


def test_a_vision_transformer_has_a_map_once_it_is_exported(tmp_path, pictures):
    from hf_smile.modeling import build_model

    build_model("test_vit", pretrained=False).save_pretrained(tmp_path)
    with pytest.raises(SmileModelError, match=r"no feature map.* export the model"):
        explain(SmileClassifier.from_pretrained(tmp_path, device="cpu"), pictures[0])
    export_onnx(tmp_path)
    assert np.isfinite(explain(SmileClassifier.from_pretrained(tmp_path), pictures[0]).heat).all()


def test_shares_of_maps_that_are_plain_to_see():
    image = Image.new("RGB", (5, 5))
    heat = np.zeros((5, 5), np.float32)
    explanation = Explanation("NOT smile", heat, image, np.zeros((3, 5, 5), np.float32), None)
    assert explanation.upper_share == 0.5
    heat[2] = 1
    assert explanation.upper_share == pytest.approx(0.5)
    heat[:2] = 1
    assert explanation.upper_share == pytest.approx(2.5 / 3)


def test_what_can_not_be_explained_is_told(model_dir, trained, pictures):
    with pytest.raises(ValueError, match="unknown label"):
        explain(trained, pictures[0], "grin")
    with pytest.raises(ValueError, match="is a folder"):
        explain(trained, model_dir)


def test_mean_maps_and_their_sanity_check(trained, pictures, tmp_path):
    labels = [i % 3 for i in range(len(pictures))]
    maps = mean_heat_maps(trained, pictures[:11], labels[:11])
    assert [(one.label, one.images) for one in maps] == list(zip(LABEL_NAMES, (4, 4, 3), strict=True))
    assert maps[0].face.shape == (64, 64, 3) and maps[0].heat.shape == (64, 64)
    plot_heat_maps(maps, tmp_path / "maps.png")
    assert Image.open(tmp_path / "maps.png").width > 600

    sanity = check_sanity(trained, pictures)
    assert sanity.images == 12 and sanity.wins > 0.8 and sanity.correlation_with_random_weights < 0.6
    assert sanity.hottest_deleted < sanity.random_deleted and "12 images" in str(sanity)
