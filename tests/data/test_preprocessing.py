"""Preprocessing equals timm's own transform."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform, resolve_data_config

from hf_smile.data import preprocessing
from hf_smile.data.images import decode_image
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileDataError, SmileModelError

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SETTINGS = [
    {"input_size": [3, 160, 160], "crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    {"input_size": [3, 224, 224], "crop_pct": 1.0, "interpolation": "bicubic"} | IMAGENET,
    {"input_size": [3, 97, 97], "crop_pct": 0.875, "interpolation": "bilinear"} | IMAGENET,
    {"input_size": [3, 64, 96], "crop_pct": 0.9, "interpolation": "lanczos"} | IMAGENET,
    {"input_size": [3, 80, 80], "crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bicubic"} | IMAGENET,
    {"crop_mode": None, "std": None},
]
SIZES = [(167, 167), (160, 160), (224, 224), (55, 55), (515, 515), (1, 1), (300, 161), (161, 300), (97, 640), (223, 7)]


def timm_transform(settings):
    return create_transform(**resolve_data_config(settings), is_training=False)


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(sum(size)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_transform_of_timm_to_the_last_bit(settings, size):
    image = noise(size)
    expected = timm_transform(settings)(image).numpy()
    ours = Preprocessor(settings)(image)
    assert ours.dtype == np.float32
    assert ours.tobytes() == expected.tobytes()


def test_random_sizes_agree_to_the_last_bit():
    rng = np.random.default_rng(0)
    preprocessor, expected = Preprocessor(SETTINGS[0]), timm_transform(SETTINGS[0])
    for size in rng.integers(2, 400, (60, 2)).tolist():
        assert np.array_equal(preprocessor(noise(size)), expected(noise(size)).numpy()), size


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_every_mode_agree_to_the_last_bit(mode):
    image = noise((120, 90)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    file = io.BytesIO()
    image.save(file, "JPEG" if mode == "CMYK" else "PNG")
    decoded = decode_image(file.getvalue())
    expected = timm_transform(SETTINGS[0])(decoded).numpy()
    assert Preprocessor(SETTINGS[0])(decoded).tobytes() == expected.tobytes()


@pytest.mark.parametrize("settings", [{"crop_mode": "border"}, {"input_size": [1, 64, 64]}, {"interpolation": "magic"}])
def test_settings_it_does_not_know_are_refused_and_not_guessed(settings):
    with pytest.raises(SmileModelError):
        Preprocessor(settings)


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[3]])
@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_thread_of_pixels_is_refused_before_it_fills_the_memory(settings, size):
    with pytest.raises(SmileDataError, match=rf"{size[0]} x {size[1]} pixels are too long and thin.*50,000,000"):
        Preprocessor(settings)(Image.new("RGB", size))


def test_the_limit_is_on_the_size_before_the_crop(monkeypatch):
    preprocessor = Preprocessor(SETTINGS[0])
    monkeypatch.setattr(preprocessing, "MAX_PIXELS", 160 * 320)
    assert preprocessor(Image.new("RGB", (1000, 2000))).shape == (3, 160, 160)
    with pytest.raises(SmileDataError, match="160 x 321"):
        preprocessor(Image.new("RGB", (10, 20)).resize((1000, 2010)))


def test_it_needs_no_torch():
    code = "import sys, hf_smile.data.preprocessing; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_picture_comes_back_from_the_pixel_values():
    image = noise((160, 160))
    preprocessor = Preprocessor(SETTINGS[0])
    assert np.array_equal(preprocessor.visible(preprocessor(image)), image)
