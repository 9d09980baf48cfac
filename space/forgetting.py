"""Deletes what Gradio keeps about visitors, including their pictures, until it is stopped."""

from __future__ import annotations

import asyncio
import ctypes
import stat
import time
import traceback
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
from engine import FORGET_AFTER
from gradio.queueing import Queue
from gradio.routes import file_upload_statuses

EVERY = 10
"""Seconds between two clean-ups."""
_EMPTY_FOR = 60  # seconds until an empty folder is deleted
_BLOCK = 4096  # a file counts as at least this many bytes, which limits the number of files
_FETCH_WITHIN = 60  # seconds until an answer that nobody fetches is deleted
_IDLE_CONNECTION = 30  # seconds
_MOST_REMEMBERED = 200  # visitors whose photos are kept in memory
_ROUNDS_OF_PROGRESS = 360  # clean-ups until the progress of uploads is deleted, which Gradio never does


@dataclass
class Health:
    """Health of the server."""

    problem: str | None = None
    """Error of the last clean-up, or None."""


class Uploads:
    """The upload folder.

    Args:
        folder: path of the folder. Old files of other origin in it are deleted, too.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.held = 0
        """Upper bound of the bytes in the folder: refused uploads since the last sweep also count."""

    def holds(self, path: str) -> bool:
        """Return whether a path is in the folder after resolving links. The file may have been deleted since.

        >>> Uploads("uploads").holds("uploads/../secret.txt")
        False
        """
        try:
            return Path(path).resolve().is_relative_to(self.folder)
        except (OSError, RuntimeError, ValueError):  # too long, a cycle of links, a null byte
            return False

    def sweep(self, seconds: float, kept: Collection[Path] = ()) -> set[str]:
        """Delete files that are older than `seconds`, including incomplete uploads, and empty folders.

        Args:
            seconds: age in seconds.
            kept: files to keep.

        Returns:
            The deleted files.
        """
        gone, held, before, now = set(), 0, self.held, time.time()
        for path in list(self.folder.rglob("*")):
            with suppress(OSError):  # not empty, or already deleted
                status = path.lstat()
                age = now - status.st_ctime
                if stat.S_ISDIR(status.st_mode):
                    if age > min(seconds, _EMPTY_FOR):  # otherwise a file may be about to be written to it
                        path.rmdir()
                elif path in kept:
                    pass
                elif age > seconds:
                    path.unlink()
                    gone.add(str(path))
                else:
                    held += max(status.st_size, _BLOCK)
        self.held += held - before  # uploads may have arrived meanwhile
        return gone


class Mailboxes(dict):
    """Messages to visitors. With Gradio's own mapping, a missing visitor stops the queue permanently."""

    def __init__(self) -> None:
        super().__init__()
        self._done: dict[str, float] = {}  # time at which a visitor's last request was finished

    def __missing__(self, visitor: str) -> asyncio.Queue:
        self[visitor] = asyncio.Queue()
        return self[visitor]

    def forget(self, queue: Queue) -> None:
        """Delete answers that were fetched, or that nobody fetches."""
        now, waiting, unread = time.monotonic(), _waiting(queue), queue.pending_event_ids_session
        for visitor in {*self, *unread}:
            if visitor in waiting:
                self._done.pop(visitor, None)
            elif not unread.get(visitor) or now - self._done.setdefault(visitor, now) > _FETCH_WITHIN:
                for known in (self, unread, self._done):
                    known.pop(visitor, None)


def forget_idle_visitors(page: gr.Blocks, seconds: float) -> None:
    """Delete the state of visitors that have been idle for `seconds` or have no photo."""
    visitors, waiting, remembered = page.app.state_holder, _waiting(page._queue), 0
    for visitor, state in reversed(list(visitors.session_data.items())):  # most recent first
        idle = time.time() - visitors.time_last_used[visitor].timestamp()
        if visitor in waiting:
            continue
        if state.state_data and idle <= seconds and remembered < _MOST_REMEMBERED:
            remembered += 1
            continue
        visitors.session_data.pop(visitor, None)
        visitors.time_last_used.pop(visitor, None)


def _waiting(queue: Queue) -> set[str]:
    """Return the visitors with unfinished requests."""
    return {event.session_hash for event in queue.event_ids_to_events.values()}


def drop_idle_connections(server: Any, idle: dict[Any, tuple[Any, float]]) -> None:
    """Close idle connections, because uvicorn waits forever for the end of a header.

    Args:
        server: the uvicorn server.
        idle: connections that were idle at the last call; updated in place.
    """
    now, before = time.monotonic(), dict(idle)
    idle.clear()
    for connection in list(server.server_state.connections):
        request = connection.cycle  # the last request
        if request is not None and not request.response_complete:
            continue
        last, since = before.get(connection, (request, now))
        idle[connection] = (request, since if last is request else now)
        if now - idle[connection][1] > _IDLE_CONNECTION:
            connection.transport.close()


def give_memory_back() -> None:
    """Return freed memory to the system. glibc keeps it per thread: one gigabyte after three large photos."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def waiting_of(page: gr.Blocks, client: str) -> int:
    """Return the number of unfinished requests from a client address."""
    events = [*page._queue.event_ids_to_events.values()]
    return sum(event.request.client is not None and event.request.client.host == client for event in events)


def keep_forgetting(
    page: gr.Blocks, uploads: Uploads, health: Health
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return the `lifespan` of the page's server, which cleans up regularly while the server runs."""
    mailboxes = page._queue.pending_messages_per_session = Mailboxes()
    idle: dict[Any, tuple[Any, float]] = {}

    async def forget(samples: Collection[Path]) -> None:
        drop_idle_connections(page.server, idle)
        forget_idle_visitors(page, FORGET_AFTER)
        mailboxes.forget(page._queue)
        gone = await asyncio.to_thread(uploads.sweep, FORGET_AFTER, samples)
        for known in page.temp_file_sets:
            known.difference_update(gone)

    async def rounds() -> None:
        samples = set(uploads.folder.rglob("*"))
        for number in count(1):
            await asyncio.sleep(EVERY)
            try:
                await forget(samples)
                if number % _ROUNDS_OF_PROGRESS == 0:
                    file_upload_statuses.__init__()  # type: ignore[misc]
                await asyncio.to_thread(give_memory_back)
                health.problem = None
            except Exception as error:  # the next clean-up may succeed
                where = traceback.extract_tb(error.__traceback__)[-1]
                health.problem = f"deleting old data failed: {type(error).__name__} in {where.name}"

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(rounds())
        yield
        task.cancel()

    return lifespan
