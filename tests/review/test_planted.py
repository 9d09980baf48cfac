"""Labels that were changed on purpose come first, and a model's opinion equals its predictions."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from hf_smile.audit.report import write_report
from hf_smile.audit.run import run_audit
from hf_smile.audit.scan import scan_images
from hf_smile.data.arguments import DataArguments
from hf_smile.data.dataset import load_smile_dataset, read_tables
from hf_smile.data.images import decode_image
from hf_smile.data.sample import draw_sample_dataset
from hf_smile.errors import SmileModelError
from hf_smile.labels import LabelSet
from hf_smile.modeling import load_model, predict_probabilities
from hf_smile.review.opinions import ask_model, read_audit
from hf_smile.review.queue import make_queue

FLIPPED, LOOKED_AT = 0.10, 0.15


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return draw_sample_dataset(tmp_path_factory.mktemp("data"), train_size=240, test_size=60, size=64, seed=5)


def test_changed_labels_are_among_the_first_pictures_of_an_audit(data, tmp_path):
    tables, images = read_tables(DataArguments(str(data)))
    train, draw = tables["train"], np.random.default_rng(0)
    rows = draw.choice(len(train), round(FLIPPED * 300), replace=False)
    labels = train["label"].to_numpy(copy=True)
    labels[rows] = (labels[rows] + draw.integers(1, 3, len(rows))) % 3
    tables["train"] = train.assign(label=labels)

    edges = cv2.HOGDescriptor((64, 64), (16, 16), (8, 8), (8, 8), 9)  # distinguishes drawn faces without a network
    scan = scan_images(tables, images)
    grey = (np.asarray(decode_image(images.read(file)).convert("L")) for file in scan.table["file"])
    audit = run_audit(scan, np.stack([edges.compute(face).ravel() for face in grey]))
    write_report(audit, tables, images, tmp_path)

    opinions, likeness = read_audit(tmp_path, tables.labels)
    queue = make_queue(tables, opinions, likeness)
    first = {entry.image_id for entry in queue[: round(LOOKED_AT * len(queue))]}
    assert len(first & {*train["image_id"].iloc[rows]}) >= 0.8 * len(rows)
    assert len(queue) == 300 and all(len(entry.neighbours) == 5 for entry in queue)
    assert all(entry.image_id not in dict(entry.neighbours) for entry in queue)
    assert suspicious(tmp_path) <= {entry.image_id for entry in queue if entry.reason}


def suspicious(folder: Path) -> set[str]:
    lines = (folder / "suspicious_labels.csv").read_text().splitlines()[1:]
    return {line.partition(",")[0] for line in lines}


def test_a_model_says_what_it_predicts(demo_model, data, tmp_path):
    tables, images = read_tables(DataArguments(str(data)))
    opinion, neighbours = ask_model(str(demo_model), tables, images, tables.labels, tmp_path)
    split = load_smile_dataset(data)["test"]
    rows = [opinion.image_ids.index(image_id) for image_id in split["image_id"]]
    predicted = predict_probabilities(load_model(str(demo_model)), split)
    np.testing.assert_allclose(opinion.probabilities[rows], predicted, atol=1e-5)
    assert len(neighbours) == 5 * 300 and (neighbours["image_id"] != neighbours["neighbour"]).all()


def test_a_model_with_other_labels_is_refused(demo_model, data, tmp_path):
    tables, images = read_tables(DataArguments(str(data)))
    with pytest.raises(SmileModelError, match="the data have a, b"):
        ask_model(str(demo_model), tables, images, LabelSet.of(["a", "b"]), tmp_path)
