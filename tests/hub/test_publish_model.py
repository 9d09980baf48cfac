"""A model is published in one commit and downloads unchanged in a new process."""

import json
import os

import pytest
from hub_server import TOKEN, Fault
from huggingface_hub import hf_hub_download

from hf_smile.errors import SmileError
from hf_smile.hub.upload import Target, push_files
from hf_smile.inference.onnx_export import export_onnx
from hf_smile.modeling import build_model
from hf_smile.training.arguments import parse_arguments, to_recipe

LOAD_IN_FOUR_WAYS = """
import json, sys
import numpy as np, timm, torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
from hf_smile.data.sample import draw_face
from hf_smile.inference.classifier import SmileClassifier

source = sys.argv[1]
face = draw_face(1, np.random.default_rng(0), size=96)
pixels = AutoImageProcessor.from_pretrained(source)(face, return_tensors="pt")["pixel_values"]
with torch.inference_mode():
    logits = AutoModelForImageClassification.from_pretrained(source).eval()(pixel_values=pixels).logits[0]
    by_timm = timm.create_model(f"hf-hub:{source}", pretrained=True).eval()(pixels)[0]
scores = pipeline("image-classification", model=source)(face)
ours = SmileClassifier.from_pretrained(source).predict(face)[0].probabilities
print(json.dumps([logits.tolist(), by_timm.tolist(), {s["label"]: s["score"] for s in scores}, dict(ours)]))
"""


def test_a_run_is_published_when_it_ends_and_loads_in_four_ways_elsewhere(run, hub, sample_dir, tmp_path):
    folder = tmp_path / "run"
    words = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", "32", "--use_cpu", "--max_steps", "2"]
    words += ["--push_to_hub", "--hub_model_id", "me/smile", "--hub_private_repo", "--ema_decay", "0"]
    trained = run("scripts/train.py", *words, "--data_dir", sample_dir, "--output_dir", folder)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[-1] == f"Published: {hub.url}/me/smile"
    assert hub.repo("me/smile").private
    assert hub.repo("me/smile").history["main"] == ["initial commit", "Upload model with hf_smile"]
    assert not any("checkpoint" in path or path.endswith(".pt") for path in hub.repo("me/smile").files())

    loaded = run("-c", LOAD_IN_FOUR_WAYS, "me/smile")
    assert loaded.returncode == 0, loaded.stderr
    logits, by_timm, scores, ours = json.loads(loaded.stdout)
    assert logits == _logits_of(folder)
    assert by_timm == pytest.approx(logits, rel=1e-5)  # another memory layout of the weights changes the order of sums
    assert scores["NOT smile"] == pytest.approx(ours["NOT smile"], abs=1e-5)
    assert TOKEN not in trained.stdout + trained.stderr + (folder / "recipe.yaml").read_text()


