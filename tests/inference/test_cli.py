"""`hf-smile` on the command line: arguments, output, exit code."""

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

import hf_smile
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.predictions import read_predictions, write_predictions
from hf_smile.inference import bulk
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.explain import explain
from hf_smile.inference.files import find_images
from hf_smile.labels import LABEL_NAMES, SMILE_LABELS


def test_files_folders_patterns_and_zips_are_all_accounted_for(cli, model_dir, face_files, tmp_path):
    folder = face_files[0].parent
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(face_files[0], "a/1.png")
        archive.write(face_files[1], "b/1.png")
    code, out, _ = cli(
        *("predict", folder, tmp_path / "more.zip", f"{folder}/0[0-3].png", face_files[0]),
        *("--model", model_dir, "--faces", "whole", "--format", "jsonl", "--batch_size", 4),
    )
    rows = [json.loads(line) for line in out.splitlines()]
    names = [Path(row["image_id"]).relative_to(tmp_path).as_posix() for row in rows]
    files = [f"faces/{path.name}" for path in face_files]
    assert code == 0
    assert names == [*files, "more.zip/a/1.png", "more.zip/b/1.png", *files[:4], files[0]]
    assert all(row["predicted_label"] in LABEL_NAMES for row in rows)
    assert rows[0]["p_smile"] == pytest.approx(rows[11]["p_smile"], abs=1e-6)


def test_a_recursive_pattern_counts_no_picture_twice(cli, model_dir, face_files, tmp_path):
    (tmp_path / "faces" / "more").mkdir()
    shutil.copy(face_files[0], tmp_path / "faces" / "more" / "a.png")
    _, out, _ = cli("predict", tmp_path / "faces" / "**", "--model", model_dir, "--faces", "whole", "--format", "jsonl")
    assert len({*out.splitlines()}) == len(out.splitlines()) == len(face_files) + 1
    with zipfile.ZipFile(tmp_path / "faces" / "more.zip", "w") as archive:
        archive.write(face_files[0], "b.png")
    _, out, _ = cli("predict", tmp_path / "faces" / "**", "--model", model_dir, "--faces", "whole", "--format", "jsonl")
    assert len(out.splitlines()) == len(face_files) + 2 and "more.zip/b.png" in out


def test_a_zip_in_a_zip_is_not_left_out_silently(cli, model_dir, face_files, tmp_path):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(face_files[0], "1.png")
        archive.writestr("inner.zip", b"")
    code, out, _ = cli("predict", tmp_path / "more.zip", "--model", model_dir, "--faces", "whole", "--format", "jsonl")
    first, second = map(json.loads, out.splitlines())
    assert code == 1 and first["error"] is None and second["error"] == "a zip in a zip; unpack it first"
    assert second["image_id"].endswith("more.zip/inner.zip")


def test_some_failed_is_exit_code_1_and_the_rest_is_there(cli, model_dir, face_files):
    face_files[3].write_bytes(b"broken")
    code, out, err = cli("predict", *face_files, "--model", model_dir, "--faces", "whole")
    lines = out.splitlines()
    assert code == 1 and len(lines) == 12 and "1 of 11 images" in err
    assert lines[4].startswith("error") and "not a JPEG" in lines[4]


