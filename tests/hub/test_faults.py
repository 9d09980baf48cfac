"""Faults of the Hub: the request is retried or one message is printed, and nothing is published incompletely."""

import os

import pytest
from hub_server import TOKEN, Fault

from hf_smile.hub.upload import Target, push_files
from hf_smile.utils.console import run_script

COMMIT = "/commit/main$"
OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
FILES = {"README.md": b"---\nlicense: mit\n---\n", "config.json": b"{}", "model.safetensors": bytes(range(256)) * 400}


@pytest.fixture
def publish(hub_here, capsys):
    """Upload three files as the script does; returns the exit code and the errors."""

    def publish(repo_id: str = "me/smile", **options) -> tuple[int, str]:
        capsys.readouterr()
        try:
            run_script(lambda: print(push_files(FILES, Target(repo_id, **options), "Upload", bool)))
        except SystemExit as end:
            out, errors = capsys.readouterr()
            return int(end.code or 0), out + errors
        return 0, capsys.readouterr().err

    return publish


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "repos/create"), ("POST", "/preupload/"), ("POST", "objects/batch"), ("PUT", "^/lfs/"), ("POST", COMMIT)],
)
def test_a_refusal_on_the_first_try_is_tried_again(publish, hub, waits, method, path, status):
    hub.faults.append(Fault(method, path, status, body="<html>sorry</html>"))
    code, errors = publish()
    assert code == 0, errors
    assert len(waits) == 1
    assert len(hub.repo("me/smile").history["main"]) == 2


def test_a_page_for_people_in_the_place_of_an_answer_is_tried_again(publish, hub, waits):
    hub.faults.append(Fault("POST", "validate-yaml", 503, body="<html>sorry</html>"))
    assert publish()[0] == 0 and len(waits) == 1


@pytest.mark.parametrize("path", ["^/lfs/", COMMIT, "repos/create"])
def test_a_connection_that_breaks_in_the_middle_is_made_again(publish, hub, waits, path):
    hub.faults += [Fault("PUT", path), Fault("POST", path)]
    code, errors = publish()
    assert code == 0, errors
    assert waits
    assert hub.repo("me/smile").files()["model.safetensors"] == FILES["model.safetensors"]


def test_a_commit_whose_answer_is_lost_is_not_made_twice(publish, hub, waits):
    hub.faults.append(Fault("POST", COMMIT, cut_answer_after=0))
    code, errors = publish()
    assert code == 0, errors
    assert hub.repo("me/smile").history["main"] == ["initial commit", "Upload"]


@pytest.mark.parametrize("fault", [{"cut_answer_after": 0}, {"status": 500}, {"status": 502}, {"status": 504}], ids=str)
def test_a_pull_request_whose_answer_is_lost_is_not_opened_twice(publish, hub, waits, fault):
    hub.faults.append(Fault("POST", COMMIT, **fault))
    code, errors = publish(create_pr=True)
    assert code == 2 and "me/smile/discussions" in errors
    assert sum(COMMIT[:-1] in path for _, path, _ in hub.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_pull_request_that_was_not_even_tried_is_tried_again(publish, hub, waits, status):
    hub.faults.append(Fault("POST", COMMIT, status))
    assert publish(create_pr=True)[0] == 0 and len(waits) == 1
    assert "refs/pr/1" in hub.repo("me/smile").refs


def test_the_waits_grow_and_the_hub_s_own_wish_is_kept(publish, hub, waits):
    hub.faults.append(Fault("POST", COMMIT, 503, times=3))
    hub.faults.append(Fault("POST", COMMIT, 429, headers={"Retry-After": "30"}))
    assert publish()[0] == 0
    assert waits == [1, 2, 4, 30]


@pytest.mark.parametrize("path", ["/preupload/", "^/lfs/", COMMIT])
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the Hub does not accept your token"),
        (403, "your token can't write there"),
        (404, "not found, or your token has no access"),
        (409, "another process is changing it"),
        (500, "the Hub has an error"),
        (0, "the connection to"),
    ],
)
def test_a_refusal_is_one_message_and_nothing_is_published(publish, hub, waits, path, status, message):
    hub.faults += [Fault("POST", path, status, times=99), Fault("PUT", path, status, times=99)]
    code, errors = publish()
    assert code == 2
    told = errors[errors.index("error: ") :]
    assert message in told and "me/smile" in told and told.count("\n") == 1
    assert "Traceback" not in errors and TOKEN not in errors
    assert hub.repo("me/smile").history["main"] == ["initial commit"]
    if status in (401, 403, 404, 409):
        assert waits == [], "a retry would not help"


