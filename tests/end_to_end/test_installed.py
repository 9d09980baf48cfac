"""hf_smile installed by `pip install`, used from a folder outside the clone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution, distributions, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def install(folder: Path, *options: str, slim: bool = False) -> Path:
    """Install a copy of the clone, `folder/hf_smile`, in a new environment, and return the folder of its programs.

    The dependencies come from the environment of the tests, so that nothing is downloaded: all of them, or with `slim`
    those that are installed without an extra.
    """
    clone, environment = folder / "hf_smile", folder / "environment"
    for name in ("hf_smile", "recipes", "space"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    everything = site / "dependencies.pth"
    everything.write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", *options, clone], check=True, env=OUTSIDE)
    if slim:
        everything.unlink()  # what builds the package is in there
        for name in closure(required(environment)):
            for path in distribution(name).files or ():
                top = site / path.parts[0]
                if path.parts[0] not in ("..", "__pycache__") and not top.exists():
                    top.symlink_to(distribution(name).locate_file(path.parts[0]))
    return environment / "bin"


def required(environment: Path) -> set[str]:
    """The distributions that the installed hf_smile needs without an extra."""
    (metadata,) = environment.rglob("hf_smile-*.dist-info/METADATA")
    return names_in(re.findall(r"^Requires-Dist: (.*)$", metadata.read_text(encoding="utf-8"), re.M))


def names_in(requirements: list[str]) -> set[str]:
    """Of what is needed without an extra, as the metadata of distributions are compared."""
    needed = (line for line in requirements if "extra ==" not in line)
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in needed}


def closure(names: set[str]) -> set[str]:
    """These distributions, and those that they need, as far as they are installed: some are for other systems."""
    installed = names_in([one.name for one in distributions()])
    found: set[str] = set()
    while names:
        found |= names
        further = names_in([line for name in names for line in distribution(name).requires or ()])
        names = (further & installed) - found
    return found


def call(folder: Path, *words: str | Path) -> subprocess.CompletedProcess:
    """Run a program in `folder`, with nothing on the import path that its environment does not bring."""
    return subprocess.run(words, cwd=folder, env=OUTSIDE, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def slim(tmp_path_factory) -> Path:
    """The programs of an environment with what `pip install hf_smile` installs: no torch, no transformers."""
    return install(tmp_path_factory.mktemp("slim"), slim=True)


def test_every_step_from_the_data_to_a_verdict(sample_dir, tmp_path):
    programs, elsewhere = install(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    train = "train quickstart --data_dir prepared --num_train_epochs 1 --image_size 32 --use_cpu --output_dir model"
    for words, promised in {
        f"prepare --data_dir {sample_dir} --output_dir prepared": "The prepared data set",
        train: "Test accuracy",
        "evaluate --model model --output_dir report": "The complete report: report/report.md",
        f"audit --data_dir {sample_dir} --output_dir audit": "The complete audit: audit/audit.md",
        "export --model model": "model/onnx/model.onnx",
        f"predict {sample_dir}/happy_images.zip --model model --faces whole --format csv": "image_id,true_label",
        "push space me/demo --model me/smile --dry_run": "app.py",
    }.items():
        done = call(elsewhere, programs / "hf-smile", *words.split())
        assert done.returncode == 0, done.stderr
        assert promised in done.stdout
    # A script of the clone finds the installed package, whatever is next to it.
    script = ROOT / "scripts" / "evaluate.py"
    done = call(elsewhere, programs / "python", script, "--model", "nowhere", "--output_dir", "x")
    assert done.returncode == 2 and "nowhere: no such folder" in done.stderr


def test_a_clone_is_imported_from_the_folder_that_it_lies_in(tmp_path):
    """In a folder where the clone `hf_smile` could be mistaken for the package."""
    programs = install(tmp_path, "--editable")
    done = call(tmp_path, programs / "python", "-m", "hf_smile", "--version")
    assert done.stdout.startswith("hf-smile "), done.stderr


def test_without_an_extra_an_exported_model_predicts_and_all_that_is_installed_for_it_is_used(
    slim, demo_model, sample_dir, tmp_path
):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 4, (64, 48))
    picture = cv2.imread(str(ROOT / "docs" / "images" / "face.png"))
    for _ in range(4):
        writer.write(cv2.resize(picture, (64, 48)))
    writer.release()
    imported: set[str] = set()
    for words, promised in {
        f"predict {sample_dir}/happy_images.zip --model {demo_model} --faces whole --annotate seen": "genuine  image",
        f"predict {ROOT}/docs/images/face.png --model {demo_model} --detector haar --format csv": "image_id,true_label",
        f"predict {ROOT}/docs/images/face.png --model {demo_model} --faces whole --heat_maps heat": "face.png",
        f"video clip.avi --model {demo_model} --detector haar --output_dir clip": "clip/timeline.csv",
        f"info {demo_model}": "onnx/model.onnx",
    }.items():
        done = call(tmp_path, slim / "python", "-X", "importtime", "-m", "hf_smile", *words.split())
        assert done.returncode == 0, done.stderr[-2000:]
        assert promised in done.stdout
        imported |= set(re.findall(r"^import time:.*\| +(\w+)", done.stderr, re.M))
    assert (tmp_path / "clip" / "timeline.png").stat().st_size and list((tmp_path / "seen").iterdir())
    assert (tmp_path / "heat" / "face_heat.jpg").stat().st_size
    brought_by = packages_distributions()
    assert required(slim.parent) <= names_in([name for module in imported for name in brought_by.get(module, ())])


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        ("prepare --data_dir DATA --output_dir out", "datasets", "train"),
        ("shard --data_dir DATA --output_dir out", "datasets", "train"),
        ("compare --data_dir DATA --backbones test_resnet --output_dir out", "datasets", "train"),
        ("train quickstart --data_dir DATA", "transformers", "train"),
        ("evaluate --model MODEL --data_dir DATA --output_dir out", "datasets", "train"),
        ("export --model MODEL", "torch", "train"),
        ("predict PICTURE --model MODEL --runtime torch --faces whole", "torch", "train"),
        ("bulk --model MODEL --data DATA --output_dir out", "pyarrow", "train"),
        ("push dataset DATA me/faces --dry_run", "datasets", "train"),
        ("benchmark predict --output out.json", "transformers", "train"),
    ],
)
def test_without_the_extra_a_job_says_in_one_line_what_to_install(
    words, package, extra, slim, demo_model, sample_dir, tmp_path
):
    names = {"DATA": sample_dir, "MODEL": demo_model, "PICTURE": ROOT / "docs" / "images" / "face.png"}
    done = call(tmp_path, slim / "hf-smile", *(names.get(word, word) for word in words.split()))
    who = f"hf-smile {words.split()[0]}"
    assert done.stderr == f"error: {who} needs {package}, which is not installed: pip install 'hf_smile[{extra}]'\n"
    assert done.returncode == 2 and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("words", "packages", "extra"),
    [
        ("audit --data_dir DATA --output_dir out", "datasets, imagehash, cleanlab", "audit"),
        ("review --data_dir DATA --blind", "datasets, gradio", "demo"),
        ("tune quickstart --data_dir DATA", "transformers, optuna", "tune"),
    ],
)
def test_without_two_extras_a_job_names_both(words, packages, extra, slim, sample_dir, tmp_path):
    done = call(tmp_path, slim / "hf-smile", *words.replace("DATA", str(sample_dir)).split())
    fix = f"pip install 'hf_smile[train]' 'hf_smile[{extra}]'"
    assert done.stderr == f"error: hf-smile {words.split()[0]} needs {packages}, which are not installed: {fix}\n"
    assert done.returncode == 2 and not [*tmp_path.iterdir()]


def test_without_the_extra_a_name_says_in_python_what_to_install(slim, demo_model, tmp_path):
    code = f"""
from hf_smile import SmileClassifier
print(SmileClassifier.from_pretrained({str(demo_model)!r}).labels)
try:
    SmileClassifier.from_pretrained({str(demo_model)!r}, runtime="torch")
except ImportError as error:
    print(error)
try:
    from hf_smile import SmileTrainer
except ImportError as error:
    print(error)
"""
    done = call(tmp_path, slim / "python", "-c", code)
    _, classifier, trainer = done.stdout.splitlines()
    fix = "which is not installed: pip install 'hf_smile[train]'"
    assert classifier == f"SmileClassifier.from_pretrained needs torch, {fix}"
    assert re.fullmatch(rf"hf_smile\.SmileTrainer needs \w+, {re.escape(fix)}", trainer)