def test_csv_goes_to_a_file_and_no_cell_is_a_formula(cli, model_dir, face_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1.png", "@x.png", "-y.png"):
        Path(name).write_bytes(face_files[0].read_bytes())
    code, out, _ = cli(
        *("predict", "*.png", "--model", model_dir, "--faces", "whole", "--format", "csv", "--output", "verdicts.csv")
    )
    with Path("verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0 and out == ""
    assert [row["image_id"] for row in rows] == ["'-y.png", "'=1+1.png", "'@x.png"]
    assert sum(
        float(rows[0][f"p_{slug}"]) for slug in ("negative_smile", "positive_smile", "not_smile")
    ) == pytest.approx(1)
    assert not Path("verdicts.csv.part").exists()


def test_every_prediction_begins_with_the_same_columns(cli, model_dir, face_files, tmp_path):
    arguments = ("predict", face_files[0], "--model", model_dir, "--faces", "whole", "--format")
    headers = {"csv": cli(*arguments, "csv")[1].splitlines()[0].split(",")}
    headers["jsonl"] = list(json.loads(cli(*arguments, "jsonl")[1]))
    headers["Parquet"] = bulk.schema_of(SMILE_LABELS).names
    write_predictions(tmp_path / "predictions.csv", ["1"], [0], [[1, 0, 0]])
    headers["evaluation"] = (tmp_path / "predictions.csv").read_text().splitlines()[0].split(",")
    columns = ["image_id", "true_label", "predicted_label", "p_negative_smile", "p_positive_smile", "p_not_smile"]
    assert {name: header[:6] for name, header in headers.items()} == dict.fromkeys(headers, columns)
    assert not [header for header in headers.values() if {"label", "prediction", "source"} & set(header)]


def test_verdicts_can_be_evaluated_once_their_true_labels_are_filled_in(cli, model_dir, face_files, tmp_path):
    verdicts = tmp_path / "verdicts.csv"
    cli("predict", *face_files, "--model", model_dir, "--faces", "whole", "--output", verdicts)
    with pytest.raises(SmileDataError, match="has no true labels"):
        read_predictions(verdicts)
    with verdicts.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with verdicts.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "true_label": LABEL_NAMES[number % 3]} for number, row in enumerate(rows))
    assert read_predictions(verdicts).label_ids.tolist() == [number % 3 for number in range(11)]


def test_faces_are_found_said_and_drawn(cli, model_dir, face_files, tmp_path):
    pytest.importorskip("cv2")
    hopper = tmp_path / "hopper.png"
    Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB").save(hopper)
    empty = tmp_path / "empty.png"
    Image.new("RGB", (200, 200), "teal").save(empty)
    shown = tmp_path / "shown"
    arguments = ["predict", hopper, empty, hopper, "--model", model_dir, "--format", "jsonl"]
    code, out, err = cli(*arguments, "--annotate", shown)
    first, second, third = map(json.loads, out.splitlines())
    assert code == 0 and first["box"] == third["box"] and first["note"] is None
    assert second["box"] is None and second["predicted_label"] is None and second["note"] == "no face found"
    assert "no face found in 1 of 3 images; if these are face crops, classify them whole with --faces whole" in err
    assert sorted(path.name for path in shown.iterdir()) == ["empty.jpg", "hopper.jpg", "hopper_2.jpg"]
    _, out, _ = cli(*arguments, "--faces", "largest")
    assert [json.loads(line)["note"] for line in out.splitlines()] == [None, "no face found", None]


def test_every_face_gets_a_heat_map_of_its_verdict(cli, model_dir, tmp_path):
    pytest.importorskip("cv2")
    hopper = Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB")
    pair = Image.new("RGB", (2 * hopper.width, hopper.height))
    for left in (0, hopper.width):
        pair.paste(hopper, (left, 0))
    pair.save(tmp_path / "pair.png")
    Image.new("RGB", (200, 200), "teal").save(tmp_path / "empty.png")
    shown = tmp_path / "shown"
    pictures = [tmp_path / "pair.png", tmp_path / "empty.png"]
    code, *_ = cli("predict", *pictures, "--model", model_dir, "--annotate", shown, "--heat_maps", shown)
    assert code == 0
    assert {path.name for path in shown.iterdir()} == {"empty.jpg", "pair.jpg", "pair_heat_1.jpg", "pair_heat_2.jpg"}
    classifier = SmileClassifier.from_pretrained(model_dir)
    for face, name in zip(classifier.predict_photo(pair, "all"), ("pair_heat_1.jpg", "pair_heat_2.jpg"), strict=True):
        expected = explain(classifier, pair.crop(face.box), face.label).overlay()
        assert np.abs(np.asarray(Image.open(shown / name), float) - expected).mean() < 5  # JPEG loses a little


