"""Runs on a hired machine: requests to the Hub, checks before them, and the script on the machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import TOKEN, Fault
from huggingface_hub import HfApi, Volume

from hf_smile.commands.main import main
from hf_smile.hub.jobs import pack_code
from hf_smile.training.settings import read_words

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "jobs" / "train.py"
PUBLISH = ["--push_to_hub", "--hub_model_id", "me/smile"]
HIRE = ["--data_dir", "me/faces", "--backbone", "me/net", "--labels", "a smile", "none", "--no_pretrained", *PUBLISH]


@pytest.fixture
def uploaded(monkeypatch):
    """The files in the bucket of the job, by name. They are intercepted, because the loopback Hub has no Xet."""
    files = {}

    def upload(api, bucket_id, *, add, **_):
        assert bucket_id == "me/jobs-artifacts"
        files.update({Path(name).name: Path(path).read_bytes() for path, name in add})

    monkeypatch.setattr(HfApi, "batch_bucket_files", upload)
    return files


@pytest.fixture
def train(hub_here, uploaded, monkeypatch, capsys):
    """Run `hf-smile train` in this process, with data and backbone on the Hub; returns exit code and output."""
    api = HfApi(endpoint=hub_here.url)
    api.create_repo("me/faces", repo_type="dataset", private=True)
    api.create_repo("me/net", private=True)

    def train(*words):
        monkeypatch.setattr(sys, "argv", ["hf-smile", "train", *map(str, words)])
        capsys.readouterr()
        hub_here.requests.clear()
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return train


def without_names(request):
    """A request without the parts that differ between jobs: the folder in the bucket, and a name from local paths."""
    assert re.fullmatch(r"\d{8}T\d{6}-\w{6}", request["volumes"][0].pop("path"))
    assert re.fullmatch(r"train-\w{8}", request["labels"].pop("name"))
    return request


def test_the_request_is_that_of_the_hubs_own_client(train, hub, uploaded, tmp_path):
    code, out, errors = train("quickstart", *HIRE, "--job=a10g-small", "--job_timeout", "45m")
    assert code == 0, errors
    asked = without_names(hub.jobs.requests.pop())
    words = asked["environment"]["HF_SMILE_WORDS"]
    HfApi(endpoint=hub.url).run_uv_job(
        str(SCRIPT),
        script_args=[str(pack_code(tmp_path))],
        env={"HF_SMILE_WORDS": words},
        secrets={"HF_TOKEN": TOKEN},
        flavor="a10g-small",
        timeout=45 * 60,
    )
    assert asked == without_names(hub.jobs.requests.pop())
    assert asked == {
        "command": ["uv", "run", "/data/train.py", "/data/hf_smile.zip"],
        "arguments": [],
        "environment": {"HF_SMILE_WORDS": words},
        "secrets": {"HF_TOKEN": TOKEN},
        "flavor": "a10g-small",
        "timeoutSeconds": 2700,
        "labels": {},
        "volumes": [Volume(type="bucket", source="me/jobs-artifacts", mount_path="/data", read_only=False).to_dict()],
        "dockerImage": asked["dockerImage"],
    }
    recipe, given = json.loads(words)[:-2], json.loads(words)[-len(HIRE) - 2 :]
    assert recipe[(at := recipe.index("--learning_rate")) : at + 2] == ["--learning_rate", "0.005"]
    assert given == [*HIRE, "--disable_tqdm", "true"]
    assert {*uploaded} == {"train.py", "hf_smile.zip"} and uploaded["train.py"] == SCRIPT.read_bytes()
    assert f"{hub.url}/jobs/me/job1" in out and "Test accuracy 0.8" in out and "$0.0167 per minute" in errors


def test_the_token_is_a_secret_of_the_request_and_nowhere_else(train, hub, uploaded):
    hub.jobs.log = [f"a careless library prints {TOKEN}"]
    _, *printed = train(*HIRE, "--job", "a10g-small")
    asked = hub.jobs.requests.pop()
    assert asked.pop("secrets") == {"HF_TOKEN": TOKEN}
    shown = train(*HIRE, "--job", "a10g-small", "--dry_run")
    assert "a careless library" in printed[0]
    assert not [text for text in (*map(str, printed), json.dumps(asked), *map(str, shown)) if TOKEN in text]
    assert not [name for name, content in uploaded.items() if TOKEN.encode() in content]


def test_a_dry_run_prints_what_would_be_sent_and_changes_nothing(train, hub, uploaded):
    words = [*HIRE, "--job", "a10g-small"]
    code, out, errors = train(*words, "--dry_run")
    assert code == 0, errors
    assert {method for method, *_ in hub.requests} == {"GET"} and not uploaded and not hub.jobs.requests
    shown = json.loads(out[out.index("{") :])
    volumes = [Volume(**volume) for volume in shown.pop("volumes")]
    api = HfApi(endpoint=hub.url)
    api.run_job(**shown | {"secrets": dict.fromkeys(shown["secrets"], TOKEN), "volumes": volumes})
    assert train(*words)[0] == 0
    printed, sent = map(without_names, hub.jobs.requests)
    assert printed == sent


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hub_model_id", "me/smile"], "--push_to_hub --hub_model_id OWNER/NAME"),
        ([*PUBLISH, "--data_dir", "{sample}"], "hf-smile push dataset {sample} OWNER/NAME"),
        ([*PUBLISH, "--data_dir", "me/faces", "--backbone", "{sample}"], "hf upload OWNER/NAME {sample} --private"),
        ([*PUBLISH, "--data_dir", "outputs/faces"], "no such folder"),
        ([*PUBLISH, "--data_dir", "me/nothing"], "me/nothing: 404"),
        ([*PUBLISH, "--data_dir", "me/faces", "--backbone", "me/nothing"], "me/nothing: 404"),
        ([*HIRE, "--teachers", "me/nothing"], "me/nothing: 404"),
        ([*HIRE, "--teachers", "me/net", "{sample}"], "hf-smile push model {sample} OWNER/NAME --private"),
        ([*HIRE, "--job", "a10g"], "no such machine; choose one of cpu-basic, a10g-small"),
        ([*HIRE, "--job_timeout", "soon"], "job_timeout is 'soon'"),
        ([*HIRE, "--corrections", "corrections.csv"], "hf-smile push dataset"),
        ([*HIRE, "--seeds", "1", "2"], "leave out --seeds"),
        ([*HIRE, "--report_to", "wandb"], "leave out --report_to"),
        ([*HIRE, "--learning_rate", "fast"], "learning_rate"),
    ],
)
def test_what_would_fail_there_is_refused_here(train, hub, uploaded, sample_dir, words, message):
    code, _, errors = train("--job", "a10g-small", *(word.format(sample=sample_dir) for word in words))
    assert code == 2 and message.format(sample=sample_dir) in errors and "Traceback" not in errors
    assert not hub.jobs.requests and not uploaded


def test_a_run_is_a_backbone_that_goes_up_without_the_ids_of_its_images(train, tmp_path):
    (tmp_path / "test_metrics.json").write_text("{}")
    code, _, errors = train("--job", "a10g-small", *HIRE, "--backbone", tmp_path)
    assert code == 2 and f"hf-smile push model {tmp_path} OWNER/NAME --private" in errors


@pytest.mark.parametrize(("role", "message"), [("read", "write permission"), (None, "hf auth login")])
def test_a_token_that_could_not_publish_is_refused(train, hub, monkeypatch, role, message):
    hub.role = role
    if role is None:
        monkeypatch.delenv("HF_TOKEN")
    code, _, errors = train("--job", "a10g-small", *HIRE)
    assert code == 2 and message in errors and not hub.jobs.requests


def test_a_dry_run_of_no_job_does_not_train(train, sample_dir, tmp_path):
    words = ["--data_dir", sample_dir, "--output_dir", tmp_path / "run", "--use_cpu", "--dry_run"]
    code, _, errors = train(*words)
    assert code == 2 and "add --job" in errors and not (tmp_path / "run").exists()


def test_a_job_whose_answer_is_lost_is_not_hired_twice(train, hub):
    hub.faults.append(Fault("POST", "^/api/jobs/me$", cut_answer_after=0))
    code, _, errors = train("--job", "a10g-small", *HIRE)
    assert code == 2 and "did not confirm that the job started" in errors and "/settings/jobs" in errors
    assert len(hub.jobs.requests) == 1


def test_a_job_that_fails_is_an_error(train, hub):
    hub.jobs.stage, hub.jobs.message = "ERROR", "Job timeout"
    code, out, errors = train("--job", "a10g-small", *HIRE)
    assert code == 2 and "ERROR (Job timeout)" in errors and "Published" not in out


def test_the_log_outlives_a_broken_connection(train, hub, waits):
    hub.faults.append(Fault("GET", "/logs$", 0))
    code, out, errors = train("--job", "a10g-small", *HIRE)
    assert code == 0 and out.count("Test accuracy 0.8") == 1, errors


def test_the_script_of_the_job_trains_and_publishes(hub, sample_dir, tmp_path):
    """In a folder with only the archive, and without the package on Python's path."""
    words = ["quickstart", "--data_dir", str(sample_dir), "--image_size", "32", "--num_train_epochs", "1", "--use_cpu"]
    variables = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
    variables |= {"HF_SMILE_WORDS": json.dumps([*read_words(words), *PUBLISH, "--disable_tqdm", "true"])}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    command = [sys.executable, SCRIPT, pack_code(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert hub.repo("me/smile").files().keys() >= {"model.safetensors", "README.md"}
    assert not [path for path, content in hub.repo("me/smile").files().items() if TOKEN.encode() in content]
    assert TOKEN not in done.stdout + done.stderr
