"""The audit finds the problems planted in drawn data, and none in clean data."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from PIL import Image

from hf_smile import audit_dataset
from hf_smile.audit.duplicates import count_groups, duplicate_links, link_equal, list_groups
from hf_smile.audit.labels import estimate_label_noise, out_of_fold_probabilities
from hf_smile.audit.leakage import accuracy_by_similarity
from hf_smile.audit.run import Audit, run_audit
from hf_smile.audit.scan import scan_images
from hf_smile.audit.similarity import (
    choose_threshold,
    clusters,
    clusters_by_threshold,
    nearest,
    similarity_forest,
    unit_rows,
)
from hf_smile.audit.splits import group_disjoint_split
from hf_smile.data.arguments import DataArguments
from hf_smile.data.dataset import load_smile_dataset, read_tables
from hf_smile.data.prepare import export_imagefolder
from hf_smile.data.record import write_splits
from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileDataError
from hf_smile.labels import LABEL_NAMES

ROOT = Path(__file__).parents[2]


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def write_data(folder: Path, rows: list[tuple[str, str, int, bytes]]) -> Path:
    """Write a data set of rows (split, image id, label, encoded image)."""
    (folder / "images").mkdir(parents=True)
    for split in ("train", "test"):
        lines = [f"{name},{label}\n" for of_split, name, label, _ in rows if of_split == split]
        (folder / f"{split}.csv").write_text("".join(lines))
    for _, name, _, data in rows:
        (folder / "images" / f"{name}.jpg").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def faces() -> list[tuple[str, str, int, bytes]]:
    """30 train faces and 12 test faces of different people."""
    draw = np.random.default_rng(5)
    rows = []
    for number in range(42):
        split, label = ("train", "test")[number >= 30], number % 3
        rows.append((split, f"{split}{number}", label, jpeg(draw_face(label, draw, size=96))))
    return rows


@pytest.fixture(scope="module")
def planted(faces, tmp_path_factory) -> Path:
    """Faces with planted problems. The names of the copies give the original's number and the change."""
    data = {name: jpg for _, name, _, jpg in faces}
    images = {name: Image.open(io.BytesIO(jpg)) for name, jpg in data.items()}
    extra = [
        ("test", "same0", 0, data["train0"]),
        ("train", "same1", 2, data["train1"]),  # train1 has label 1
        ("test", "again3", 0, jpeg(images["train3"], quality=40)),
        ("train", "smaller4", 1, jpeg(images["train4"].resize((84, 84)))),
        ("train", "broken", 0, data["train5"][:300]),
    ]
    return write_data(tmp_path_factory.mktemp("planted"), [*faces, *extra])


@pytest.fixture(scope="module")
def audit(planted) -> Audit:
    return run_audit(scan_images(*read_tables(DataArguments(planted))))


def test_the_library_audits_a_folder_by_its_name(audit, planted):
    found = audit_dataset(planted)
    pd.testing.assert_frame_equal(found.duplicates, audit.duplicates)
    assert found.summary == audit.summary


def members(groups: pd.DataFrame, column: str | None = None) -> set[frozenset[str]]:
    chosen = groups if column is None else groups[groups[column]]
    return {frozenset(part["image_id"]) for _, part in chosen.groupby("group")}


def test_planted_duplicates_leaks_and_conflicts_are_found(audit):
    groups = audit.duplicates
    leaks = {frozenset(["train0", "same0"]), frozenset(["train3", "again3"])}
    conflicts = {frozenset(["train1", "same1"])}
    assert members(groups) == leaks | conflicts | {frozenset(["train4", "smaller4"])}
    assert members(groups, "crosses_splits") == leaks
    assert members(groups, "labels_differ") == conflicts
    assert set(groups.loc[groups["kind"] == "same bytes", "image_id"]) == {"train0", "same0", "train1", "same1"}
    assert groups["group"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4] and groups["labels_differ"].iloc[0]
    assert audit.summary["duplicates"]["all"] == {
        "groups": 4,
        "images": 8,
        "groups_in_train_and_test": 2,
        "groups_with_differing_labels": 1,
    }


def test_an_unreadable_image_is_listed_and_the_rest_goes_on(audit):
    assert audit.unreadable["image_id"].tolist() == ["broken"]
    assert "can't be decoded" in audit.unreadable["problem"].item()
    assert audit.summary["images"] == {"all": 47, "readable": 46, "unreadable": 1}


def test_nothing_is_found_where_nothing_is(faces, tmp_path):
    audit = run_audit(scan_images(*read_tables(DataArguments(write_data(tmp_path / "data", faces)))))
    assert audit.duplicates.empty and audit.equal_hashes.empty and audit.unreadable.empty
    assert audit.summary["clusters"]["largest"] == 1