def test_pictures_and_heat_maps_in_one_folder_do_not_overwrite_each_other(cli, model_dir, face_files, tmp_path):
    for name in ("a.png", "a_heat.png"):
        shutil.copy(face_files[0], tmp_path / name)
    shown = tmp_path / "shown"
    words = ["--model", model_dir, "--faces", "whole", "--annotate", shown, "--heat_maps", shown]
    code, *_ = cli("predict", tmp_path / "a.png", tmp_path / "a_heat.png", *words)
    assert code == 0 and len(list(shown.iterdir())) == 4


def test_the_exported_network_alone_finds_and_classifies_faces(cli, model_dir, face_files, tmp_path):
    (tmp_path / "model" / "onnx").mkdir(parents=True)
    shutil.copy(model_dir / "onnx" / "model.onnx", tmp_path / "model" / "onnx")
    code, _, errors = cli("predict", face_files[0], "--model", tmp_path / "model", "--detector", "haar")
    assert code == 0, errors


def test_each_folder_of_pictures_has_its_own_names(cli, model_dir, face_files, tmp_path):
    for name in ("a.png", "a_heat.png"):
        shutil.copy(face_files[0], tmp_path / name)
    folders = ["--annotate", tmp_path / "boxes", "--heat_maps", tmp_path / "heat"]
    pictures = [tmp_path / "a.png", tmp_path / "a_heat.png"]
    assert cli("predict", *pictures, "--model", model_dir, "--faces", "whole", *folders)[0] == 0
    assert {path.name for path in (tmp_path / "boxes").iterdir()} == {"a.jpg", "a_heat.jpg"}


def test_a_long_picture_and_one_with_an_odd_name_get_their_boxes(cli, model_dir, face_files, tmp_path):
    Image.new("RGB", (66_000, 100), "teal").save(tmp_path / "long.png")
    odd = os.fsencode(tmp_path) + b"/\xff\xe9.png"
    shutil.copy(face_files[0], odd)
    words = ["--model", model_dir, "--faces", "whole", "--annotate", tmp_path / "boxes", "--output", tmp_path / "a.csv"]
    code, _, errors = cli("predict", tmp_path / "long.png", os.fsdecode(odd), *words)
    assert code == 0 and "Traceback" not in errors
    long, odd_one = sorted((tmp_path / "boxes").iterdir(), key=lambda path: path.name != "long.jpg")
    assert Image.open(long).width <= 65_500 and Image.open(odd_one).size == Image.open(face_files[0]).size


def test_of_a_picture_without_a_face_the_table_says_so_first(cli, model_dir, tmp_path):
    Image.new("RGB", (200, 200), "teal").save(tmp_path / "cup.png")
    code, out, _ = cli("predict", tmp_path / "cup.png", "--model", model_dir)
    line = out.splitlines()[1]
    assert code == 0 and line.startswith("no face") and line.endswith("cup.png") and "0." not in line


