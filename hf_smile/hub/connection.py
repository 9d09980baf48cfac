"""Speaking to the Hub: who we are, what is tried again, and what its refusals mean."""

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
"""Seconds before each further try."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)
_MEANINGS = {
    401: "the Hub does not accept your token. Log in again with `hf auth login`, or set HF_TOKEN to a valid one",
    403: "your token may not write there. Take one with write permission, and a namespace that is yours",
    404: "there is nothing of that name that your token may see. Check the id and --revision",
    409: "something else is changing it at this moment. Try again when that is done",
    412: "it was changed while this was on its way. Try again",
    413: "the Hub finds it too large",
    429: "the Hub has had too many requests from you. Try again later",
}


def connect(token: str | None = None) -> HfApi:
    """The client of the Hub, once there is a token: this one, that of HF_TOKEN, or the one `hf auth login` keeps.

    Raises:
        SmileError: no token, or the Hub is switched off by HF_HUB_OFFLINE.
    """
    if constants.is_offline_mode():
        raise SmileError("HF_HUB_OFFLINE is set, so nothing can be published; unset it")
    if token is None and get_token() is None:
        raise SmileError("there is no token for the Hub; log in with `hf auth login`, or set HF_TOKEN")
    return HfApi(token=token, library_name="hf_smile")


def check_repo_id(repo_id: str) -> str:
    """`repo_id`, if it is of the form `owner/name`.

    Raises:
        SmileError: it is not.

    >>> check_repo_id("me/smile")
    'me/smile'
    """
    if not is_hub_id(repo_id):
        raise SmileError(f"{repo_id!r} is no id on the Hub; it has the form owner/name")
    return repo_id


def check_login(repo_id: str) -> None:
    """Find out before a long run whether its result can be published.

    Raises:
        SmileError: there is no valid token, or `repo_id` is none.
    """
    check_repo_id(repo_id)
    with hub_errors(repo_id):
        retry(connect().whoami)


def retry(call: Callable[[], T]) -> T:
    """Try again, and wait longer each time, where the Hub is overloaded or the connection breaks.

    The client tries uploads and downloads again by itself (`huggingface_hub.utils.http_backoff`), but not what creates
    or changes something. So `call` must do no harm if its first try succeeded and only the answer was lost.

    >>> retry(lambda: 3)
    3
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except (HTTPError, json.JSONDecodeError) as error:  # an overloaded server answers with a page for people
            if wait is None or not is_transient(error):
                raise
            wait = max(wait, _asked_wait(error))
            logger.warning(f"The Hub: {first_line(error)}; trying again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError


def is_transient(error: Exception) -> bool:
    """Whether another try may succeed: too many requests, an error of the server, a broken connection."""
    return not isinstance(error, HfHubHTTPError) or error.response.status_code in _TRANSIENT


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what the client raises into a `SmileError` that says what to do."""
    try:
        yield
    except HfHubHTTPError as error:
        code = error.response.status_code
        meaning = _MEANINGS.get(code, "the Hub refused it" if code < 500 else "the Hub is in trouble. Try again later")
        said = f' (it says: "{first_line(error.server_message)}")' if error.server_message else ""
        raise SmileError(f"{repo_id}: {code}: {meaning}{said}") from None
    except HTTPError as error:
        raise SmileError(
            f"{repo_id}: the connection to {constants.ENDPOINT} failed: {first_line(error)}. Try again later"
        ) from None
    except (RuntimeError, ValueError) as error:
        # Of a file that could not be uploaded, and of metadata that the Hub does not accept.
        if isinstance(error.__cause__, HTTPError):
            with hub_errors(f"{repo_id}: {first_line(error)}"):
                raise error.__cause__ from None
        raise SmileError(f"{repo_id}: {error}") from None


def _asked_wait(error: Exception) -> float:
    """Seconds that the server asks for in `Retry-After`, at most a minute of them."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return min(float(asked), 60.0) if asked.isdigit() else 0.0
