"""The settings that every command on a data set shares."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from hf_smile.errors import SmileDataError
from hf_smile.labels import SMILE_LABELS, LabelSet

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
    label_column: str | None = field(
        default=None, metadata={"help": "column of the labels, where its name is not a usual one"}
    )
    id_column: str | None = field(
        default=None, metadata={"help": "column of the ids, where its name is not a usual one"}
    )
    label_map: str | None = field(
        default=None, metadata={"help": "other spellings of labels: 'genuine=positive smile,none=NOT smile'"}
    )
    labels: list[str] | None = field(
        default=None,
        metadata={"help": "names of the labels in the order of their ids, where the data have others than ours"},
    )
    on_bad_image: str = field(
        default="error",
        metadata={"help": "image missing or broken: stop, or leave it out and list it", "choices": ["error", "skip"]},
    )

    def reading(self) -> Reading:
        """How the annotations are to be read.

        Raises:
            SmileDataError: `labels` can't be labels, or `label_map` is not a map of them.
        """
        from hf_smile.data.columns import Reading

        option = "--labels"
        try:
            labels = LabelSet.of(self.labels) if self.labels else None
            option = "--label_map"
            label_map = (labels or SMILE_LABELS).parse_map(self.label_map)
        except ValueError as error:
            raise SmileDataError(f"{option}: {error}") from None
        return Reading(self.image_column, self.label_column, self.id_column, label_map, labels)


def add_data_arguments(parser: argparse.ArgumentParser, *without: str, of_the_run: bool = False) -> None:
    """Add the settings to a parser, but for those named.

    Args:
        parser: gets them in a group.
        without: names of settings.
        of_the_run: what is not given is left to the run of a model, see `given_data_arguments`.
    """
    group = parser.add_argument_group("data", "default: as the run of the model had them" if of_the_run else None)
    for setting in fields(DataArguments):
        if setting.name not in without:
            shown = "" if of_the_run or setting.default is None else f" (default: {setting.default})"
            group.add_argument(
                f"--{setting.name}",
                type=float if setting.name.endswith("_size") else str,
                nargs="+" if setting.name == "labels" else None,
                default=argparse.SUPPRESS if of_the_run else setting.default,
                choices=setting.metadata.get("choices"),
                help=setting.metadata["help"] + shown,
            )
    if of_the_run:
        group.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="of the splits")


def data_arguments(namespace: argparse.Namespace, **others: Any) -> DataArguments:
    """What a parser with these settings has read."""
    names = [setting.name for setting in fields(DataArguments) if hasattr(namespace, setting.name)]
    return DataArguments(**{name: getattr(namespace, name) for name in names} | others)


def given_data_arguments(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given to a parser which leaves the others to the run, `seed` among them."""
    names = {"seed", *(setting.name for setting in fields(DataArguments))}
    return {name: value for name, value in vars(namespace).items() if name in names}
