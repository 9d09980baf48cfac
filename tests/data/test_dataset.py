"""Loading data from every source, and the errors for invalid data."""

import csv
import io
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import datasets
import pytest
from PIL import Image

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.data.prepare import export_imagefolder, save_prepared
from hf_smile.errors import SmileDataError
from hf_smile.labels import LABEL_NAMES


def jpeg(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def write_data(tmp_path):
    """Write a small data set, with other CSV contents or images if given; None omits an image."""

    def write(train: str | None = None, test: str | None = None, images: dict[str, bytes] | None = None) -> Path:
        rows = [(f"{label}{i}", name) for label, name in enumerate(LABEL_NAMES) for i in range(4)]
        if train is None:
            train = "".join(f"{image_id},{name}\n" for image_id, name in rows)
        (tmp_path / "train.csv").write_text(train)
        (tmp_path / "test.csv").write_text("t0,NOT smile\nt1,0\n" if test is None else test)
        files = {f"{image_id}.jpg": jpeg() for image_id, _ in [*rows, ("t0", ""), ("t1", "")]} | (images or {})
        with zipfile.ZipFile(tmp_path / "happy_images.zip", "w") as archive:
            for name, data in files.items():
                if data is not None:
                    archive.writestr(f"happy_images/{name}", data)
        return tmp_path

    return write


def ids(splits: datasets.DatasetDict) -> dict[str, set[str]]:
    return {split: set(dataset["image_id"]) for split, dataset in splits.items()}


def test_two_csvs_and_a_zip_become_three_splits(sample_dir):
    splits = load_smile_dataset(sample_dir, validation_size=0.25)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 72, "validation": 24, "test": 32}
    assert splits["train"].features["label"].names == list(LABEL_NAMES)
    assert isinstance(splits["train"].features["image"], datasets.Image)
    found = ids(splits)
    assert not found["train"] & found["validation"]
    with (sample_dir / "train.csv").open() as file:
        annotated = dict(csv.reader(file))
    assert found["train"] | found["validation"] == set(annotated)
    for row in splits["train"].select(range(10)):
        assert LABEL_NAMES[row["label"]] == annotated[row["image_id"]]


def test_validation_is_stratified_and_depends_on_the_seed_alone(sample_dir):
    one, same, other = (load_smile_dataset(sample_dir, 0.25, seed) for seed in (1, 1, 2))
    assert ids(one) == ids(same)
    assert ids(one)["validation"] != ids(other)["validation"]
    train, validation = Counter(one["train"]["label"]), Counter(one["validation"]["label"])
    for label_id in range(3):
        assert abs(validation[label_id] / 24 - train[label_id] / 72) < 0.05


def test_images_keep_their_encoded_bytes(sample_dir):
    dataset = load_smile_dataset(sample_dir)["test"].cast_column("image", datasets.Image(decode=False))
    with zipfile.ZipFile(sample_dir / "happy_images.zip") as archive:
        for row in dataset.select(range(5)):
            assert row["image"]["bytes"] == archive.read(f"happy_images/{row['image_id']}.jpg")


def test_folder_zip_and_image_folder_give_the_same_data(sample_dir, tmp_path):
    expected = load_smile_dataset(sample_dir)
    unzipped = tmp_path / "unzipped"
    shutil.copytree(sample_dir, unzipped, ignore=shutil.ignore_patterns("*.zip"))
    with zipfile.ZipFile(sample_dir / "happy_images.zip") as archive:
        archive.extractall(unzipped)
    export_imagefolder(expected, tmp_path / "sorted")
    for folder in (unzipped, tmp_path / "sorted"):
        found = load_smile_dataset(folder)
        labels = dict(zip(expected["test"]["image_id"], expected["test"]["label"], strict=True))
        found_ids = [Path(image_id).stem for image_id in found["test"]["image_id"]]  # in class folders, an id is a path
        assert dict(zip(found_ids, found["test"]["label"], strict=True)) == labels
        assert len(found["train"]) == len(expected["train"])


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_files_of_an_image_folder_may_share_their_names(tmp_path, name):
    for split in ("train", name, "test"):
        for label_id, color in enumerate(("red", "green", "blue")):
            (tmp_path / split / str(label_id)).mkdir(parents=True)
            (tmp_path / split / str(label_id) / "001.jpg").write_bytes(jpeg(color))
    (tmp_path / "train" / "0" / "one_of_a_kind.png").write_bytes(jpeg())
    splits = load_smile_dataset(tmp_path)
    assert ids(splits) == {
        "train": {"train/0/001.jpg", "train/1/001.jpg", "train/2/001.jpg", "train/0/one_of_a_kind.png"},
        "validation": {f"{name}/0/001.jpg", f"{name}/1/001.jpg", f"{name}/2/001.jpg"},
        "test": {"test/0/001.jpg", "test/1/001.jpg", "test/2/001.jpg"},
    }
    row = splits["test"].filter(lambda image_id: image_id == "test/2/001.jpg", input_columns="image_id")[0]
    assert row["label"] == 2 and row["image"].getpixel((0, 0))[2] > 200
    save_prepared(splits, tmp_path / "prepared")
    assert ids(load_smile_dataset(tmp_path / "prepared")) == ids(splits)


