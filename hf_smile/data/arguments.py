"""Settings shared by all commands that read data."""

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
Point --data_dir at a folder or a zip that contains one of these:
  train.csv (and test.csv, validation.csv), with the images in a folder, in a zip or beside the CSV files
  metadata.csv, .jsonl or .parquet beside the images
  one folder per class, at the top level or in train/ (and test/, validation/)
  Parquet files with images, or a data set saved by the library datasets
or at a data set on the Hugging Face Hub (owner/name). docs/data.md has an example of each.
No data yet? Draw the sample data set: hf-smile prepare --draw_sample --data_dir data/sample"""


def setting(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with a default and a help text, from which a command line option is made.

    >>> setting(0.5, "probability of a flip").metadata["help"]
    'probability of a flip'
    """
    return field(default=default, metadata={"help": text, **metadata})


@dataclass
class DataArguments:
    """Where the data are, how they are read, and how they are split.

    Raises:
        SmileDataError: if a size is not between 0 and 1, `max_train_samples` is below 1, or `on_bad_image` is neither
            `error` nor `skip`.

    >>> DataArguments(label_map="fake=negative smile").reading().label_map
    {'fake': 0}
    """

    data_dir: str = setting(DEFAULT_DATA_DIR, "folder or zip with the data, or a data set on the Hub")
    test_size: float | None = setting(None, "share of train to use as the test split, if the data have none")
    validation_size: float = setting(
        0.1, "share of train to use as the validation split; 0 (with --select_best last) trains on all of it"
    )
    max_train_samples: int | None = setting(None, "maximum number of training images, stratified by class")
    group_by: str | None = setting(None, "column whose values (people, sessions) must not appear in two splits")
    image_column: str | None = setting(None, "column of the images or their paths, if its name is unusual")
    label_column: str | None = setting(None, "column of the labels, if its name is unusual")
    id_column: str | None = setting(None, "column of the ids, if its name is unusual")
    label_map: str | None = setting(None, "other spellings of labels: 'genuine=positive smile,none=NOT smile'")
    labels: list[str] | None = setting(None, "label names in the order of their ids, if not the default ones")
    on_bad_image: str = setting(
        "error", "what to do with a missing or broken image: stop, or skip and list it", choices=["error", "skip"]
    )
    corrections: str | None = field(
        default=None, metadata={"help": "file from `hf-smile review` with labels to change and images to leave out"}
    )

    def __post_init__(self) -> None:
        for name in ("validation_size", "test_size"):
            size = getattr(self, name)
            if size is not None and not 0 <= size < 1:
                raise SmileDataError(f"{name} is {size}; it must lie between 0 and 1, for example 0.1")
        if self.max_train_samples is not None and self.max_train_samples < 1:
            raise SmileDataError(f"max_train_samples is {self.max_train_samples}; it must be at least 1")
        if self.on_bad_image not in ("error", "skip"):
            raise SmileDataError(f"on_bad_image is {self.on_bad_image!r}; it must be 'error' or 'skip'")

    def reading(self) -> Reading:
        """How to read the annotations.

        Raises:
            SmileDataError: if `labels` or `label_map` is invalid.
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
    """Augmentation of the training images. The original work used `--rotation` and `--horizontal_flip` only."""

    horizontal_flip: float = setting(0.5, "probability of a left-right flip, 0 to 1")
    vertical_flip: float = setting(0.0, "probability of an upside-down flip, 0 to 1")
    rotation: float = setting(15.0, "maximum rotation in degrees, in either direction")
    shear: float = setting(0.0, "maximum shear in degrees, in either direction")
    crop_scale: float = setting(0.7, "smallest share of the area that a crop keeps, 0 to 1; 1 disables cropping")
    brightness: float = setting(0.2, "maximum change of brightness, 0 to 1")
    contrast: float = setting(0.2, "maximum change of contrast, 0 to 1")
    random_erasing: float = setting(0.0, "probability of a blank rectangle, 0 to 1")

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip", "brightness", "contrast", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise SmileDataError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if not 0 < self.crop_scale <= 1:
            raise SmileDataError(f"crop_scale is {self.crop_scale}; it must be above 0 and at most 1")
        for name, limit in (("rotation", 180), ("shear", 60)):
            if not 0 <= getattr(self, name) <= limit:
                raise SmileDataError(f"{name} is {getattr(self, name)} degrees; it must lie between 0 and {limit}")


DATA_SETTINGS = tuple(argument.name for argument in fields(DataArguments))


def require_data(data_dir: str | Path) -> None:
    """Check that the path exists or may be a Hub id, before anything heavy is imported.

    Raises:
        SmileDataError: if there is no such folder.

    >>> require_data("somebody/faces")
    """
    if not str(data_dir):
        raise SmileDataError("--data_dir is empty (an unset shell variable?)")
    if not Path(data_dir).exists() and (message := missing_folder(str(data_dir))):
        raise SmileDataError(f"{message}.\n{EXPECTED_LAYOUT}")


def add_data_arguments(parser: argparse.ArgumentParser, *without: str, of_the_run: bool = False) -> None:
    """Add the data settings to a parser.

    Args:
        parser: parser to which the settings are added, as a group.
        without: names of settings to leave out.
        of_the_run: whether settings default to those the model was trained with; see `given_data_arguments`.
    """
    group = parser.add_argument_group("data", "default: as the model was trained" if of_the_run else None)
    for argument in fields(DataArguments):
        if argument.name not in (*without, "max_train_samples"):  # only used in training
            shown = "" if of_the_run or argument.default is None else f" (default: {argument.default})"
            group.add_argument(
                f"--{argument.name}",
                type=float if argument.name.endswith("_size") else str,
                nargs="+" if argument.name == "labels" else None,
                default=argparse.SUPPRESS if of_the_run else argument.default,
                choices=argument.metadata.get("choices"),
                help=argument.metadata["help"] + shown,
            )
    if of_the_run:
        group.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="seed of the splits")


def data_arguments(namespace: argparse.Namespace, **others: Any) -> DataArguments:
    """The data settings from parsed arguments.

    Raises:
        SmileDataError: if a setting is invalid or the data do not exist.
    """
    given = {name: value for name, value in vars(namespace).items() if name in DATA_SETTINGS}
    data = DataArguments(**given | others)
    require_data(data.data_dir)
    return data


def given_data_arguments(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings (and `seed`) given on the command line, for a parser whose other settings come from the run."""
    return {name: value for name, value in vars(namespace).items() if name in ("seed", *DATA_SETTINGS)}
