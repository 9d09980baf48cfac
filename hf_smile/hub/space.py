"""Publish the demo as a Space on the Hub, with this package in it."""

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
"""Variable of the Space with the model's id; `space/app.py` reads it."""

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
"""Files of the app, now or in earlier versions; an upload removes those that it does not replace."""


def space_files(space_dir: str | Path, model: str | None = None, repo_id: str | None = None) -> dict[str, Path | bytes]:
    """Collect the files to upload: the folder of the app, and the installed package `hf_smile`.

    Requirements are pinned to the installed versions, as are Gradio and Python in the front matter.

    Args:
        space_dir: folder with `app.py`, `README.md` with the front matter of a Space, and `requirements.txt`.
        model: Hub id of the model for the front matter, which makes the Space download the model and the face detector
            when it is built; None to leave it out.
        repo_id: Hub id of the Space, for the address of its preview picture in the front matter; None to leave it out.

    Raises:
        SmileError: a file is missing, or a requirement is not installed.

    >>> sorted(space_files("space"))  # doctest: +SKIP
    ['README.md', 'app.py', 'hf_smile/__init__.py', ...]
    """
    folder = Path(space_dir)
    if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
        raise SmileError(f"{folder} is not the folder of a Space: there is no {missing[0]}")
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
    """Publish the files of `space_files` in one commit, set the model, and return the address.

    A pull request, or a branch other than main, does not change the model or the hardware of the running Space. Other
    files in the repository are kept.

    Args:
        files: files to upload.
        target: where to publish.
        model: Hub id of the model.
        hardware: one of `HARDWARE`; None to keep the current hardware, initially the free one.

    Raises:
        SmileError: the Hub can't be reached or refuses. Then no file is published.

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
    """Pin each requirement to the installed version, except those that are already pinned."""
    lines = []
    for line in requirements.splitlines():
        name = re.match(r"[A-Za-z0-9][\w.-]*(\[[\w,.-]+\])?", line.strip())
        if name is not None and "==" not in line:
            try:
                installed = version(name[0].split("[")[0]).split("+")[0]  # some indexes lack 2.9.0+cpu
                line = f"{name[0]}=={installed}"
            except PackageNotFoundError:
                raise SmileError(
                    f"requirements.txt: {name[0]} is not installed here, so its version is unknown: "
                    "pip install 'hf_smile[demo]'"
                ) from None
        lines.append(line)
    return "\n".join(lines) + "\n"
