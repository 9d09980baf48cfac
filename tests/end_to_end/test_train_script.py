"""`hf-smile train` as a user runs it: to the end, killed in the middle, in two processes, and with mistakes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hf_smile.training.checkpoints import seal

ROOT = Path(__file__).parents[2]
TINY = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", "32", "--use_cpu"]
TINY += ["--per_device_train_batch_size", "16"]


def command(*words: str | Path, launcher: tuple[str, ...] = (sys.executable, "-m", "hf_smile", "train")) -> list[str]:
    return [*launcher, *map(str, words)]


def run(*words: str | Path, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*words, **options), cwd=cwd, capture_output=True, text=True, timeout=240)


def history(folder: Path) -> str:
    return (folder / "training_history.csv").read_text()


@pytest.fixture(scope="module")
def finished(sample_dir, tmp_path_factory):
    """An uninterrupted run of three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    done = run(*TINY, "--data_dir", sample_dir, "--num_train_epochs", "3", "--ema_decay", "0.9", "--output_dir", folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_leaves_everything_a_user_was_promised(finished, sample_dir):
    folder, done = finished
    promised = """README.md accuracy.png config.json confusion_matrix.png loss.png model.safetensors
        prior_adjustment.png recipe.yaml test_metrics.json test_predictions.csv training_history.csv
        validation_predictions.csv versions.json"""
    assert set(promised.split()) <= {path.name for path in folder.iterdir()}
    metrics = json.loads((folder / "test_metrics.json").read_text())
    with (folder / "test_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["image_id", "true_label", "predicted_label"]
    assert metrics["accuracy"] == pytest.approx(sum(row["true_label"] == row["predicted_label"] for row in rows) / 32)
    with (sample_dir / "test.csv").open() as file:
        assert {row["image_id"]: row["true_label"] for row in rows} == dict(csv.reader(file))
    assert f"Test accuracy {metrics['accuracy']:.4f}" in done.stdout
    assert "parameters" in done.stdout and "trainable" in done.stdout
    assert "epoch 3/3 | train loss" in done.stderr
    card = (folder / "README.md").read_text()
    for promise in (
        "Is it a smile?",
        "Is the smile genuine?",
        "Temperature scaling",
        "prior_adjustment.png",
        "5(1)(f)",
    ):
        assert promise in card


def test_the_saved_model_gives_the_reported_probabilities(finished, sample_dir):
    from transformers import pipeline

    from hf_smile.data.images import decode_image
    from hf_smile.data.sources import ImageSource

    folder, _ = finished
    classify = pipeline("image-classification", model=str(folder))
    images = ImageSource(sample_dir / "happy_images.zip")
    with (folder / "test_predictions.csv").open() as file:
        for row in list(csv.DictReader(file))[:5]:
            scores = {
                answer["label"]: answer["score"]
                for answer in classify(decode_image(images.read(images.find(row["image_id"]))))
            }
            assert scores["NOT smile"] == pytest.approx(float(row["p_not_smile"]), abs=1e-4)


def test_a_finished_run_is_not_trained_twice(finished, sample_dir):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = run(
        *TINY, "--data_dir", sample_dir, "--num_train_epochs", "3", "--ema_decay", "0.9", "--output_dir", folder
    )
    assert again.returncode == 0, again.stderr
    assert f"{folder} holds the finished run of these settings" in again.stdout
    assert "epoch" not in again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_killed_run_started_again_ends_as_one_left_alone(finished, sample_dir, tmp_path):
    folder, _ = finished
    words = [*TINY, "--data_dir", sample_dir, "--num_train_epochs", "3", "--ema_decay", "0.9", "--output_dir", tmp_path]
    process = subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (tmp_path / "test_metrics.json").exists()
    again = run(*words)
    assert again.returncode == 0, again.stderr
    assert "Resuming from" in again.stdout
    assert history(tmp_path) == history(folder)
    for name in ("test_metrics.json", "test_predictions.csv", "validation_predictions.csv", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_finished_run_decides_otherwise_without_training_again(finished, sample_dir, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    for state in (tmp_path / "copy").glob("checkpoint-*/trainer_state.json"):  # as if the run had been moved here
        state.write_text(state.read_text().replace(str(folder), "/moved/away"))
        seal(state.parent)
    words = [*TINY, "--data_dir", sample_dir, "--num_train_epochs", "3", "--ema_decay", "0.9"]
    before = (folder / "model.safetensors").read_bytes()
    for strength, same in (("1", False), ("0", True)):  # there and back: it is not folded on top of the last one
        done = run(*words, "--output_dir", tmp_path / "copy", "--prior_adjustment", strength)
        assert done.returncode == 0, done.stderr
        assert "epoch 1/3" not in done.stderr
        assert ((tmp_path / "copy" / "model.safetensors").read_bytes() == before) == same
        assert ("not calibrated for one like train" in (tmp_path / "copy" / "README.md").read_text()) != same
    for name in ("test_metrics.json", "test_predictions.csv", "validation_predictions.csv"):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes(), name


def test_each_look_at_the_test_split_from_one_folder_is_on_the_card(finished, sample_dir, tmp_path):
    folder, _ = finished
    today = json.loads((folder / "test_looks.json").read_text())[0]["date"]
    assert f"The test split was looked at once, on {today}." in (folder / "README.md").read_text()
    shutil.copytree(folder, tmp_path / "copy")
    words = [*TINY, "--data_dir", sample_dir, "--ema_decay", "0.9", "--output_dir", tmp_path / "copy"]
    for more in (["--num_train_epochs", "4"], ["--num_train_epochs", "4", "--prior_adjustment", "0.3"]):
        assert run(*words, *more).returncode == 0
    card = (tmp_path / "copy" / "README.md").read_text()
    assert "The test split was looked at 3 times:" in card
    assert "(first result)" in card and "(num_train_epochs 3.0 -> 4.0)" in card
    assert "(prior_adjustment 0.0 -> 0.3)" in card


def test_the_result_says_which_epoch_it_is_of_and_how_calibrated(finished):
    folder, done = finished
    metrics = json.loads((folder / "test_metrics.json").read_text())
    assert "of 3 was chosen by accuracy on 10 validation images" in done.stdout
    assert f"{metrics['ece']:.3f} with the temperature, 32 images" in done.stdout
    assert f"calibration error {metrics['calibration']['test']['as_trained']['ece']:.3f} as trained" in done.stdout


def test_a_finished_run_without_checkpoints_is_not_trained_over(finished, sample_dir, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoint-*"))
    words = [*TINY, "--data_dir", sample_dir, "--num_train_epochs", "3", "--ema_decay", "0.9"]
    done = run(*words, "--output_dir", tmp_path / "copy", "--prior_adjustment", "1")
    assert done.returncode == 2 and "without its checkpoints" in done.stderr
    assert (tmp_path / "copy" / "test_metrics.json").is_file()


BIN = Path(sys.executable).parent
LAUNCHERS = {
    "accelerate": (
        BIN / "accelerate",
        "launch",
        "--config_file",
        ROOT / "recipes" / "accelerate" / "cpu_processes.yaml",
        ROOT / "scripts" / "train.py",
    ),
    "torchrun": (BIN / "torchrun", "--standalone", "--nproc_per_node", "2", "-m", "hf_smile", "train"),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_one_model(sample_dir, tmp_path, launcher):
    words = [word for word in TINY if word != "--use_cpu"]
    words += ["--data_dir", sample_dir, "--num_train_epochs", "2", "--output_dir", tmp_path]
    words += ["--imbalance", "oversample", "--mixup", "0.2", "--warmup_frozen_epochs", "1", "--layer_decay", "0.9"]
    done = run(*words, launcher=tuple(map(str, LAUNCHERS[launcher])))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Test accuracy") == 1
    with (tmp_path / "training_history.csv").open() as file:
        # 86 images in train, 16 per process and step: three steps per epoch
        assert [int(row["step"]) for row in csv.DictReader(file)] == [3, 6]
    with (tmp_path / "test_predictions.csv").open() as file:
        assert len({row["image_id"] for row in csv.DictReader(file)}) == 32


def test_a_run_on_all_of_train_chooses_nothing(sample_dir, tmp_path):
    words = [*TINY, "--data_dir", sample_dir, "--num_train_epochs", "1", "--output_dir", tmp_path]
    done = run(*words, "--validation_size", "0", "--select_best", "last")
    assert done.returncode == 0, done.stderr
    assert "train: 96 images, test: 32 images" in done.stdout
    assert "epoch 1/1 | train loss" in done.stderr and "validation loss" not in done.stderr
    card = (tmp_path / "README.md").read_text()
    assert "The weights are those of the last epoch, epoch 1; no checkpoint was chosen." in card
    assert json.loads((tmp_path / "test_metrics.json").read_text())["accuracy"] > 0


def test_a_first_try_on_a_few_images_is_marked_as_one(sample_dir, tmp_path):
    words = [*TINY, "--data_dir", sample_dir, "--num_train_epochs", "1", "--output_dir", tmp_path]
    done = run(*words, "--max_train_samples", "24")
    assert done.returncode == 0, done.stderr
    assert "train: 24 images, validation: 10 images, test: 32 images" in done.stdout
    assert "**A first try**: the model was trained on at most 24 images" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "splits.csv").read_text().count(",train,") == 24
    another = run(*words, "--max_train_samples", "25")
    assert another.returncode == 2 and "max_train_samples 24 -> 25" in another.stderr


def test_real_data_and_a_pretrained_backbone_start(real_data, real_backbone, tmp_path):
    """A few steps of the recipe for these data and this backbone."""
    words = ["recipes/efficientnet_lite0.yaml", "--data_dir", real_data, "--backbone", real_backbone, "--use_cpu"]
    words += ["--image_size", "64", "--max_steps", "2", "--per_device_train_batch_size", "8", "--output_dir", tmp_path]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "test_metrics.json").read_text())["support_not_smile"] == 1128


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data/happy_images: no such folder"),
        (["--data_dir", "nowhere"], "nowhere: no such folder"),
        (["nowhere.yaml"], "no such recipe"),
        (["--epochs", "3"], "unknown setting 'epochs'"),
        (["--data_dir", "{empty}", "--backbone", "resnet999", "--use_cpu"], "timm has no model 'resnet999'"),
        (["--data_dir", "{sample}"], "could not be fetched from the Hugging Face Hub"),
        (["--data_dir", "{sample}", *TINY, "--report_to", "nonsense"], "nonsense"),
        (["--data_dir", "{sample}", *TINY, "--validation_size", "0"], "add --select_best last"),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(words, message, sample_dir, tmp_path):
    (tmp_path / "empty").mkdir()  # the backbone is checked before the data are read
    words = [word.format(sample=sample_dir, empty=tmp_path / "empty") for word in words]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/*/recipe.yaml"))  # so the next run needs no --overwrite


def test_help_lists_the_settings():
    done = run("--help")
    assert done.returncode == 0
    assert "--data_dir" in done.stdout and "ema_decay" in done.stdout and "hf-smile train" in done.stdout


def test_ctrl_c_saves_and_says_in_one_line_where_the_run_resumes(sample_dir, tmp_path):
    words = [*TINY, "--data_dir", sample_dir, "--num_train_epochs", "500", "--output_dir", tmp_path]
    process = subprocess.Popen(
        command(*words),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
        # Processes that a script starts in the background ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    newest = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    assert f"\ninterrupted; the same command resumes from {newest}\n" in errors.decode()
    assert b"Traceback" not in errors


def test_with_seeds_sigterm_before_the_training_leaves_no_process(sample_dir, tmp_path):
    words = [*TINY, "--data_dir", sample_dir, "--num_train_epochs", "500", "--output_dir", tmp_path, "--seeds", "3"]
    process = subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "fine-tuning" in line:
            break
    time.sleep(0.5)  # the launcher has no children yet
    started = psutil.Process(process.pid).children(recursive=True)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    process.communicate(timeout=30)
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)  # the second may come at its very end
    assert started and not psutil.wait_procs(started, timeout=10)[1]


def test_with_seeds_sigterm_to_the_command_alone_saves_and_leaves_no_process(sample_dir, tmp_path):
    words = [*TINY, "--data_dir", sample_dir, "--num_train_epochs", "500", "--output_dir", tmp_path, "--seeds", "3"]
    process = subprocess.Popen(
        command(*words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("3/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"checkpoint-" in errors and b"the same command resumes from" in errors and b"Traceback" not in errors
    assert not psutil.wait_procs(started, timeout=10)[1]
