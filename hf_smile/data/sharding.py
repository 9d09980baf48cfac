"""Annotations and images -> Parquet shards, in memory that does not grow with them, each whole or not there at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from hf_smile.csv_cells import guarded
from hf_smile.data.annotations import annotation_pieces
from hf_smile.data.dataset import find_images, read_folder
from hf_smile.data.images import IMAGE_SUFFIXES, ImageSource, decode_image
from hf_smile.data.shards import SETTINGS, SPLITS, features_of, rows_of, shard_files
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import LABEL_NAMES

_PIECE = 1_000  # lines of a CSV file that are in memory at a time
_ROW_GROUP = 100  # images that are in memory at a time, here and wherever the shards are read
_BAD_IMAGES = b"hf_smile.bad_images"

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Sharding:
    """How data are cut into shards. The same settings and data give the same shards."""

    images_per_shard: int = 2000
    divisible_by: int = 8
    """The number of shards of train is a multiple of this, so that 1, 2, 4 or 8 processes each read their own."""
    validation_size: float = 0.1
    """Share of each class of train; 0 for none. Not used where the data bring a validation split."""
    seed: int = 42
    """Of the validation split, and of the order of the images, which is random."""
    on_bad_image: str = "error"

    def shards_of(self, split: str, images: int) -> int:
        """How many shards a split of so many images gets; they are equally full, but for one image."""
        multiple = self.divisible_by if split == "train" else 1
        return min(images, ceil(ceil(images / self.images_per_shard) / multiple) * multiple)


def write_shards(data_dir: str | Path, output_dir: str | Path, how: Sharding) -> dict[str, int]:
    """Check every image and write the splits of a data folder as shards. Started again, it goes on where it was.

    A shard appears under its name when it is whole. Memory is that of a few hundred images and of `_PIECE` lines
    where the images lie in one folder beside `train.csv` and `test.csv`; of a zip or an image folder, the list of
    names is held too, some 1 kB an image.

    Args:
        data_dir: the data as they were collected, or an image folder; as for `load_smile_dataset`.
        output_dir: made if it is not there.
        how: the settings.

    Returns:
        Images by split.

    Raises:
        SmileDataError: something is wrong with the annotations or an image; or `output_dir` holds other shards.

    >>> write_shards("data/sample", "data/shards", Sharding(images_per_shard=500))  # doctest: +SKIP
    {'train': 1080, 'validation': 120, 'test': 300}
    """
    folder, output = Path(data_dir), Path(output_dir)
    if not folder.is_dir():
        raise SmileDataError(f"{folder}: no such folder; name the one with the CSVs and the images with --data_dir")
    if folder.resolve() == output.resolve():
        raise SmileDataError(f"{output} holds the images themselves; name another --output_dir")
    if (folder / "dataset_dict.json").is_file() or shard_files(folder, "train"):
        raise SmileDataError(f"{folder}: shards are made of the data as they were collected, or of an image folder")
    output.mkdir(parents=True, exist_ok=True)
    for left in output.glob(".index-*"):  # by a start that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=output, prefix=".index-") as unfinished:
        index = _Index(Path(unfinished, "index.sqlite"), how)
        read = index.fill(folder)
        sizes = {split: images for split in SPLITS if (images := index.size(split))}
        shards = {split: how.shards_of(split, images) for split, images in sizes.items()}
        settings = asdict(how) | {"annotations": index.digest(), "shards": shards}
        del settings["on_bad_image"]  # after an error, `skip` goes on where it was
        _open_output(output, settings)
        progress = tqdm(total=sum(sizes.values()), desc="Writing shards", unit=" images", delay=1)
        with progress, ThreadPoolExecutor(os.cpu_count()) as pool:
            for split, count in shards.items():
                rows = index.rows(split)
                for shard in range(count):
                    size = sizes[split] * (shard + 1) // count - sizes[split] * shard // count
                    path = output / split / f"{shard:05d}-of-{count:05d}.parquet"
                    part = itertools.islice(rows, size)
                    if path.exists() and _is_readable(path):
                        progress.update(sum(1 for _ in part))
                    else:
                        _write_shard(path, part, index.further, read, pool, how.on_bad_image, progress)
        index.close()
    _list_bad_images(output, sum(sizes.values()))
    written = {split: sum(map(rows_of, shard_files(output, split))) for split in shards}
    if empty := [split for split, images in written.items() if not images]:
        raise SmileDataError(f"{folder}: no image is left in {' and '.join(empty)}; see {output}/bad_images.csv")
    return written


def _is_readable(path: Path) -> bool:
    try:
        rows_of(path)
    except SmileDataError:
        return False
    return True


def _write_shard(
    path: Path,
    rows: Iterator[dict[str, Any]],
    further: list[str],
    read: Read,
    pool: ThreadPoolExecutor,
    on_bad_image: str,
    progress: tqdm,
) -> None:
    def load(row: dict[str, Any]) -> dict[str, Any]:
        try:
            data = read(row["image_id"])
            decode_image(data)
            return {"image": {"bytes": data, "path": None}}
        except SmileDataError as error:
            return {"problem": str(error)}

    schema = features_of(further).arrow_schema
    bad: list[dict[str, str]] = []
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    with pq.ParquetWriter(unfinished, schema, compression=dict.fromkeys(("label", *further), "zstd")) as writer:
        while group := list(itertools.islice(rows, _ROW_GROUP)):
            good = []
            for row, image in zip(group, pool.map(load, group), strict=True):
                where = row.pop("place")
                if "problem" in image:
                    bad.append({"where": where, "image_id": row["image_id"], "problem": image["problem"]})
                else:
                    good.append(row | image)
                progress.update()
            if good:
                writer.write_table(pa.Table.from_pylist(good, schema))
        if bad and on_bad_image == "error":
            Problems(f"{row['where']}: image {row['image_id']!r}: {row['problem']}" for row in bad).raise_if_any(
                f"the images of {path.parent.name}/{path.name}",
                "Mend them, or leave them out with --on_bad_image skip.",
            )
        writer.add_key_value_metadata({_BAD_IMAGES: json.dumps(bad)})
    unfinished.replace(path)


def _open_output(output: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or find the same ones there."""
    path = output / SETTINGS
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if changed := [name for name in settings if earlier.get(name) != settings[name]]:
            raise SmileDataError(
                f"{output} holds shards of other data or settings ({', '.join(changed)}); name another --output_dir"
            )
    elif foreign := [split for split in SPLITS if (output / split).exists()]:
        raise SmileDataError(f"{output / foreign[0]} is there already and not of shards; name another --output_dir")
    unfinished = path.with_name(f"{SETTINGS}.part")
    unfinished.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _list_bad_images(output: Path, total: int) -> None:
    """Each shard remembers what it left out, so that the list is whole after a restart too."""
    bad = [
        row
        for split in SPLITS
        for file in shard_files(output, split)
        for row in json.loads((pq.read_metadata(file).metadata or {}).get(_BAD_IMAGES, b"[]"))
    ]
    if bad:
        pd.DataFrame(bad).map(guarded).to_csv(output / "bad_images.csv", index=False)
        print(f"Left out {len(bad)} of {total} images; they are listed in {output}/bad_images.csv", file=sys.stderr)


