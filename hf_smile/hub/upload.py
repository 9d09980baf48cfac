"""Upload files to the Hub in one atomic commit."""

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
"""Files to upload, by path in the repository."""


@dataclass(frozen=True)
class Target:
    """Where to publish.

    Args:
        repo_id: `owner/name`.
        repo_type: `model`, `dataset` or `space`.
        private: whether to create the repository as private.
        revision: branch, created if needed; None for the main branch.
        create_pr: open a pull request instead of changing the branch.
        token: Hub token; that of HF_TOKEN or `hf auth login` if None.

    Raises:
        SmileError: `repo_id` is invalid, or both a branch and a pull request are requested.
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
        """Arguments for every call of the client."""
        return {"repo_id": self.repo_id, "repo_type": self.repo_type}

    @property
    def url(self) -> str:
        prefix = constants.REPO_TYPES_URL_PREFIXES.get(self.repo_type, "")
        return f"{constants.ENDPOINT}/{prefix}{self.repo_id}" + (f"/tree/{self.revision}" if self.revision else "")

    def url_of(self, commit: CommitInfo) -> str:
        """Address of the published commit or pull request."""
        return commit.pr_url or self.url

    @property
    def is_live(self) -> bool:
        """Whether the upload changes the main branch, which a Space runs."""
        return not self.create_pr and self.revision in (None, "main")


def push_files(files: Files, target: Target, message: str, belongs: Callable[[str], bool]) -> str:
    """Publish `files` in one commit, so that an incomplete upload is never visible.

    Args:
        files: files to upload.
        target: where to publish; the repository and the branch are created if needed.
        message: commit message.
        belongs: returns whether a path belongs to this kind of upload. Such files from an earlier upload are removed.

    Returns:
        The address of the repository, or of the pull request.

    Raises:
        SmileError: the Hub can't be reached or refuses. Then nothing is published.

    >>> push_files({"README.md": b"Hello"}, Target("me/smile"), "Say hello", str.isupper)  # doctest: +SKIP
    'https://huggingface.co/me/smile'
    """
    api = connect(target.token)
    with hub_errors(target.repo_id):
        open_repo(api, target)

        def commit() -> CommitInfo:
            stale = [path for path in list_paths(api, target) if belongs(path) and path not in files]
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            with hub_errors(target.repo_id):  # no retry, because the client retries itself
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
    """Create the repository and the branch if they do not exist.

    Raises:
        SmileError: the repository should be private, but exists and is public.
    """
    sdk = "gradio" if target.repo_type == "space" else None
    retry(lambda: api.create_repo(private=target.private, exist_ok=True, space_sdk=sdk, **target.where))
    # The visibility of an existing repository does not change.
    if target.private and not retry(lambda: api.repo_info(**target.where)).private:
        raise SmileError(f"{target.repo_id} exists and is public; make it private first, or use another id")
    if target.revision:
        branch = target.revision
        retry(lambda: api.create_branch(branch=branch, exist_ok=True, **target.where))


def list_paths(api: HfApi, target: Target, revision: str | None = None) -> list[str]:
    """Paths of the files on `revision`, by default the branch of the target."""
    entries = api.list_repo_tree(recursive=True, revision=revision or target.revision, **target.where)
    return [entry.path for entry in entries if isinstance(entry, RepoFile)]


def send_commit(api: HfApi, target: Target, operations: list[Any], message: str) -> CommitInfo:
    """Send a commit or pull request. A commit can be repeated if the answer was lost: it then changes nothing."""
    try:
        return api.create_commit(
            operations=operations,
            commit_message=message,
            revision=target.revision,
            create_pr=target.create_pr,
            **target.where,
        )
    except (HTTPError, json.JSONDecodeError) as error:
        # Repeating could open a second pull request. Only these two codes mean that nothing was done.
        status = getattr(getattr(error, "response", None), "status_code", None)
        if target.create_pr and is_transient(error) and status not in (429, 503):
            raise SmileError(
                f"{target.repo_id}: the Hub did not confirm the pull request ({first_line(error)}). Check"
                f" {target.url}/discussions before you try again"
            ) from None
        raise


def list_files(sizes: Mapping[str, int]) -> str:
    """Table of the files to upload, with sizes.

    >>> print(list_files({"README.md": 2100, "model.safetensors": 94_000_000}))
         2.1 kB  README.md
        94.0 MB  model.safetensors
        94.0 MB  2 files
    """
    rows = [*sorted(sizes.items()), (f"{len(sizes)} file{'s' * (len(sizes) != 1)}", sum(sizes.values()))]
    return "\n".join(f"{_size(size):>11}  {path}" for path, size in rows)


def file_sizes(files: Files) -> dict[str, int]:
    """Size in bytes by path."""
    return {
        path: len(content) if isinstance(content, bytes) else content.stat().st_size for path, content in files.items()
    }


def _size(n_bytes: int) -> str:
    units = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    return next((f"{n_bytes / size:.1f} {unit}" for unit, size in units.items() if n_bytes >= size), f"{n_bytes} B")
