"""The classes of a data set or model: names, ids, and accepted spellings. Imports no other module of `hf_smile`.

`SMILE_LABELS` is the default. Other labels come from `--labels`, class folders, the `ClassLabel` of a data set, or a
model's `config.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

NEGATIVE_SMILE, POSITIVE_SMILE, NOT_SMILE = range(3)
LABEL_NAMES = ("negative smile", "positive smile", "NOT smile")
MAX_LABELS = 100
_NAME = re.compile(r"\w(?:[\w .()-]{0,48}[\w.)])?")
_SMILE = re.compile(r"(?<![a-z])smil(e|es|ing)(?![a-z])")
_NO_SMILE = re.compile(r"(?<![a-z])(no|not|non|without|un|never)[\s_.-]*smil(e|es|ing)(?![a-z])")


def label_slug(name: str) -> str:
    """Convert a label to part of a column or metric name.

    >>> label_slug("NOT smile")
    'not_smile'
    """
    return name.lower().replace(" ", "_")


def _key(text: str) -> str:
    """Normalize the spelling of a label: case, blanks, hyphens and underscores do not matter.

    In an id only leading and trailing blanks are ignored: a hyphen is a sign, and -1 is not 1.
    """
    text = text.strip()
    return re.sub(r"[\s_-]+", "", text).lower() if any(map(str.isalpha, text)) else text


@dataclass(frozen=True)
class LabelSet:
    """The names of the classes, in the order of their ids. Everything else is derived from the names.

    Raises:
        ValueError: fewer than 2 or more than 100 names, two names with the same spelling, or a name that can't be used
            as a CSV column, a table cell and part of a file name.

    >>> labels = LabelSet(("smile", "NOT smile"))
    >>> len(labels), labels.parse("Not_Smile"), labels.smile_ids
    (2, 1, (0,))
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= MAX_LABELS:
            raise ValueError(f"{len(self.names)} labels; there must be 2 to {MAX_LABELS}")
        for name in self.names:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(
                    f"{str(name)[:60]!r} can't be a label; use up to 50 letters, digits, blanks and .()_-, "
                    "starting with a letter or digit"
                )
            if not any(map(str.isalpha, name)):
                raise ValueError(f"{name!r} can't be a label: a number is the id of a label; use a word")
        keys = [*map(_key, self.names)]
        if len({*keys}) < len(keys):
            raise ValueError(f"two of the labels {self} are spelled alike; rename one of them")
        if sorted(keys) == sorted(map(_key, LABEL_NAMES)) and self.names != LABEL_NAMES:
            raise ValueError(f"write the labels {self} as {', '.join(LABEL_NAMES)}, in this spelling and order")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, label_id: int) -> str:
        return self.names[label_id]

    def __str__(self) -> str:
        return ", ".join(self.names)

    @classmethod
    def of(cls, labels: LabelSet | Iterable[str] | Mapping[int, str]) -> LabelSet:
        """Build a `LabelSet` from names in the order of their ids, or from a model's `id2label`.

        >>> LabelSet.of({1: "NOT smile", 0: "smile"})
        LabelSet(names=('smile', 'NOT smile'))
        """
        if isinstance(labels, LabelSet):
            return labels
        if isinstance(labels, Mapping):
            return cls(tuple(labels[label_id] for label_id in sorted(labels)))
        return cls(tuple(labels))

    @classmethod
    def adopted(cls, names: Iterable[str], label_map: Mapping[str, int] | None = None) -> LabelSet:
        """The label set for the names in the data: the default set if it knows one of them, else the names themselves.

        Raises:
            ValueError: the names are not of the default set and can't be labels.

        >>> LabelSet.adopted(["grin", "neutral"]), LabelSet.adopted(["not_smile", "2"]) == SMILE_LABELS
        (LabelSet(names=('grin', 'neutral')), True)
        """
        names = tuple(names)
        return SMILE_LABELS if any(SMILE_LABELS.knows(name, label_map) for name in names) else cls(names)

    @property
    def slugs(self) -> tuple[str, ...]:
        """The names as parts of column and metric names."""
        return tuple(map(label_slug, self.names))

    @property
    def id2label(self) -> dict[int, str]:
        """Names by id, as in a `transformers` configuration."""
        return dict(enumerate(self.names))

    @cached_property
    def smile_ids(self) -> tuple[int, ...]:
        """Ids of the classes that are smiles; empty unless every name says whether its class is a smile."""
        lower = [name.lower() for name in self.names]
        smiles = tuple(label_id for label_id, name in enumerate(lower) if not _NO_SMILE.search(name))
        told = all(_SMILE.search(name) or _NO_SMILE.search(name) for name in lower) and 0 < len(smiles) < len(lower)
        return smiles if told else ()

    @property
    def tells_genuine(self) -> bool:
        """Whether these labels distinguish a genuine smile from a posed one."""
        return self == SMILE_LABELS

    @cached_property
    def _spellings(self) -> dict[str, int]:
        return {_key(text): label_id for label_id, name in enumerate(self) for text in (name, str(label_id))}

    def parse(self, text: str, label_map: Mapping[str, int] | None = None) -> int:
        """Convert a label as users write it to its id.

        Args:
            text: name or id of a label. In a name, case, blanks, hyphens and underscores do not matter.
            label_map: further spellings, as returned by `parse_map`; they take precedence over the built-in ones.

        Raises:
            ValueError: unknown label.

        >>> SMILE_LABELS.parse("  Positive-Smile "), SMILE_LABELS.parse("fake", {"fake": 0})
        (1, 0)
        """
        key = _key(text)
        if label_map and key in label_map:
            return label_map[key]
        if key not in self._spellings:
            names, ids = ", ".join(map(repr, self)), ", ".join(map(str, range(len(self))))
            raise ValueError(f"unknown label {text!r}; expected one of {names} (or {ids})")
        return self._spellings[key]

    def knows(self, text: str, label_map: Mapping[str, int] | None = None) -> bool:
        """Whether `parse` accepts the text."""
        key = _key(text)
        return key in self._spellings or key in (label_map or ())

    def parse_map(self, text: str | Mapping[str, str] | None) -> dict[str, int]:
        """Parse further spellings of the labels: `"theirs=ours,theirs=ours"`, JSON or a dictionary.

        Raises:
            ValueError: a part has no `=`, a spelling is mapped to two labels, or `ours` is not a label.

        >>> SMILE_LABELS.parse_map("genuine=positive smile, none=NOT smile")
        {'genuine': 1, 'none': 2}
        """
        if not text:
            return {}
        if isinstance(text, Mapping):
            pairs = [(str(theirs), str(ours)) for theirs, ours in text.items()]
        elif text.lstrip().startswith("{"):
            return self.parse_map(json.loads(text))
        else:
            pairs = [(theirs, ours) for theirs, _, ours in (part.rpartition("=") for part in text.split(","))]
        label_map: dict[str, int] = {}
        for theirs, ours in pairs:
            if not _key(theirs):
                raise ValueError(f"{ours.strip()!r} is not of the form theirs=ours, for example 'fake=negative smile'")
            if label_map.setdefault(_key(theirs), self.parse(ours)) != self.parse(ours):
                raise ValueError(f"{theirs.strip()!r} is mapped to two labels; keep one")
        return label_map


SMILE_LABELS = LabelSet(LABEL_NAMES)
"""The default labels, spelled and numbered as in the original annotations."""
