"""Atomic file writes: a file is complete or absent, even if the program is killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

from hf_smile.errors import SmileDataError, SmileError


@contextmanager
def written_whole(path: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to. It is renamed to `path` when the block ends.

    If the block raises, the temporary file is deleted. If the block deletes it, nothing is renamed.

    Args:
        path: file to write; its folder must exist.
        shared: whether other processes may write the same file at the same time.

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
    """Write a UTF-8 text file atomically; see `written_whole`."""
    with written_whole(path, shared=shared) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def refuse_file(folder: str | Path) -> None:
    """Check that a folder for results can be created: it need not exist, but nothing on its path may be a file.

    Raises:
        SmileError: something is.

    >>> refuse_file("outputs/model")
    """
    for path in (Path(folder), *Path(folder).parents):
        if path.exists() and not path.is_dir():
            raise SmileError(f"{path} is a file; name a folder with --output_dir")


@contextmanager
def held_folder(folder: str | Path) -> Iterator[None]:
    """Create a folder and lock it against other processes that call this, until the block or this process ends.

    The folder itself is locked (flock), so no lock file is left behind. A file system without locks has no effect. A
    folder that this call created, and that is still empty at the end, is removed.

    Raises:
        SmileError: another process holds the folder.

    >>> with held_folder("outputs/model"):  # doctest: +SKIP
    ...     train()
    """
    folder = Path(folder)
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    _close_in_children()
    _held.add(descriptor)
    is_locked = False
    try:
        is_locked = _lock(descriptor)
        if not is_locked:
            raise SmileError(f"another run is writing to {folder}; wait until it ends, or name another --output_dir")
        yield
    finally:
        if descriptor in _held:  # not in a forked process
            if created and is_locked:
                with suppress(OSError):
                    folder.rmdir()  # fails unless it is empty
            _held.discard(descriptor)
            os.close(descriptor)


_held: set[int] = set()


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return os.fstat(descriptor).st_nlink > 0  # otherwise another process has just removed it


@cache
def _close_in_children() -> None:
    """A process that was forked, for example to load data, may live longer than the one that holds the folder."""

    def close() -> None:
        for descriptor in _held:
            os.close(descriptor)
        _held.clear()

    os.register_at_fork(after_in_child=close)


def make_folder(folder: str | Path) -> None:
    """Create a folder for results and check that it is writable, before the work begins.

    Raises:
        SmileDataError: if it can't be created or written to.

    >>> make_folder("outputs/report")  # doctest: +SKIP
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise SmileDataError(f"{folder} is a file; name a folder") from None
    except OSError as error:
        raise SmileDataError(
            f"{folder}: the folder can't be created or written to ({error.strerror}); choose another one"
        ) from None
