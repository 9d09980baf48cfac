"""Which columns of an annotation file contain ids, images and labels, and how the labels are named."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import SMILE_LABELS, LabelSet

logger = logging.getLogger(__name__)

_ID_COLUMNS = ("image_id", "id")
_IMAGE_COLUMNS = ("file_name", "filename", "file", "path", "image_path", "image", "img")
_LABEL_COLUMNS = ("label", "labels", "class", "target")


class Columns(NamedTuple):
    """Positions of the columns; None for a missing one."""

    image_id: int | None
    file: int | None
    label: int | None


@dataclass(frozen=True)
class Reading:
    """How to read annotations whose column or label names are not the usual ones.

    Args:
        image_column: column of the images or their paths.
        label_column: column of the labels.
        id_column: column of the ids.
        label_map: label ids by spelling, as returned by `LabelSet.parse_map`.
        labels: label set; None takes the labels from the data if they define them, otherwise the default labels.

    >>> Reading(label_column="emotion", label_map={"fake": 0}).columns_of(["File_Name", "emotion"])
    Columns(image_id=None, file=0, label=1)
    """

    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    label_map: Mapping[str, int] = field(default_factory=dict)
    labels: LabelSet | None = None

    def columns_of(self, names: Iterable[str]) -> Columns:
        """Find the columns by name, ignoring case; None for a missing one.

        Raises:
            SmileDataError: if a column that was asked for is missing.
        """
        names = [*names]
        lower = [name.strip().lower() for name in names]

        def find(wanted: str | None, option: str, usual: tuple[str, ...]) -> int | None:
            if wanted is not None and wanted.strip().lower() not in lower:
                raise SmileDataError(f"no column {wanted!r} ({option}); the columns are {', '.join(names)}")
            candidates = usual if wanted is None else (wanted.strip().lower(),)
            return next((lower.index(name) for name in candidates if name in lower), None)

        return Columns(
            find(self.id_column, "--id_column", _ID_COLUMNS),
            find(self.image_column, "--image_column", _IMAGE_COLUMNS),
            find(self.label_column, "--label_column", _LABEL_COLUMNS),
        )

    def is_header(self, cells: Iterable[str]) -> bool:
        """Whether a row contains a column name that is known or was given. A mistyped label is not one."""
        known = {*_ID_COLUMNS, *_IMAGE_COLUMNS, *_LABEL_COLUMNS, *self._named}
        return not known.isdisjoint(cell.strip().lower() for cell in cells)

    @property
    def needs_header(self) -> bool:
        """Whether a column was named that a file without a header does not have."""
        return not self._named <= {"image_id", "label"}

    @property
    def _named(self) -> set[str]:
        return {name.strip().lower() for name in (self.image_column, self.label_column, self.id_column) if name}

    def is_label(self, text: str) -> bool:
        """Whether the text is a spelling of a label."""
        return (self.labels or SMILE_LABELS).knows(text, self.label_map)

    def parse(self, text: str) -> int:
        """The id of a label.

        Raises:
            ValueError: if it is not a spelling of a label.
        """
        return (self.labels or SMILE_LABELS).parse(text, self.label_map)

    def label_id(self, text: str, where: str, problems: Problems, hint: str = "") -> int:
        """The id of a label. For an unknown label, returns -1 and appends a problem with a hint."""
        try:
            return self.parse(text)
        except ValueError as error:
            problems.append(f"{where}: {error}{hint}")
            problems.unknown_labels.setdefault(text.strip())
            return -1

    def adopting(self, names: Iterable[str], where: object) -> Reading:
        """A copy that takes its labels from the names in the data, unless labels were given.

        Raises:
            SmileDataError: if the names can't be labels.
        """
        names = [*names]
        if self.labels is not None:
            return self
        try:
            adopted = replace(self, labels=LabelSet.adopted(names, self.label_map))
        except ValueError as error:
            raise SmileDataError(
                f"{where}: {error}. Or name the labels with --labels, and map "
                f"{', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''} to them with --label_map"
            ) from None
        if adopted.labels != SMILE_LABELS:
            logger.warning("Note: the labels are those of the data: %s", adopted.labels)
        return adopted


PLAIN = Reading()
"""The usual column names and label spellings."""
