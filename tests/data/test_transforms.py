"""Image transforms for training and evaluation."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from hf_smile.data.arguments import AugmentationArguments
from hf_smile.data.augmentation import TrainingTransform
from hf_smile.data.transforms import BatchTransform, collate, evaluation_transform
from hf_smile.errors import SmileDataError
from hf_smile.modeling import build_model

CONFIG = {"input_size": (3, 64, 64), "crop_pct": 1.0, "interpolation": "bicubic"}


@pytest.mark.parametrize("size", [(80, 80), (55, 55), (120, 90), (64, 64)])
def test_evaluation_is_the_image_processor_of_the_checkpoint_to_the_last_digit(tmp_path, size):
    from transformers import AutoImageProcessor

    model = build_model("test_resnet", pretrained=False, image_size=96)
    model.save_pretrained(tmp_path)
    face = Image.fromarray(np.random.default_rng(1).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    expected = AutoImageProcessor.from_pretrained(tmp_path)(face, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(evaluation_transform(model.config.pretrained_cfg)(face), expected)


def rows(*image_ids: str) -> dict[str, list]:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(buffer, "PNG")
    return {
        "image": [{"bytes": buffer.getvalue()}] * len(image_ids),
        "image_id": list(image_ids),
        "label": [1] * len(image_ids),
    }


def test_draws_depend_on_seed_epoch_and_image_alone():
    transform = BatchTransform(TrainingTransform(CONFIG, AugmentationArguments()), seed=1)
    together = transform(rows("a", "b"))["pixel_values"]
    torch.rand(10)
    assert torch.equal(transform(rows("b"))["pixel_values"][0], together[1])
    assert not torch.equal(together[0], together[1])
    transform.set_epoch(1)
    assert not torch.equal(transform(rows("b"))["pixel_values"][0], together[1])
    transform.set_epoch(0)
    assert torch.equal(transform(rows("b"))["pixel_values"][0], together[1])


def test_an_image_that_comes_again_in_an_epoch_is_drawn_again():
    transform = BatchTransform(TrainingTransform(CONFIG, AugmentationArguments()), seed=1)
    once, first, second = (
        *transform(rows("a"))["pixel_values"],
        *transform(rows("a", "a") | {"repeat": [0, 1]})["pixel_values"],
    )
    assert torch.equal(first, once)
    assert not torch.equal(second, once)


def test_threads_do_not_change_the_pictures():
    transform = BatchTransform(TrainingTransform(CONFIG, AugmentationArguments()), seed=1)
    before = torch.get_num_threads()
    pictures = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        try:
            pictures.append(torch.stack(transform(rows(*"abcdefgh"))["pixel_values"]))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*pictures)


def test_an_image_that_will_not_decode_is_named():
    with pytest.raises(SmileDataError, match="image 'a': the file is empty"):
        BatchTransform(evaluation_transform(CONFIG))({"image": [{"bytes": b""}], "image_id": ["a"], "label": [0]})


def test_an_image_that_can_t_be_read_is_named_with_its_path(tmp_path):
    gone = {"image": [{"bytes": None, "path": str(tmp_path / "a.jpg")}], "image_id": ["a"], "label": [0]}
    with pytest.raises(SmileDataError, match=rf"image 'a' \({tmp_path}/a\.jpg\): can't be read"):
        BatchTransform(evaluation_transform(CONFIG))(gone)


def test_collate_makes_a_batch():
    pixel_values = torch.rand(3, 8, 9)
    batch = collate([{"pixel_values": pixel_values, "labels": 2, "image_ids": "a"}] * 4)
    assert torch.equal(batch["pixel_values"], pixel_values.expand(4, 3, 8, 9))
    assert batch["pixel_values"].is_contiguous(memory_format=torch.channels_last)
    assert batch["labels"].tolist() == [2, 2, 2, 2]
    assert batch["image_ids"] == ["a", "a", "a", "a"]
