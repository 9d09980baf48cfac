"""Tell folders from Hub ids without a request to the Hub, which takes half a minute if it can't be reached."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]{0,95}")
_LOCAL = ("backbones", "data", "outputs")  # where the project's own commands write


def is_hub_id(text: str) -> bool:
    """Whether the text has the form `owner/name`.

    >>> is_hub_id("me/smile"), is_hub_id("../smile")
    (True, False)
    """
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def missing_folder(text: str) -> str | None:
    """The error message for a path that does not exist; None if it may be a Hub id (`owner/name`).

    A path that begins with an existing folder, or with `backbones/`, `data/` or `outputs/`, is treated as a mistyped
    folder.

    >>> missing_folder("outputs/modle")
    'outputs/modle: no such folder (and not looked for on the Hub, because outputs/ is a local folder)'
    >>> missing_folder("somebody/faces") is None
    True
    """
    if not text:
        return "the name of the model or folder is empty (an unset shell variable?)"
    if not is_hub_id(text):
        return f"{text} is a file; name a folder" if Path(text).is_file() else f"{text}: no such folder"
    owner = text.partition("/")[0]
    if owner in _LOCAL or Path(owner).is_dir():
        made = "; recipes/face_backbone.py makes the backbone of the face recipes" if owner == "backbones" else ""
        return f"{text}: no such folder (and not looked for on the Hub, because {owner}/ is a local folder){made}"
    return None
