"""Write a checked data set to disk, as a prepared folder or as class folders."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import datasets
from datasets import DatasetDict
from tqdm.auto import tqdm

from hf_smile.data.checks import mark_checked
from hf_smile.data.images import IMAGE_SUFFIXES, encoded_bytes
from hf_smile.data.rows import load_rows
from hf_smile.errors import SmileDataError
from hf_smile.utils.console import is_main_process


def save_prepared(splits: DatasetDict, output_dir: str | Path) -> None:
    """Save `splits` so that `load_smile_dataset(output_dir)` returns them without checking every image again.

    An earlier prepared data set in `output_dir` is replaced.

    Raises:
        SmileDataError: if `output_dir` has folders of the same names that are not prepared data.
    """
    folder = Path(output_dir)
    for split in splits:
        if (folder / split).exists() and not (folder / split / "state.json").exists():
            raise SmileDataError(f"{folder / split} exists and is not prepared data; choose another --output_dir")
    if (folder / "train.csv").exists():
        raise SmileDataError(f"{folder} contains the original data; choose another --output_dir")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".preparing-") as unfinished:
        splits.save_to_disk(unfinished)
        (folder / _MARK).unlink(missing_ok=True)
        for split in splits:
            shutil.rmtree(folder / split, ignore_errors=True)
            Path(unfinished, split).replace(folder / split)
        Path(unfinished, _MARK).replace(folder / _MARK)
    saved = load_rows(folder)
    mark_checked(saved, [f"{split}/{row}" for split, dataset in splits.items() for row in range(len(dataset))])


_MARK = "dataset_dict.json"  # written last, because it marks the folder as complete


def export_imagefolder(splits: DatasetDict, output_dir: str | Path) -> None:
    """Write class folders as in the original work: `train/0` to `train/2` and `test/0` to `test/2`.

    The images are copied byte for byte and named by their ids, which may contain folders. The validation split is
    written to `train`.

    Raises:
        SmileDataError: if `output_dir` already has such folders.
    """
    folder = Path(output_dir)
    for name in ("train", "test"):
        if (folder / name).exists():
            raise SmileDataError(f"{folder / name} already exists; remove it or choose another folder")
    total = sum(map(len, splits.values()))
    with tqdm(total=total, desc="Writing images", unit=" images", delay=1, disable=not is_main_process()) as progress:
        for split, dataset in splits.items():
            target = folder / ("test" if split == "test" else "train")
            for label_id in range(dataset.features["label"].num_classes):
                (target / str(label_id)).mkdir(parents=True, exist_ok=True)
            for row in dataset.cast_column("image", datasets.Image(decode=False)):
                suffix = Path(row["image"]["path"] or "").suffix.lower()
                suffix = suffix if suffix in IMAGE_SUFFIXES else ".jpg"
                image_id = row["image_id"]
                name = image_id if image_id.lower().endswith(suffix) else image_id + suffix
                file = target / str(row["label"]) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as new:
                    new.write(encoded_bytes(row["image"]))
                progress.update()
