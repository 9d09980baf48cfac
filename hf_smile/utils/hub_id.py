"""Folder or id on the Hub? Told apart without asking the Hub, which takes half a minute where it is out of reach."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]{0,95}")
_LOCAL = ("data", "outputs")  # where the project's own commands write


def is_hub_id(text: str) -> bool:
    """Whether it is of the form `owner/name`.

    >>> is_hub_id("me/smile"), is_hub_id("../smile")
    (True, False)
    """
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def missing_folder(text: str) -> str | None:
    """What to say of a path that is not there; None where it may be an id on the Hub (`owner/name`).

    A path that begins in a folder which is there, or in `data/` or `outputs/`, is a mistyped folder.

    >>> missing_folder("outputs/modle")
    'outputs/modle: no such folder (and not looked for on the Hub, because outputs/ is a local folder)'
    >>> missing_folder("somebody/faces") is None
    True
    """
    if not text:
        return "the name of the model or folder is empty (an unset variable of the shell?)"
    if not is_hub_id(text):
        return f"{text}: no such folder"
    owner = text.partition("/")[0]
    if owner in _LOCAL or Path(owner).is_dir():
        return f"{text}: no such folder (and not looked for on the Hub, because {owner}/ is a local folder)"
    return None
