"""The settings that every command on a data set shares."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from hf_smile.errors import SmileError
from hf_smile.labels import parse_label_map

if TYPE_CHECKING:
    from hf_smile.data.columns import Reading

DEFAULT_DATA_DIR = "data/happy_images"


@dataclass
class DataArguments:
    """Where the data are, how they are read, and how they are split.

    >>> DataArguments(label_map="fake=negative smile").reading().label_map
    {'fake': 0}
    """

    data_dir: str = field(
        default=DEFAULT_DATA_DIR, metadata={"help": "folder or zip with the data, or a data set on the Hub"}
    )
    test_size: float | None = field(
        default=None, metadata={"help": "share of train that becomes the test split, where the data bring none"}
    )
    validation_size: float = field(
        default=0.1,
        metadata={
            "help": "share of train that becomes the validation split; 0 (with --select_best last) trains on all of it"
        },
    )
    group_by: str | None = field(
        default=None,
        metadata={"help": "column whose values (people, sessions) must not be on both sides of a split"},
    )
    image_column: str | None = field(
        default=None, metadata={"help": "column of the images or their paths, where its name is not a usual one"}
    )
    label_column: str | None = field(default=None, metadata={"help": "likewise of the labels"})
    id_column: str | None = field(default=None, metadata={"help": "likewise of the ids"})
    label_map: str | None = field(
        default=None, metadata={"help": "other spellings of labels: 'genuine=positive smile,none=NOT smile'"}
    )
    on_bad_image: str = field(
        default="error",
        metadata={"help": "image missing or broken: stop, or leave it out and list it", "choices": ["error", "skip"]},
    )

    def reading(self) -> Reading:
        """How the annotations are to be read.

        Raises:
            SmileError: `label_map` is not one.
        """
        from hf_smile.data.columns import Reading

        try:
            label_map = parse_label_map(self.label_map)
        except ValueError as error:
            raise SmileError(f"--label_map: {error}") from None
        return Reading(self.image_column, self.label_column, self.id_column, label_map)


def add_data_arguments(parser: argparse.ArgumentParser, *without: str) -> None:
    """Add the settings to a parser, but for those named."""
    group = parser.add_argument_group("data")
    for setting in fields(DataArguments):
        if setting.name in without:
            continue
        kind = float if setting.name.endswith("_size") else str
        default = None if setting.default is MISSING else setting.default
        shown = "" if default is None else f" (default: {default})"
        group.add_argument(
            f"--{setting.name}",
            type=kind,
            default=default,
            choices=setting.metadata.get("choices"),
            help=setting.metadata["help"] + shown,
        )


def data_arguments(namespace: argparse.Namespace, **others: Any) -> DataArguments:
    """What a parser with these settings has read."""
    given = {
        setting.name: getattr(namespace, setting.name)
        for setting in fields(DataArguments)
        if hasattr(namespace, setting.name)
    }
    return DataArguments(**given | others)