def test_a_file_name_stays_on_its_line(cli, model_dir, face_files, tmp_path):
    evil = tmp_path / "a\nb\x1b[31m.png"
    evil.write_bytes(face_files[0].read_bytes())
    _, out, _ = cli("predict", evil, "--model", model_dir, "--faces", "whole")
    assert len(out.splitlines()) == 2 and "\x1b" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--model", "{model}"],
        ["predict", "nothing*.jpg", "--model", "{model}"],
        ["predict", "{tmp}", "--model", "{model}"],
        ["predict", "{face}", "--model", "{tmp}/nowhere"],
        ["predict", "{face}", "--model", ""],
        ["info", ""],
        ["predict", "{face}", "--model", "{model}", "--runtime", "onnx-int8"],
        ["predict", "{face}", "--model", "{model}", "--faces", "some"],
        ["predict", "{face}", "--model", "{model}", "--batch_size", "0", "--faces", "whole"],
        ["predict", "{face}", "--model", "{model}", "--output", "{tmp}/no/such/folder/x.csv"],
        ["predict", "{face}", "--model", "{model}", "--detector", "{tmp}/none.onnx"],
        ["predict", "{face}", "--model", "{model}", "--faces", "whole", "--detector", "haar"],
        ["predict", "{face}", "--model", "{model}", "--format", "csv", "--output", "{tmp}/out.jsonl"],
        ["video", "{tmp}", "--model", "{model}", "--output_dir", "{tmp}/out"],
        ["video", "{tmp}/none.mp4", "--model", "{model}", "--output_dir", "{tmp}/out"],
        ["video", "{face}", "--model", "{model}", "--output_dir", "{tmp}/out"],
        ["info", "{tmp}"],
    ],
)
def test_wrong_use_is_exit_code_2_and_one_message(cli, model_dir, faces, tmp_path, arguments):
    face = tmp_path.parent / "one_face.png"
    faces[0].save(face)
    code, out, err = cli(*(text.format(model=model_dir, tmp=tmp_path, face=face) for text in arguments))
    assert code == 2 and not [line for line in out.splitlines() if "label" not in line]
    assert err.count("error: ") == 1 and "Traceback" not in err


def test_an_unknown_option_is_one_message_that_suggests_the_right_one(cli, model_dir):
    code, _, err = cli("predict", "face.png", "--model", model_dir, "--modle", "x")
    assert code == 2 and err.splitlines() == [
        "error: unrecognized arguments: --modle x; did you mean '--model'?",
        "All options: hf-smile predict --help",
    ]


def test_a_picture_is_no_clip(cli, model_dir, face_files, tmp_path):
    code, _, err = cli("video", face_files[0], "--model", model_dir, "--output_dir", tmp_path / "out")
    assert code == 2 and "a picture, not a clip; classify its faces with: hf-smile predict" in err
    assert not (tmp_path / "out").exists()


def test_one_of_anything_is_told_in_the_singular(cli, model_dir, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"broken")
    code, _, err = cli("predict", tmp_path / "broken.png", "--model", model_dir)
    assert code == 1 and "1 of 1 image could not be classified" in err


def test_a_clip_among_the_images_is_sent_to_the_right_command(cli, model_dir, face_files, tmp_path):
    (tmp_path / "clip.MP4").write_bytes(b"film")
    code, out, _ = cli("predict", face_files[0], tmp_path / "clip.MP4", "--model", model_dir, "--faces", "whole")
    assert code == 1 and "hf-smile video" in out.splitlines()[2]


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "hf_smile", "predict", "{face}", "--runtime", "torch"],
        ["scripts/evaluate.py", "--output_dir", "{face}.report"],
        ["scripts/export_onnx.py"],
        ["scripts/benchmark.py", "predict", "--output", "{face}.json"],
    ],
)
def test_a_mistyped_model_is_told_before_anything_heavy_is_imported(words, face_files):
    words = [word.format(face=face_files[0]) for word in words] + ["--model", "outputs/nope"]
    command = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    lines = done.stderr.splitlines()
    modules = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert done.returncode == 2 and "outputs/nope: no such folder" in lines[-1]
    assert "numpy" in modules or "json" in modules
    assert not modules & {"torch", "transformers", "datasets", "timm"}


def test_a_message_holds_no_commands_to_the_terminal(cli, tmp_path):
    code, _, err = cli("info", tmp_path / "a\x1b[31mb")
    assert code == 2 and "\x1b" not in err and "a?[31mb" in err


def test_a_zip_in_a_zip_is_told_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("inner.zip", b"")
    with pytest.raises(SmileDataError, match=r"outer\.zip contains no images, but another zip \(inner\.zip\)"):
        find_images([str(tmp_path / "outer.zip")])


