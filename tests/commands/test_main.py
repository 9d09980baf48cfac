"""`hf-smile JOB`: the job that runs, its name, and the imports for it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from hf_smile.commands.main import JOBS

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if path.stem != "load_test")

DRIVER = """
import sys
from hf_smile.commands.main import main
try:
    main()
except SystemExit as end:
    print(end.code, sorted({"torch", "timm", "datasets", "pandas"} & {*sys.modules}), sep="\\n")
"""


def run_apart(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run a job in a separate Python, which prints the exit code and the heavy libraries it imported."""
    command = [sys.executable, "-c", DRIVER, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240)


def test_every_module_of_the_package_is_a_job():
    modules = {path.stem for path in (ROOT / "hf_smile" / "commands").glob("*.py")}
    assert {*JOBS} == modules - {"__init__", "main", "options"}


def test_the_jobs_are_listed_with_what_they_do(cli):
    code, out, _ = cli("--help")
    assert code == 0
    for job in JOBS:
        assert any(line.split()[:1] == [job] and len(line.split()) > 3 for line in out.splitlines())


def test_without_a_job_the_jobs_are_listed(cli):
    assert cli() == cli("--help")


def test_a_job_with_a_typing_error_is_suggested(cli):
    code, _, err = cli("trian")
    assert code == 2 and "'trian' is not a job; did you mean 'train'?" in err


def test_a_typing_error_in_a_required_option_is_suggested(cli):
    code, _, err = cli("predict", "photo.jpg", "--modle", "outputs/model")
    assert code == 2 and "--modle; did you mean '--model'?" in err
    code, _, err = cli("predict", "photo.jpg")
    assert code == 2 and "the following arguments are required: --model" in err
    code, _, err = cli("push", "--license")
    assert code == 2 and "unrecognized" not in err


@pytest.mark.parametrize(
    ("words", "suggested"),
    [("push model here me/x --licence mit", "license"), ("benchmark train --output x.json --batch 3", "batch_size")],
)
def test_an_unknown_option_of_a_subcommand_is_suggested(cli, words, suggested):
    code, _, err = cli(*words.split())
    assert code == 2 and f"; did you mean '--{suggested}'?\n" in err
    assert err.endswith(f"\nAll options: hf-smile {' '.join(words.split()[:2])} --help\n")


@pytest.mark.parametrize("job", JOBS)
def test_help_names_the_command_that_was_called_and_imports_nothing_heavy(job):
    done = run_apart(job, "--help")
    assert done.stdout.startswith(f"usage: hf-smile {job} ")
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_a_job_under_its_own_name(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"scripts/{script}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out.startswith(f"usage: scripts/{script}.py ")


def test_a_job_that_does_not_exist_is_refused(cli):
    code, _, error = cli("trian")
    assert code == 2 and "'trian'" in error and "train" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data_dir", "nowhere"], "nowhere: no such folder"),
        (["--lr", "1"], "did you mean 'learning_rate'?"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["no_such.yaml"], "no_such.yaml: no such recipe"),
        (["--data_dir", ".", "--teachers", "nope"], "error: --teachers nope: no such folder"),
        (["--data_dir", ".", "--seeds", "1", "1"], "error: --seeds 1 1: a seed is repeated"),
        (["--output_dir", "file"], "error: file is a file; name a folder with --output_dir"),
        (["--output_dir", "file/below", "--seeds", "1", "2"], "error: file is a file; name a folder with --output_dir"),
    ],
)
def test_training_refuses_what_is_wrong_before_it_imports_torch(words, message, tmp_path):
    (tmp_path / "file").touch()
    done = run_apart("train", *words, cwd=tmp_path)
    assert done.stdout.splitlines() == ["2", "[]"]
    assert message in done.stderr


def test_threads_do_not_spin_for_long_while_they_wait_unless_the_user_says_so(cli, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    cli("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "active" and "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    cli("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "passive" and os.environ.pop("GOMP_SPINCOUNT") == "5000"
    assert run_apart("--version").stdout.splitlines()[-1] == "[]"  # so it is set before torch reads it