def test_two_files_of_one_name_in_one_class_are_two_images(tmp_path):
    for name in ("train/0/a.jpg", "train/0/a.png", "train/1/b.jpg", "test/0/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg())
    assert ids(load_smile_dataset(tmp_path, 0))["train"] == {"train/0/a.jpg", "train/0/a.png", "train/1/b.jpg"}


def test_a_zip_without_images_is_told_once(write_data):
    folder = write_data()
    with zipfile.ZipFile(folder / "happy_images.zip", "w") as archive:
        pass
    with pytest.raises(SmileDataError) as caught:
        load_smile_dataset(folder)
    assert f"{folder / 'happy_images.zip'} contains no images (.jpg, .jpeg, .png, " in str(caught.value)
    with zipfile.ZipFile(folder / "happy_images.zip", "w") as archive:
        archive.writestr("again/faces.zip", b"")
    with pytest.raises(SmileDataError, match=r"contains no images, but another zip \(again/faces\.zip\)"):
        load_smile_dataset(folder)


def test_a_validation_split_by_another_name_is_used(sample_dir, tmp_path):
    splits = load_smile_dataset(sample_dir)
    validation = splits.pop("validation")
    datasets.DatasetDict(splits, valid=validation).save_to_disk(tmp_path / "theirs")
    assert ids(load_smile_dataset(tmp_path / "theirs"))["validation"] == set(validation["image_id"])


def test_a_prepared_folder_gives_back_the_same_splits(sample_dir, tmp_path, caplog):
    splits = load_smile_dataset(sample_dir, seed=3)
    for _ in range(2):  # the second replaces the first
        save_prepared(splits, tmp_path / "prepared")
    caplog.clear()
    assert ids(load_smile_dataset(tmp_path / "prepared", validation_size=0.3)) == ids(splits)
    assert "its own validation split (10 images); validation_size and seed" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared"]


def test_preparing_does_not_touch_folders_of_the_user(sample_dir, tmp_path):
    splits = load_smile_dataset(sample_dir)
    export_imagefolder(splits, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SmileDataError, match="choose another --output_dir"):
        save_prepared(splits, tmp_path)
    with pytest.raises(SmileDataError, match="already exists"):
        export_imagefolder(splits, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_further_columns_of_the_annotations_are_kept(write_data):
    rows = "".join(f"{label}{i},{name},P{i}\n" for label, name in enumerate(LABEL_NAMES) for i in range(4))
    folder = write_data(train="image_id,label,person\n" + rows, test="image_id,label,person\nt0,2,P7\nt1,0,P8\n")
    assert load_smile_dataset(folder, 0.25)["test"]["person"] == ["P7", "P8"]


def test_labels_of_a_ready_made_data_set_are_brought_to_ours(tmp_path):
    names = ["NOT smile", "negative smile", "positive smile"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [{"bytes": jpeg(), "path": None}] * 30, "label": [0, 1, 2] * 10}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "theirs")
    splits = load_smile_dataset(tmp_path / "theirs")
    assert splits["test"]["label"][:3] == [2, 0, 1]
    assert splits["test"].features["label"].names == list(LABEL_NAMES)
    assert splits["test"]["image_id"][0] == "test-0000000"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test": "t0,NOT smile\n00,0\n"}, r"test\.csv:2: id '00' is also in train\.csv:1; no image .* train and test"),
        ({"test": "t0,NOT smile\n00.jpg,0\n"}, r"test\.csv:2: the image of '00\.jpg' is also in train\.csv:1"),
        ({"train": "00,0\n10,1\n00,0\n"}, r"train\.csv:3: id '00' appears twice, first in train\.csv:1$"),
        (
            {"train": "00,0\n10,1\nhappy_images/00.jpg,1\n"},
            r"train\.csv:3: the image of 'happy_images/00\.jpg' .* train\.csv:1 with another label, 'negative smile'",
        ),
        ({"train": "00,happy\n01,sad\n"}, r"2 problems in .*\n  train\.csv:1: unknown label 'happy'"),
        ({"train": ""}, r"train\.csv: empty file"),
        ({"test": "t0,2\nnowhere,2\n"}, r"test\.csv:2: image 'nowhere': image missing in happy_images\.zip"),
        (
            {"images": {"t1.jpg": b"no image"}},
            r"test\.csv:2: image 't1': not a JPEG, PNG, WebP, BMP, GIF, AVIF or HEIC",
        ),
        ({"images": {"t1.jpg": jpeg()[:300]}}, r"test\.csv:2: image 't1': can't be decoded"),
        (
            {"images": {"t1.png": jpeg()}},
            r"image 't1': two files have this name: happy_images/t1\.jpg and happy_images/t1\.png",
        ),
        ({"train": "00,0\n01,0\n02,0\n"}, "train has only one class"),
        (
            {"train": "00,0\n10,1\n11,1\n20,2\n21,2\n"},
            "train has 1 image of 'negative smile', but at least 2 of each",
        ),
        (
            {"train": "a,0\nb,1\n", "test": "c,0\n"},
            r"none of the 3 annotated images .* have 'a' and the images are named like 'happy_images/00\.jpg'",
        ),
    ],
)
def test_every_problem_is_told_with_its_place(write_data, data, message):
    with pytest.raises(SmileDataError, match=message):
        load_smile_dataset(write_data(**data), 0.25)


