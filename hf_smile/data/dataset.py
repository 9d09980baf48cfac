"""Two CSVs and a zip of images, or any other layout the data may have, -> `datasets.DatasetDict`."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Image
from datasets.exceptions import DatasetGenerationError
from tqdm.auto import tqdm

from hf_smile.console import is_main_process
from hf_smile.csv_cells import guarded
from hf_smile.data.annotations import check_disjoint, is_file_name, read_annotations
from hf_smile.data.images import ImageSource, decode_image
from hf_smile.data.shards import features_of, is_sharded, load_shards
from hf_smile.errors import Problems, SmileDataError, first_line
from hf_smile.hub_id import missing_folder
from hf_smile.labels import LABEL_NAMES, parse_label

DEFAULT_DATA_DIR = "data/happy_images"
EXPECTED_LAYOUT = """\
Point --data_dir at a folder that holds one of these:
  train.csv, test.csv and happy_images.zip (or a folder happy_images/)   the data as they were collected
  train/ and test/ with one folder per class                             an image folder; validation/ too, if you like
  dataset_dict.json                                                      what scripts/prepare_data.py wrote
  train/ and test/ with Parquet files                                    what scripts/shard_dataset.py wrote
or at the id of a data set on the Hugging Face Hub (owner/name).
No data at hand? Draw the sample: python scripts/prepare_data.py --draw_sample --data_dir data/sample"""

_SPLIT_ALIASES = {"val": "validation", "valid": "validation"}
_IMAGE_PLACES = ("happy_images", "images", "happy_images.zip", "images.zip")


def load_smile_dataset(
    data_dir: str | Path,
    validation_size: float = 0.1,
    seed: int = 42,
    on_bad_image: str = "error",
    bad_image_list: str | Path = "bad_images.csv",
) -> DatasetDict:
    """Load the data from wherever they are, checked: annotations, images, splits.

    Every image is decoded once, so that training meets no broken one. The encoded bytes stay encoded in Arrow files
    in the cache of `datasets`; a second call with the same content only checks it.

    Args:
        data_dir: folder with `train.csv`, `test.csv` and a zip or folder of images; an image folder
            (`train/<class>/`, `test/<class>/`); a folder that `scripts/prepare_data.py` wrote; or the id of a data
            set on the Hub.
        validation_size: share of train, 0 to 1, that becomes the validation split, stratified by class; 0 makes
            none. Not used where the data bring a validation split of their own.
        seed: of the validation split.
        on_bad_image: `error`, or `skip` to leave out images that are missing or will not decode, say how many, and
            write their list.
        bad_image_list: the CSV file that `skip` writes (`where,image_id,problem`).

    Returns:
        Splits `train`, `validation` (if any) and `test` with the features `image`, `label` (`ClassLabel` of 3),
        `image_id`, and any further columns of the annotations.

    Raises:
        SmileDataError: every problem found, the first 20 with file and line.

    >>> load_smile_dataset("data/sample")["test"].features["label"].names  # doctest: +SKIP
    ['negative smile', 'positive smile', 'NOT smile']
    """
    if not 0 <= validation_size < 1:
        raise SmileDataError(f"validation_size is {validation_size}; it must lie between 0 and 1, for example 0.1")
    if on_bad_image not in ("error", "skip"):
        raise SmileDataError(f"on_bad_image is {on_bad_image!r}; it must be 'error' or 'skip'")
    folder = Path(data_dir)
    if (folder / "dataset_dict.json").is_file():
        splits = _standardize(_load_prepared(folder), folder)
    elif not folder.exists():
        splits = _load_from_hub(str(data_dir))
    elif is_sharded(folder):
        splits = _standardize(load_shards(folder), folder)
    else:
        tables, images = read_folder(folder)
        tables = _check_images(tables, images, folder, on_bad_image, Path(bad_image_list))
        splits = DatasetDict({split: _build_split(split, table, images) for split, table in tables.items()})
    _check_classes(splits)
    if "validation" not in splits and validation_size:
        splits |= split_validation(splits["train"], validation_size, seed)
    elif "validation" in splits and is_main_process():
        own = f"{data_dir} has a validation split of its own ({len(splits['validation']):,} images)"
        print(f"Note: {own}; validation_size and seed do not change it", file=sys.stderr)
    return DatasetDict({split: splits[split] for split in ("train", "validation", "test") if split in splits})


def read_folder(folder: Path) -> tuple[dict[str, pd.DataFrame], ImageSource]:
    """The annotations of each split, and where the images are, of a folder that is not prepared yet.

    Returns:
        Tables by split with the columns `image_id`, `label` (0 to 2), `where` and any further ones; and the images,
        none of which is read.

    Raises:
        SmileDataError: the folder has neither layout, or there is something wrong with the annotations.

    >>> tables, images = read_folder("data/sample")  # doctest: +SKIP
    """
    if (folder / "train.csv").is_file() or (folder / "test.csv").is_file():
        return _read_csv_layout(folder)
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _read_imagefolder_layout(folder)
    raise SmileDataError(f"{folder}: no data that can be read.\n{EXPECTED_LAYOUT}")


def _read_csv_layout(folder: Path) -> tuple[dict[str, pd.DataFrame], ImageSource]:
    problems = Problems(
        f"{name}: no such file; both train.csv and test.csv are needed"
        for name in ("train.csv", "test.csv")
        if not (folder / name).is_file()
    )
    problems.raise_if_any(folder)
    tables = {split: read_annotations(folder / f"{split}.csv", problems) for split in ("train", "test")}
    check_disjoint(tables["train"], tables["test"], problems)
    problems.raise_if_any(folder)
    images = ImageSource(find_images(folder))
    if not images:
        raise SmileDataError(images.why_empty)
    ids = [*tables["train"]["image_id"], *tables["test"]["image_id"]]
    if not any(image_id in images for image_id in ids):
        raise SmileDataError(
            f"{images.path}: none of the {len(ids):,} images of train.csv and test.csv is in there; "
            f"train.csv begins with {ids[0]!r}, and there is {next(iter(images.names))!r}"
        )
    return tables, images


def find_images(folder: Path) -> Path:
    """The folder or zip that holds the images of `train.csv` and `test.csv`; none of them is looked at.

    Raises:
        SmileDataError: there are several zips that could be it.

    >>> find_images(Path("data/sample"))  # doctest: +SKIP
    PosixPath('data/sample/happy_images.zip')
    """
    for name in _IMAGE_PLACES:
        if (folder / name).exists():
            return folder / name
    zips = sorted(folder.glob("*.zip"))
    if len(zips) > 1:
        raise SmileDataError(
            f"{folder}: more than one zip file ({', '.join(z.name for z in zips)}); name the right one happy_images.zip"
        )
    return zips[0] if zips else folder


def _read_imagefolder_layout(folder: Path) -> tuple[dict[str, pd.DataFrame], ImageSource]:
    """`train/<class>/<image>`; the class folder is named by label or id.

    The image id is the file's name without suffix; where files share one, the path with underscores.
    """
    problems = Problems()
    images = ImageSource(folder)
    records: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    found, images.names = images.names, {}
    for file_name, names in found.items():
        for name in names:
            folders = Path(name).parts[:-1]
            split = _SPLIT_ALIASES.get(folders[0], folders[0]) if folders else ""
            if split not in records:
                continue
            if len(folders) != 2:
                problems.append(f"{name}: expected {folders[0]}/<class>/<image>")
                continue
            image_id = file_name if len(names) == 1 else "_".join([*folders, file_name])
            if not is_file_name(image_id):
                problems.append(f"{name!r}: the name is too long or holds odd letters; rename the file")
                continue
            images.names.setdefault(image_id, []).append(name)
            try:
                records[split].append({"image_id": image_id, "label": parse_label(folders[1]), "where": name})
            except ValueError as error:
                problems.append(f"{name}: {error}")
    for split in ("train", "test"):
        if not records[split]:
            problems.append(f"{split}/: no images")
    problems.raise_if_any(folder)
    return {split: pd.DataFrame.from_records(rows) for split, rows in records.items() if rows}, images


def _check_images(
    tables: dict[str, pd.DataFrame], images: ImageSource, folder: Path, on_bad_image: str, bad_image_list: Path
) -> dict[str, pd.DataFrame]:
    """Decode every image once; the tables come back with a column `digest` of the encoded bytes."""

    def check(image_id: str) -> tuple[str, str]:
        try:
            data = images.read(image_id)
            decode_image(data)
            return hashlib.blake2b(data, digest_size=16).hexdigest(), ""
        except SmileDataError as error:
            return "", str(error)

    checked: dict[str, pd.DataFrame] = {}
    bad: list[tuple[str, str, str]] = []
    total = sum(map(len, tables.values()))
    progress = tqdm(total=total, desc="Checking images", unit=" images", delay=1, disable=not is_main_process())
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress:
        for split, table in tables.items():
            digests: list[str] = []
            ids = iter(table["image_id"])
            while chunk := list(islice(ids, 256)):  # bounds what waits in the pool, however many images there are
                for image_id, (digest, problem) in zip(chunk, pool.map(check, chunk), strict=True):
                    if problem:
                        bad.append((table["where"].iloc[len(digests)], image_id, problem))
                    digests.append(digest)
                    progress.update()
            checked[split] = table.assign(digest=digests)
    if bad and on_bad_image == "error":
        Problems(f"{where}: image {image_id!r}: {problem}" for where, image_id, problem in bad).raise_if_any(
            folder, "Mend them, or leave them out with --on_bad_image skip."
        )
    if bad and is_main_process():
        bad_image_list.parent.mkdir(parents=True, exist_ok=True)
        listed = pd.DataFrame(bad, columns=["where", "image_id", "problem"]).map(guarded)
        listed.to_csv(bad_image_list, index=False)
        print(f"Left out {len(bad)} of {total} images; they are listed in {bad_image_list}", file=sys.stderr)
    if bad:
        checked = {split: table[table["digest"] != ""] for split, table in checked.items()}
        if empty := [split for split, table in checked.items() if table.empty]:
            raise SmileDataError(f"{folder}: no image is left in {' and '.join(empty)}; see {bad_image_list}")
    return checked


def _build_split(split: str, table: pd.DataFrame, images: ImageSource) -> Dataset:
    extra_columns = [name for name in table.columns if name not in ("image_id", "label", "where", "digest")]
    records = table[["image_id", "label", *extra_columns]].to_dict("records")

    def examples() -> Iterator[dict[str, Any]]:
        for record in records:
            name = images.names[record["image_id"]][0]
            yield record | {"image": {"bytes": images.read(record["image_id"]), "path": name}}

    content = table.drop(columns="where").to_csv(index=False)
    try:
        return Dataset.from_generator(
            examples,
            features=features_of(extra_columns),
            split=datasets.NamedSplit(split),
            fingerprint=hashlib.blake2b(content.encode(), digest_size=16).hexdigest(),
        )
    except (DatasetGenerationError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError):
            raise SmileDataError(
                f"{datasets.config.HF_DATASETS_CACHE}: the images can't be cached there ({first_line(cause)}); "
                "make room, or set HF_HOME to a folder on another disk"
            ) from None
        raise cause if isinstance(cause, SmileDataError) else error from None


def _load_prepared(folder: Path) -> DatasetDict:
    if (folder / "train.csv").is_file():
        raise SmileDataError(f"{folder} holds train.csv and a prepared data set; keep them in folders of their own")
    try:
        return DatasetDict.load_from_disk(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SmileDataError(f"{folder}: the prepared data set is damaged ({error}); prepare it again") from None


def _load_from_hub(data_dir: str) -> DatasetDict:
    if message := missing_folder(data_dir):
        raise SmileDataError(f"{message}.\n{EXPECTED_LAYOUT}")
    try:
        loaded = datasets.load_dataset(data_dir)
    except Exception as error:  # the Hub client, fsspec and the builders each raise errors of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SmileDataError(
            f"{data_dir}: no such folder, and not loaded from the Hub either: {reason}\n{EXPECTED_LAYOUT}"
        ) from None
    return _standardize(loaded, data_dir)


def _standardize(splits: DatasetDict, where: str | Path) -> DatasetDict:
    """Check the columns of ready-made splits, and bring their names and labels to ours."""
    splits = DatasetDict({_SPLIT_ALIASES.get(str(split), split): dataset for split, dataset in splits.items()})
    if missing := [split for split in ("train", "test") if split not in splits]:
        raise SmileDataError(f"{where}: no split {missing[0]!r}; it has {', '.join(splits)}")
    standard = DatasetDict()
    for split in ("train", "validation", "test"):
        if split not in splits:
            continue
        dataset = splits[split]
        if missing := [name for name in ("image", "label") if name not in dataset.column_names]:
            raise SmileDataError(
                f"{where}: no column {missing[0]!r} in split {split}; it has {', '.join(dataset.column_names)}"
            )
        if "image_id" not in dataset.column_names:
            dataset = dataset.add_column("image_id", [f"{split}-{row:07d}" for row in range(len(dataset))])
        standard[split] = _standardize_labels(dataset.cast_column("image", Image()), where)
    _check_ids(standard, where)
    return standard


def _check_ids(splits: DatasetDict, where: str | Path) -> None:
    """An id is one image, in one split, and can be the name of a file."""
    seen: dict[str, str] = {}
    problems = Problems()
    for split, dataset in splits.items():
        for image_id in dataset["image_id"]:
            if not isinstance(image_id, str) or not is_file_name(image_id):
                problems.append(f"split {split}: image_id {image_id!r} can't be the name of a file")
            elif image_id in seen:
                problems.append(f"split {split}: image_id {image_id!r} is in {seen[image_id]} already")
            else:
                seen[image_id] = split
    problems.raise_if_any(where)


def _standardize_labels(dataset: Dataset, where: str | Path) -> Dataset:
    names = getattr(dataset.features["label"], "names", None)
    found = dataset.unique("label")
    if any(raw is None or (names and not 0 <= raw < len(names)) for raw in found):
        raise SmileDataError(f"{where}: there are images without a label; leave them out of the data set")
    if names == list(LABEL_NAMES):
        return dataset
    try:
        ids = {raw: parse_label(str(names[raw] if names else raw)) for raw in found}
    except ValueError as error:
        raise SmileDataError(f"{where}: {error}") from None
    labels = [ids[raw] for raw in dataset["label"]]
    dataset = dataset.remove_columns("label").add_column("label", labels)
    return dataset.cast_column("label", ClassLabel(names=list(LABEL_NAMES)))


def _check_classes(splits: DatasetDict) -> None:
    """One class is nothing to learn; a class that is missing is likely a mistake, and said."""
    for split in ("train", "test"):
        missing = [name for label, name in enumerate(LABEL_NAMES) if label not in splits[split].unique("label")]
        if split == "train" and len(missing) >= len(LABEL_NAMES) - 1:
            raise SmileDataError(f"train holds one class only; there is no image of {' and '.join(map(repr, missing))}")
        if missing and is_main_process():
            print(f"Note: no image of {' and '.join(map(repr, missing))} in {split}", file=sys.stderr)


def split_validation(train: Dataset, validation_size: float, seed: int) -> DatasetDict:
    """`train` and `validation`, stratified by class; the columns stay as they are.

    Raises:
        SmileDataError: too few images of a class, or for a split of that size.
    """
    counts = Counter(LABEL_NAMES[label] for label in train["label"])
    size = ceil(validation_size * len(train))
    label, fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < 2:
        raise SmileDataError(
            f"train holds 1 image of {label!r}, and it takes 2 of each class, one of them for validation; add images"
        )
    if not len(counts) <= size <= len(train) - len(counts):
        raise SmileDataError(
            f"validation_size {validation_size:g} takes {size} of the {len(train)} images in train, but validation and "
            f"what is left of train need {len(counts)} each, one of every class; "
            f"set a {'larger' if size < len(counts) else 'smaller'} --validation_size, or add images"
        )
    parts = train.train_test_split(validation_size, stratify_by_column="label", seed=seed)
    return DatasetDict(train=parts["train"], validation=parts["test"])
