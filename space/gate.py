"""Request filter: only the addresses that the demo needs, with limits on size and time."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from forgetting import Health, Uploads
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_CALL = 4 * 2**20
"""Maximum bytes of a request that is not an upload; MCP tool calls contain their photo."""
MAX_BATCH = 600_000_000
"""Maximum bytes per upload request, in one or more files."""
MAX_HELD = 2_000_000_000
"""Maximum bytes of all stored uploads."""

MAX_WAITING = 16
"""Maximum number of unfinished requests per client, so that one visitor can't fill the queue."""

# Gradio has scripts and styles inside the page, and its HTML component compiles scripts. Other servers are blocked.
_CONTENT_SECURITY_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_UPLOAD = "/gradio_api/upload"
_HEALTH, _TOOLS = "/health", "/gradio_api/mcp"
_QUEUED = re.compile(r"/gradio_api/(queue/join|run/predict|call/(v2/)?[\w-]+)/?", re.IGNORECASE)
_NEEDED = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(static|assets|svelte)/.+)?"
    r"|/gradio_api/(info/?|openapi\.json|app_id/?|startup-events|theme\.css|upload|upload_progress|file=(?!https?:).+"
    r"|queue/(join|data|status)|run/predict/?|call/(v2/)?[\w-]+/?(\w+)?|heartbeat/[\w-]+|cancel|reset/?"
    r"|mcp(/(schema)?)?)",
    re.IGNORECASE | re.DOTALL,
)
_SMALL_CALL = 50_000  # bytes; read at once
_MAX_FILES, _LONGEST_PATH = 300, 1000  # in a call
_PAUSE = 30  # seconds without a byte
_CALL_WITHIN, _UPLOAD_WITHIN = 30, 300  # seconds


class Gate:
    """ASGI middleware in front of Gradio that answers refused requests with a message.

    Gradio offers far more than the demo uses: it fetches files from other servers, records screens, edits programs. It
    reads requests of any size into memory, waits for slow requests forever, and fails with a traceback on requests for
    something that does not exist.

    Args:
        app: the protected app.
        uploads: the upload folder.
        health: the state that `/health` reports.
        waiting: function that returns the number of unfinished requests from a client address.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads, health: Health, waiting: Callable[[str], int]) -> None:
        self.app, self.uploads, self.health, self.waiting = app, uploads, health, waiting
        self._reading = asyncio.Lock()  # for large calls, because JSON can take 30 times its size in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answering = answered = has_length = False

        async def answer(message: Message) -> None:
            nonlocal answering, answered, has_length
            answering = True
            answered = message["type"] == "http.response.body" and not message.get("more_body")
            if message["type"] == "http.response.start":  # no upload is shown as a page
                headers = MutableHeaders(scope=message)
                has_length = "content-length" in headers
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
            await send(message)

        try:
            if scope["path"] == _HEALTH:
                await self._tell_health()(scope, receive, answer)
                return
            if not _NEEDED.fullmatch(scope["path"]):
                raise HTTPException(404)
            self._refuse_greedy(scope)
            if scope["path"] == _UPLOAD:
                receive = self._counted(receive)
            elif scope["method"] not in ("GET", "HEAD"):
                receive = await self._checked(scope, receive)
                self._refuse_greedy(scope)  # others may have arrived while this one was read
            await self.app(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:
            if not answering:
                await _refusal(error)(scope, receive, answer)
            elif not answered and not has_length:  # end an interrupted stream
                await send({"type": "http.response.body"})

    def _tell_health(self) -> JSONResponse:
        if self.health.problem is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "failing", "detail": self.health.problem}, 503)

    def _refuse_greedy(self, scope: Scope) -> None:
        client, begins_work = scope.get("client"), scope["method"] == "POST" and _QUEUED.fullmatch(scope["path"])
        if client and begins_work and self.waiting(client[0]) >= MAX_WAITING:
            raise HTTPException(429, f"you have {MAX_WAITING} unfinished requests; wait until some are done")

    def _counted(self, receive: Receive) -> Receive:
        """Pass an upload on, and refuse it when it gets too large or too slow."""
        size, end = 0, _now() + _UPLOAD_WITHIN

        async def receive_part() -> Message:
            nonlocal size
            message = await _within(min(_PAUSE, end - _now()), receive)
            length = len(message.get("body", b""))
            size += length
            self.uploads.held += length
            if size > MAX_BATCH:
                raise HTTPException(413, f"the upload exceeds the limit of {MAX_BATCH // 10**6} MB; upload less")
            self._refuse_if_full()
            return message

        return receive_part

    def _refuse_if_full(self) -> None:
        if self.uploads.held > MAX_HELD:
            raise HTTPException(503, "the server's upload space is full; try again in a few minutes")

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """Read a call, and check that it only names uploaded files."""
        body, end, more = bytearray(), _now() + _CALL_WITHIN, True
        while more:
            message = await _within(end - _now(), receive)
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > MAX_CALL:
                raise HTTPException(413, f"the request exceeds the limit of {MAX_CALL // 2**20} MB; upload files first")
            more = message.get("more_body", False)
        if len(body) > _SMALL_CALL:
            async with self._reading:
                await asyncio.to_thread(self._check_paths, bytes(body))
        else:
            self._check_paths(bytes(body))
        if scope["path"].startswith(_TOOLS):
            self.uploads.held += len(body)  # Gradio writes the photo to the upload folder
            self._refuse_if_full()
            # Gradio answers a tool call by a request to itself with the client's headers: it counts as the client's.
            headers = MutableHeaders(scope=scope)
            del headers["x-forwarded-for"]
            if scope.get("client"):
                headers["x-forwarded-for"] = scope["client"][0]
        first = iter([{"type": "http.request", "body": bytes(body)}])

        async def receive_again() -> Message:
            return next(first, None) or await receive()

        return receive_again

    def _check_paths(self, body: bytes) -> None:
        paths = list(islice(_paths(body), _MAX_FILES + 1))
        if len(paths) > _MAX_FILES:  # each is looked up on the disk
            raise HTTPException(413, f"the request names more than {_MAX_FILES} files")
        if not all(len(path) <= _LONGEST_PATH and self.uploads.holds(path) for path in paths):
            raise HTTPException(400, "not an uploaded file; upload it first")


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _within(seconds: float, receive: Receive) -> Message:
    try:
        return await asyncio.wait_for(receive(), max(seconds, 0))
    except TimeoutError:
        raise HTTPException(408, "the request took too long; try again") from None


def _paths(body: bytes) -> Iterator[str]:
    """Yield every file that a call names; none if the call is not JSON, because Gradio refuses it.

    >>> list(_paths(b'{"data": [[{"path": "a.jpg"}]]}'))
    ['a.jpg']
    """
    try:
        left: list[Any] = [json.loads(body)]
    except ValueError:
        return
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if isinstance(path := part.get("path"), str):
                yield path
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)


def _refusal(error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return JSONResponse({"detail": error.detail}, error.status_code)
    where = traceback.extract_tb(error.__traceback__)[-1]  # the rest could contain the visitor's data
    print(f"refused: {type(error).__name__}, {Path(where.filename).name}:{where.lineno}", file=sys.stderr, flush=True)
    if isinstance(error, OSError):
        return JSONResponse({"detail": "the server can't accept this request now; try again later"}, 503)
    return JSONResponse({"detail": "the server has no such function, or the request is malformed"}, 400)
