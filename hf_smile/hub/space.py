"""The demo -> a Space on the Hub, with this package beside it."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from huggingface_hub import RepoCard, SpaceHardware, constants

import hf_smile
from hf_smile.errors import SmileError
from hf_smile.hub.connection import check_repo_id, connect, hub_errors, retry
from hf_smile.hub.upload import Files, Target, open_repo, push_files
from hf_smile.inference.faces import YUNET_FILE, YUNET_REPO

MODEL_VARIABLE = "HF_SMILE_MODEL"
"""The variable of the Space that names the model; `space/app.py` reads it."""

HARDWARE = tuple(hardware.value for hardware in SpaceHardware)

_NEEDED = ("README.md", "app.py", "requirements.txt")
_MODULES = (
    "about.py",
    "endpoints.py",
    "engine.py",
    "environment.py",
    "forgetting.py",
    "gate.py",
    "samples.py",
    "tabs.py",
    "views.py",
    "words.py",
)
_THUMBNAIL = "thumbnail.jpg"
_OURS = frozenset({*_NEEDED, *_MODULES, _THUMBNAIL, "page.js", "style.css"})
"""What the folder of the app holds or once held: what of it a later upload does not hold, it removes."""


def space_files(space_dir: str | Path, model: str | None = None, repo_id: str | None = None) -> dict[str, Path | bytes]:
    """What goes up: the folder of the app, and the package `hf_smile` as it is installed here.

    The requirements are pinned to the versions that are installed here, and so are Gradio and Python in the front
    matter.

    Args:
        space_dir: holds `app.py`, `README.md` with the front matter of a Space, and `requirements.txt`.
        model: id on the Hub, which the front matter names, and has fetched when the Space is built, as the face
            detector is; None names none.
        repo_id: of the Space, where the front matter finds the picture that is shown when somebody shares a link.

    Raises:
        SmileError: one of these is missing, or a requirement is not installed.

    >>> sorted(space_files("space"))  # doctest: +SKIP
    ['README.md', 'app.py', 'hf_smile/__init__.py', ...]
    """
    folder = Path(space_dir)
    if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
        raise SmileError(f"{folder} is no Space: there is no {missing[0]}")
    files: dict[str, Path | bytes] = {}
    for root, prefix in ((folder, ""), (Path(hf_smile.__file__).parent, "hf_smile/")):
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.split("/")):
                files[prefix + name] = path
    files["requirements.txt"] = _pin((folder / "requirements.txt").read_text(encoding="utf-8")).encode()
    card = RepoCard.load(folder / "README.md")
    card.data["sdk_version"] = version("gradio")
    card.data["python_version"] = ".".join(platform.python_version_tuple()[:2])
    if model is not None:
        card.data["models"] = [model]
        card.data["preload_from_hub"] = [model, f"{YUNET_REPO} {YUNET_FILE}"]
    if repo_id is not None and _THUMBNAIL in files:
        card.data["thumbnail"] = f"{constants.ENDPOINT}/spaces/{repo_id}/resolve/main/{_THUMBNAIL}"
    files["README.md"] = str(card).encode()
    return files


def push_space(files: Files, target: Target, model: str, hardware: str | None = None) -> str:
    """Publish what `space_files` gathered in one commit, and say which model it shows; returns the address.

    A pull request, or another branch than main, changes neither the model nor the hardware of the Space that runs.
    Files that others have put there stay.

    Args:
        files: what to upload.
        target: where to.
        model: id of the model on the Hub.
        hardware: what it runs on, one of `HARDWARE`; None leaves it as it is, at first the free one.

    Raises:
        SmileError: the Hub cannot be reached or refuses; no file is published then.

    >>> push_space(space_files("space"), Target("me/smile-demo", "space"), "me/smile")  # doctest: +SKIP
    'https://huggingface.co/spaces/me/smile-demo'
    """
    check_repo_id(model)
    if hardware and hardware not in HARDWARE:
        raise SmileError(f"there is no hardware {hardware!r}; choose one of {', '.join(HARDWARE)}")
    api = connect()
    with hub_errors(target.repo_id):
        open_repo(api, target)
        if target.is_live:
            retry(lambda: api.add_space_variable(target.repo_id, MODEL_VARIABLE, model))
    url = push_files(files, target, "Upload demo with hf_smile", _is_ours)
    if hardware and target.is_live:
        with hub_errors(target.repo_id):
            retry(lambda: api.request_space_hardware(target.repo_id, SpaceHardware(hardware)))
    return url


def _is_ours(path: str) -> bool:
    return path.startswith("hf_smile/") or path in _OURS


def _pin(requirements: str) -> str:
    """Each requirement at the version that is installed here; one that is pinned already, and a comment, as it is."""
    lines = []
    for line in requirements.splitlines():
        name = re.match(r"[A-Za-z0-9][\w.-]*(\[[\w,.-]+\])?", line.strip())
        if name is not None and "==" not in line:
            try:
                installed = version(name[0].split("[")[0]).split("+")[0]  # 2.9.0+cpu is not on every index
                line = f"{name[0]}=={installed}"
            except PackageNotFoundError:
                raise SmileError(f"requirements.txt: {name[0]} is not installed here; install it first") from None
        lines.append(line)
    return "\n".join(lines) + "\n"