def test_a_namespace_of_others_is_refused(publish, hub):
    code, errors = publish("you/smile")
    assert code == 2 and "403" in errors and "namespace" in errors
    assert hub.repos == {}


@pytest.mark.parametrize(("token", "message"), [(None, "hf auth login"), ("hf_old", "does not accept your token")])
def test_no_token_and_a_wrong_one_are_said(publish, hub, monkeypatch, token, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    code, errors = publish()
    assert code == 2 and message in errors
    assert hub.repos == {} and "hf_old" not in errors


def test_the_token_goes_to_the_hub_and_nowhere_else(publish, hub):
    publish()
    tokens = {path.split("/")[1]: headers.get("authorization") for _, path, headers in hub.requests}
    assert tokens["api"] == f"Bearer {TOKEN}" and tokens["lfs"] is None


def test_offline_is_said(publish, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, errors = publish()
    assert code == 2 and "HF_HUB_OFFLINE" in errors


def test_training_does_not_start_when_its_result_could_not_be_published(run, sample_dir, tmp_path, hub):
    words = ["--backbone", "test_resnet", "--no_pretrained", "--use_cpu", "--data_dir", sample_dir]
    words += ["--output_dir", tmp_path / "run", "--push_to_hub", "--hub_model_id", "me/smile"]
    hub.faults.append(Fault("GET", "whoami", 401))
    done = run("scripts/train.py", *words)
    assert done.returncode == 2 and "does not accept your token" in done.stderr
    assert not (tmp_path / "run").exists()


FULL_DISK = """
import resource
from hf_smile.utils.console import run_script
from hf_smile.inference.classifier import SmileClassifier

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    run_script(lambda: SmileClassifier.from_pretrained("me/smile"))
except SystemExit as end:
    print("exit", end.code)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(SmileClassifier.from_pretrained("me/smile").runtime.pretrained_cfg["input_size"])
"""


def test_a_full_disk_on_download_is_said_and_leaves_no_half_a_model(push, run, run_folder):
    push("model", run_folder, "me/smile")
    done = run("-c", FULL_DISK)
    assert done.stdout.splitlines() == ["exit 2", "[3, 32, 32]"], done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert "me/smile" in done.stderr and "too large" in done.stderr


def test_an_upload_by_xet_that_fails_is_one_message(publish, hub, waits, monkeypatch):
    """The client of the real Hub uploads large files by Xet, which the loopback Hub does not have."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    code, errors = publish()
    assert code == 2 and "Traceback" not in errors
    assert "me/smile: the connection to" in errors and "failed: Network error" in errors
    assert hub.repo("me/smile").history["main"] == ["initial commit"]


@pytest.mark.parametrize(
    "words",
    [
        "predict docs/images/face.png --model me/smile --faces whole",
        "train --data_dir me/faces --backbone test_resnet --no_pretrained --use_cpu --output_dir OUT",
        "train --data_dir SAMPLE --use_cpu --output_dir OUT",
    ],
)
def test_a_hub_that_can_not_be_reached_is_one_message(run, words, sample_dir, tmp_path):
    without_waits = "import time; from hf_smile.commands.main import main; time.sleep = lambda _: None; main()"
    words = words.replace("OUT", str(tmp_path / "out")).replace("SAMPLE", str(sample_dir))
    done = run("-c", without_waits, *words.split(), env=os.environ | OFFLINE | {"HF_HOME": str(tmp_path / "cache")})
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
    assert "the Hub" in done.stderr and "Retry" not in done.stderr
