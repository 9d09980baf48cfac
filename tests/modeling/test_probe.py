import numpy as np
import pytest

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.errors import SmileDataError
from hf_smile.modeling.probe import describe_backbone, probe, split_rows


def test_the_split_of_a_seed_is_that_of_training(sample_dir):
    train = load_smile_dataset(sample_dir, validation_size=0)["train"]
    kept, held_out = split_rows(train, 0.25, seed=3)
    as_training = load_smile_dataset(sample_dir, 0.25, seed=3)
    assert [train[int(row)]["image_id"] for row in kept] == list(as_training["train"]["image_id"])
    assert [train[int(row)]["image_id"] for row in held_out] == list(as_training["validation"]["image_id"])
    assert set(split_rows(train, 0.25, seed=4)[1]) != set(held_out)


def test_a_probe_tells_classes_apart_that_lie_apart():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 300)
    features = np.float32(10 * np.eye(5)[labels] + draw.normal(size=(300, 5)) + 100)
    found, again = probe(features[:200], labels[:200], features[200:], labels[200:], features[200:])
    assert found.shape == (100, 3) and np.allclose(found.sum(axis=1), 1, atol=1e-12)
    assert (found.argmax(axis=1) == labels[200:]).all() and (found == again).all()


def test_a_class_that_train_lacks_gets_no_probability():
    draw = np.random.default_rng(0)
    labels = draw.choice([0, 2], 60)
    found, *_ = probe(draw.normal(size=(60, 4)), labels, draw.normal(size=(10, 4)), labels[:10])
    assert (found[:, 1] == 0).all() and np.allclose(found.sum(axis=1), 1)


def test_a_probe_of_one_class_is_refused():
    with pytest.raises(SmileDataError, match="two classes"):
        probe(np.ones((3, 2)), np.zeros(3, int), np.ones((1, 2)), np.zeros(1, int))


def test_size_and_speed_of_a_backbone():
    found = describe_backbone("test_resnet", pretrained=False, image_size=64)
    assert 300_000 < found.parameters < 500_000 and found.image_size == 64 and found.images_per_second > 0