def _logits_of(folder) -> list[float]:
    import numpy as np
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from hf_smile.data.sample import draw_face

    face = draw_face(1, np.random.default_rng(0), size=96)
    pixels = AutoImageProcessor.from_pretrained(folder)(face, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return AutoModelForImageClassification.from_pretrained(folder).eval()(pixel_values=pixels).logits[0].tolist()


def test_what_a_model_needs_goes_up_and_nothing_of_the_people_in_the_data(push, run_folder, hub):
    code, out, _ = push("model", run_folder, "me/smile", "--license", "mit", "--dataset", "me/faces")
    assert (code, out.splitlines()[-1]) == (0, f"{hub.url}/me/smile")
    files = hub.repo("me/smile").files()
    expected = """README.md config.json confusion_matrix.png coverage.png model.safetensors precision_recall.png
        prior_adjustment.png recipe.yaml reliability.png test_metrics.json versions.json"""
    assert set(files) == set(expected.split())
    assert files["model.safetensors"] == (run_folder / "model.safetensors").read_bytes()
    assert not [path for path, content in files.items() if b"ann-" in content or b"/home/ann" in content]
    assert b"| teachers | teacher, me/net |" in files["README.md"]
    assert b"_predictions.csv" not in files["README.md"] and b"hf-hub:me/smile" in files["README.md"]


def test_the_next_push_replaces_the_whole_model(push, run_folder, hub):
    export_onnx(run_folder)
    push("model", run_folder, "me/smile")
    assert "onnx/model.onnx" in hub.repo("me/smile").files()
    hub.repo("me/smile").tree()["notes.md"] = hub.repo("me/smile").tree()["README.md"]
    (run_folder / "onnx" / "model.onnx").unlink()
    assert push("model", run_folder, "me/smile")[0] == 0
    assert "onnx/model.onnx" not in hub.repo("me/smile").files(), "it was exported from other weights"
    assert "notes.md" in hub.repo("me/smile").files(), "a file of another person"
    history = list(hub.repo("me/smile").history["main"])
    assert push("model", run_folder, "me/smile")[0] == 0
    assert hub.repo("me/smile").history["main"] == history, "nothing changed, so there is nothing to commit"


def test_an_onnx_file_of_other_weights_is_not_published(push, run_folder, hub):
    export_onnx(run_folder)
    build_model("test_resnet", pretrained=False, image_size=32).save_pretrained(run_folder)
    code, _, error = push("model", run_folder, "me/smile")
    assert code == 2 and "hf-smile export" in error
    assert hub.requests == []


def test_a_dry_run_lists_names_and_sizes_and_asks_nothing(push, run_folder, hub):
    code, out, _ = push("model", run_folder, "me/smile", "--dry_run")
    assert code == 0
    size = (run_folder / "model.safetensors").stat().st_size
    assert f"{size / 1e6:.1f} MB  model.safetensors" in out and "11 files" in out
    for name in ("test_predictions.csv", "validation_predictions.csv", "checkpoint-2"):
        assert name in out.split("not uploaded")[1]
    assert hub.requests == []


@pytest.mark.parametrize(("license", "hint"), [("nonsense", ""), ("MIT", "; did you mean 'mit'?")])
def test_a_license_that_the_hub_does_not_know_is_refused(push, run_folder, hub, license, hint):
    message = f"{license!r} is not a licence identifier of the Hub{hint}\n"
    for words in (("model", run_folder, "me/x"), ("dataset", "nowhere", "me/x", "--i_have_the_right_to_publish")):
        code, _, errors = push(*words, "--license", license, "--dry_run")
        assert code == 2 and errors.startswith(f"error: {message}'other' is for licences not on the list"), errors


def test_a_branch_leaves_main_alone(push, run_folder, hub):
    code, out, _ = push("model", run_folder, "me/smile", "--revision", "v2", "--private")
    assert (code, out.splitlines()[-1]) == (0, f"{hub.url}/me/smile/tree/v2")
    assert "config.json" in hub.repo("me/smile").files("v2")
    assert hub.repo("me/smile").files() == {} and hub.repo("me/smile").private


def test_a_pull_request_leaves_main_alone(push, run_folder, hub):
    code, out, _ = push("model", run_folder, "me/smile", "--create_pr")
    assert (code, out.splitlines()[-1]) == (0, f"{hub.url}/me/smile/discussions/1")
    assert "config.json" in hub.repo("me/smile").files("refs/pr/1") and hub.repo("me/smile").files() == {}


def test_what_is_to_be_private_does_not_go_where_all_can_see_it(push, run_folder, hub):
    push("model", run_folder, "me/smile", "--revision", "old")
    code, _, errors = push("model", run_folder, "me/smile", "--private")
    assert code == 2 and "exists and is public" in errors
    assert hub.repo("me/smile").files() == {}


def test_large_files_go_up_in_parts_and_a_broken_download_goes_on(hub_here, tmp_path, waits, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500_000)
    files = {"parts.bin": os.urandom(7_000_000), "whole.bin": os.urandom(300_000), "large.dat": os.urandom(10_000_001)}
    push_files(files, Target("me/large"), "Upload", bool)
    assert hub_here.repo("me/large").files() == files
    uploads = [path.count("/") for method, path, _ in hub_here.requests if method == "PUT"]
    assert sorted(uploads) == [2, *[3] * (4 + 6)], "one complete, the others in parts of 2 MB"
    hub_here.faults.append(Fault("GET", "^/blobs/", cut_answer_after=3_000_000))
    path = hf_hub_download("me/large", "parts.bin", cache_dir=tmp_path)
    with open(path, "rb") as file:  # noqa: PTH123
        assert file.read() == files["parts.bin"]
    ranges = [headers["range"] for _, path, headers in hub_here.requests if "range" in headers]
    assert ranges and ranges[-1].startswith("bytes=") and ranges[-1] != "bytes=0-"


@pytest.mark.parametrize("repo_id", ["smile", "me/", "a/b/c", "me/sm ile", "../me"])
def test_an_id_that_is_none_is_said(repo_id):
    with pytest.raises(SmileError, match="owner/name"):
        Target(repo_id)


@pytest.mark.parametrize(
    ("missing", "message"), [("test_metrics.json", "a finished run"), ("recipe.yaml", "no readable recipe.yaml")]
)
def test_a_folder_without_a_finished_run_is_refused(push, run_folder, hub, missing, message):
    (run_folder / missing).unlink()
    code, _, errors = push("model", run_folder, "me/smile")
    assert code == 2 and message in errors and hub.requests == []


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_config_is_said_and_not_published(push, run_folder, hub, content):
    (run_folder / "config.json").write_text(content)
    code, _, errors = push("model", run_folder, "me/smile")
    assert code == 2 and "config.json" in errors and "Traceback" not in errors and hub.requests == []


def test_the_settings_of_publishing(tmp_path):
    words = ["--output_dir", str(tmp_path), "--use_cpu"]
    arguments = parse_arguments([*words, "--push_to_hub", "--hub_model_id", "me/smile", "--hub_private_repo"])
    assert arguments[3].publish_to == "me/smile"
    assert arguments[3].push_to_hub is False, "otherwise the Trainer would push its checkpoints"
    assert to_recipe(arguments) == to_recipe(parse_arguments(words)), "publishing does not change the run"
    for wrong, message in ([["--push_to_hub"], "hub_model_id"], [["--hub_token", "hf_x"], "HF_TOKEN"]):
        with pytest.raises(SmileError, match=message):
            parse_arguments([*words, *wrong])
