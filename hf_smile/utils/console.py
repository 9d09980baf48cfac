"""What all commands share: which process speaks, where its messages go, and how a user's mistake ends."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from hf_smile.errors import SmileError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_WORKER_DIED = """\
Processes that load images are often killed for lack of memory. Start the same command again to resume, perhaps with
fewer of them (--dataloader_num_workers)."""


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes, before and after `torch.distributed` has started."""
    return os.environ.get("RANK", "0") == "0"


class _Terminal(logging.Handler):
    """Messages as plain lines on stderr, above the progress bars that are there."""

    def emit(self, record: logging.LogRecord) -> None:
        line = visible(self.format(record))
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def show_messages() -> None:
    """Let the program's messages be seen, of several processes those of the first, and Pillow's warnings not.

    What Pillow finds odd in an EXIF or an animation is overlooked, and a limit on pixels of ours is stricter than its.
    """
    logger = logging.getLogger("hf_smile")
    logger.setLevel(logging.INFO if is_main_process() else logging.ERROR)
    if not logger.handlers:
        logger.addHandler(_Terminal())
    warnings.filterwarnings("ignore", module=r"PIL\.")


def run_script(main: Callable[[], None]) -> None:
    """Run the `main` of a script. A user's mistake ends in one short message and exit code 2, without a traceback.

    Ctrl-C exits with 130, as shells expect.

    >>> run_script(lambda: None)
    """
    # Python puts the script's own folder first on the import path, where evaluate.py would hide the library.
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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def visible(text: str) -> str:
    """The text without commands to the terminal, which the name of a file or of a network may hold.

    >>> visible("a\\x1b[31m.jpg")
    'a?[31m.jpg'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _told(error: SmileError | RuntimeError | OSError) -> str | None:
    """What a user is told of an error; None of one that is not theirs."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:  # no such folder, no permission, no space left
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}{'; make room there, and start it again' * (error.errno in DISK_FULL)}"
    if isinstance(error, SmileError):  # into which PyTorch puts the traceback of a data loader's worker
        return message.partition(f"{type(error).__name__}: ")[2].strip() if message.startswith("Caught ") else message
    return f"{message}\n{_WORKER_DIED}" if message.startswith("DataLoader worker") else None  # torch's words
