"""Decode every image once, so that training meets no broken ones. Results are cached by path, size and time."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import datasets
import pandas as pd
import PIL
from tqdm.auto import tqdm

from hf_smile import __version__
from hf_smile.data.images import decode_image
from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError
from hf_smile.utils.console import is_main_process
from hf_smile.utils.cores import own_cores
from hf_smile.utils.csv_cells import guarded

logger = logging.getLogger(__name__)

_CHUNK = 256  # images queued at a time
_CHECKED_BY = f"hf_smile {__version__}, Pillow {PIL.__version__}"  # other versions may give other results

BAD_IMAGE = ["where", "image_id", "problem"]
"""Columns of the list of skipped images."""

Key = tuple[bytes, str] | None
Checked = tuple[str, str]
"""Digest of the encoded bytes, and the problem with the image; one of the two is empty."""


def check_images(images: Images, files: list[str]) -> list[Checked]:
    """Decode each image, unless the same file was decoded before.

    Results are cached in the cache folder of `datasets`, in one small file per folder or zip.

    Args:
        images: source of the images.
        files: values of the column `file` of the annotations.

    Returns:
        Digest and problem of each image, in the order of `files`.

    >>> check_images(ImageSource("faces"), ["a.jpg"])  # doctest: +SKIP
    [('0cc175b9c0f1b6a831c399e269772661', '')]
    """
    keys = [_key(images, file) for file in files]
    with _memory(images.path) as memory:
        known = _recall(memory)
        checked: list[Checked] = [(known.get(key, ""), "") for key in keys]
        new = [number for number, (digest, _) in enumerate(checked) if not digest]
        if before := len(files) - len(new):
            logger.info(f"{before:,} of {len(files):,} images were already checked")
        progress = tqdm(total=len(new), desc="Checking images", unit=" images", delay=1, disable=not is_main_process())
        with progress, ThreadPoolExecutor(own_cores()) as pool:
            for start in range(0, len(new), _CHUNK):
                chunk = new[start : start + _CHUNK]
                found = pool.map(partial(_decode, images), [files[number] for number in chunk])
                for number, result in zip(chunk, found, strict=True):
                    checked[number] = result
                    progress.update()
                _remember(memory, ((keys[number], checked[number][0]) for number in chunk))
    return checked


def mark_checked(images: Images, files: list[str]) -> None:
    """Mark images as valid without decoding them, because they were checked before they were copied here."""
    with _memory(images.path) as memory:
        _remember(memory, ((_key(images, file), "?") for file in files))


def report_left_out(bad: pd.DataFrame, left: Mapping[str, int], path: Path, where: str | Path) -> None:
    """Write the list of skipped images, if any.

    Args:
        bad: `where`, `image_id` and `problem` of each skipped image.
        left: number of remaining images by split.
        path: CSV file to write.
        where: name of the data for messages.

    Raises:
        SmileDataError: if no image is left in a split.
    """
    if len(bad) and is_main_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        bad.map(guarded).to_csv(path, index=False)
        logger.warning(f"Left out {len(bad)} of {len(bad) + sum(left.values())} images; they are listed in {path}")
    if empty := [split for split, images in left.items() if not images]:
        raise SmileDataError(f"{where}: no image is left in {' and '.join(empty)}; see {path}")


def _decode(images: Images, file: str) -> Checked:
    try:
        data = images.read(file)
        decode_image(data)
        return hashlib.blake2b(data, digest_size=16).hexdigest(), ""
    except SmileDataError as error:
        return "", str(error)


@contextmanager
def _memory(path: Path) -> Iterator[sqlite3.Connection]:
    """The cache of valid images of a folder or zip; a temporary one if the cache file can't be used.

    Invalid images are not cached, because a problem may be fixed without changing the file.
    """
    name = hashlib.blake2b(str(path.resolve()).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    folder = Path(datasets.config.HF_DATASETS_CACHE, "hf_smile_checked")
    table = "CREATE TABLE IF NOT EXISTS checked (file BLOB PRIMARY KEY, stamp TEXT, digest TEXT)"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(folder / f"{name}.sqlite", timeout=60)
        database.execute(table)
    except (OSError, sqlite3.Error):
        database = sqlite3.connect("")
        database.execute(table)
    with closing(database):
        yield database


def _key(images: Images, file: str) -> Key:
    stamp = images.stamp(file)
    return (file.encode("utf-8", "surrogatepass"), f"{stamp} {_CHECKED_BY}") if stamp else None


def _recall(memory: sqlite3.Connection) -> dict[Key, str]:
    try:
        rows = memory.execute("SELECT file, stamp, digest FROM checked")
        return {(file, stamp): digest for file, stamp, digest in rows}
    except sqlite3.Error:  # the cache is damaged: check the images again
        return {}


def _remember(memory: sqlite3.Connection, digests: Iterable[tuple[Key, str]]) -> None:
    with suppress(sqlite3.Error):
        good = ((*key, digest) for key, digest in digests if key and digest)
        memory.executemany("INSERT OR REPLACE INTO checked (file, stamp, digest) VALUES (?, ?, ?)", good)
        memory.commit()
