"""A run remembers what it was split into, and nothing is measured on what it was trained on."""

import datasets
import pytest

from hf_smile.data.record import SPLITS_FILE, read_splits, require_held_out, run_data, write_splits
from hf_smile.errors import SmileDataError

SPLITS = datasets.DatasetDict(
    {
        split: datasets.Dataset.from_dict({"image_id": [f"{split}/{n}, {n}.jpg" for n in range(9)]})
        for split in ("train", "validation", "test")
    }
)
TRAIN, TEST = SPLITS["train"]["image_id"][:], SPLITS["test"]["image_id"][:]


@pytest.fixture
def run(tmp_path):
    write_splits(tmp_path, SPLITS)
    return tmp_path


def test_what_is_held_out_is_known_by_its_id(run):
    assert len(read_splits(run)) == 27
    require_held_out(run, "test", SPLITS["test"]["image_id"])
    require_held_out(run, "validation", SPLITS["validation"]["image_id"])
    require_held_out(run, "train", SPLITS["train"]["image_id"])


@pytest.mark.parametrize(
    ("split", "ids", "message"),
    [
        (
            "test",
            [*SPLITS["test"]["image_id"][:1], *SPLITS["train"]["image_id"][:8]],
            "8 of these 9 images were trained on",
        ),
        ("validation", TRAIN[:2], "2 of these 2 images were trained on"),
        ("test", SPLITS["validation"]["image_id"][:3], "3 of these 3 images chose the checkpoint"),
        ("test", ["new", *TEST], r"1 of these 10 images are not in .*splits\.csv, .* --held_out"),
    ],
)
def test_what_is_not_is_refused_with_the_reason(run, split, ids, message):
    with pytest.raises(SmileDataError, match=message):
        require_held_out(run, split, ids)


def test_the_user_can_vouch_for_what_the_run_does_not_know_and_for_nothing_else(run, tmp_path):
    require_held_out(run, "test", ["new"], vouched_for=True)
    require_held_out(tmp_path / "foreign", "test", ["new"], vouched_for=True)
    with pytest.raises(SmileDataError, match="has no record of what it was trained on"):
        require_held_out(tmp_path / "foreign", "test", ["new"])
    with pytest.raises(SmileDataError, match="were trained on"):
        require_held_out(run, "test", SPLITS["train"]["image_id"], vouched_for=True)


def test_a_run_goes_on_with_the_same_images_or_not_at_all(run):
    before = (run / SPLITS_FILE).read_bytes()
    write_splits(run, SPLITS)
    assert (run / SPLITS_FILE).read_bytes() == before
    moved = datasets.DatasetDict(train=SPLITS["test"], validation=SPLITS["validation"], test=SPLITS["train"])
    with pytest.raises(SmileDataError, match="18 images are not where they were when the run began"):
        write_splits(run, moved)


@pytest.mark.parametrize("content", ["", "a,b\n", "image_id,split\na\n", "image_id,split\na,b,c\n"])
def test_a_damaged_record_is_said(run, content):
    (run / SPLITS_FILE).write_text(content)
    with pytest.raises(SmileDataError, match="damaged"):
        read_splits(run)


def test_the_settings_of_the_run_are_taken_and_the_users_win(run):
    (run / "recipe.yaml").write_text(
        "data_dir: data/faces\nseed: 7\ntest_size: 0.3\nlearning_rate: 1\nlabel_map: a=NOT smile\n"
    )
    data, seed = run_data(run, {})
    assert (data.data_dir, data.test_size, data.validation_size, data.label_map, seed) == (
        "data/faces",
        0.3,
        0.1,
        "a=NOT smile",
        7,
    )
    data, seed = run_data(run, {"data_dir": "elsewhere", "seed": 8})
    assert (data.data_dir, data.test_size, seed) == ("elsewhere", 0.3, 8)
    assert run_data("me/smile", {})[0].data_dir == "data/happy_images"
