"""What all scripts share on the command line: which process speaks, and how a user's mistake ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hf_smile.errors import SmileError


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes, before and after `torch.distributed` has started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a user's mistake in one short message and exit with code 2, without a traceback.

    Ctrl-C exits with 130, as shells expect.

    >>> with exit_on_user_error():
    ...     pass
    """
    try:
        yield
    except SmileError as error:
        if is_main_process():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
