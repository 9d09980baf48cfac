"""hf_smile installed by `pip install`, used from a folder outside the clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def install(folder: Path, *options: str) -> Path:
    """Install a copy of the clone, `folder/hf_smile`, in a new environment, and return the folder of its programs.

    The dependencies come from the environment of the tests, so that nothing is downloaded.
    """
    clone, environment = folder / "hf_smile", folder / "environment"
    for name in ("hf_smile", "recipes", "space"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)})
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", *options, clone], check=True, env=OUTSIDE)
    return environment / "bin"


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
        done = subprocess.run(
            [programs / "hf-smile", *words.split()],
            cwd=elsewhere,
            env=OUTSIDE,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert promised in done.stdout
    # A script of the clone finds the installed package, whatever is next to it.
    script = [programs / "python", ROOT / "scripts" / "evaluate.py", "--model", "nowhere", "--output_dir", "x"]
    done = subprocess.run(script, cwd=elsewhere, env=OUTSIDE, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and "nowhere: no such folder" in done.stderr


def test_a_clone_is_imported_from_the_folder_that_it_lies_in(tmp_path):
    """In a folder where the clone `hf_smile` could be mistaken for the package."""
    programs = install(tmp_path, "--editable")
    command = [programs / "python", "-m", "hf_smile", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=OUTSIDE, capture_output=True, text=True, timeout=240)
    assert done.stdout.startswith("hf-smile "), done.stderr
