"""The three classes: names, ids and the spellings accepted in annotations. Imports nothing of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

NEGATIVE_SMILE, POSITIVE_SMILE, NOT_SMILE = 0, 1, 2

LABEL_NAMES = ("negative smile", "positive smile", "NOT smile")
"""Label names in id order, spelled as the original annotations spell them."""

NUM_LABELS = len(LABEL_NAMES)
ID2LABEL = dict(enumerate(LABEL_NAMES))
LABEL2ID = {name: label_id for label_id, name in ID2LABEL.items()}


def label_slug(name: str) -> str:
    """The label as part of a column or metric name.

    >>> label_slug("NOT smile")
    'not_smile'
    """
    return name.lower().replace(" ", "_")


def _key(text: str) -> str:
    """What all spellings of a label share: case, blanks, hyphens and underscores do not matter.

    In an id only outer blanks do not: a hyphen would be its sign, and -1 is not 1.
    """
    text = text.strip()
    return re.sub(r"[\s_-]+", "", text).lower() if any(map(str.isalpha, text)) else text


_SPELLINGS = {_key(spelling): label_id for label_id, name in ID2LABEL.items() for spelling in (name, str(label_id))}


def parse_label(text: str, label_map: Mapping[str, int] | None = None) -> int:
    """The id of a label as users write it.

    Args:
        text: a label's name, where case, blanks, hyphens and underscores do not matter, or its id.
        label_map: further spellings, as `parse_label_map` returns them; they win over the built-in ones.

    Raises:
        ValueError: the text is none of these.

    >>> parse_label("  Positive-Smile "), parse_label("fake", parse_label_map("fake=negative smile"))
    (1, 0)
    """
    key = _key(text)
    if label_map and key in label_map:
        return label_map[key]
    if key not in _SPELLINGS:
        names, ids = ", ".join(map(repr, LABEL_NAMES)), ", ".join(map(str, ID2LABEL))
        raise ValueError(f"unknown label {text!r}; expected one of {names} (or {ids})")
    return _SPELLINGS[key]


def parse_label_map(text: str | Mapping[str, str] | None) -> dict[str, int]:
    """Further spellings of the labels, from `"theirs=ours,theirs=ours"`, from JSON or from a dictionary.

    Raises:
        ValueError: a part has no `=`, a spelling is given twice, or ours is not a label.

    >>> parse_label_map("genuine=positive smile, none=NOT smile")
    {'genuine': 1, 'none': 2}
    """
    if not text:
        return {}
    if isinstance(text, Mapping):
        pairs = [(str(theirs), str(ours)) for theirs, ours in text.items()]
    elif text.lstrip().startswith("{"):
        return parse_label_map(json.loads(text))
    else:
        pairs = [(theirs, ours) for theirs, _, ours in (part.rpartition("=") for part in text.split(","))]
    label_map: dict[str, int] = {}
    for theirs, ours in pairs:
        if not _key(theirs):
            raise ValueError(f"{ours.strip()!r} is not of the form theirs=ours, for example 'fake=negative smile'")
        if label_map.setdefault(_key(theirs), parse_label(ours)) != parse_label(ours):
            raise ValueError(f"{theirs.strip()!r} is given two labels")
    return label_map
