"""Files -> one commit on the Hub: all of them or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.hf_api import RepoFile

from hf_smile.errors import SmileError, first_line
from hf_smile.hub.connection import check_repo_id, connect, hub_errors, is_transient, retry

Files = Mapping[str, "Path | bytes"]
"""What to upload, by its path in the repository."""


@dataclass(frozen=True)
class Target:
    """Where to publish.

    Args:
        repo_id: `owner/name`.
        repo_type: `model`, `dataset` or `space`.
        private: nobody but the owner sees it. It holds for a repository that is made now.
        revision: branch, made if it is not there; None for the main one.
        create_pr: open a pull request instead of changing the branch.
        token: of the Hub; the one of HF_TOKEN or `hf auth login` if None.

    Raises:
        SmileError: `repo_id` is none, or both a branch and a pull request are asked for.
    """

    repo_id: str
    repo_type: str = "model"
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    token: str | None = None

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)
        if self.create_pr and self.revision:
            raise SmileError("a pull request goes to the main branch; leave out --revision or --create_pr")

    @property
    def where(self) -> dict[str, Any]:
        """What every call of the client needs."""
        return {"repo_id": self.repo_id, "repo_type": self.repo_type}

    @property
    def url(self) -> str:
        prefix = constants.REPO_TYPES_URL_PREFIXES.get(self.repo_type, "")
        return f"{constants.ENDPOINT}/{prefix}{self.repo_id}" + (f"/tree/{self.revision}" if self.revision else "")

    def url_of(self, commit: CommitInfo) -> str:
        """Where a person finds what was published."""
        return commit.pr_url or self.url

    @property
    def is_live(self) -> bool:
        """Whether it is the main branch that changes: of a Space, the one that runs."""
        return not self.create_pr and self.revision in (None, "main")


def push_files(files: Files, target: Target, message: str, belongs: Callable[[str], bool]) -> str:
    """Publish `files` in one commit, so that nobody ever sees half of them.

    Args:
        files: what to upload.
        target: where to; the repository and the branch are made if they are not there.
        message: of the commit.
        belongs: whether a path is one that this kind of upload makes. Such files of an earlier upload are removed.

    Returns:
        The address of the repository, or of the pull request.

    Raises:
        SmileError: the Hub cannot be reached or refuses; nothing is published then.

    >>> push_files({"README.md": b"Hello"}, Target("me/smile"), "Say hello", str.isupper)  # doctest: +SKIP
    'https://huggingface.co/me/smile'
    """
    api = connect(target.token)
    with hub_errors(target.repo_id):
        open_repo(api, target)

        def commit() -> CommitInfo:
            stale = [path for path in list_paths(api, target) if belongs(path) and path not in files]
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            with hub_errors(target.repo_id):  # the client has tried this often enough itself
                api.preupload_lfs_files(
                    additions=operations,
                    revision=target.revision,
                    create_pr=target.create_pr,
                    free_memory=False,
                    **target.where,
                )
            return send_commit(api, target, [*operations, *map(CommitOperationDelete, stale)], message)

        return target.url_of(retry(commit))


def open_repo(api: HfApi, target: Target) -> None:
    """Make the repository and the branch if they are not there.

    Raises:
        SmileError: it is to be private, and is there already and public.
    """
    sdk = "gradio" if target.repo_type == "space" else None
    retry(lambda: api.create_repo(private=target.private, exist_ok=True, space_sdk=sdk, **target.where))
    # The visibility of a repository that is there already stays as it is.
    if target.private and not retry(lambda: api.repo_info(**target.where)).private:
        raise SmileError(f"{target.repo_id} is there already and public; make it private first, or name another id")
    if target.revision:
        branch = target.revision
        retry(lambda: api.create_branch(branch=branch, exist_ok=True, **target.where))


def list_paths(api: HfApi, target: Target, revision: str | None = None) -> list[str]:
    """The files that are there, on `revision` or else on the branch of the target."""
    entries = api.list_repo_tree(recursive=True, revision=revision or target.revision, **target.where)
    return [entry.path for entry in entries if isinstance(entry, RepoFile)]


def send_commit(api: HfApi, target: Target, operations: list[Any], message: str) -> CommitInfo:
    """One commit, or pull request. Given again after a lost answer, the commit finds nothing to change."""
    try:
        return api.create_commit(
            operations=operations,
            commit_message=message,
            revision=target.revision,
            create_pr=target.create_pr,
            **target.where,
        )
    except (HTTPError, json.JSONDecodeError) as error:
        # A pull request given again would be a second one. Only these two say that nothing was done.
        status = getattr(getattr(error, "response", None), "status_code", None)
        if target.create_pr and is_transient(error) and status not in (429, 503):
            raise SmileError(
                f"{target.repo_id}: the Hub did not say whether it did it ({first_line(error)}). Look at"
                f" {target.url}/discussions whether the pull request is there before you try again"
            ) from None
        raise


def list_files(sizes: Mapping[str, int]) -> str:
    """A table of what would go up, with sizes.

    >>> print(list_files({"README.md": 2100, "model.safetensors": 94_000_000}))
         2.1 kB  README.md
        94.0 MB  model.safetensors
        94.0 MB  2 files
    """
    rows = [*sorted(sizes.items()), (f"{len(sizes)} file{'s' * (len(sizes) != 1)}", sum(sizes.values()))]
    return "\n".join(f"{_size(size):>11}  {path}" for path, size in rows)


def file_sizes(files: Files) -> dict[str, int]:
    """Bytes by path."""
    return {
        path: len(content) if isinstance(content, bytes) else content.stat().st_size for path, content in files.items()
    }


def _size(n_bytes: int) -> str:
    units = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    return next((f"{n_bytes / size:.1f} {unit}" for unit, size in units.items() if n_bytes >= size), f"{n_bytes} B")
