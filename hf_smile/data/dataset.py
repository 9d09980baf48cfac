"""Load data in any common layout as a `datasets.DatasetDict`, checked and split."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict
from datasets.exceptions import DatasetGenerationError

from hf_smile.data.annotations import OWN_COLUMNS
from hf_smile.data.arguments import DataArguments
from hf_smile.data.checks import BAD_IMAGE, check_images, report_left_out
from hf_smile.data.corrections import Corrections, corrections_sentence
from hf_smile.data.layouts import Layout, Tables, collect, read_layout
from hf_smile.data.rows import RowSource, build_rows
from hf_smile.data.sources import Images
from hf_smile.data.splits import SPLITS, check_groups, column_of, hold_out, missing_split, some_of
from hf_smile.errors import Problems, SmileDataError, first_line
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.shards.folder import features_of
from hf_smile.utils.words import counted

logger = logging.getLogger(__name__)


def load_smile_dataset(
    data_dir: str | Path,
    validation_size: float = 0.1,
    seed: int = 42,
    on_bad_image: str = "error",
    bad_image_list: str | Path = "bad_images.csv",
    *,
    test_size: float | None = None,
    max_train_samples: int | None = None,
    group_by: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    label_map: str | Mapping[str, str] | None = None,
    labels: LabelSet | Sequence[str] | None = None,
    corrections: str | Path | None = None,
    as_they_are: bool = False,
) -> DatasetDict:
    """Load, check and split a data set.

    Every image is decoded once, so that training meets no broken ones, and only decoded again if its file changes.
    The images stay encoded in Arrow files in the cache of `datasets`.

    Args:
        data_dir: folder or zip in one of the layouts of `docs/data.md`, or the id of a data set on the Hub.
        validation_size: share of train, 0 to 1, to use as the validation split, stratified by class; 0 for no
            validation split. Ignored if the data have a validation split.
        seed: seed of the splits.
        on_bad_image: `error`, or `skip` to leave out images that are missing or can't be decoded. Their number is
            logged, and they are listed in `bad_image_list`.
        bad_image_list: CSV file that `skip` writes (`where,image_id,problem`).
        test_size: share of train to use as the test split, stratified by class; required if the data have none.
        max_train_samples: maximum number of training images, stratified by class; None keeps all.
        group_by: column whose values must not appear in two splits.
        image_column: column of the images or their paths.
        label_column: column of the labels.
        id_column: column of the ids.
        label_map: other spellings of the labels, `{"fake": "negative smile"}` or `"fake=negative smile"`.
        labels: label names in the order of their ids. None takes them from the data (class folders, `ClassLabel`),
            or uses the default labels if the data define none.
        corrections: file of decisions about labels (`docs/review.md`). Apart from images that are left out, it does
            not change the splits.
        as_they_are: load the splits as they are, without holding out or requiring any, for evaluation only.

    Returns:
        Splits `train`, `validation` (if any) and `test` with the features `image`, `label` (`ClassLabel`),
        `image_id`, and any additional columns of the annotations.

    Raises:
        SmileDataError: if anything is wrong with the data. Lists the first 20 problems with file and line.

    >>> load_smile_dataset("data/sample")["test"].features["label"].names  # doctest: +SKIP
    ['negative smile', 'positive smile', 'NOT smile']
    """
    columns = image_column, label_column, id_column
    read_as: dict[str, Any] = {"label_map": label_map, "labels": labels, "corrections": corrections}
    read_as["on_bad_image"] = on_bad_image
    data = DataArguments(str(data_dir), test_size, validation_size, max_train_samples, group_by, *columns, **read_as)
    problems = Problems()
    layout, annotated, corrected = _read(data, problems, need_splits=not as_they_are)
    tables = _check_images(annotated, layout.images, data, Path(bad_image_list), problems)
    if isinstance(layout.images, RowSource):
        splits = build_rows(layout.images, tables, layout.labels)
    else:
        splits = DatasetDict({split: _build_split(split, table, layout) for split, table in tables.items()})
    if corrected:
        splits = corrected.mark(splits)
    if as_they_are:
        return corrected.apply(splits) if corrected else splits
    if group_by is not None:
        check_groups(splits, group_by)
    for split, size in (("test", test_size), ("validation", validation_size)):
        if split in splits:
            given = size is not None and (split == "validation" or size)
            if given:
                own = f"{data_dir} has its own {split} split ({len(splits[split]):,} images)"
                logger.warning(f"Note: {own}; {split}_size and seed do not change it")
        elif size:
            splits |= hold_out(splits["train"], split, size, seed, group_by)
    if corrected:
        splits = corrected.apply(splits)
    if max_train_samples is not None:
        splits["train"] = some_of(splits["train"], max_train_samples, seed)
    _check_classes(splits, layout.labels)
    return DatasetDict({split: splits[split] for split in SPLITS if split in splits})


def read_tables(data: DataArguments, seed: int = 42) -> tuple[Tables, Images]:
    """Read the annotations of train and test and locate the images, without reading or skipping any.

    Args:
        data: data settings. With those of training, a test split that is held out is the same.
        seed: seed of the splits, also as in training.

    Returns:
        Tables by split: `image_id`, `file` (what to read), `label`, `where`, `problem` ("" unless the image is missing)
        and additional columns, with the label set as the attribute `labels`; and the image source.

    Raises:
        SmileDataError: if anything is wrong with the annotations.

    >>> tables, images = read_tables(DataArguments("data/sample"))  # doctest: +SKIP
    """
    problems = Problems()
    layout, tables, corrected = _read(data, problems)
    problems.raise_if_any(data.data_dir)
    if "test" not in tables and data.test_size:
        train = tables["train"]
        columns = ["label"] if data.group_by is None else ["label", column_of([*train.columns], data.group_by)]
        numbered = Dataset.from_pandas(train[columns].assign(where=range(len(train))))
        rows = numbered.cast_column("label", ClassLabel(names=[*layout.labels]))
        parts = hold_out(rows, "test", data.test_size, seed, data.group_by)
        tables |= {split: train.iloc[part["where"]].reset_index(drop=True) for split, part in parts.items()}
    if corrected:
        facts = {}
        for split, table in tables.items():
            facts[split] = corrected.facts(table["image_id"], table["label"])
            table = table.assign(label=corrected.of(table["image_id"], table["label"]))
            tables[split] = table[table["label"] >= 0].reset_index(drop=True)
        logger.info(corrections_sentence(facts))
    return tables, layout.images


def _read(
    data: DataArguments, problems: Problems, need_splits: bool = True
) -> tuple[Layout, Tables, Corrections | None]:
    """Read the annotations and the corrections of their labels.

    If a split is missing, raises all problems found so far, including missing images.
    """
    layout = read_layout(data.data_dir, problems, data.reading())
    tables = collect(layout, problems)
    missing = missing_split({split: len(table) for split, table in tables.items()}, data.test_size)
    if need_splits and missing:
        if not problems:
            problems.append(missing)
        for table in tables.values():
            problems.add_images(table[BAD_IMAGE].itertuples(index=False))
        problems.raise_if_any(data.data_dir)
    if data.corrections is None:
        return layout, tables, None
    given = chain.from_iterable(zip(table["image_id"], table["label"], strict=True) for table in tables.values())
    return layout, tables, Corrections(data.corrections, given, layout.labels, problems)


def _check_images(
    tables: Tables, images: Images, data: DataArguments, bad_image_list: Path, problems: Problems
) -> dict[str, pd.DataFrame]:
    """Check all images and raise all problems. Returns the tables with a column `digest`, without skipped images."""
    files = [file for table in tables.values() for file in table.loc[table["problem"] == "", "file"]]
    checked = iter(check_images(images, files))
    for split, table in tables.items():
        results = [("", problem) if problem else next(checked) for problem in table["problem"]]
        digests, found = zip(*results, strict=True) if results else ((), ())
        tables[split] = table.assign(digest=digests, problem=found)
    bad = pd.concat([table.loc[table["problem"] != "", BAD_IMAGE] for table in tables.values()])
    hint = ""
    if len(bad) and data.on_bad_image == "error":
        problems.add_images(bad.itertuples(index=False))
        hint = f"To leave out the {counted(len(bad), 'missing or damaged image')}: --on_bad_image skip"
    problems.raise_if_any(data.data_dir, hint)
    kept = {split: table[table["problem"] == ""] for split, table in tables.items()}
    report_left_out(bad, {split: len(table) for split, table in kept.items()}, bad_image_list, data.data_dir)
    return kept


def _build_split(split: str, table: pd.DataFrame, layout: Layout) -> Dataset:
    further = [name for name in table.columns if name not in (*OWN_COLUMNS, "digest")]
    records = table[["image_id", "label", "file", *further]].to_dict("records")

    def examples() -> Iterator[dict[str, Any]]:
        for record in records:
            image = {"bytes": layout.images.read(record["file"]), "path": record["file"]}
            yield {name: cell for name, cell in record.items() if name != "file"} | {"image": image}

    content = split + table.drop(columns=["where", "problem"]).to_csv(index=False)
    if layout.labels != SMILE_LABELS:
        content += str(layout.labels)
    try:
        return Dataset.from_generator(
            examples,
            features=features_of(further, layout.labels),
            split=datasets.NamedSplit(split),
            fingerprint=hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
        )
    except (DatasetGenerationError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError):
            raise SmileDataError(
                f"{datasets.config.HF_DATASETS_CACHE}: the images can't be cached there ({first_line(cause)}); "
                "free up space, or set HF_HOME to a folder on another disk"
            ) from None
        raise cause if isinstance(cause, SmileDataError) else error from None


def _check_classes(splits: DatasetDict, labels: LabelSet) -> None:
    """Refuse to train on a single class, and warn about missing classes, which are probably a mistake."""
    for split, dataset in splits.items():
        present = set(dataset["label"])
        missing = [name for label, name in enumerate(labels) if label not in present]
        if split == "train" and len(missing) >= len(labels) - 1:
            raise SmileDataError(f"train has only one class; add images of {' and '.join(map(repr, missing))}")
        if missing:
            logger.warning(f"Note: {split} has no image of {' or '.join(map(repr, missing))}")
