"""Heat maps of networks that offer nothing but predictions, as on ONNX Runtime."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hf_smile.data.sample import draw_face
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.explain import deletion_curve, explain
from hf_smile.labels import LABEL_NAMES, SMILE_LABELS

GENUINE = LABEL_NAMES[1]


class OneRegion:
    """A network whose only evidence for a genuine smile is the contrast within a region of its input.

    Args:
        region: left, top, right, bottom in pixels.
        weight: a negative one makes the contrast speak against a genuine smile.
        size: height and width of the input.
    """

    labels = SMILE_LABELS

    def __init__(self, region, weight=1.0, size=(96, 96)):
        self.region, self.weight = region, weight
        settings = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_pct": 1.0}
        self.pretrained_cfg = {"input_size": [3, *size], **settings}
        self.batches = []

    def __call__(self, pixel_values):
        self.batches.append(len(pixel_values))
        left, top, right, bottom = self.region
        logits = np.zeros((len(pixel_values), 3), np.float32)
        logits[:, 1] = self.weight * pixel_values[:, :, top:bottom, left:right].std(axis=(1, 2, 3))
        return logits


@pytest.fixture
def face() -> Image.Image:
    return draw_face(1, np.random.default_rng(3), size=96)


def hottest(heat) -> tuple[int, int]:
    """Column and row."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return column, row


@pytest.mark.parametrize("region", [(18, 30, 42, 48), (54, 30, 78, 48), (34, 62, 62, 80), (0, 0, 20, 20)])
@pytest.mark.parametrize("size", [(96, 96), (128, 80)], ids=["square", "tall"])
def test_the_map_is_hottest_in_the_region_that_the_decision_depends_on(face, region, size):
    """The eyes, the mouth, and a corner."""
    wide, high = size[1] / 96, size[0] / 96
    left, top, right, bottom = (round(side * scale) for side, scale in zip(region, (wide, high) * 2, strict=True))
    classifier = SmileClassifier(OneRegion((left, top, right, bottom), size=size))
    rng = np.random.default_rng(0)
    picture = Image.fromarray((np.asarray(face) / 2 + rng.integers(0, 128, (96, 96, 3))).astype(np.uint8))
    explanation = explain(classifier, picture, GENUINE)
    assert explanation.heat.shape == size and explanation.heat.max() == 1 and explanation.drop > 0.001
    column, row = hottest(explanation.heat)
    assert left <= column < right and top <= row < bottom
    hot, cold = explanation.heat.ravel().argsort()[::-1], explanation.heat.ravel().argsort()
    assert deletion_curve(classifier, explanation, hot).mean() < deletion_curve(classifier, explanation, cold).mean()


def test_what_speaks_against_a_class_is_no_evidence_for_it(face):
    assert not explain(SmileClassifier(OneRegion((18, 30, 42, 48), weight=-1)), face, GENUINE).heat.any()
    assert explain(SmileClassifier(OneRegion((18, 30, 42, 48), weight=-1)), face, LABEL_NAMES[0]).heat.any()


def test_a_picture_of_one_colour_has_no_map(model_dir):
    """Covering a part of it changes nothing, and what the runtime rounds is not shown as evidence."""
    blank = Image.new("RGB", (64, 64), (90, 120, 150))
    explanation = explain(SmileClassifier.from_pretrained(model_dir, "onnx"), blank)
    assert explanation.drop == 0 and not explanation.heat.any()


def test_the_cost_is_fixed_and_batches_are_small(face):
    network = OneRegion((18, 30, 42, 48))
    explain(SmileClassifier(network), face, GENUINE)
    assert sum(network.batches) == 65 and max(network.batches) == 8


def test_a_map_needs_no_torch(model_dir, face_files):
    code = """
import sys
sys.modules |= dict.fromkeys(["torch", "captum", "timm", "transformers"])
from hf_smile import SmileClassifier
from hf_smile.inference.explain import explain
explanation = explain(SmileClassifier.from_pretrained(sys.argv[1]), sys.argv[2])
print(explanation.method, explanation.heat.shape, explanation.overlay().size)
"""
    done = subprocess.run([sys.executable, "-c", code, model_dir, face_files[1]], capture_output=True, text=True)
    assert done.stdout == "occlusion (64, 64) (64, 64)\n", done.stderr
