"""Augmentation of the training images."""

import dataclasses
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from hf_smile.data.arguments import AugmentationArguments
from hf_smile.data.augmentation import TrainingTransform
from hf_smile.data.sample import draw_face
from hf_smile.data.transforms import evaluation_transform
from hf_smile.errors import SmileDataError

OFF = AugmentationArguments(
    horizontal_flip=0, vertical_flip=0, rotation=0, shear=0, crop_scale=1, brightness=0, contrast=0
)
CONFIG = {"input_size": (3, 64, 64), "crop_pct": 1.0, "interpolation": "bilinear", "mean": (0.2, 0.4, 0.6)}
CONFIG |= {"std": (0.5, 0.5, 0.25)}


@pytest.fixture(scope="module")
def face() -> Image.Image:
    return draw_face(2, np.random.default_rng(0), size=64)


class Drawn(Random):
    """Draws the same relative position in every range."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self.share * (b - a)


def augmented(image: Image.Image, draw: Random | None = None, **settings: float) -> torch.Tensor:
    return TrainingTransform(CONFIG, dataclasses.replace(OFF, **settings))(image, draw or Random(0))


def as_pixels(values: torch.Tensor) -> np.ndarray:
    """Undo the normalisation: values 0 to 255, (H, W, 3)."""
    mean, std = torch.tensor(CONFIG["mean"]), torch.tensor(CONFIG["std"])
    return ((values.permute(1, 2, 0) * std + mean) * 255).numpy()


@pytest.mark.parametrize("size", [(64, 64), (48, 64), (120, 90), (300, 300), (40, 40)])
def test_without_augmentation_training_sees_what_evaluation_sees(size):
    face = draw_face(1, np.random.default_rng(1), size=300).resize(size, Image.Resampling.BICUBIC)
    difference = augmented(face) - evaluation_transform(CONFIG)(face)
    assert difference.shape == (3, 64, 64)
    assert difference.abs().mean() < 0.05  # of a range of 2 to 4; the resampling differs slightly
    if size == (64, 64):
        assert torch.equal(augmented(face), evaluation_transform(CONFIG)(face))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("horizontal_flip", 1.0),
        ("vertical_flip", 1.0),
        ("rotation", 30.0),
        ("shear", 20.0),
        ("crop_scale", 0.5),
        ("brightness", 0.5),
        ("contrast", 0.5),
        ("random_erasing", 1.0),
    ],
)
def test_each_setting_changes_the_picture_and_keeps_its_size(face, setting, value):
    changed = augmented(face, **{setting: value})
    assert changed.shape == (3, 64, 64) and changed.dtype == torch.float32
    assert (changed - augmented(face)).abs().mean() > 0.01
    assert not torch.equal(changed, augmented(face, Random(1), **{setting: value})) or setting.endswith("flip")


def test_flips_flip(face):
    assert torch.equal(augmented(face, horizontal_flip=1.0), augmented(face).flip(2))
    assert torch.equal(augmented(face, vertical_flip=1.0), augmented(face).flip(1))


@pytest.mark.parametrize("angle", [-30, 10, 45])
def test_a_rotation_is_that_of_torchvision_with_corners_of_the_mean_colour(face, angle):
    color = [round(255 * mean) for mean in CONFIG["mean"]]
    expected = np.asarray(F.rotate(face, angle, v2.InterpolationMode.BILINEAR, fill=color), dtype=float)
    ours = as_pixels(augmented(face, Drawn(0.5 + angle / 360), rotation=180))
    difference = np.abs(ours - expected)
    assert difference[10:-10, 10:-10].mean() < 1 and difference.mean() < 3  # the edges are blended differently
    if angle == 45:
        assert np.abs(ours[0, 0] - color).max() < 1


def test_a_shear_is_that_of_torchvision(face):
    fill = [round(255 * mean) for mean in CONFIG["mean"]]
    options = {"angle": 0, "translate": [0, 0], "scale": 1, "interpolation": v2.InterpolationMode.BILINEAR}
    expected = np.asarray(F.affine(face, **options, shear=[20, 0], fill=fill), dtype=float)
    ours = as_pixels(augmented(face, Drawn(1), shear=20))
    other = as_pixels(augmented(face, Drawn(0), shear=20))
    assert min(np.abs(picture - expected).mean() for picture in (ours, other)) < 1.5


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_crop_shows_that_part_of_the_picture(share):
    # Every pixel encodes its position.
    across, down = np.meshgrid(np.arange(100), np.arange(100))
    where = Image.fromarray(np.stack([across, down, down * 0], axis=2).astype(np.uint8))
    pixels = as_pixels(augmented(where, Drawn(share), crop_scale=0.49))
    side = (0.49 + share * 0.51) ** 0.5 * 100
    ratio = 0.9 * (1.1 / 0.9) ** share
    wide, tall = min(100, side * ratio**0.5), min(100, side / ratio**0.5)
    if share == 1:
        wide = tall = 100  # no draw fits, so nothing is cropped
    left, top = share * (100 - wide), share * (100 - tall)
    assert pixels[32, 2, 0] == pytest.approx(left + 2.5 / 64 * wide - 0.5, abs=1)
    assert pixels[32, 61, 0] == pytest.approx(left + 61.5 / 64 * wide - 0.5, abs=1)
    assert pixels[2, 32, 1] == pytest.approx(top + 2.5 / 64 * tall - 0.5, abs=1)
    assert pixels[61, 32, 1] == pytest.approx(top + 61.5 / 64 * tall - 0.5, abs=1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("change", ["brightness", "contrast"])
def test_brightness_and_contrast_are_those_of_pillow(face, change, share):
    enhance = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast}[change]
    expected = np.asarray(enhance(face).enhance(0.6 + share * 0.8), dtype=float)
    assert np.abs(as_pixels(augmented(face, Drawn(share), **{change: 0.4})) - expected).max() < 2


def test_what_random_erasing_blanks_is_a_rectangle_of_the_mean_colour(face):
    blank = (augmented(face, random_erasing=1.0) == 0).all(dim=0)
    rows, columns = blank.any(dim=1).nonzero(), blank.any(dim=0).nonzero()
    assert blank[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert 0.01 < blank.float().mean() < 0.35


def test_fine_lines_of_a_large_picture_become_grey_not_stripes():
    stripes = np.zeros((640, 640, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    pixels = as_pixels(augmented(Image.fromarray(stripes)))
    assert np.abs(pixels - 127.5).max() < 8


@pytest.mark.parametrize("size", [8, 40, 100, 300])
def test_no_frame_of_the_mean_colour_around_a_picture(size):
    white = as_pixels(augmented(Image.new("RGB", (size, size), "white"), crop_scale=0.7))
    assert np.abs(white - 255).max() < 0.01


def test_a_large_picture_is_seen_where_a_small_one_is():
    large = draw_face(2, np.random.default_rng(0), size=900)
    small = large.resize((64, 64), Image.Resampling.BOX)
    for seed in range(5):
        settings = {"rotation": 30, "shear": 10, "crop_scale": 0.5, "horizontal_flip": 0.5, "vertical_flip": 0.5}
        difference = augmented(large, Random(seed), **settings) - augmented(small, Random(seed), **settings)
        assert difference.abs().mean() < 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3, 2), (2000, 20), (40_000, 30), (20, 70_000)])
def test_small_and_odd_pictures_pass_with_everything_on(size):
    everything = dataclasses.replace(AugmentationArguments(), vertical_flip=0.5, shear=20, random_erasing=1)
    transform = TrainingTransform(CONFIG, everything)
    for seed in range(20):
        values = transform(Image.new("RGB", size, "red"), Random(seed))
        assert values.shape == (3, 64, 64) and values.isfinite().all()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("horizontal_flip", 2),
        ("vertical_flip", -1),
        ("rotation", 181),
        ("shear", 90),
        ("crop_scale", 0),
        ("brightness", 3),
        ("random_erasing", 2),
    ],
)
def test_a_setting_out_of_range_is_said(setting, value):
    with pytest.raises(SmileDataError, match=f"{setting} is {value}"):
        AugmentationArguments(**{setting: value})
