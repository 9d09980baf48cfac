"""The connection to the Hub: login, retries and error messages."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from hf_smile.errors import SmileError, first_line
from hf_smile.utils.hub_id import is_hub_id

logger = logging.getLogger(__name__)

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)
_MEANINGS = {
    401: "the Hub does not accept your token. Log in again with `hf auth login`, or set HF_TOKEN to a valid token",
    403: "your token can't write there. Use one with write permission, and a namespace of yours",
    404: "not found, or your token has no access. Check the id and --revision",
    409: "another process is changing it. Try again when that is done",
    412: "it was changed during the upload. Try again",
    413: "the upload is too large for the Hub",
    429: "you have sent too many requests to the Hub. Try again later",
}


def connect(token: str | None = None) -> HfApi:
    """A Hub client with this token, or that of HF_TOKEN or `hf auth login`.

    Raises:
        SmileError: there is no token, or HF_HUB_OFFLINE is set.
    """
    if constants.is_offline_mode():
        raise SmileError("HF_HUB_OFFLINE is set, so nothing can be published; unset it")
    if token is None and get_token() is None:
        raise SmileError("there is no token for the Hub; log in with `hf auth login`, or set HF_TOKEN")
    return HfApi(token=token, library_name="hf_smile")


def check_repo_id(repo_id: str) -> str:
    """Check that `repo_id` has the form `owner/name`, and return it.

    Raises:
        SmileError: it has not.

    >>> check_repo_id("me/smile")
    'me/smile'
    """
    if not is_hub_id(repo_id):
        raise SmileError(f"{repo_id!r} is not a Hub id; it must have the form owner/name")
    return repo_id


def check_login(repo_id: str) -> None:
    """Check before a long run that its result can be published.

    Raises:
        SmileError: there is no valid token, or `repo_id` is invalid.
    """
    check_repo_id(repo_id)
    with hub_errors(repo_id):
        retry(connect().whoami)


def retry(call: Callable[[], T]) -> T:
    """Call a function, with retries and growing waits if the Hub is overloaded or the connection breaks.

    The client itself retries uploads and downloads (`huggingface_hub.utils.http_backoff`), but not requests that create
    or change something. So `call` must be safe to repeat if it succeeded and only the answer was lost.

    >>> retry(lambda: 3)
    3
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except (HTTPError, json.JSONDecodeError) as error:  # an overloaded server answers with an HTML page
            if wait is None or not is_transient(error):
                raise
            wait = max(wait, _asked_wait(error))
            logger.warning(f"The Hub: {first_line(error)}; trying again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError


def is_transient(error: Exception) -> bool:
    """Whether a retry may succeed: after too many requests, a server error or a broken connection."""
    return not isinstance(error, HfHubHTTPError) or error.response.status_code in _TRANSIENT


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Context that converts errors of the client to a `SmileError` that says what to do."""
    try:
        yield
    except HfHubHTTPError as error:
        code = error.response.status_code
        meaning = _MEANINGS.get(code, "the Hub refused it" if code < 500 else "the Hub has an error. Try again later")
        said = f' (it says: "{first_line(error.server_message)}")' if error.server_message else ""
        raise SmileError(f"{repo_id}: {code}: {meaning}{said}") from None
    except (HTTPError, ConnectionError, TimeoutError) as error:  # the last two from hf_xet
        raise SmileError(
            f"{repo_id}: the connection to {constants.ENDPOINT} failed: {first_line(error)}. Try again later"
        ) from None
    except (RuntimeError, ValueError) as error:
        # Raised for a failed file upload, and for metadata that the Hub does not accept.
        if isinstance(error.__cause__, HTTPError):
            with hub_errors(f"{repo_id}: {first_line(error)}"):
                raise error.__cause__ from None
        raise SmileError(f"{repo_id}: {error}") from None


def _asked_wait(error: Exception) -> float:
    """Seconds in the server's `Retry-After`, at most 60."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return min(float(asked), 60.0) if asked.isdigit() else 0.0