def test_info_tells_what_the_model_takes(cli, model_dir):
    code, out, _ = cli("info", model_dir)
    assert code == 0 and "test_resnet" in out and "3 x 64 x 64" in out and "NOT smile" in out
    assert "onnx/model_quantized.onnx  not there" in out


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (None, "none"),
        ("no front matter", "none"),
        ("---\nmodel-index: [1]\n---\n", "none"),
        ("---\nmodel-index: {\n---\n", "none"),
        (
            "---\nmodel-index:\n- name: smile\n  results:\n  - task: {type: image-classification}\n"
            "    dataset: {name: faces, type: image-folder, split: test}\n"
            "    metrics: [{type: accuracy, value: 0.82, name: accuracy}]\n---\n",
            "test accuracy 0.82",
        ),
    ],
)
def test_info_tells_what_the_card_says_was_measured(cli, model_dir, tmp_path, card, told):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model_dir / name, tmp_path)
    if card:
        (tmp_path / "README.md").write_text(card)
    code, out, _ = cli("info", tmp_path)
    assert code == 0 and f"results on its card        {told}\n" in out


def test_info_tells_of_a_model_on_the_hub_too(cli, model_dir, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda model, name: str(model_dir / name))
    on_the_hub = [SimpleNamespace(path="model.safetensors", size=2_500_000)]
    monkeypatch.setattr("huggingface_hub.HfApi.get_paths_info", lambda _, model, names: on_the_hub)
    code, out, _ = cli("info", "me/smile")
    assert code == 0 and "test_resnet" in out and "2.5 MB" in out and out.count("not there") == 2


def test_info_tells_when_the_hub_can_not_be_asked(cli, model_dir, monkeypatch):
    code, _, err = cli("info", "me/smile")  # the tests are offline
    assert code == 2 and err.startswith("error: config.json of me/smile could not be downloaded")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda model, name: str(model_dir / name))
    code, _, err = cli("info", "me/smile")
    assert code == 2 and err.startswith("error: the files of me/smile could not be listed on the Hub")


def test_the_version_is_told(cli):
    code, out, _ = cli("--version")
    assert code == 0 and out == f"hf-smile {hf_smile.__version__}\n"


def test_from_the_command_to_the_answer_without_torch(model_dir, face_files):
    code = (
        f"import sys; sys.argv = ['hf-smile', 'predict', {str(face_files[0])!r}, '--model', {str(model_dir)!r},"
        " '--runtime', 'onnx']\n"
        "from hf_smile.commands.main import main\n"
        "try: main()\n"
        "except SystemExit as exit: assert exit.code == 0, exit.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_reader_that_stops_early_sees_no_traceback(model_dir, face_files):
    command = f"{sys.executable} -m hf_smile predict {face_files[0].parent} --model {model_dir} --faces whole | head -1"
    answer = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert answer.stdout.startswith("label") and "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "name", ["photo.jpg", "model.safetensors", "folder.csv", "nowhere/verdicts.csv", "photo.jpg/a.csv", "train.csv"]
)
def test_output_writes_over_nothing_but_results(name, model_dir, face_files, tmp_path, cli):
    (tmp_path / "photo.jpg").write_bytes(face_files[0].read_bytes())
    (tmp_path / "train.csv").write_text("image_id,label\na.jpg,1\n")
    (tmp_path / "folder.csv").mkdir()
    code, _, error = cli("predict", tmp_path / "photo.jpg", "--model", model_dir, "--output", tmp_path / name)
    assert code == 2 and f"--output {Path(name).name}" in error
    assert (tmp_path / "photo.jpg").read_bytes() == face_files[0].read_bytes()
    assert (tmp_path / "train.csv").read_text().endswith("a.jpg,1\n")


def test_a_url_is_told_to_be_none_of_the_paths(cli, model_dir):
    code, _, error = cli("predict", "https://example.org/a.jpg", "--model", model_dir)
    assert code == 2 and "https://example.org/a.jpg" in error and "download it first" in error


