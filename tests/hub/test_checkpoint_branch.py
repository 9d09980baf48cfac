"""Checkpoints on a branch of the Hub: complete or absent, the newest two and the best, of one run at a time."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hub_server import Entry, Fault
from huggingface_hub import HfApi

from hf_smile.errors import SmileError
from hf_smile.hub.checkpoints import BRANCH, CLAIM, BranchClaimed, CheckpointUploads, fetch_run
from hf_smile.training.checkpoints import checkpoints, last_whole_checkpoint, seal
from hf_smile.training.run_folder import open_run

ROOT = Path(__file__).parents[2]
RECIPE = {"learning_rate": 0.1, "seed": 1}


class Run:
    """A run whose checkpoints have only a few bytes."""

    def __init__(self, folder, recipe=RECIPE, begin=0):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        self.uploads = CheckpointUploads("me/smile", folder)
        self.state = SimpleNamespace(global_step=begin, best_global_step=None, is_world_process_zero=True)
        self.uploads.on_train_begin(None, self.state, None)

    def save(self, step, best=None):
        self.state.global_step, self.state.best_global_step = step, best or step
        folder = self.folder / f"checkpoint-{step}"
        folder.mkdir()
        state = {"global_step": step, "best_global_step": best or step}
        (folder / "trainer_state.json").write_text(json.dumps(state))
        for name in ("model.safetensors", "optimizer.pt"):
            (folder / name).write_bytes(f"{name} of step {step}".encode() * 1000)
        seal(folder)
        self.uploads.on_save(None, self.state, None)

    def end(self):
        self.uploads.on_train_end()


def steps_of(hub):
    return sorted(
        {int(path.split("/")[0][11:]) for path in hub.repo("me/smile").files(BRANCH) if path[:11] == "checkpoint-"}
    )


@pytest.fixture
def new_disk(tmp_path):
    """Fetch the branch to an empty output folder."""

    def new_disk(name="new"):
        fetch_run("me/smile", tmp_path / name)
        return tmp_path / name

    return new_disk


def test_an_empty_disk_resumes_from_the_newest(hub_here, tmp_path, new_disk):
    assert not checkpoints(new_disk("before"))
    run = Run(tmp_path / "run")
    for step in (10, 20):
        run.save(step)
        shutil.rmtree(run.folder / f"checkpoint-{step}")  # by the run, while it is uploaded
    run.end()
    assert hub_here.repo("me/smile").private
    assert hub_here.repo("me/smile").history[BRANCH][1:] == ["Claim the branch", "Checkpoint 10", "Checkpoint 20"]
    resumed = open_run(new_disk(), RECIPE)
    assert resumed == tmp_path / "new" / "checkpoint-20"
    assert (resumed / "optimizer.pt").read_bytes() == b"optimizer.pt of step 20" * 1000
    assert not list(run.folder.glob("uploading-*"))
    assert {path.name for path in resumed.parent.iterdir()} == {"recipe.yaml", "checkpoint-10", "checkpoint-20"}


def test_the_newest_two_and_the_best_are_kept(hub_here, tmp_path, new_disk):
    run = Run(tmp_path / "run")
    for step in (10, 20, 30, 40):
        run.save(step, best=10)
    run.end()
    assert steps_of(hub_here) == [10, 30, 40]
    assert open_run(new_disk(), RECIPE) == tmp_path / "new" / "checkpoint-40"


@pytest.mark.parametrize("fault", [{}, {"status": 503}, {"cut_answer_after": 0}], ids=str)
@pytest.mark.parametrize("path", ["^/lfs/", "/commit/", "/preupload/"])
def test_a_cut_connection_is_made_again(hub_here, tmp_path, new_disk, waits, path, fault):
    run = Run(tmp_path / "run")
    run.save(10)
    run.uploads.finish()
    hub_here.faults += [Fault("PUT", path, **fault), Fault("POST", path, **fault)]
    run.save(20)
    run.end()
    assert hub_here.repo("me/smile").history[BRANCH][2:] == ["Checkpoint 10", "Checkpoint 20"]
    assert open_run(new_disk(), RECIPE) == tmp_path / "new" / "checkpoint-20"


def test_a_hub_that_is_away_ends_no_run_and_leaves_what_was_there_whole(hub_here, tmp_path, new_disk, waits, caplog):
    run = Run(tmp_path / "run")
    run.save(10)
    run.uploads.finish()
    hub_here.faults.append(Fault("POST", "/commit/", times=99))
    run.save(20)
    run.end()
    assert "was not uploaded" in caplog.text
    hub_here.faults.clear()
    assert open_run(new_disk("a"), RECIPE) == tmp_path / "a" / "checkpoint-10"
    run.save(30)
    run.end()
    assert open_run(new_disk("b"), RECIPE) == tmp_path / "b" / "checkpoint-30"


def test_of_two_runs_on_one_branch_the_earlier_is_refused(hub_here, tmp_path, new_disk):
    first = Run(tmp_path / "first")
    first.save(10)
    first.uploads.finish()
    second = Run(new_disk("second"), begin=10)
    first.save(20)
    with pytest.raises(BranchClaimed, match="give one of them another --checkpoint_to"):
        first.end()
    second.save(20)
    second.end()
    assert hub_here.repo("me/smile").history[BRANCH][-1] == "Checkpoint 20"
    assert json.loads(hub_here.repo("me/smile").files(BRANCH)[CLAIM])["process"] in second.uploads.me.decode()


def test_a_run_that_claims_the_branch_during_an_upload_is_not_overwritten(hub_here, tmp_path, monkeypatch, waits):
    first = Run(tmp_path / "first")
    upload = HfApi.preupload_lfs_files

    def claimed_meanwhile(api, *args, **options):
        monkeypatch.setattr(HfApi, "preupload_lfs_files", upload)
        Run(tmp_path / "second")
        return upload(api, *args, **options)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", claimed_meanwhile)
    first.save(10)
    first.uploads.finish()
    assert steps_of(hub_here) == []
    first.save(20)
    with pytest.raises(BranchClaimed):
        first.end()


def test_a_stale_branch_of_another_recipe_is_refused(hub_here, tmp_path, new_disk):
    run = Run(tmp_path / "run")
    run.save(10)
    run.end()
    with pytest.raises(SmileError, match=r"learning_rate 0.1 -> 0.2"):
        open_run(new_disk(), RECIPE | {"learning_rate": 0.2})


def test_a_run_that_starts_over_leaves_nothing_of_the_earlier(hub_here, tmp_path):
    run = Run(tmp_path / "run")
    run.save(10)
    run.save(20)
    run.end()
    Run(tmp_path / "fresh")
    assert steps_of(hub_here) == []


def test_a_tampered_checkpoint_is_passed_over(hub_here, tmp_path, new_disk, caplog):
    run = Run(tmp_path / "run")
    run.save(10)
    run.save(20)
    run.end()
    hub_here.repo("me/smile").tree(BRANCH)["checkpoint-20/optimizer.pt"] = Entry(b"os.system", False)
    assert last_whole_checkpoint(new_disk()) == tmp_path / "new" / "checkpoint-10"
    assert "optimizer.pt has changed since it was written" in caplog.text


def test_a_public_repository_is_refused_before_the_first_step(hub_here, tmp_path):
    HfApi(endpoint=hub_here.url).create_repo("me/smile")
    with pytest.raises(SmileError, match="public"):
        Run(tmp_path / "run")


def test_a_killed_run_goes_on_elsewhere_as_if_nothing_had_been(run, hub, sample_dir, tmp_path):
    """The run is killed when the second of three epochs is on the Hub, and started again on an empty disk."""
    words = ["-m", "hf_smile", "train", "quickstart", "--data_dir", sample_dir, "--image_size", "32", "--use_cpu"]
    words += ["--num_train_epochs", "3", "--ema_decay", "0.9"]
    undisturbed = run(*words, "--output_dir", tmp_path / "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    remote = ["--checkpoint_to", "me/smile", "--output_dir"]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_loopback"}
    process = subprocess.Popen(
        [sys.executable, *map(str, [*words, *remote, tmp_path / "first"])],
        env=environment | {"HF_HUB_DISABLE_XET": "1"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        time.sleep(0.05)
        if ("models", "me/smile") in hub.repos and len(hub.repo("me/smile").history.get(BRANCH, [])) >= 4:
            process.kill()
            process.wait()
    assert process.returncode == -9
    shutil.rmtree(tmp_path / "first")
    again = run(*words, *remote, tmp_path / "second")
    assert again.returncode == 0 and "Resuming from" in again.stdout, again.stderr
    for name in ("training_history.csv", "model.safetensors", "test_metrics.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
