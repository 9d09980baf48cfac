"""For any folders, names and ids, a row is matched to the file that it names, or reported with its line."""

import csv
import io
import json
import re
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_smile.data import annotations
from hf_smile.data.arguments import DataArguments
from hf_smile.data.dataset import load_smile_dataset, read_tables
from hf_smile.data.layouts import collect, read_layout, refuse_data_folder
from hf_smile.data.rows import RowSource
from hf_smile.errors import Problems, SmileDataError

SUFFIXES = (".jpg", ".JPG", ".png", ".jpeg")


@st.composite
def data(draw):
    """Files, rows that name them correctly or not, whether they are zipped, and whether rows have ids."""
    folder = st.sampled_from(["", "", "person0/", "person1/", "backup/person0/", "images/", "é/", "0/"])
    stem = st.sampled_from(["000", "001", "é", "a.b", "0", "x y"])
    path = st.builds(lambda *parts: "".join(parts), folder, stem, st.sampled_from(SUFFIXES))
    files = draw(st.lists(path, min_size=1, max_size=8, unique=True))
    foreign = st.builds(
        lambda *parts: "".join(parts),
        st.sampled_from(["elsewhere/", "../", "/", "C:/", "son0/", "", "images/", "./"]),
        stem,
        st.sampled_from(["", *SUFFIXES]),
    )

    def shortened(name: str, cut: int, bare: bool) -> str:
        text = "/".join(name.split("/")[cut:]) or name
        return text.rpartition(".")[0] if bare else text

    own = st.builds(shortened, st.sampled_from(files), st.integers(0, 2), st.booleans())
    rows = draw(st.lists(st.one_of(own, own, foreign), min_size=1, max_size=8, unique=True))
    return files, rows, draw(st.booleans()), draw(st.booleans())


