"""Write Parquet shards with constant memory use. Each shard is written atomically."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features
from tqdm.auto import tqdm

from hf_smile.data.annotations import OWN_COLUMNS
from hf_smile.data.checks import BAD_IMAGE, report_left_out
from hf_smile.data.columns import PLAIN, Reading
from hf_smile.data.corrections import Corrections, corrections_sentence, facts_of
from hf_smile.data.images import decode_image
from hf_smile.data.layouts import Layout, read_layout, refuse_data_folder
from hf_smile.data.rows import RowSource
from hf_smile.data.sources import Images
from hf_smile.data.splits import SPLITS, check_groups, column_of, grouped_rows, missing_split
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import SMILE_LABELS
from hf_smile.shards.folder import SETTINGS, features_of, read_settings, rows_of, shard_files
from hf_smile.utils.cores import own_cores
from hf_smile.utils.files import make_folder, write_text, written_whole

logger = logging.getLogger(__name__)

_PIECE = 1_000  # lines of a CSV file in memory at a time
_ROW_GROUP = 100  # images in memory at a time, when writing and reading shards
_MAX_PROBLEMS = 1_000
_BAD_IMAGES = b"hf_smile.bad_images"

Row = dict[str, Any]


@dataclass(frozen=True)
class Sharding:
    """Settings for writing shards. The same settings and data give the same shards.

    Args:
        images_per_shard: maximum number of images per shard.
        divisible_by: the number of train shards is a multiple of this, so that 1, 2, 4 or 8 processes can each read
            their own shards.
        validation_size: share of each class of train to hold out; 0 for none. Ignored if the data have a validation
            split.
        test_size: share of each class of train to hold out; required if the data have no test split.
        group_by: column whose values must not appear in two splits.
        seed: seed of the splits and of the random order of the images.
        on_bad_image: `error`, or `skip` to leave out bad images and list them.
        corrections: file of decisions about labels.
    """

    images_per_shard: int = 2000
    divisible_by: int = 8
    validation_size: float = 0.1
    test_size: float | None = None
    group_by: str | None = None
    seed: int = 42
    on_bad_image: str = "error"
    corrections: str | Path | None = None

    def shards_of(self, split: str, images: int) -> int:
        """The number of shards for a split. Their sizes are equal within one image."""
        multiple = self.divisible_by if split == "train" else 1
        return min(images, ceil(ceil(images / self.images_per_shard) / multiple) * multiple)


def write_shards(
    data_dir: str | Path, output_dir: str | Path, how: Sharding, reading: Reading = PLAIN
) -> dict[str, int]:
    """Check every image and write the splits of a data set as shards. After an interruption, it resumes.

    A shard only appears under its name when it is complete. A few hundred images and `_PIECE` annotation lines are in
    memory at a time. For a zip, Python also holds the list of file names, about 0.5 kB per image.

    Args:
        data_dir: data in any layout, as for `load_smile_dataset`.
        output_dir: folder to write to, created if needed.
        how: settings of the shards and splits.
        reading: column and label names.

    Returns:
        Number of images by split.

    Raises:
        SmileDataError: if the annotations or an image are invalid, or `output_dir` contains other shards.

    >>> write_shards("data/sample", "data/shards", Sharding(images_per_shard=500))  # doctest: +SKIP
    {'train': 1080, 'validation': 120, 'test': 300}
    """
    output = Path(output_dir)
    refuse_data_folder(output, data_dir, SETTINGS)
    problems = Problems()
    layout = read_layout(data_dir, problems, reading, _PIECE)
    make_folder(output)
    for left in output.glob(".index-*"):  # left over from a killed process
        shutil.rmtree(left)
    with (
        tempfile.TemporaryDirectory(dir=output, prefix=".index-") as unfinished,
        closing(sqlite3.connect(Path(unfinished, "index.sqlite"))) as database,
    ):
        index = _Index(database, how, layout)
        index.fill(layout.pieces, problems, data_dir)
        sizes = index.sizes()
        shards = {split: how.shards_of(split, images) for split, images in sizes.items()}
        settings = asdict(how) | {"annotations": index.digest(layout.images), "shards": shards}
        if layout.labels != SMILE_LABELS:
            settings["labels"] = [*layout.labels]
        del settings["on_bad_image"], settings["corrections"]  # so that `skip` can resume after an error
        if any(index.corrections.values()):
            settings["corrections"] = index.corrections
        _open_output(output, settings)
        features = features_of(index.further, layout.labels)
        progress = tqdm(total=sum(sizes.values()), desc="Writing shards", unit=" images", delay=1)
        with progress, ThreadPoolExecutor(own_cores()) as pool:
            with_images = partial(pool.map, partial(_with_image, layout.images.read))
            for split, count in shards.items():
                rows = index.rows(split)
                for shard in range(count):
                    size = sizes[split] * (shard + 1) // count - sizes[split] * shard // count
                    path = output / split / f"{shard:05d}-of-{count:05d}.parquet"
                    part = itertools.islice(rows, size)
                    if path.exists() and _is_readable(path):
                        progress.update(sum(1 for _ in part))
                    elif len(problems) <= _MAX_PROBLEMS:
                        bad = _write_shard(path, part, features, with_images, how, progress)
                        problems.add_images(row.values() for row in bad)
    problems.raise_if_any(data_dir, "Fix them, or leave them out with --on_bad_image skip. Finished shards are kept.")
    written = {split: sum(map(rows_of, shard_files(output, split))) for split in shards}
    report_left_out(_left_out(output), written, output / "bad_images.csv", data_dir)
    return written


def _is_readable(path: Path) -> bool:
    try:
        rows_of(path)
    except SmileDataError:
        return False
    return True


def _with_image(read: Callable[[str], bytes], row: Row) -> Row:
    """Add the image or a `problem` to the row."""
    try:
        if not row["problem"]:
            data = read(row["file"])
            decode_image(data)
            row["image"] = {"bytes": data, "path": None}
    except SmileDataError as error:
        row["problem"] = str(error)
    return row


def _write_shard(
    path: Path, rows: Iterator[Row], features: Features, with_images: Callable, how: Sharding, progress: tqdm
) -> list[dict[str, str]]:
    """Write a shard. With `on_bad_image="error"`, returns the bad images and writes nothing if there are any."""
    schema = features.arrow_schema
    bad: list[dict[str, str]] = []
    path.parent.mkdir(exist_ok=True)
    compressed = {name: "zstd" for name in features if name not in ("image", "image_id")}
    with written_whole(path) as unfinished, pq.ParquetWriter(unfinished, schema, compression=compressed) as writer:
        while group := [*with_images(itertools.islice(rows, _ROW_GROUP))]:
            bad += [{name: row[name] for name in BAD_IMAGE} for row in group if row["problem"]]
            if good := [row for row in group if not row["problem"]]:
                writer.write_table(pa.Table.from_pylist(good, schema))
            progress.update(len(group))
        writer.add_key_value_metadata({_BAD_IMAGES: json.dumps(bad)})
        if bad and how.on_bad_image == "error":
            unfinished.unlink()
            return bad
    return []


def _open_output(output: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or check that the folder has the same ones."""
    path = output / SETTINGS
    if path.exists():
        earlier = read_settings(path)
        if changed := [name for name in settings if earlier.get(name) != settings[name]]:
            raise SmileDataError(
                f"{output} has shards of other data or settings ({', '.join(changed)}); choose another --output_dir"
            )
    elif foreign := [split for split in SPLITS if (output / split).exists()]:
        raise SmileDataError(f"{output / foreign[0]} exists and has no shards; choose another --output_dir")
    write_text(path, json.dumps(settings, indent=2) + "\n")


