"""The settings that every command on a data set shares."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_smile.errors import SmileDataError
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.hub_id import missing_folder

if TYPE_CHECKING:
    from hf_smile.data.columns import Reading

DEFAULT_DATA_DIR = "data/happy_images"

EXPECTED_LAYOUT = """\
Point --data_dir at a folder, or a zip, that holds one of these:
  train.csv (and test.csv, validation.csv) and the images, in a folder, in a zip or beside them
  metadata.csv, .jsonl or .parquet beside the images
  one folder per class, by itself or in train/ (and test/, validation/)
  Parquet files with images, or a saved data set of the library datasets
or at the id of a data set on the Hugging Face Hub (owner/name). docs/data.md shows each of them.
No data at hand? Draw the sample: hf-smile prepare --draw_sample --data_dir data/sample"""


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
    corrections: str | None = field(
        default=None, metadata={"help": "file of `hf-smile review`: labels to change, and images to leave out"}
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


@dataclass
class AugmentationArguments:
    """Random changes of the training images. The original work used `--rotation` and `--horizontal_flip` alone."""

    horizontal_flip: float = field(default=0.5, metadata={"help": "probability of a left-right flip, 0 to 1"})
    vertical_flip: float = field(default=0.0, metadata={"help": "probability of an upside-down flip, 0 to 1"})
    rotation: float = field(default=15.0, metadata={"help": "rotate by up to this many degrees, either way"})
    shear: float = field(default=0.0, metadata={"help": "shear by up to this many degrees, either way"})
    crop_scale: float = field(
        default=0.7, metadata={"help": "crop at least this share of the area, 0 to 1; 1 crops nothing"}
    )
    brightness: float = field(default=0.2, metadata={"help": "change brightness by up to this share"})
    contrast: float = field(default=0.2, metadata={"help": "change contrast by up to this share"})
    random_erasing: float = field(default=0.0, metadata={"help": "probability of a blank rectangle, 0 to 1"})

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip", "brightness", "contrast", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise SmileDataError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if not 0 < self.crop_scale <= 1:
            raise SmileDataError(f"crop_scale is {self.crop_scale}; it must be above 0 and at most 1")
        for name, limit in (("rotation", 180), ("shear", 60)):
            if not 0 <= getattr(self, name) <= limit:
                raise SmileDataError(f"{name} is {getattr(self, name)} degrees; it must lie between 0 and {limit}")


DATA_SETTINGS = tuple(setting.name for setting in fields(DataArguments))


def require_data(data_dir: str | Path) -> None:
    """See that there is something, or may be on the Hub, before anything heavy is imported.

    Raises:
        SmileDataError: there is no such folder.

    >>> require_data("somebody/faces")
    """
    if not str(data_dir):
        raise SmileDataError("--data_dir is empty (an unset variable of the shell?)")
    if not Path(data_dir).exists() and (message := missing_folder(str(data_dir))):
        raise SmileDataError(f"{message}.\n{EXPECTED_LAYOUT}")


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
    """What a parser with these settings has read.

    Raises:
        SmileDataError: there are no such data.
    """
    given = {name: value for name, value in vars(namespace).items() if name in DATA_SETTINGS}
    data = DataArguments(**given | others)
    require_data(data.data_dir)
    return data


def given_data_arguments(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given to a parser which leaves the others to the run, `seed` among them."""
    return {name: value for name, value in vars(namespace).items() if name in ("seed", *DATA_SETTINGS)}