def split_suffix(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if f".{suffix.lower()}" in (".jpg", ".jpeg", ".png") else (name, "")


def files_named(text: str, files: list[str]) -> list[str]:
    """Reference implementation: the files that `text` names by a full path, or otherwise by the end of a path."""
    if ".." in text.split("/") or text.startswith("/") or ":" in text:
        return []
    text = text.removeprefix("./")
    stem, suffix = split_suffix(text)
    fitting = [
        name
        for name in files
        if f"/images/{split_suffix(name)[0]}".endswith(f"/{stem}")
        and suffix.lower() in ("", split_suffix(name)[1].lower())
    ]
    shared = files[0].split("/")[:-1]
    for name in files:
        shared = [a for a, b in zip(shared, name.split("/")[:-1], strict=False) if a == b]
    wrapper = "".join(f"{folder}/" for folder in shared)
    sides = (text, text.removeprefix("images/"), wrapper + text)
    if whole := [name for name in fitting if name in sides]:
        return whole
    if "/" in text or suffix:
        sides = tuple(split_suffix(side)[0] for side in sides)
        if whole := [name for name in fitting if split_suffix(name)[0] in sides]:
            return whole
    return [] if "/" in text else fitting


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data())
def test_a_row_is_bound_to_the_file_that_it_names(case):
    files, rows, packed, with_ids = case
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "DATA")
        folder.mkdir()
        if packed:
            with zipfile.ZipFile(folder / "images.zip", "w") as archive:
                for name in files:
                    archive.writestr(name, name.encode())
        else:
            for name in files:
                (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "images" / name).write_bytes(name.encode())
        with (folder / "train.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["id", "file", "label"]] * with_ids)
            numbered = enumerate(rows)
            csv.writer(file).writerows([[f"id{n}", text, n % 3] if with_ids else [text, n % 3] for n, text in numbered])
        problems = Problems()
        layout = read_layout(folder, problems)
        tables = collect(layout, problems)
        read = {
            row.image_id: layout.images.read(row.file)
            for t in tables.values()
            for row in t.itertuples()
            if not row.problem
        }

    accepted, first = {}, {}
    for number, text in enumerate(rows):
        named = files_named(text, files)
        if len(named) == 1:
            accepted[number] = named[0]
            earlier = first.setdefault(named[0], number)
            line = f"train.csv:{number + 1 + with_ids}: the image of"
            assert any(problem.startswith(line) for problem in problems) == (earlier != number)
    if not accepted:
        assert "none of the" in problems[-1]
        return
    for number, row in enumerate(tables["train"].itertuples()):
        assert (row.image_id, row.where) == (
            f"id{number}" if with_ids else rows[number],
            f"train.csv:{number + 1 + with_ids}",
        )
        assert row.label == number % 3
        assert (row.problem == "") == (number in accepted), row.problem
        if number in accepted:
            assert read[row.image_id] == accepted[number].encode()
        else:
            assert re.search("image missing|two files have this name|leaves the folder", row.problem)


def png(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def write(tmp_path):
    def write(files: dict[str, bytes | str]) -> Path:
        for name, content in files.items():
            path = tmp_path / "DATA" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "DATA"

    return write


def test_the_bytes_that_reach_the_model_are_those_of_the_path(write):
    colors = ["red", "green", "blue", "black", "white", "gray", "navy", "olive", "teal"]
    files = {f"person{number}/000.png": png(color) for number, color in enumerate(colors)}
    csv_file = "".join(f"person{number}/000.png,{number % 3}\n" for number in range(9))
    splits = load_smile_dataset(write({**files, "train.csv": csv_file}), 0, test_size=0.34)
    seen = {}
    for split in splits.values():
        for row in split:
            seen[row["image_id"]] = row["image"].getpixel((0, 0))
    assert seen == {name: Image.open(io.BytesIO(data)).getpixel((0, 0)) for name, data in files.items()}


def test_a_folder_that_is_not_there_is_not_found_elsewhere(write):
    rows = "".join(f"person0/{number:03}.png,{number % 3}\n" for number in range(6))
    files = {f"person0/{number:03}.png": png("red") for number in range(6)}
    folder = write({**files, "train.csv": rows + "elsewhere/000.png,0\n"})
    with pytest.raises(SmileDataError, match=r"train\.csv:7: image 'elsewhere/000\.png': image missing"):
        load_smile_dataset(folder, test_size=0.34)


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "link.png"])
def test_a_file_name_of_metadata_that_leaves_the_folder_is_refused(write, tmp_path, name):
    (tmp_path / "secret.png").write_bytes(png("red"))
    files = {f"{number}.png": png("red") for number in range(6)}
    rows = "".join(f"{number}.png,{number % 3}\n" for number in range(6))
    folder = write({**files, "metadata.csv": f"file_name,label\n{rows}{name},0\n"})
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(SmileDataError, match=r"metadata\.csv:8: image .* refused as unsafe"):
        load_smile_dataset(folder, test_size=0.34)


def test_all_kinds_of_problems_come_in_one_run(write):
    files = {f"{number}.png": png("red") for number in range(6)} | {"broken.png": b"no image"}
    rows = "".join(f"{number}.png,{number % 3}\n" for number in range(6))
    rows += "broken.png,0\ngone.png,1\n0.png,2\na,happy\n,1\nx\n"
    with pytest.raises(SmileDataError) as caught:
        load_smile_dataset(write({**files, "train.csv": rows, "test.csv": "5.png,2\n"}))
    for words in (
        "train.csv:7: image 'broken.png': not a JPEG",
        "train.csv:8: image 'gone.png': image missing",
        "train.csv:9: id '0.png' appears twice, first in train.csv:1 with another label",
        "train.csv:10: unknown label 'happy'",
        "train.csv:11: empty id",
        "train.csv:12: 1 column where 2",
        "test.csv:1: id '5.png' is also in train.csv:6",
        '--label_map "happy=..."',
        "--on_bad_image skip",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train/0/a.png": b"", "val/0/b.png": b""},
            "found train .1 image. and validation .1 image. but no test split",
        ),
        ({"test/0/a.png": b""}, "found test .1 image. but no train split"),
        ({"happy/a.png": b"", "0/b.png": b""}, r'unknown label .happy.(.|\n)*--label_map "happy=..."(.|\n)*--labels'),
        ({"happy/a.png": b"", "a|b/b.png": b""}, r"'a|b' can't be a label(.|\n)*--labels(.|\n)*--label_map"),
        ({"a.png": b""}, "there are images but no labels"),
        ({"train.csv": "a,0\n"}, "images are searched for in happy_images, images, happy_images.zip"),
        (
            {"genuine/0/a.png": b"", "fake/1/b.png": b""},
            r'unknown label .genuine.(.|\n)*--label_map "fake=...,genuine=..."',
        ),
        ({"train.csv": "a,0\n", "eval.csv": "b,0\n", "test.csv": "c,0\n"}, "'eval' and 'test' both stand for test"),
        ({"val/0/a.png": b"", "dev/0/b.png": b"", "train/0/c.png": b""}, "'dev' and 'val' both stand for validation"),
        ({"train/a.png": b"", "train/0/b.png": b""}, "train/a.png: not in a class folder"),
        ({"one.csv": "a,0\n", "two.csv": "b,0\n"}, "images but no labels|no data set found"),
        ({"metadata.jsonl": "{}", "a.png": b""}, "metadata.jsonl: empty file"),
        ({"train.parquet": b"PAR1"}, "not a readable Parquet file"),
    ],
)
def test_what_is_there_and_what_is_missing_is_said(write, files, message):
    with pytest.raises(SmileDataError, match=message):
        load_smile_dataset(write(files))


