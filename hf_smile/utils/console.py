"""Console output of the commands: which process prints, where messages go, and how errors are reported."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from hf_smile.errors import SmileError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_WORKER_DIED = """\
Data loading processes are often killed for lack of memory. Run the same command again to resume, with fewer of these
processes if it happens again (--dataloader_num_workers)."""


def is_main_process() -> bool:
    """Whether this process prints and writes files. Also works before `torch.distributed` is initialized."""
    return os.environ.get("RANK", "0") == "0"


class _Terminal(logging.Handler):
    """Writes messages as plain lines to stderr, above any progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        line = visible(self.format(record))
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def show_messages() -> None:
    """Print the messages of hf_smile (info from the main process, errors from all) and silence two libraries.

    Pillow warns about unusual EXIF data and animations, which are harmless, and about large images, for which
    hf_smile has a stricter limit. The Hub client writes two lines for each retry; our error message is enough.
    """
    logger = logging.getLogger("hf_smile")
    logger.setLevel(logging.INFO if is_main_process() else logging.ERROR)
    if not logger.handlers:
        logger.addHandler(_Terminal())
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("huggingface_hub.utils._http").addFilter(_is_not_of_a_retry)


def _is_not_of_a_retry(record: logging.LogRecord) -> bool:
    return not re.search("thrown while requesting|^Retrying in", record.getMessage())


def run_script(main: Callable[[], None]) -> None:
    """Run the `main` of a script. A user error prints one short message, without a traceback, and exits with code 2.

    Ctrl-C exits with code 130, as shells expect.

    >>> run_script(lambda: None)
    """
    # Python puts the script's folder first on the import path, where evaluate.py would hide the library `evaluate`.
    folder = Path(sys.argv[0]).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != folder]
    show_messages()
    try:
        main()
    except (SmileError, RuntimeError, OSError) as error:
        if not (message := _told(error)):
            raise
        if is_main_process() or isinstance(error, RuntimeError):
            print(f"error: {visible(message)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        if is_main_process():
            print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        sys.exit(130)


def visible(text: str) -> str:
    """Replace control characters, which file and model names may contain, so that they can't affect the terminal.

    >>> visible("a\\x1b[31m.jpg")
    'a?[31m.jpg'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _told(error: SmileError | RuntimeError | OSError) -> str | None:
    """The message for the user; None if the error is a bug."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:  # no such folder, no permission, no space left
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}{'; free up space there and run it again' * (error.errno in DISK_FULL)}"
    if isinstance(error, SmileError):  # PyTorch adds the traceback if it was raised in a data loader worker
        return message.partition(f"{type(error).__name__}: ")[2].strip() if message.startswith("Caught ") else message
    return f"{message}\n{_WORKER_DIED}" if message.startswith("DataLoader worker") else None
