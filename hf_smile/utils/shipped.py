"""Folders that are installed with the package."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def shipped(name: str) -> Path:
    """The folder `recipes` or `space`: in the clone, or where `pip install` put it.

    >>> shipped("recipes").name
    'recipes'
    """
    clone = Path(__file__).parents[2]
    if (clone / "pyproject.toml").is_file():
        return clone / name
    return Path(sysconfig.get_path("data"), "share", "hf_smile", name)
