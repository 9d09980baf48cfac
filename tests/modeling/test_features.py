"""Pooled features equal those of the backbone, and are computed once."""

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from hf_smile.data.images import decode_image
from hf_smile.data.transforms import evaluation_transform
from hf_smile.errors import SmileDataError
from hf_smile.modeling import features as module
from hf_smile.modeling.features import pooled_features


def save_backbone(folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    timm.models.save_for_hf(timm.create_model("test_resnet", pretrained=False), folder, safe_serialization=True)
    return str(folder)


@pytest.fixture
def backbone(tmp_path) -> str:
    return save_backbone(tmp_path / "backbone", seed=0)


@pytest.fixture
def images() -> list[bytes]:
    draw = np.random.default_rng(0)
    files = []
    for _ in range(7):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files


@pytest.fixture
def decoded(monkeypatch) -> list[bytes]:
    """The images that were decoded so far."""
    seen: list[bytes] = []
    monkeypatch.setattr(module, "decode_image", lambda data: seen.append(data) or decode_image(data))
    return seen


def test_they_are_the_backbones_own(backbone, images):
    found = pooled_features(iter(images), backbone, batch_size=3)
    model = timm.create_model(f"local-dir:{backbone}", pretrained=True, num_classes=0).eval()
    transform = evaluation_transform(model.pretrained_cfg | {"crop_pct": 1.0})
    with torch.no_grad():
        expected = model(torch.stack([transform(decode_image(data)) for data in images])).numpy()
    assert found.dtype == np.float32 and found.shape == (7, model.num_features)
    assert np.allclose(found, expected, atol=1e-4)


def test_the_cache_is_used_until_an_image_or_the_backbone_changes(backbone, images, decoded, tmp_path):
    cache = tmp_path / "cache"
    first = pooled_features(images, backbone, cache_dir=cache)
    assert len(decoded) == 7 and len(list(cache.glob("*.npy"))) == 1
    again = pooled_features([images[6], *images[:6]], backbone, cache_dir=cache)
    assert len(decoded) == 7 and np.array_equal(again, first[[6, *range(6)]])

    changed = [*images[:2], images[0][:-12] + images[0][-12:] + b"\0", *images[3:]]
    third = pooled_features(changed, backbone, cache_dir=cache)
    assert len(decoded) == 8 and np.array_equal(third[3:], first[3:])

    other = save_backbone(tmp_path / "other", seed=1)
    assert not np.allclose(pooled_features(images, other, cache_dir=cache), first)
    assert len(decoded) == 15


def test_a_broken_cache_is_as_good_as_none(backbone, images, tmp_path):
    first = pooled_features(images, backbone, cache_dir=tmp_path)
    (file,) = tmp_path.glob("features-*.npy")
    file.write_bytes(file.read_bytes()[:-100])
    assert np.array_equal(pooled_features(images, backbone, cache_dir=tmp_path), first)


def test_what_was_computed_before_a_mistake_is_kept(backbone, images, decoded, tmp_path):
    with pytest.raises(SmileDataError):
        pooled_features([*images, b"no image"], backbone, batch_size=1, cache_dir=tmp_path)
    pooled_features(images, backbone, cache_dir=tmp_path)
    assert len(decoded) == 8


def test_no_images_no_features(backbone):
    assert pooled_features([], backbone).shape[0] == 0


def test_equal_weights_connected_otherwise_are_another_backbone(images, tmp_path):
    found = []
    for padding in ("same", "valid"):
        torch.manual_seed(0)
        network = timm.create_model("test_efficientnet", pad_type=padding)
        timm.models.save_for_hf(network, tmp_path / padding, safe_serialization=True)
        found.append(pooled_features(images, str(tmp_path / padding), cache_dir=tmp_path / "cache"))
    assert not np.allclose(*found, atol=1e-6)