def test_measures_of_pictures(tmp_path):
    plain = np.full((100, 100, 3), 128, np.uint8)
    half_black, noisy = plain.copy(), np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    half_black[50:] = 0
    face = draw_face(1, np.random.default_rng(0), size=100)
    images = [plain, half_black, noisy, np.asarray(face.convert("L").convert("RGB")), np.asarray(face)]
    rows = [("train", str(n), 0, jpeg(Image.fromarray(image), 95)) for n, image in enumerate(images)]
    table = scan_images(
        *read_tables(DataArguments(write_data(tmp_path / "data", [*rows, ("test", "x", 0, rows[0][3])])))
    ).table
    assert table["brightness"][:2].tolist() == pytest.approx([128, 64], abs=1)
    assert table["border"][:3].tolist() == pytest.approx([0, 0.5, 0], abs=0.02)
    assert table["grey"].tolist() == [True, True, False, True, False, True]
    assert table["sharpness"][2] > 10 * table["sharpness"][4] > 100 * table["sharpness"][0]
    assert (table["width"] == 100).all() and (table["file_bytes"] > 100).all()


def test_flipped_labels_are_ranked_first():
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    features = (6 * np.eye(3, 8)[labels] + draw.standard_normal((300, 8))).astype(np.float32)
    given, flipped = labels.copy(), [3, 40, 41, 120, 170, 171, 230, 290]
    given[flipped] = (labels[flipped] + 1) % 3
    noise = estimate_label_noise(given, out_of_fold_probabilities(features, given, np.arange(300)))
    first = noise.suspicious.iloc[: len(flipped)]
    assert set(first["row"]) == set(flipped)
    assert (first["likely_label"].to_numpy() == labels[first["row"]]).all()
    assert noise.joint.sum() == pytest.approx(1)
    assert noise.by_class[LABEL_NAMES[1]] == pytest.approx(3 / 100, abs=0.025)


def test_no_fold_sees_a_group_it_is_asked_about():
    draw = np.random.default_rng(0)
    features = np.repeat(draw.standard_normal((40, 30)), 3, axis=0)  # each image occurs three times
    labels = np.repeat(draw.permutation(np.arange(40) % 3), 3)  # random
    together = out_of_fold_probabilities(features, labels, np.repeat(np.arange(40), 3)).argmax(1)
    divided = out_of_fold_probabilities(features, labels, np.arange(120)).argmax(1)
    assert (divided == labels).mean() > 0.6 > 0.5 > (together == labels).mean()


def test_a_group_disjoint_split_never_straddles():
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 400, 1000)
    labels = draw.choice(3, 1000, p=[0.1, 0.2, 0.7])
    in_test = group_disjoint_split(labels, groups, 0.25)
    assert not set(groups[in_test]) & set(groups[~in_test])
    assert in_test.mean() == pytest.approx(0.25, abs=0.005)
    shares = np.bincount(labels[in_test], minlength=3) / np.bincount(labels)
    assert shares == pytest.approx([0.25] * 3, abs=0.02)
    assert (in_test == group_disjoint_split(labels, groups, 0.25)).all()
    with pytest.raises(SmileDataError, match="can't be divided"):
        group_disjoint_split(labels, np.zeros(1000, int), 0.25)


def test_blocks_give_what_the_whole_matrix_gives(monkeypatch):
    monkeypatch.setattr("hf_smile.audit.similarity._ROWS", 7)
    monkeypatch.setattr("hf_smile.audit.similarity._COLUMNS", 11)
    rows = unit_rows(np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32))
    matrix = rows @ rows.T
    similarity, index = nearest(rows[:20], rows[20:])
    assert (index == matrix[:20, 20:].argmax(1)).all()
    assert similarity == pytest.approx(matrix[:20, 20:].max(1))
    forest = similarity_forest(rows)
    assert len(forest) < 60
    for threshold in (0.6, 0.8, 0.95):
        pairs = np.argwhere(matrix >= threshold)
        number = clusters(forest.at_least(threshold), 60)
        reachable = np.linalg.matrix_power((matrix >= threshold).astype(float), 60) > 0
        assert len(pairs) and ((number[:, None] == number[None, :]) == reachable).all()


def shots(people: int, each: int, responses: float = 1) -> np.ndarray:
    """Features (people * each, 64) of several shots of each person, person by person."""
    draw = np.random.default_rng(0)
    person = np.repeat(draw.standard_normal((people, 64)), each, axis=0)
    return (responses * (person + 0.6 * draw.standard_normal(person.shape))).astype(np.float32)


def chosen(features: np.ndarray) -> tuple[float, np.ndarray]:
    """The chosen threshold, and the cluster of each row."""
    forest = similarity_forest(unit_rows(features))
    threshold = choose_threshold(clusters_by_threshold(forest, len(features)))
    return threshold, clusters(forest.at_least(threshold), len(features))