def test_numbers_of_people_are_not_labels(write):
    files = {f"genuine/{n % 3}/{n}.png": png("red") for n in range(9)} | {
        f"fake/{n % 3}/{n}.png": png("red") for n in range(9)
    }
    folder = write(files)
    with pytest.raises(SmileDataError, match="18 problems"):
        load_smile_dataset(folder, test_size=0.3)
    label_map = {"genuine": "positive smile", "fake": "negative smile"}
    splits = load_smile_dataset(folder, 0, test_size=0.34, label_map=label_map)
    for row in splits["train"]:
        assert row["label"] == (1 if row["image_id"].startswith("genuine") else 0)


def test_splits_in_a_zip_of_windows_stay_apart(tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for number in range(12):
            archive.writestr(f"{'test' if number > 8 else 'train'}\\{number % 3}\\{number}.png", png("red"))
    splits = load_smile_dataset(tmp_path / "faces.zip", 0)
    assert (len(splits["train"]), len(splits["test"])) == (9, 3)


def test_images_beside_the_csv_are_not_taken_from_a_stray_zip(write):
    files = {f"{number}.png": png("red") for number in range(6)}
    folder = write({**files, "train.csv": "".join(f"{n},{n % 3}\n" for n in range(6))})
    with zipfile.ZipFile(folder / "notes.zip", "w") as archive:
        archive.writestr("logo.png", png("blue"))
    assert len(load_smile_dataset(folder, 0, test_size=0.5)["train"]) == 3
    with zipfile.ZipFile(folder / "backup.zip", "w") as archive:
        archive.writestr("0.png", png("blue"))
    with pytest.raises(SmileDataError, match=r"the images are in .*backup\.zip and in .*DATA; remove all but one"):
        load_smile_dataset(folder, 0, test_size=0.5)


def test_a_folder_of_other_pictures_does_not_hide_the_images(write):
    files = {f"photos/{number}.png": png("red") for number in range(6)} | {"images/logo.png": png("blue")}
    splits = load_smile_dataset(
        write({**files, "train.csv": "".join(f"{n},{n % 3}\n" for n in range(6))}), 0, test_size=0.5
    )
    assert len(splits["train"]) == 3


def test_equal_names_in_the_folders_of_two_splits_are_two_images(write):
    files = {}
    for split in ("train", "test"):
        files[f"{split}/metadata.csv"] = "file_name,label\n" + "".join(f"{n}.png,{n % 3}\n" for n in range(6))
        files |= {f"{split}/{n}.png": png("red" if split == "train" else "blue") for n in range(6)}
    splits = load_smile_dataset(write(files), 0)
    assert splits["test"]["image_id"][0] == "test/0.png" and splits["test"][0]["image"].getpixel((0, 0)) == (0, 0, 255)


def test_columns_of_the_user_with_our_names_do_no_harm(write, caplog):
    rows = "".join(f"{n},{n % 3},s{n},p{n},x\n" for n in range(6))
    folder = write({f"{n}.png": png("red") for n in range(6)} | {"train.csv": "id,class,split,place,label\n" + rows})
    splits = load_smile_dataset(folder, 0, test_size=0.5, label_column="class")
    assert (
        splits["train"]["split"][0] == f"s{splits['train']['image_id'][0]}" and "place" in splits["train"].column_names
    )
    assert "Note: column label of train.csv is not kept" in caplog.text


def test_a_label_map_holds_for_saved_data_with_our_names_too(sample_dir, tmp_path):
    load_smile_dataset(sample_dir).save_to_disk(tmp_path / "theirs")
    splits = load_smile_dataset(tmp_path / "theirs", label_map={"negative smile": "NOT smile"})
    assert set(splits["train"]["label"]) == {1, 2}


def test_a_relative_path_in_a_data_set_is_not_followed():
    import datasets

    features = datasets.Features(image=datasets.Image(decode=False))
    rows = [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": ""}]
    source = RowSource(
        datasets.DatasetDict(train=datasets.Dataset.from_dict({"image": rows}, features=features)), "theirs"
    )
    for row, problem in enumerate(["'a.png' is relative", "no image; remove it"]):
        with pytest.raises(SmileDataError, match=problem):
            source.read(f"train/{row}")


def test_rows_beyond_the_limit_are_not_lost_without_a_word(write, monkeypatch):
    monkeypatch.setattr(annotations, "_MAX_LINES", 5)
    lines = "\n".join(json.dumps({"file_name": f"{n}.png", "label": n % 3}) for n in range(9))
    with pytest.raises(SmileDataError, match=r"metadata\.jsonl: more than 5 rows"):
        load_smile_dataset(write({f"{n}.png": png("red") for n in range(9)} | {"metadata.jsonl": lines}), test_size=0.5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", b'{"file_name": "0.png", "label": 0}\n' * 500 + b"\xff"),
        ("metadata.jsonl", b'{"file_name": "0.png", "label": 0, "x": "\\ud800"}'),
    ],
)
def test_damaged_metadata_are_told_in_words(write, name, content):
    with pytest.raises(SmileDataError, match=r"metadata\.jsonl|one class|too few|at least"):
        load_smile_dataset(write({"0.png": png("red"), name: content}), 0, test_size=0.5)


def test_the_missing_test_split_names_its_option(write):
    files = {f"{number % 3}/{number}.png": png("red") for number in range(12)}
    with pytest.raises(SmileDataError, match=r"no test split; hold one out of train, for example with --test_size"):
        load_smile_dataset(write(files))


def test_folders_between_and_around_do_not_matter(write):
    files = {f"faces/Train/ann/NOT-smile/{number}.png": png("red") for number in range(4)}
    files |= {f"faces/Train/2/positive_smile/{number}.png": png("red") for number in range(4)}
    files |= {"faces/TEST/bob/NOT smile/a.png": png("red"), "faces/extra/NOT smile/a.png": png("red")}
    splits = load_smile_dataset(write(files), 0)
    assert sorted(splits["train"]["label"]) == [1] * 4 + [2] * 4 and splits["test"]["label"] == [2]


def test_a_dataset_with_other_columns_is_read_and_strings_are_not_taken_for_images(write, tmp_path):
    import datasets

    images = [{"bytes": png("red"), "path": None}] * 6
    features = datasets.Features(
        picture=datasets.Image(), mood=datasets.Value("string"), file_name=datasets.Value("string")
    )
    columns = {"picture": images, "mood": ["fake", "real", "none"] * 2, "file_name": ["a.png"] * 6}
    theirs = datasets.Dataset.from_dict(columns, features=features)
    theirs.to_parquet(tmp_path / "one" / "faces.parquet")
    label_map = {"fake": "negative smile", "real": "positive smile", "none": "NOT smile"}
    splits = load_smile_dataset(tmp_path / "one", 0, test_size=0.5, label_column="mood", label_map=label_map)
    assert sorted(splits["test"]["label"]) == [0, 1, 2]
    with pytest.raises(SmileDataError, match=r"no column 'label' in split train; .* --label_column"):
        load_smile_dataset(tmp_path / "one", test_size=0.5)
    theirs.remove_columns("picture").save_to_disk(tmp_path / "two")
    with pytest.raises(SmileDataError, match=r"column 'file_name' of split train contains string, not images"):
        load_smile_dataset(tmp_path / "two", test_size=0.5, label_column="mood", label_map=label_map)


@pytest.mark.parametrize(
    "name", ["train.csv", "happy_images.zip", "test/NOT smile/a.png", "dataset_dict.json", "shards.json"]
)
def test_nothing_is_written_among_data(write, tmp_path, name):
    with pytest.raises(SmileDataError, match=r"contains data .*; choose another --output_dir"):
        refuse_data_folder(write({name: b""}), tmp_path / "elsewhere")
    refuse_data_folder(tmp_path / "new", tmp_path / "elsewhere")


def test_nothing_is_written_into_the_folder_that_is_read(write):
    folder = write({"happy/a.png": b""})
    for output in (folder, folder / "outputs" / "model"):
        with pytest.raises(SmileDataError, match="lies in the data folder"):
            refuse_data_folder(output, folder)


def test_a_csv_by_another_name_than_before_is_not_served_from_the_cache(write):
    rows = {name: "".join(f"{name}{n},{n % 3}\n" for n in range(6)) for name in ("train", "test")}
    files = {f"{name}{n}.png": png("red") for name in rows for n in range(6)}
    folder = write({**files, **{f"{name}.csv": text for name, text in rows.items()}})
    assert len(load_smile_dataset(folder, 0)["test"]) == 6
    (folder / "test.csv").rename(folder / "val.csv")
    assert len(load_smile_dataset(folder, 0, test_size=0.5)["validation"]) == 6


def test_an_empty_split_of_a_saved_data_set_is_said(sample_dir, tmp_path):
    splits = load_smile_dataset(sample_dir)
    splits["test"] = splits["test"].select([])
    splits.save_to_disk(tmp_path / "theirs")
    with pytest.raises(SmileDataError, match="a split of the saved data set is empty"):
        load_smile_dataset(tmp_path / "theirs")


def test_annotations_for_the_audit_are_split_as_for_training(write):
    files = {f"{n % 3}/{n}.png": png("red") for n in range(30)}
    folder = write(files)
    tables, _ = read_tables(DataArguments(str(folder), test_size=0.2))
    splits = load_smile_dataset(folder, test_size=0.2)
    assert set(tables["test"]["image_id"]) == set(splits["test"]["image_id"])


@pytest.mark.parametrize("name", ["faces.xlsx", "labels.txt", "one.csv"])
def test_annotations_by_a_name_that_is_not_known_are_named(write, name):
    files = {f"images/{n}.png": png("red") for n in range(6)} | {name: "0.png,0\n"}
    if name == "one.csv":
        files["two.csv"] = "1.png,1\n"
    with pytest.raises(SmileDataError, match=rf"{re.escape(name)}.* is not called train\.csv"):
        load_smile_dataset(write(files))


def test_kaggle_s_names_of_csv_files_are_known(write):
    files = {f"{n}.png": png("red") for n in range(9)}
    files |= {"train_labels.csv": "".join(f"{n},{n % 3}\n" for n in range(6)), "test_labels.csv": "6,0\n7,1\n8,2\n"}
    assert len(load_smile_dataset(write(files), 0)["test"]) == 3


def test_numbers_that_do_not_begin_at_0_are_all_asked_about(write):
    files = {f"{n}.png": png("red") for n in range(9)} | {"train.csv": "".join(f"{n},{n % 3 + 1}\n" for n in range(9))}
    with pytest.raises(SmileDataError, match='--label_map "1=...,2=...,3=..."'.replace(".", r"\.")):
        load_smile_dataset(write(files), test_size=0.4)


def test_the_first_line_of_excel_that_names_the_separator_is_passed_over(write):
    files = {f"{n}.png": png("red") for n in range(6)}
    text = "sep=;\nid;label\n" + "".join(f"{n};{n % 3}\n" for n in range(6))
    assert len(load_smile_dataset(write({**files, "train.csv": text}), 0, test_size=0.5)["train"]) == 3
