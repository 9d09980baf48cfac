"""What the model is given to see."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from hf_smile.data.transforms import (
    AugmentationArguments,
    BatchTransform,
    collate,
    evaluation_transform,
    training_transform,
)
from hf_smile.errors import SmileDataError
from hf_smile.modeling import build_model

OFF = AugmentationArguments(
    horizontal_flip=0, vertical_flip=0, rotation=0, shear=0, crop_scale=1, brightness=0, contrast=0
)
CONFIG = {"input_size": (3, 64, 64), "crop_pct": 1.0, "interpolation": "bicubic"}


@pytest.fixture
def face() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(80, 80), (55, 55), (120, 90), (64, 64)])
def test_evaluation_is_the_image_processor_of_the_checkpoint_to_the_last_digit(tmp_path, size):
    from transformers import AutoImageProcessor

    model = build_model("test_resnet", pretrained=False, image_size=96)
    model.save_pretrained(tmp_path)
    face = Image.fromarray(np.random.default_rng(1).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    expected = AutoImageProcessor.from_pretrained(tmp_path)(face, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(evaluation_transform(model.config.pretrained_cfg)(face), expected)


def test_without_augmentation_training_sees_what_evaluation_sees(face):
    difference = training_transform(CONFIG, OFF)(face) - evaluation_transform(CONFIG)(face)
    assert difference.abs().max() < 1e-5


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
    transform = training_transform(CONFIG, dataclasses.replace(OFF, **{setting: value}))
    torch.manual_seed(0)
    changed = transform(face)
    assert changed.shape == (3, 64, 64)
    assert (changed - evaluation_transform(CONFIG)(face)).abs().mean() > 0.01


def test_flips_flip(face):
    plain = evaluation_transform(CONFIG)(face)
    flipped = training_transform(CONFIG, dataclasses.replace(OFF, horizontal_flip=1.0))(face)
    assert torch.allclose(flipped, plain.flip(2), atol=0.05)


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


def test_training_pictures_are_those_of_torchvision_s_compose_to_the_last_digit(face):
    augmentation = AugmentationArguments(vertical_flip=0.5, shear=5, random_erasing=0.5)
    config = CONFIG | {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    ours = training_transform(config, augmentation)
    as_tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(config["mean"], config["std"])]
    plain = v2.Compose([*ours.steps, *as_tensor, v2.RandomErasing(0.5)])
    for seed in range(20):
        torch.manual_seed(seed)
        expected = plain(face)
        torch.manual_seed(seed)
        assert torch.equal(ours(face), expected)


def rows(*image_ids: str) -> dict[str, list]:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(buffer, "PNG")
    return {
        "image": [{"bytes": buffer.getvalue()}] * len(image_ids),
        "image_id": list(image_ids),
        "label": [1] * len(image_ids),
    }


def test_draws_depend_on_seed_epoch_and_image_alone():
    transform = BatchTransform(training_transform(CONFIG, AugmentationArguments()), seed=1)
    together = transform(rows("a", "b"))["pixel_values"]
    torch.rand(10)
    assert torch.equal(transform(rows("b"))["pixel_values"][0], together[1])
    assert not torch.equal(together[0], together[1])
    transform.set_epoch(1)
    assert not torch.equal(transform(rows("b"))["pixel_values"][0], together[1])
    transform.set_epoch(0)
    assert torch.equal(transform(rows("b"))["pixel_values"][0], together[1])


def test_an_image_that_comes_again_in_an_epoch_is_drawn_anew():
    transform = BatchTransform(training_transform(CONFIG, AugmentationArguments()), seed=1)
    once, first, second = (
        *transform(rows("a"))["pixel_values"],
        *transform(rows("a", "a") | {"repeat": [0, 1]})["pixel_values"],
    )
    assert torch.equal(first, once)
    assert not torch.equal(second, once)


def test_threads_do_not_change_the_pictures():
    transform = BatchTransform(training_transform(CONFIG, AugmentationArguments()), seed=1)
    before = torch.get_num_threads()
    pictures = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        try:
            pictures.append(torch.stack(transform(rows(*"abcdefgh"))["pixel_values"]))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*pictures)


def test_draws_leave_torch_s_own_generator_alone():
    transform = BatchTransform(training_transform(CONFIG, AugmentationArguments()), seed=1)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    transform(rows("a"))
    assert torch.equal(torch.rand(3), expected)


def test_an_image_that_will_not_decode_is_named():
    with pytest.raises(SmileDataError, match="image 'a': the file is empty"):
        BatchTransform(evaluation_transform(CONFIG))({"image": [{"bytes": b""}], "image_id": ["a"], "label": [0]})


def test_an_image_that_can_t_be_read_is_named_with_its_path(tmp_path):
    gone = {"image": [{"bytes": None, "path": str(tmp_path / "a.jpg")}], "image_id": ["a"], "label": [0]}
    with pytest.raises(SmileDataError, match=rf"image 'a' \({tmp_path}/a\.jpg\): can't be read"):
        BatchTransform(evaluation_transform(CONFIG))(gone)


def test_collate_makes_a_batch():
    batch = collate([{"pixel_values": torch.zeros(3, 8, 8), "labels": 2, "image_ids": "a"}] * 4)
    assert batch["pixel_values"].shape == (4, 3, 8, 8)
    assert batch["labels"].tolist() == [2, 2, 2, 2]
    assert batch["image_ids"] == ["a", "a", "a", "a"]