@pytest.mark.parametrize(("people", "each"), [(4, 50), (10, 40), (100, 4)])
def test_the_threshold_finds_people_however_many_images_each_has(people, each):
    _, cluster = chosen(shots(people, each))
    assert (cluster == np.repeat(np.arange(people), each)).all()


def test_the_threshold_sits_where_clusters_stop_chaining():
    line = np.linspace(0, np.pi / 2, 60)  # each is similar to the next, but the first is not similar to the last
    chain = 8 * np.stack([np.cos(line), np.sin(line)], axis=1)
    features = np.concatenate([shots(20, 6), np.pad(chain, [(0, 0), (0, 62)])]).astype(np.float32)
    _, cluster = chosen(features)
    assert (cluster[:120] == np.repeat(np.arange(20), 6)).all()  # the largest cluster does not decide

    pair = np.eye(20, 30, dtype=np.float32)
    pair[1] = 0.8 * pair[0] + 0.6 * pair[1]
    assert np.bincount(chosen(pair)[1]).tolist() == [2] + [1] * 18


def test_pictures_in_which_the_backbone_sees_nothing_are_not_one_group():
    faces = 5 + shots(30, 4)
    nothing = 0.01 * np.abs(shots(40, 1))
    _, cluster = chosen(np.concatenate([faces, nothing]))
    assert (cluster[:120] == np.repeat(np.arange(30), 4)).all()
    assert np.bincount(cluster[120:]).max() == 1


def test_links_by_features_join_the_groups(audit, planted):
    scan = scan_images(*read_tables(DataArguments(planted)))
    readable = scan._replace(table=scan.table[:46], thumbnails=scan.thumbnails[:46])
    similar = similarity_forest(np.eye(46, dtype=np.float32)[[*range(45), 2]])  # the last one is a copy of train2
    groups = list_groups(readable.table, duplicate_links(readable, similar))
    last = readable.table["image_id"].iloc[45]
    assert groups.loc[groups["image_id"].isin(["train2", last]), "kind"].tolist()[0] == "similar"


def test_accuracy_is_told_by_similarity():
    table = pd.DataFrame({"image_id": [str(n) for n in range(100)], "similarity": np.linspace(0.3, 0.9, 100)})
    correct = pd.Series({str(n): n >= 60 for n in range(90)})  # the last ten were not predicted
    parts = accuracy_by_similarity(table, correct, bins=3)
    assert parts["accuracy"].tolist() == [0, 0, 1] and parts["images"].tolist() == [30, 30, 30]
    assert (parts["low"] <= parts["accuracy"]).all() and (parts["accuracy"] <= parts["high"]).all()


