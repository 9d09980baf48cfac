"""Checkpoints on disk: atomic writing, checksums, and detection of damaged checkpoints."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hf_smile.errors import SmileError, first_line
from hf_smile.utils.console import DISK_FULL
from hf_smile.utils.model_files import file_sha256

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
"""File of a checkpoint: SHA-256 of every other file, written last."""
UNFINISHED = "unfinished_checkpoint"
"""Folder of a checkpoint that is being written, in the output folder of the run."""

_NEEDED = {"model.safetensors", "trainer_state.json"}


def checkpoints(folder: Path) -> list[Path]:
    """The folders `checkpoint-<step>` of a run, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def seal(checkpoint: Path) -> None:
    """Write `checksums.json`, which `damage` checks."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / CHECKSUMS)
    sums = {path.relative_to(checkpoint).as_posix(): file_sha256(path) for path in files}
    (checkpoint / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


def damage(checkpoint: Path) -> str | None:
    """Describe what is wrong with a sealed checkpoint; None if nothing is. Files added later do not matter.

    >>> damage(Path("outputs/model/checkpoint-272"))  # doctest: +SKIP
    'optimizer.pt has changed since it was written'
    """
    try:
        sums = _read_object(checkpoint / CHECKSUMS)
        if missing := _NEEDED - {*sums}:
            return f"{CHECKSUMS} does not list {min(missing)}"
        for name, digest in sums.items():
            if file_sha256(checkpoint / name) != digest:
                return f"{name} has changed since it was written"
        _read_object(checkpoint / "trainer_state.json")
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, RecursionError) as error:
        return f"it can't be read: {first_line(error)}"
    return None


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that a run can resume from. Damaged ones are skipped, with a warning for each.

    The best checkpoint so far, which the run may end with, must be complete too.
    """
    for path in (folder / UNFINISHED).glob("checkpoint-*"):  # killed between two renames of `move_into_place`
        if damage(path) is None and not (folder / path.name).exists():
            path.replace(folder / path.name)
    for path in reversed(checkpoints(folder)):
        problem = damage(path)
        if problem is None and not (path / "optimizer.pt").is_file():
            problem = "optimizer.pt is missing"
        if problem is None:
            best = _read_object(path / "trainer_state.json").get("best_global_step")
            best_problem = damage(folder / f"checkpoint-{best}") if best else None
            if best_problem is None:
                return path
            problem = f"it needs checkpoint-{best}, where {best_problem}"
        logger.warning(f"Note: {path} is damaged and is skipped: {problem}")
    return None


def move_into_place(finished: Path, checkpoint: Path) -> None:
    """Move a sealed checkpoint to its final name, replacing an earlier one of that name."""
    if checkpoint.exists():
        checkpoint.replace(finished.with_name("replaced"))
    finished.replace(checkpoint)
    shutil.rmtree(finished.parent)


@contextmanager
def clear_of_disk_errors(folder: Path) -> Iterator[None]:
    """Context that converts errors of PyTorch, safetensors and Python about a full or broken disk to a `SmileError`.

    >>> with clear_of_disk_errors(Path("outputs/model")):  # doctest: +SKIP
    ...     trainer.train()
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _is_of_the_disk(error):
            raise
        free = shutil.disk_usage(folder).free / 1e6
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        raise SmileError(
            f"{folder}: can't be written to, with {free:,.1f} MB free there ({first_line(error)}).\n"
            "Earlier checkpoints are complete. Free some space, and run the same command again to resume."
        ) from None


def _is_of_the_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (*DISK_FULL, errno.EIO, errno.EROFS)
    # torch.save and safetensors have only messages, no error numbers.
    return ("os error" if isinstance(error, SafetensorError) else "inline_container") in str(error)


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value
