"""The held-out data of a finished run, for commands that measure it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.data.record import read_as_labelled_by, require_held_out, run_data
from hf_smile.errors import SmileDataError
from hf_smile.training.run_folder import RECIPE, record_look


def held_out_split(
    model: str, split: str, given: dict[str, Any], vouched_for: bool, bad_image_list: str | Path
) -> Dataset:
    """Load a split as in the run of a model, and check that it was held out. A look at the test split is counted.

    Args:
        model: folder of the run, or Hub id.
        split: name of the split. If the user vouches for data with a single split, that split is used.
        given: data settings given by the user; they take precedence over those of the run.
        vouched_for: whether the user says that the images were held out.
        bad_image_list: file for the list of images that are left out.

    Raises:
        SmileDataError: no data are given or recorded, there is no such split, or it was not held out.

    >>> held_out_split("outputs/model", "test", {}, False, "bad_images.csv")  # doctest: +SKIP
    """
    is_run = Path(model, RECIPE).is_file()
    if vouched_for and "data_dir" not in given and not is_run:
        raise SmileDataError(f"{model} does not record which data it belongs to; name them with --data_dir")
    data, seed = run_data(model, given, others=vouched_for)
    data = read_as_labelled_by(model, data)
    splits = load_smile_dataset(**vars(data), seed=seed, bad_image_list=bad_image_list, as_they_are=vouched_for)
    name = next(iter(splits)) if vouched_for and len(splits) == 1 else split
    if name not in splits:
        raise SmileDataError(f"{data.data_dir}: there is no {name} split, only {' and '.join(splits)}")
    require_held_out(model, split, splits[name], vouched_for)
    if split == "test" and is_run:
        record_look(model, splits[name]["image_id"])
    return splits[name]
