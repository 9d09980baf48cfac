"""Copies of the newest checkpoints of a run on a branch of a private model repository, in case the machine is lost."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from transformers import TrainerCallback

from hf_smile.errors import SmileError
from hf_smile.hub.connection import connect, hub_errors, retry
from hf_smile.hub.upload import Target, list_paths, open_repo
from hf_smile.training.checkpoints import checkpoints
from hf_smile.training.run_folder import RECIPE

logger = logging.getLogger(__name__)

BRANCH = "checkpoints"
CLAIM = "claimed_by.json"
"""File on the branch: the process that may write there, which is the one that started last."""
KEPT = 2

Kept = Callable[[set[int]], set[int | None]]
"""Chooses the steps whose checkpoints are kept, from those on the branch."""


class BranchClaimed(SmileError):
    """Another run has claimed the branch of this one."""


def fetch_run(repo_id: str, output_dir: str | Path) -> None:
    """Download the checkpoints and the recipe to an output folder without checkpoints. They may be damaged.

    Raises:
        SmileError: the Hub can't be reached or refuses.

    >>> fetch_run("me/smile", "outputs/model")  # doctest: +SKIP
    """
    folder = Path(output_dir)
    if checkpoints(folder):
        return
    api = connect()
    with hub_errors(repo_id):
        try:
            sha = retry(lambda: api.repo_info(repo_id, revision=BRANCH)).sha
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            wanted = [RECIPE, "checkpoint-*/*"]
            retry(lambda: snapshot_download(repo_id, revision=sha, allow_patterns=wanted, local_dir=aside))
            for path in (*checkpoints(Path(aside)), Path(aside, RECIPE)):
                if path.exists():
                    path.replace(folder / path.name)


class CheckpointUploads(TrainerCallback):
    """Upload each sealed checkpoint in the background, in one commit that also removes outdated checkpoints.

    The newest two and the best checkpoint are kept. A failed upload is logged as a warning; the next checkpoint is
    uploaded again.

    Args:
        repo_id: private model repository, created if needed.
        output_dir: folder of the run.

    Raises:
        SmileError: at the start, the repository is public or the Hub refuses; later, another run claims the branch.
    """

    def __init__(self, repo_id: str, output_dir: str | Path) -> None:
        self.target = Target(repo_id, private=True, revision=BRANCH)
        self.folder = Path(output_dir)
        self.me = json.dumps({"process": uuid.uuid4().hex}).encode()
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._upload: Future[None] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Claim the branch, and remove checkpoints newer than the start of this run, which are from a run before it."""
        if not state.is_world_process_zero:
            return
        for left in self.folder.glob("uploading-*"):
            shutil.rmtree(left)
        api = connect()
        with hub_errors(self.target.repo_id):
            open_repo(api, self.target)
            files: dict[str, Path | bytes] = {CLAIM: self.me, RECIPE: self.folder / RECIPE}
            retry(partial(self._commit, api, files, lambda steps: {n for n in steps if n <= state.global_step}))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.finish()
        newest, best = state.global_step, state.best_global_step
        aside = Path(tempfile.mkdtemp(prefix="uploading-", dir=self.folder))
        for folder in {self.folder / f"checkpoint-{newest}", self.folder / f"checkpoint-{best}"}:
            if folder.is_dir():  # hard links, because the run may delete its checkpoints meanwhile
                shutil.copytree(folder, aside / folder.name, copy_function=os.link)
        self._upload = self._thread.submit(
            self._send, aside, lambda steps: {*sorted({*steps, newest})[-KEPT:], newest, best}
        )

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.finish()

    def finish(self) -> None:
        """Wait for the current upload."""
        upload, self._upload = self._upload, None
        try:
            if upload is not None:
                upload.result()
        except BranchClaimed:
            raise
        except SmileError as error:
            logger.warning("A checkpoint was not uploaded: %s", error)

    def _send(self, aside: Path, kept: Kept) -> None:
        try:
            files = {path.relative_to(aside).as_posix(): path for path in sorted(aside.rglob("*")) if path.is_file()}
            api = connect()
            with hub_errors(self.target.repo_id):
                retry(partial(self._commit, api, files, kept))
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _commit(self, api: HfApi, files: Mapping[str, Path | bytes], kept: Kept) -> None:
        """Commit on top of the inspected revision; fails if another run claims the branch meanwhile."""
        where = self.target.where
        head = api.repo_info(revision=BRANCH, **where).sha
        if (
            CLAIM not in files
            and Path(api.hf_hub_download(filename=CLAIM, revision=head, **where)).read_bytes() != self.me
        ):
            raise BranchClaimed(
                f"another run was started from the checkpoints of {self.target.repo_id}, so this one ends here; its "
                "checkpoints are in its output folder. To keep both runs, give one of them another --checkpoint_to"
            )
        there = {path: _step(path) for path in list_paths(api, self.target, head)}
        steps = kept({step for step in there.values() if step is not None})
        additions = [CommitOperationAdd(path, content) for path, content in files.items()]
        stale = [path for path, step in there.items() if step is not None and step not in steps]
        api.preupload_lfs_files(additions=additions, revision=BRANCH, **where)
        operations: list[Any] = [*additions, *map(CommitOperationDelete, stale)]
        message = "Claim the branch" if CLAIM in files else f"Checkpoint {max(_step(path) or 0 for path in files)}"
        api.create_commit(operations=operations, commit_message=message, revision=BRANCH, parent_commit=head, **where)


def _step(path: str) -> int | None:
    """Step of the checkpoint that a file belongs to."""
    found = re.match(r"checkpoint-(\d+)/", path)
    return int(found[1]) if found else None