@pytest.mark.parametrize("name", ["verdicts.csv", "verdicts.jsonl", "verdicts.txt"])
def test_output_replaces_earlier_verdicts(name, model_dir, face_files, tmp_path, cli):
    long = tmp_path / Path(*(15 * ["写真" * 40]))  # its JSON line begins with 3,600 bytes of path
    long.mkdir(parents=True)
    cli("predict", shutil.copy(face_files[0], long), "--model", model_dir, "--output", tmp_path / name)
    words = ["--model", model_dir, "--faces", "whole", "--output", tmp_path / name]
    for picture in face_files[:2]:
        assert cli("predict", picture, *words)[0] == 0
    assert face_files[1].name in (tmp_path / name).read_text()


@pytest.mark.parametrize("option", ["--annotate", "--heat_maps"])
def test_pictures_of_results_overwrite_only_those_of_earlier_runs(option, model_dir, face_files, tmp_path, cli):
    shown, ending = tmp_path / "shown", {"--annotate": "", "--heat_maps": "_heat"}[option]
    shown.mkdir()
    original = tmp_path / "original.jpg"
    Image.open(face_files[0]).convert("RGB").save(original)
    shutil.copy(original, shown / f"a{ending}.jpg")
    shutil.copy(original, shown / f"A{ending}_2.jpg")
    (shown / f"b{ending}.jpg").symlink_to(original)
    for name in ("a.png", "b.png"):
        shutil.copy(face_files[1], tmp_path / name)
    words = ["--model", model_dir, "--faces", "whole", option, shown]
    (shown / f"b{ending}_2.jpg").mkdir()
    for _ in range(2):
        assert cli("predict", tmp_path / "a.png", tmp_path / "b.png", *words)[0] == 0
    kept = [original, *(shown / f"{name}{ending}.jpg" for name in "ab"), shown / f"A{ending}_2.jpg"]
    assert {path.read_bytes() for path in kept} == {original.read_bytes()}
    new = {path.name for path in shown.iterdir()} - {path.name for path in kept}
    assert len(new) == 3 and f"b{ending}_3.jpg" in new


def test_no_picture_is_written_if_one_of_the_originals_is_in_the_folder(model_dir, face_files, tmp_path, cli):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        shutil.copy(face_files[0], tmp_path / folder / "a.jpg")
    before = (tmp_path / "second" / "a.jpg").read_bytes()
    pictures = [tmp_path / folder / "a.jpg" for folder in ("first", "second")]
    words = ["--model", model_dir, "--faces", "whole", "--annotate", tmp_path / "second"]
    code, _, error = cli("predict", *pictures, *words)
    assert code == 2 and "contains the original pictures" in error
    assert [path.read_bytes() for path in (tmp_path / "second").iterdir()] == [before]


@pytest.mark.parametrize("option", ["--annotate", "--heat_maps"])
def test_pictures_of_results_leave_the_pictures_alone(option, model_dir, face_files, cli):
    before = [path.read_bytes() for path in face_files]
    code, _, error = cli("predict", *face_files, "--model", model_dir, "--faces", "whole", option, face_files[0].parent)
    assert code == 2 and f"{option} {face_files[0].parent} contains the original pictures" in error
    assert [path.read_bytes() for path in face_files] == before


def test_any_file_name_gets_into_any_output(model_dir, face_files, tmp_path):
    odd = tmp_path / os.fsdecode(b"odd\xff \xe5.png")
    odd.write_bytes(face_files[0].read_bytes())
    words = [sys.executable, "-m", "hf_smile", "predict", os.fsencode(odd), "--model", model_dir, "--faces", "whole"]
    for format in ("table", "csv", "jsonl"):
        environment = os.environ | {"PYTHONIOENCODING": "ascii"}
        done = subprocess.run([*words, "--format", format], env=environment, capture_output=True, timeout=120)
        assert done.returncode == 0 and b"odd" in done.stdout and b"Traceback" not in done.stderr


def test_an_output_that_can_not_be_written_is_told(model_dir, face_files):
    words = [sys.executable, "-m", "hf_smile", "predict", face_files[0], "--model", model_dir, "--faces", "whole"]
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 2 and "error: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
