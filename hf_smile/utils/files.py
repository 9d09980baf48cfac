"""Files that are there whole or not at all, whenever the program is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from hf_smile.errors import SmileDataError


@contextmanager
def written_whole(path: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """A name beside `path` to write to. The file gets its own name when the block ends.

    Nothing is left of it when the block fails, and nothing is renamed when the block removes it.

    Args:
        path: the file; its folder must exist.
        shared: other processes may write the same file at the same time.

    >>> with written_whole("metrics.json") as unfinished:  # doctest: +SKIP
    ...     unfinished.write_text("{}")
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part" if shared else f"{path.name}.part")
    try:
        yield unfinished
        if unfinished.exists():
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, *, shared: bool = False) -> None:
    """Write a text file, UTF-8, whole or not at all; see `written_whole`."""
    with written_whole(path, shared=shared) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def make_folder(folder: str | Path) -> None:
    """Make a folder for results, and check that it can be written to, before the work begins.

    Raises:
        SmileDataError: it can't be made or written to.

    >>> make_folder("outputs/report")  # doctest: +SKIP
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SmileDataError(
            f"{folder}: the folder can't be made or written to ({error.strerror}); name another one"
        ) from None
