"""Class folders: finding them and mapping them to labels."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pandas as pd

from hf_smile.data.annotations import path_problem
from hf_smile.data.arguments import EXPECTED_LAYOUT
from hf_smile.data.columns import Reading
from hf_smile.data.sources import ImageSource, plain_path
from hf_smile.data.splits import name_splits, split_of
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import MAX_LABELS
from hf_smile.utils.words import counted

logger = logging.getLogger(__name__)

_MOST_CLASSES = 1_000  # folders per level; with more, they are not classes
_PIECE = 10_000  # file names in memory at a time


@dataclass(frozen=True)
class ClassFolders:
    """`train/<class>/<image>`, or `<class>/<image>` without split folders. Other folders may lie in between.

    `level` is the depth of the class folders below the split folders.
    """

    base: str
    splits: Mapping[str, str]
    level: int
    reading: Reading

    def place(self, path: str) -> tuple[str | None, list[str]]:
        """The split of an image (None outside the split folders), and its folders below the split folder."""
        folders = path.removeprefix(self.base).split("/")[:-1]
        if not self.splits:
            return "train", folders
        return self.splits.get(folders[0] if folders else ""), folders[1:]


def class_folders(images: ImageSource, reading: Reading) -> ClassFolders:
    """Find the class folders. If they are the only level, the labels are taken from their names."""
    if given := [name for name in ("image_column", "label_column", "id_column") if getattr(reading, name)]:
        raise SmileDataError(f"{images.path}: class folders have no columns; leave out --{given[0]}")
    base = base_folder(images, reading)
    levels = _levels(images, base)
    splits = name_splits(levels[0]) if levels else {}
    level = _level_of_classes(levels[1:] if splits else levels, reading)
    at_class_level = levels[level + bool(splits)] if len(levels) > level + bool(splits) else set()
    if images.tables and not any(map(reading.is_label, at_class_level)):
        raise SmileDataError(
            f"{images.path}: no folder is named after a label, and {', '.join(images.tables)} is not called "
            "train.csv (test.csv, validation.csv) or metadata.csv; rename it, or save it as CSV under that name"
        )
    if not levels:
        raise SmileDataError(f"{images.path}: there are images but no labels.\n{EXPECTED_LAYOUT}")
    found = ClassFolders(base, splits, level, reading)
    if len(levels) - bool(splits) != 1 or not 2 <= len(at_class_level) <= MAX_LABELS or reading.labels:
        return found
    places = (found.place(plain_path(name)) for name in images.names)
    names = sorted({classes[0] for split, classes in places if split and classes})
    return replace(found, reading=reading.adopting(names, images.path)) if len(names) > 1 else found


def rows_of_folders(
    images: ImageSource, folders: ClassFolders, problems: Problems
) -> Iterator[tuple[str, pd.DataFrame]]:
    level, reading = folders.level, folders.reading
    outside = 0
    names = images.names
    while block := list(islice(names, _PIECE)):
        rows: dict[str, list[dict[str, Any]]] = {}
        for name in block:
            path = plain_path(name)
            split, classes = folders.place(path)
            if split is None:
                outside += 1
                continue
            if odd := path_problem(path):
                problems.append(f"{path!r} {odd}; rename the file")
            elif len(classes) <= level:
                problems.append(f"{path}: not in a class folder; move or remove it")
            elif (label := reading.label_id(classes[level], path, problems)) >= 0:
                row = {"image_id": path, "file": name, "label": label, "where": path, "problem": ""}
                rows.setdefault(split, []).append(row)
        for split, found in rows.items():
            yield split, pd.DataFrame(found)
    if outside:
        logger.warning(f"Note: {counted(outside, 'image')} outside train/, validation/ and test/ will not be used")
    if images.unread:
        formats = ", ".join(f"{count:,} .{suffix}" for suffix, count in images.unread.items())
        logger.warning(f"Note: files in unsupported formats are not used: {formats}")


def base_folder(images: ImageSource, reading: Reading) -> str:
    """The folder that contains all images, up to the first one named after a split or a class."""
    base = ""
    for folder in images.wrapper.split("/")[:-1]:
        if split_of(folder) or reading.is_label(folder):
            break
        base += f"{folder}/"
    return base


def _levels(images: ImageSource, base: str) -> list[set[str]]:
    """The folder names at each level below `base`."""
    levels: list[set[str]] = []
    for name in images.names:
        folders = plain_path(name).removeprefix(base).split("/")[:-1]
        levels += [set() for _ in folders[len(levels) :]]
        for level, folder in zip(levels, folders, strict=False):
            if len(level) < _MOST_CLASSES:
                level.add(folder)
    return levels


def _level_of_classes(levels: list[set[str]], reading: Reading) -> int:
    """The level of the class folders: the first at which every folder is named after a label, otherwise the top level.

    With several levels, numbers do not count as labels, because they probably number people or sessions.
    """
    for number, level in enumerate(levels if len(levels) > 1 else ()):
        if level and all(reading.is_label(folder) and not folder.strip().isdigit() for folder in level):
            return number
    return 0