class _Index:
    """The annotations in a file on disk: each id once, in a random order, with further columns as JSON."""

    def __init__(self, path: Path, how: Sharding) -> None:
        self.how = how
        self.further: list[str] = []
        self._database = sqlite3.connect(path)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;"
            "CREATE TABLE images (image_id TEXT PRIMARY KEY, split TEXT, label INT, place TEXT, further TEXT, key BLOB)"
            " WITHOUT ROWID;"
        )

    def close(self) -> None:
        self._database.close()

    def fill(self, folder: Path) -> Read:
        """Read and check the annotations; returns what reads an image by its id."""
        problems = Problems()
        tables, read = _tables(folder, problems)
        for split, table in tables:
            self._add(split, table, problems)
        problems.raise_if_any(folder)
        self._database.execute("CREATE INDEX shuffled ON images (split, key)")
        counts = dict(self._database.execute("SELECT label, count(*) FROM images WHERE split = 'train' GROUP BY label"))
        if len(counts) < 2 or not self.size("test"):
            raise SmileDataError(f"{folder}: train needs images of at least two classes, and test of any")
        if self.how.validation_size and not self.size("validation"):
            for label, count in counts.items():
                if count < 2:
                    raise SmileDataError(
                        f"train holds 1 image of {LABEL_NAMES[label]!r}, and it takes 2 of each class, one of them for "
                        "validation; add images, or set --validation_size 0"
                    )
                held_out = min(count - 1, max(1, round(count * self.how.validation_size)))
                self._database.execute(
                    "UPDATE images SET split = 'validation' WHERE image_id IN (SELECT image_id FROM images"
                    " WHERE split = 'train' AND label = ? ORDER BY key LIMIT ?)",
                    (label, held_out),
                )
        return read

    def _add(self, split: str, table: pd.DataFrame, problems: Problems) -> None:
        further = [name for name in table.columns if name not in ("image_id", "label", "where")]
        self.further += [name for name in further if name not in self.further]
        for row in table.to_dict("records"):
            key = hashlib.blake2b(f"{self.how.seed}/{row['image_id']}".encode(), digest_size=8).digest()
            values = (row["image_id"], split, int(row["label"]), row["where"])
            cells = json.dumps({name: row[name] for name in further})
            added = self._database.execute(
                "INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?, ?)", (*values, cells, key)
            )
            if not added.rowcount:
                (first,) = self._database.execute("SELECT place FROM images WHERE image_id = ?", values[:1]).fetchone()
                problems.append(f"{row['where']}: id {row['image_id']!r} is there twice, first in {first}")

    def size(self, split: str) -> int:
        return self._database.execute("SELECT count(*) FROM images WHERE split = ?", (split,)).fetchone()[0]

    def digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for row in self._database.execute("SELECT image_id, split, label, further FROM images ORDER BY split, key"):
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        """`image_id`, `label`, `place` and the further columns, in the random order."""
        query = "SELECT image_id, label, place, further FROM images WHERE split = ? ORDER BY key"
        for image_id, label, place, further in self._database.execute(query, (split,)):
            cells = dict.fromkeys(self.further) | json.loads(further)
            yield {"image_id": image_id, "label": label, "place": place} | cells