def _left_out(output: Path) -> pd.DataFrame:
    """The images left out of all shards. Each shard stores its own, so the list is complete after a restart."""
    metadata = [pq.read_metadata(file).metadata or {} for split in SPLITS for file in shard_files(output, split)]
    bad = itertools.chain.from_iterable(json.loads(found.get(_BAD_IMAGES, b"[]")) for found in metadata)
    return pd.DataFrame(bad, columns=BAD_IMAGE)


class _Index:
    """The annotations in a database on disk, in random order, with additional columns as JSON."""

    def __init__(self, database: sqlite3.Connection, how: Sharding, layout: Layout) -> None:
        self.how, self.labels = how, layout.labels
        self.further: list[str] = []
        own = layout.images.splits if isinstance(layout.images, RowSource) else {}
        self.corrections = {split: facts_of(own.get(split, own["train"])) for split in SPLITS if "train" in own}
        self._database = database
        database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;"
            "CREATE TABLE images (image_id TEXT, file TEXT, label INT, place TEXT, problem TEXT, split TEXT,"
            " people TEXT, further TEXT, key BLOB);"
        )

    def fill(self, pieces: Iterator[tuple[str, pd.DataFrame]], problems: Problems, where: str | Path) -> None:
        """Read and check the annotations, and hold out missing splits."""
        for split, table in pieces:
            self._add(split, table)
        if missing := missing_split(self.sizes(), self.how.test_size):
            problems.append(missing)
        if problems and self.how.on_bad_image == "error":
            query = "SELECT place, image_id, problem FROM images WHERE problem != '' LIMIT ?"
            problems.add_images(self._database.execute(query, (_MAX_PROBLEMS,)))
        path, given = self.how.corrections, self._database.execute("SELECT image_id, label FROM images")
        corrected = Corrections(path, given, self.labels, problems) if path else None
        problems.raise_if_any(where)
        self._database.execute("CREATE INDEX shuffled ON images (split, key)")
        if self.how.group_by:
            check_groups({split: Dataset.from_pandas(self._people(split)) for split in self.sizes()}, self.how.group_by)
        for split, size in (("test", self.how.test_size), ("validation", self.how.validation_size)):
            if size and split not in self.sizes():
                self._hold_out(split, size)
        if corrected:
            self._correct(corrected)
        if len(self._counts()) < 2:
            raise SmileDataError(f"{where}: train has only one class; add images of another")

    def _add(self, split: str, table: pd.DataFrame) -> None:
        further = [name for name in table.columns if name not in OWN_COLUMNS]
        self.further += [name for name in further if name not in self.further]
        people = column_of(further, self.how.group_by) if self.how.group_by else ""
        query = "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        for row in table.to_dict("records"):
            own = (row[name] for name in OWN_COLUMNS)
            cells = json.dumps({name: row[name] for name in further})
            key = hashlib.blake2b(f"{self.how.seed}/{row['image_id']}".encode(), digest_size=8).digest()
            self._database.execute(query, (*own, split, row.get(people), cells, key))

    def _correct(self, corrections: Corrections) -> None:
        for split in self.sizes():
            rows = self._database.execute("SELECT image_id, label FROM images WHERE split = ?", (split,))
            ids, labels = zip(*rows, strict=True)
            self.corrections[split] = self.corrections.get(split, {}) | corrections.facts(ids, labels)
        new = [(label, image_id) for image_id, label in corrections.new.items()]
        self._database.executemany("UPDATE images SET label = ? WHERE image_id = ?", new)
        self._database.execute("DELETE FROM images WHERE label < 0")
        logger.info(corrections_sentence(self.corrections))

    def sizes(self) -> dict[str, int]:
        """Number of images by split."""
        counts = dict(self._database.execute("SELECT split, count(*) FROM images GROUP BY split"))
        return {split: counts[split] for split in SPLITS if split in counts}

    def _counts(self) -> dict[int, int]:
        query = "SELECT label, count(*) FROM images WHERE split = 'train' GROUP BY label"
        return dict(self._database.execute(query))

    def _people(self, split: str) -> pd.DataFrame:
        """Label, row number (`where`) and group of each image of a split, in random order."""
        query = "SELECT label, rowid, people FROM images WHERE split = ? ORDER BY key"
        rows = self._database.execute(query, (split,))
        return pd.DataFrame(rows, columns=["label", "where", self.how.group_by])

    def _hold_out(self, split: str, size: float) -> None:
        if self.how.group_by:
            train = self._people("train")
            groups = train[self.how.group_by].to_numpy(str)
            held_out = grouped_rows(train["label"].to_numpy(), groups, split, size, self.how.seed)
            chosen = ((split, number) for number in train.loc[held_out, "where"])
            self._database.executemany("UPDATE images SET split = ? WHERE rowid = ?", chosen)
            return
        for label, count in self._counts().items():
            if count < 2:
                raise SmileDataError(
                    f"train has 1 image of {self.labels[label]!r}, but at least 2 of each class are needed, one for "
                    f"{split}; add images, or set --{split}_size 0"
                )
            self._database.execute(
                "UPDATE images SET split = ? WHERE rowid IN (SELECT rowid FROM images"
                " WHERE split = 'train' AND label = ? ORDER BY key LIMIT ?)",
                (split, label, min(count - 1, max(1, round(count * size)))),
            )

    def digest(self, images: Images) -> str:
        """A digest of everything the shards depend on: annotations, and names, sizes and mtimes of the images."""
        digest = hashlib.blake2b(digest_size=16)
        query = "SELECT image_id, split, label, further, file FROM images ORDER BY split, key"
        for row in self._database.execute(query):
            stamp = (images.stamp(row[-1]) or "").rpartition(" ")[0]  # without ctime, which differs in a copy
            digest.update(repr((*row, stamp)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def rows(self, split: str) -> Iterator[Row]:
        """Rows with `OWN_COLUMNS` and the additional columns, in random order."""
        query = "SELECT image_id, file, label, place, problem, further FROM images WHERE split = ? ORDER BY key"
        for *own, further in self._database.execute(query, (split,)):
            yield dict(zip(OWN_COLUMNS, own, strict=True)) | json.loads(further)