def test_bad_images_can_be_left_out_and_are_listed(write_data, tmp_path, caplog):
    folder = write_data(test="t0,2\nt1,0\n=nowhere,2\n", images={"00.jpg": b"broken", "01.jpg": None})
    bad_list = tmp_path / "lists" / "bad.csv"
    splits = load_smile_dataset(folder, 0.25, on_bad_image="skip", bad_image_list=bad_list)
    assert "Left out 3 of 15 images" in caplog.text
    assert ids(splits)["test"] == {"t0", "t1"}
    assert len(splits["train"]) + len(splits["validation"]) == 10
    with bad_list.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["where"], row["image_id"]) for row in rows] == [
        ("train.csv:1", "00"),
        ("train.csv:2", "01"),
        ("test.csv:3", "'=nowhere"),  # not a formula
    ]


def test_a_changed_image_is_not_served_from_the_cache(write_data):
    before = load_smile_dataset(write_data(), 0.25)["test"][0]["image"].getpixel((0, 0))
    after = load_smile_dataset(write_data(images={"t0.jpg": jpeg("blue")}), 0.25)["test"][0]["image"].getpixel((0, 0))
    assert before[0] > 200 and after[2] > 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no data set found|images but no labels"),
        (lambda folder: (folder / "train.csv").write_text("a,0\n"), "images are searched for in happy_images, images"),
        (lambda folder: (folder / "train" / "0").mkdir(parents=True), "no data set found|images but no labels"),
        (
            lambda folder: [(folder / s / "happy").mkdir(parents=True) for s in ("train", "test")],
            "no data set found|images but no labels",
        ),
    ],
)
def test_a_folder_without_data_is_told_what_it_should_hold(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(SmileDataError, match=message):
        load_smile_dataset(tmp_path)


def test_two_zips_are_not_guessed_between(write_data):
    folder = write_data()
    (folder / "happy_images.zip").rename(folder / "one.zip")
    shutil.copy(folder / "one.zip", folder / "two.zip")
    with pytest.raises(SmileDataError, match=r"the images are in .*one\.zip and in .*two\.zip; remove all but one"):
        load_smile_dataset(folder)


@pytest.mark.parametrize("data_dir", ["data/happy_images", "./no/such/folder", "nothing"])
def test_a_missing_folder_is_told_the_ways_on(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SmileDataError, match="no such folder") as caught:
        load_smile_dataset(data_dir)
    assert "--draw_sample" in str(caught.value)


@pytest.mark.parametrize("data_dir", ["data/prepard", "outputs/prepared", "my/faecs"])
def test_a_mistyped_folder_is_not_asked_of_the_hub(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    monkeypatch.setattr(datasets, "load_dataset", lambda name: pytest.fail("asked the Hub"))
    with pytest.raises(SmileDataError, match=rf"{data_dir}: no such folder \(and not looked for on the Hub"):
        load_smile_dataset(data_dir)


def test_a_hub_id_that_cannot_be_reached_is_said(monkeypatch):
    with pytest.raises(SmileDataError, match="could not be loaded from the Hub"):
        load_smile_dataset("nobody-here/no-such-data")


@pytest.mark.parametrize(
    ("size", "message"), [(0.1, "takes 2 of the 12 .* larger"), (0.9, "takes 11 of the 12 .* smaller")]
)
def test_a_split_without_room_for_every_class_names_the_way_on(write_data, size, message):
    with pytest.raises(SmileDataError, match=f"validation_size {size} {message} --validation_size") as caught:
        load_smile_dataset(write_data(), size)
    assert "test_size" not in str(caught.value)


@pytest.mark.parametrize("size", [1, -0.1, 5])
def test_validation_size_is_a_share(sample_dir, size):
    with pytest.raises(SmileDataError, match="must lie between 0 and 1"):
        load_smile_dataset(sample_dir, validation_size=size)


def test_without_a_validation_split_train_keeps_its_images(sample_dir):
    splits = load_smile_dataset(sample_dir, validation_size=0)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 96, "test": 32}


def test_the_real_data_set_loads_whole(real_data):
    splits = load_smile_dataset(real_data)
    assert Counter(splits["test"]["label"]) == {2: 1128, 1: 340, 0: 143}
    assert len(splits["train"]) + len(splits["validation"]) == 4831


@pytest.fixture
def make_prepared(tmp_path):
    """A saved data set with 30 images each in train and test, with `columns` replaced."""

    def make(names: list[str] | None = None, **columns: list) -> Path:
        splits = {}
        for split in ("train", "test"):
            rows = {"image": [{"bytes": jpeg(), "path": None}] * 30, "label": [0, 1, 2] * 10}
            rows["image_id"] = [f"{split}{row}" for row in range(30)]
            label = datasets.ClassLabel(names=names or list(LABEL_NAMES))
            features = datasets.Features(image=datasets.Image(), label=label, image_id=datasets.Value("string"))
            splits[split] = datasets.Dataset.from_dict(rows | columns, features=features)
        datasets.DatasetDict(splits).save_to_disk(tmp_path / "theirs")
        return tmp_path / "theirs"

    return make


@pytest.mark.parametrize("names", [None, ["NOT smile", "negative smile", "positive smile"]])
def test_images_without_a_label_are_no_class_of_their_own(make_prepared, names):
    with pytest.raises(SmileDataError, match=r"train, row 0: an image without a label"):
        load_smile_dataset(make_prepared(names, label=[-1, 0, 1] * 10))


@pytest.mark.parametrize(
    ("image_id", "message"),
    [("a\0b", "can't be the name of a file"), ("0", r"test, row 0: id '0' is also in train, row 0")],
)
def test_ids_of_ready_made_data_are_checked(make_prepared, image_id, message):
    ids = [f"{row}" for row in range(29)]
    with pytest.raises(SmileDataError, match=message):
        load_smile_dataset(make_prepared(image_id=[*ids, image_id]))


def test_a_damaged_prepared_folder_is_said(make_prepared):
    folder = make_prepared()
    shutil.rmtree(folder / "test")
    with pytest.raises(SmileDataError, match="is damaged"):
        load_smile_dataset(folder)


def test_a_data_set_on_the_hub_in_image_folders_can_be_trained_on(sample_dir, tmp_path, monkeypatch):
    from hf_smile.data.transforms import BatchTransform, evaluation_transform

    export_imagefolder(load_smile_dataset(sample_dir), tmp_path / "sorted")
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "sorted"))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: theirs)
    splits = load_smile_dataset("somebody/faces").cast_column("image", datasets.Image(decode=False))
    rows = splits["test"].with_transform(BatchTransform(evaluation_transform({"input_size": (3, 64, 64)})))
    assert rows[0]["pixel_values"].shape == (3, 64, 64)
    export_imagefolder(splits, tmp_path / "again")
    assert len(list((tmp_path / "again").rglob("*.jpg"))) == 128


def test_the_folder_of_the_collected_data_is_not_prepared_into(write_data):
    folder = write_data()
    with pytest.raises(SmileDataError, match="contains the original data"):
        save_prepared(load_smile_dataset(folder, 0.25), folder)


def test_what_to_do_with_bad_images_is_one_of_two(sample_dir):
    with pytest.raises(SmileDataError, match="must be 'error' or 'skip'"):
        load_smile_dataset(sample_dir, on_bad_image="ignore")


def test_a_full_disk_under_the_cache_is_said(sample_dir, tmp_path, monkeypatch):
    def write(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.arrow_writer.ArrowWriter, "write", write)
    with pytest.raises(SmileDataError, match=r"cache: the images can't be cached there .*No space.*HF_HOME"):
        load_smile_dataset(sample_dir)