def _tables(folder: Path, problems: Problems) -> tuple[Iterator[tuple[str, pd.DataFrame]], Read]:
    """The annotations in pieces, and what reads an image."""
    csvs = {split: folder / f"{split}.csv" for split in ("train", "test")}
    if not all(csv.is_file() for csv in csvs.values()):
        tables, source = read_folder(folder)
        return iter(tables.items()), source.read
    pieces = ((split, table) for split, csv in csvs.items() for table in annotation_pieces(csv, problems, _PIECE))
    images = find_images(folder)
    if images.is_dir() and _lie_flat(images, csvs["train"]):
        with tempfile.TemporaryDirectory() as empty:
            source = ImageSource(empty)
        source.path = images
        return pieces, partial(_read_flat, source)
    source = ImageSource(images)
    if not source:
        raise SmileDataError(source.why_empty)
    return pieces, source.read


def _lie_flat(images: Path, csv: Path) -> bool:
    """Whether the images can be found by name, without a list of all; the first one speaks for them."""
    table = next(annotation_pieces(csv, Problems(), 2), None)
    return table is not None and len(table) > 0 and bool(_flat_names(images, table["image_id"].iloc[0]))


def _flat_names(images: Path, image_id: str) -> list[str]:
    names = [f"{image_id}{case}" for suffix in IMAGE_SUFFIXES for case in (suffix, suffix.upper())]
    found = {(images / name).stat().st_ino: name for name in names if (images / name).is_file()}
    return [*found.values()]  # where case does not count, two names are one file


def _read_flat(images: ImageSource, image_id: str) -> bytes:
    source = copy(images)
    source.names = {image_id: _flat_names(images.path, image_id)}
    return source.read(image_id)