def test_the_whole_audit_leaves_the_originals_untouched(cli, planted, tmp_path):
    backbone, predictions = tmp_path / "backbone", tmp_path / "predictions.csv"
    timm.models.save_for_hf(timm.create_model("test_resnet", pretrained=False), backbone, safe_serialization=True)
    test = pd.read_csv(planted / "test.csv", names=["image_id", "label"])
    probabilities = {"p_negative_smile": 0.2, "p_positive_smile": 0.3, "p_not_smile": 0.5}
    test.assign(prediction=2, **probabilities).to_csv(predictions, index=False)
    before = {path: path.read_bytes() for path in planted.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    code, stdout, stderr = cli(
        "audit",
        "--data_dir",
        planted,
        "--output_dir",
        out,
        "--backbone",
        backbone,
        "--predictions",
        predictions,
        "--write_clean",
        "--duplicate_similarity",  # all faces look similar to random weights
        0.99999,
    )
    assert code == 0, stderr
    assert before == {path: path.read_bytes() for path in planted.rglob("*") if path.is_file()}
    assert "1 image can't be read" in stdout and "out/audit.md" in stdout

    summary = json.loads((out / "audit.json").read_text())
    assert summary["duplicates"]["all"]["groups"] >= 4
    assert (
        summary["accuracy"]["all"]["images"] == 14
        and summary["accuracy"]["without_duplicates_in_train"]["images"] <= 12
    )
    assert (out / "contact_sheets" / ".gitignore").read_text() == "*\n"
    for picture in ("pictures.png", "similarity.png", "contact_sheets/duplicates-1.png"):
        assert Image.open(out / picture).width > 500
    assert (out / "audit.md").read_text().index("What to do") < 200

    for name in ("clean", "group_disjoint"):  # each is a complete data set
        tables, images = read_tables(DataArguments(out / name))
        assert all(images.read(file) for table in tables.values() for file in table["file"])
        assert not any("broken" in set(table["image_id"]) for table in tables.values())
    tables, _ = read_tables(DataArguments(out / "clean"))
    kept = {split: set(table["image_id"]) for split, table in tables.items()}
    assert not kept["train"] & {"train0", "train3", "train1", "same1"} and {"train4", "smaller4"} <= kept["train"]
    assert {"same0", "again3"} <= kept["test"]
    without_leaks = set(pd.read_csv(out / "clean" / "test_without_leaks.csv")["image_id"])
    assert without_leaks == set(test["image_id"]) - {"same0", "again3"}


def test_rows_of_a_saved_data_set_are_audited_and_not_named_by_csv_files(cli, planted, tmp_path):
    splits = load_smile_dataset(planted, 0, on_bad_image="skip", bad_image_list=tmp_path / "bad.csv")
    splits.save_to_disk(tmp_path / "saved")
    words = ["--data_dir", tmp_path / "saved", "--output_dir", tmp_path / "out"]
    code, stdout, stderr = cli("audit", *words)
    assert code == 0 and "in both train and test" in stdout, stderr
    assert not (tmp_path / "out" / "group_disjoint").exists()
    assert "was not written: the images are rows of a saved data set" in (tmp_path / "out" / "audit.md").read_text()
    code, stdout, stderr = cli("audit", *words, "--write_clean")
    assert code == 2 and "hf-smile prepare --export_imagefolder DIR" in stderr and not stdout

    export_imagefolder(splits, tmp_path / "unpacked")  # as the message says
    code, stdout, stderr = cli(
        "audit", "--data_dir", tmp_path / "unpacked", "--output_dir", tmp_path / "out", "--write_clean"
    )
    assert code == 0, stderr
    tables, images = read_tables(DataArguments(tmp_path / "out" / "clean"))
    assert all(images.read(file) for table in tables.values() for file in table["file"])


def test_a_backbone_that_was_trained_on_the_images_says_nothing_of_their_labels(cli, planted, tmp_path):
    backbone = tmp_path / "model"
    timm.models.save_for_hf(timm.create_model("test_resnet", pretrained=False), backbone, safe_serialization=True)
    splits = load_smile_dataset(planted, 0.2, on_bad_image="skip", bad_image_list=tmp_path / "bad.csv")
    write_splits(backbone, splits)
    code, _, stderr = cli("audit", "--data_dir", planted, "--output_dir", tmp_path / "out", "--backbone", backbone)
    assert code == 2 and "was trained on 2" in stderr and "the backbone that its run started from" in stderr


def test_a_mistake_gets_one_message_and_exit_code_2(cli, planted, tmp_path):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("image_id,label,prediction,p_negative_smile,p_positive_smile,p_not_smile\nnobody,0,0,1,0,0\n")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    out = ["--output_dir", tmp_path / "out"]
    for words, message in (
        (["--data_dir", tmp_path / "nowhere", *out], "no such folder"),
        (["--data_dir", planted, "--output_dir", planted], "would overwrite the data"),
        (["--data_dir", planted, *out, "--backbone", tmp_path / "nowhere"], "no such folder"),
        (["--data_dir", planted, *out, "--predictions", tmp_path / "no.csv"], "can't be read"),
        (["--data_dir", planted, *out, "--predictions", wrong], "not in the test split"),
        (["--data_dir", planted, *out, "--contact_sheets", full], "choose another --contact_sheets"),
        (["--data_dir", planted, *out, "--cluster_similarity", "2"], "it is 2; it must be above 0 and at most 1"),
        (["--data_dir", planted, *out, "--cluster_similarity", "0.9"], "--cluster_similarity needs --backbone"),
        (["--data_dir", planted, *out, "--batch_size", "9"], "--batch_size needs --backbone"),
    ):
        code, _, stderr = cli("audit", *words)
        assert code == 2, words
        assert message in stderr and stderr.count("error: ") == 1 and "Traceback" not in stderr, stderr
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


def test_help_comes_without_the_heavy_libraries():
    command = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_path("scripts/audit_data.py", run_name="__main__")
except SystemExit:
    print(sorted({"torch", "pandas", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "--write_clean" in done.stdout and done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_real_data(real_data):
    scan = scan_images(*read_tables(DataArguments(real_data)))
    audit = run_audit(scan)
    found = audit.summary["duplicates"]
    assert found["same_bytes"]["groups"] == 1
    # Verified by independent scripts: imagehash.dhash only, the bilinear hash only, and either of the two.
    expected = {"dhash": (6, 14, 1, 2), "dhash_bilinear": (18, 38, 6, 2)}
    for name, numbers in expected.items():
        alone = count_groups(list_groups(scan.table, {"equal hash": link_equal(scan.table[name].to_numpy())}))
        assert tuple(alone.values()) == numbers, name
    assert tuple(found["equal_hash"].values()) == (22, 46, 7, 4)
    assert found["all"]["groups"] == 15
    assert found["all"]["groups_in_train_and_test"] == 10
    assert found["all"]["groups_with_differing_labels"] == 3
