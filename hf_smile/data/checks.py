"""Every image is decoded once, so that training meets no broken one, and remembered by path, size and time."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import datasets
import PIL
from tqdm.auto import tqdm

from hf_smile import __version__
from hf_smile.data.images import decode_image
from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError
from hf_smile.utils.console import is_main_process
from hf_smile.utils.cores import own_cores

logger = logging.getLogger(__name__)

_CHUNK = 256  # images that wait in the pool at a time, however many there are
_CHECKED_BY = f"hf_smile {__version__}, Pillow {PIL.__version__}"  # another version may find something else

Checked = tuple[str, str]
"""Digest of the encoded bytes, and what is wrong with the image; one of them is empty."""


def check_images(images: Images, files: list[str]) -> list[Checked]:
    """Decode each image, unless the same file was decoded before.

    What is known is kept in the cache of `datasets`, in one small file for each folder or zip.

    Args:
        images: where they are.
        files: what the column `file` of the annotations says.

    Returns:
        In the order of `files`: digest and problem.

    >>> check_images(ImageSource("faces"), ["a.jpg"])  # doctest: +SKIP
    [('0cc175b9c0f1b6a831c399e269772661', '')]
    """
    stamps = [images.stamp(file) for file in files]
    with _memory(images.path) as memory:
        known = [memory.get(file, stamp) for file, stamp in zip(files, stamps, strict=True)]
        new = [number for number, checked in enumerate(known) if checked is None]
        if before := len(files) - len(new):
            logger.info(f"{before:,} of {len(files):,} images were already checked")
        progress = tqdm(total=len(new), desc="Checking images", unit=" images", delay=1, disable=not is_main_process())
        with progress, ThreadPoolExecutor(own_cores()) as pool:
            for start in range(0, len(new), _CHUNK):
                chunk = new[start : start + _CHUNK]
                for number, checked in zip(
                    chunk, pool.map(partial(_decode, images), (files[n] for n in chunk)), strict=True
                ):
                    known[number] = checked
                    progress.update()
                memory.put((files[number], stamps[number], known[number]) for number in chunk)
    return [checked for checked in known if checked is not None]


def mark_checked(images: Images, files: list[str]) -> None:
    """Remember that these images are good: they were checked where they came from."""
    with _memory(images.path) as memory:
        memory.put((file, images.stamp(file), ("?", "")) for file in files)


def _decode(images: Images, file: str) -> Checked:
    try:
        data = images.read(file)
        decode_image(data)
        return hashlib.blake2b(data, digest_size=16).hexdigest(), ""
    except SmileDataError as error:
        return "", str(error)


class _Memory:
    """Good images alone: what is wrong with the others may be put right without a change of the file."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE IF NOT EXISTS checked (file BLOB PRIMARY KEY, stamp TEXT, digest TEXT)")

    def get(self, file: str, stamp: str | None) -> Checked | None:
        query = "SELECT digest FROM checked WHERE file = ? AND stamp = ?"
        try:
            found = self._database.execute(query, (_key(file), f"{stamp} {_CHECKED_BY}")).fetchone()
        except sqlite3.Error:  # the file is damaged, and the images are checked again
            return None
        return None if found is None else (found[0], "")

    def put(self, rows: Iterable[tuple[str, str | None, Checked | None]]) -> None:
        good = [
            (_key(f), f"{stamp} {_CHECKED_BY}", checked[0])
            for f, stamp, checked in rows
            if stamp and checked and checked[0]
        ]
        with suppress(sqlite3.Error):
            self._database.executemany("INSERT OR REPLACE INTO checked VALUES (?, ?, ?)", good)
            self._database.commit()


@contextmanager
def _memory(path: Path) -> Iterator[_Memory]:
    """The file that belongs to a folder or zip; where it can't be used, one that is forgotten afterwards."""
    name = hashlib.blake2b(str(path.resolve()).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    folder = Path(datasets.config.HF_DATASETS_CACHE, "hf_smile_checked")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(folder / f"{name}.sqlite", timeout=60)
        memory = _Memory(database)
    except (OSError, sqlite3.Error):
        database = sqlite3.connect("")
        memory = _Memory(database)
    with closing(database):
        yield memory


def _key(file: str) -> bytes:
    return file.encode("utf-8", "surrogatepass")
