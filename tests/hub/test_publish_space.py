"""The demo is published with the package, pinned, and runs after download."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hub_server import Fault
from huggingface_hub import RepoCard, snapshot_download

import hf_smile
from hf_smile.hub.space import _is_ours, space_files

ROOT = Path(__file__).parents[2]

APP = """\
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.labels import LABEL_NAMES
from about import TEXT

print(TEXT, len(LABEL_NAMES), SmileClassifier.__module__)
"""


@pytest.fixture
def space_dir(tmp_path) -> Path:
    """A small stand-in for the demo."""
    folder = tmp_path / "space"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "app.pyc").write_bytes(b"")
    (folder / ".env").write_text("HF_TOKEN=hf_secret")
    (folder / "app.py").write_text(APP)
    (folder / "about.py").write_text("TEXT = 'about'\n")
    (folder / "README.md").write_text("---\ntitle: Smile\nsdk: gradio\napp_file: app.py\n---\n# Smile\n")
    (folder / "requirements.txt").write_text("# what it needs\ngradio\nnumpy>=1\npillow==11.0.0\n")
    return folder


def push_space(push, space_dir, *words):
    return push("space", "me/demo", "--model", "me/smile", "--space_dir", space_dir, *words)


def test_what_comes_down_is_complete_and_runs(push, run, hub, space_dir, tmp_path):
    (space_dir / "thumbnail.jpg").write_bytes(b"a picture")
    code, out, errors = push_space(push, space_dir, "--hardware", "cpu-upgrade")
    assert code == 0, errors
    assert out.splitlines()[-1] == f"{hub.url}/spaces/me/demo"
    repo = hub.repo("me/demo", "spaces")
    assert repo.variables == {"HF_SMILE_MODEL": "me/smile"} and repo.hardware == "cpu-upgrade"
    assert repo.history["main"] == ["initial commit", "Upload demo with hf_smile"]

    tree = Path(snapshot_download("me/demo", repo_type="space", local_dir=tmp_path / "down"))
    front = RepoCard.load(tree / "README.md").data
    assert front["models"] == ["me/smile"] and front["preload_from_hub"][0] == "me/smile"
    assert front["thumbnail"] == f"{hub.url}/spaces/me/demo/resolve/main/thumbnail.jpg"
    assert (tree / "thumbnail.jpg").read_bytes() == b"a picture"
    assert front["preload_from_hub"][1].startswith("opencv/face_detection_yunet ")
    package = Path(hf_smile.__file__).parent
    modules = {path.relative_to(package.parent).as_posix() for path in package.rglob("*.py")}
    there = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if ".cache" not in path.parts}
    assert modules | {"app.py", "about.py", "README.md", "requirements.txt"} <= there
    assert not [path for path in there if "__pycache__" in path or path == ".env"]
    done = run("-c", "import app, hf_smile; print(hf_smile.__file__)", cwd=tree)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["about 3 hf_smile.inference.classifier", str(tree / "hf_smile/__init__.py")]


def test_versions_are_those_that_are_installed_here(space_dir):
    files = space_files(space_dir)
    lines = files["requirements.txt"].decode().splitlines()
    assert lines == ["# what it needs", f"gradio=={version('gradio')}", f"numpy=={version('numpy')}", "pillow==11.0.0"]
    card = RepoCard(files["README.md"].decode())
    assert card.data["sdk_version"] == version("gradio") and card.data["title"] == "Smile"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"python_version: '{python}'" in str(card), "as text, because 3.10 as a number is 3.1"


def test_the_next_push_removes_what_is_gone_and_keeps_what_is_not_ours(push, hub, space_dir):
    push_space(push, space_dir)
    tree = hub.repo("me/demo", "spaces").tree()
    for path in ("hf_smile/old.py", "notes.md", "pictures/me.png"):
        tree[path] = tree["about.py"]
    (space_dir / "about.py").unlink()
    assert push_space(push, space_dir)[0] == 0
    files = hub.repo("me/demo", "spaces").files()
    assert "about.py" not in files and "hf_smile/old.py" not in files
    assert "notes.md" in files and "pictures/me.png" in files


@pytest.mark.parametrize(
    ("words", "where"),
    [(["--create_pr"], "discussions/1"), (["--revision", "next"], "tree/next")],
    ids=["pr", "branch"],
)
def test_what_is_not_main_does_not_touch_the_space_that_runs(push, hub, space_dir, words, where):
    code, out, _ = push_space(push, space_dir, *words, "--hardware", "t4-small")
    assert (code, out.splitlines()[-1]) == (0, f"{hub.url}/spaces/me/demo/{where}")
    repo = hub.repo("me/demo", "spaces")
    assert repo.variables == {} and repo.hardware == "cpu-basic" and repo.files() == {}


def test_main_by_its_name_is_main(push, hub, space_dir):
    assert push_space(push, space_dir, "--revision", "main", "--hardware", "t4-small")[0] == 0
    repo = hub.repo("me/demo", "spaces")
    assert repo.variables == {"HF_SMILE_MODEL": "me/smile"} and repo.hardware == "t4-small"


def test_every_file_of_this_project_s_demo_is_known_as_ours():
    if not (ROOT / "space").is_dir():
        pytest.skip("there is no space/")
    assert {path for path in space_files(ROOT / "space") if not _is_ours(path)} == set()


def test_a_dry_run_lists_names_and_sizes(push, hub, space_dir):
    code, out, _ = push_space(push, space_dir, "--dry_run")
    assert code == 0 and hub.requests == []
    assert "app.py" in out and "hf_smile/labels.py" in out


@pytest.mark.parametrize("path", ["/variables", "/commit/", "/preupload/"])
def test_a_refusal_publishes_nothing(push, hub, space_dir, path):
    hub.faults.append(Fault("POST", path, 403))
    code, _, errors = push_space(push, space_dir)
    assert code == 2 and "your token can't write there" in errors
    assert hub.repo("me/demo", "spaces").files() == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hardware", "abacus"), "choose from 'cpu-basic'"),
        (("--model", "smile"), "'smile' is not a Hub id"),
        (("--model", "outputs/nowhere"), "outputs/nowhere: no such folder"),
        (("--model", str(ROOT / "space")), "is a folder, but a Space loads its model from the Hub"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry_run"]], ids=["", "dry"])
def test_a_mistake_is_said_before_anything_happens(push, hub, space_dir, words, message, dry):
    code, _, errors = push_space(push, space_dir, *words, *dry)
    assert code == 2 and message in errors and hub.requests == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("requirements.txt", "no-such-package-here\n", "is not installed here"), ("app.py", None, "there is no app.py")],
)
def test_a_folder_that_cannot_run_is_refused(push, hub, space_dir, name, content, message):
    (space_dir / name).write_text(content) if content else (space_dir / name).unlink()
    code, _, errors = push_space(push, space_dir)
    assert code == 2 and message in errors and hub.requests == []


def test_the_demo_of_this_project_goes_up_whole_and_can_be_imported(push, run, hub, tmp_path):
    if not (ROOT / "space" / "README.md").exists():
        pytest.skip("there is no space/ to publish")
    code, _, errors = push("space", "me/demo", "--model", "me/smile")
    assert code == 0, errors
    files = hub.repo("me/demo", "spaces").files()
    own = {path.relative_to(ROOT / "space").as_posix() for path in (ROOT / "space").rglob("*.*")}
    assert {path for path in own if "__pycache__" not in path} <= set(files)
    card = RepoCard(files["README.md"].decode())
    assert card.data["sdk"] == "gradio" and card.data["app_file"] in files
    assert all("==" in line for line in files["requirements.txt"].decode().splitlines() if line[:1].isalnum())
    tree = Path(snapshot_download("me/demo", repo_type="space", local_dir=tmp_path / "down"))
    modules = ", ".join(path.stem for path in tree.glob("*.py"))
    done = run("-c", f"import hf_smile, {modules}; print(hf_smile.__file__)", cwd=tree)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tree / "hf_smile" / "__init__.py")
