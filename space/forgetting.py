"""What Gradio would keep of visitors, their pictures included, for as long as it runs."""

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
"""Seconds between two rounds of forgetting."""
_FETCH_WITHIN = 60  # seconds, of an answer that nobody waits for
_IDLE_CONNECTION = 30  # seconds
_MOST_REMEMBERED = 200  # visitors whose photos are in memory
_ROUNDS_OF_PROGRESS = 360  # after which Gradio forgets how far uploads are, which it does not by itself


@dataclass
class Health:
    """Whether all goes as it should."""

    problem: str | None = None
    """What the last round of forgetting failed of."""


class Uploads:
    """The folder of the uploads.

    Args:
        folder: may hold other files, which are deleted too when they are old.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.held = 0
        """Bytes in there, at most: what came since the last sweep counts even where it was refused."""

    def holds(self, path: str) -> bool:
        """Whether a path lies in the folder, links followed. The file may be deleted by now.

        >>> Uploads("uploads").holds("uploads/../secret.txt")
        False
        """
        try:
            return Path(path).resolve().is_relative_to(self.folder)
        except (OSError, RuntimeError, ValueError):  # far too long, a circle of links, a null byte
            return False

    def sweep(self, seconds: float, kept: Collection[Path] = ()) -> set[str]:
        """Delete what is older than `seconds`, and what is left of uploads that were broken off.

        Args:
            seconds: age.
            kept: files that stay.

        Returns:
            The files that are gone.
        """
        gone, held, now = set(), 0, time.time()
        for path in list(self.folder.rglob("*")):
            with suppress(OSError):  # not empty, or gone by now
                status = path.lstat()
                if stat.S_ISDIR(status.st_mode):
                    path.rmdir()
                elif path in kept:
                    pass
                elif now - status.st_ctime > seconds:
                    path.unlink()
                    gone.add(str(path))
                else:
                    held += status.st_size
        self.held = held
        return gone


class Mailboxes(dict):
    """What is to be told to visitors. Where one of them is not in Gradio's own, work on all requests ends for good."""

    def __init__(self) -> None:
        super().__init__()
        self._done: dict[str, float] = {}  # when nothing was left to do for a visitor

    def __missing__(self, visitor: str) -> asyncio.Queue:
        self[visitor] = asyncio.Queue()
        return self[visitor]

    def forget(self, queue: Queue) -> None:
        """Let go of answers that were fetched, or that nobody fetches."""
        now, waiting, unread = time.monotonic(), _waiting(queue), queue.pending_event_ids_session
        for visitor in {*self, *unread}:
            if visitor in waiting:
                self._done.pop(visitor, None)
            elif not unread.get(visitor) or now - self._done.setdefault(visitor, now) > _FETCH_WITHIN:
                for known in (self, unread, self._done):
                    known.pop(visitor, None)


def forget_idle_visitors(page: gr.Blocks, seconds: float) -> None:
    """Let go of the photos of visitors that have been idle for `seconds`, and of visitors that gave none."""
    visitors, waiting, remembered = page.app.state_holder, _waiting(page._queue), 0
    for visitor, state in reversed(list(visitors.session_data.items())):  # the last one first
        idle = time.time() - visitors.time_last_used[visitor].timestamp()
        if visitor in waiting:
            continue
        if state.state_data and idle <= seconds and remembered < _MOST_REMEMBERED:
            remembered += 1
            continue
        visitors.session_data.pop(visitor, None)
        visitors.time_last_used.pop(visitor, None)


def _waiting(queue: Queue) -> set[str]:
    """The visitors whose requests are not done."""
    return {event.session_hash for event in queue.event_ids_to_events.values()}


def drop_idle_connections(server: Any, idle: dict[Any, tuple[Any, float]]) -> None:
    """Close the connections that have asked for nothing for a while: uvicorn waits for ever for the end of a header.

    Args:
        server: uvicorn's.
        idle: what was idle the last time, which is brought up to date.
    """
    now, before = time.monotonic(), dict(idle)
    idle.clear()
    for connection in list(server.server_state.connections):
        request = connection.cycle  # the last one
        if request is not None and not request.response_complete:
            continue
        last, since = before.get(connection, (request, now))
        idle[connection] = (request, since if last is request else now)
        if now - idle[connection][1] > _IDLE_CONNECTION:
            connection.transport.close()


def give_memory_back() -> None:
    """Give freed memory to the system. glibc keeps it in each thread's share: a gigabyte after three large photos."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def waiting_of(page: gr.Blocks, client: str) -> int:
    """How many requests of a client, known by its address, are not done."""
    events = [*page._queue.event_ids_to_events.values()]
    return sum(event.request.client is not None and event.request.client.host == client for event in events)


def keep_forgetting(
    page: gr.Blocks, uploads: Uploads, health: Health
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """What forgets, in rounds, for as long as the server of the page runs: its `lifespan`."""
    mailboxes = page._queue.pending_messages_per_session = Mailboxes()
    idle: dict[Any, tuple[Any, float]] = {}

    def forget(samples: Collection[Path]) -> None:
        drop_idle_connections(page.server, idle)
        forget_idle_visitors(page, FORGET_AFTER)
        mailboxes.forget(page._queue)
        gone = uploads.sweep(FORGET_AFTER, samples)
        for known in page.temp_file_sets:
            known.difference_update(gone)

    async def rounds() -> None:
        samples = set(uploads.folder.rglob("*"))
        for number in count(1):
            await asyncio.sleep(EVERY)
            try:
                forget(samples)
                if number % _ROUNDS_OF_PROGRESS == 0:
                    file_upload_statuses.__init__()  # type: ignore[misc]
                await asyncio.to_thread(give_memory_back)
                health.problem = None
            except Exception as error:  # the next round may do better
                where = traceback.extract_tb(error.__traceback__)[-1]
                health.problem = f"forgetting: {type(error).__name__} in {where.name}"

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(rounds())
        yield
        task.cancel()

    return lifespan
