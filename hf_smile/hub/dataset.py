"""Publish the data as a data set on the Hub. These are faces, so it is private by default."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from uuid import uuid4

from datasets import DatasetDict
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
)

from hf_smile.data.plots import plot_class_distribution
from hf_smile.errors import SmileError
from hf_smile.hub.connection import connect, hub_errors, retry
from hf_smile.hub.licenses import check_license
from hf_smile.hub.upload import Target, list_paths, open_repo, send_commit

logger = logging.getLogger(__name__)

_COLUMNS = ("image", "label", "image_id")


def check_permission(license: str | None, right_to_publish: bool) -> None:
    """Refuse to publish faces unless the user takes responsibility for it.

    Args:
        license: licence of the pictures as a Hub identifier.
        right_to_publish: whether the user has declared to have the right to publish them.

    Raises:
        SmileError: there is no licence or no such declaration, or the Hub does not know the licence.
    """
    if not license or not right_to_publish:
        raise SmileError(
            "these are pictures of people. To publish them, give both their --license and"
            " --i_have_the_right_to_publish, which declares that the people in them and the photographers agreed"
        )
    check_license(license)


def publishable(splits: DatasetDict) -> DatasetDict:
    """The splits without other columns, which may identify the people in the pictures.

    >>> publishable(load_smile_dataset("data/sample"))["test"].column_names  # doctest: +SKIP
    ['image', 'label', 'image_id']
    """
    return splits.select_columns(list(_COLUMNS))


def dataset_sizes(splits: DatasetDict, card: DatasetCard) -> dict[str, int]:
    """Sizes in bytes of the files that `push_dataset` uploads, by path; a split over 500 MB becomes several files."""
    sizes = {name: len(content) for name, content in _beside_the_data(splits, card).items()}
    for split, dataset in splits.items():
        with tempfile.TemporaryFile() as file:
            dataset.to_parquet(file)
            sizes[f"data/{split}-*.parquet"] = file.tell()
    return sizes


def push_dataset(splits: DatasetDict, card: DatasetCard, target: Target) -> str:
    """Publish the splits and their card in one commit, so that an incomplete upload is never visible.

    `DatasetDict.push_to_hub` writes the Parquet files and completes the card in a separate commit. This happens on a
    temporary branch, which is then copied to the target in one commit, without moving data, and deleted.

    Args:
        splits: as returned by `publishable`.
        card: as returned by `dataset_card`.
        target: where to publish.

    Returns:
        The address of the data set, or of the pull request.

    Raises:
        SmileError: the Hub can't be reached or refuses. Then nothing is published.

    >>> push_dataset(splits, card, Target("me/faces", "dataset", private=True))  # doctest: +SKIP
    'https://huggingface.co/datasets/me/faces'
    """
    api = connect()
    staging = f"staging-{uuid4().hex[:8]}"
    with hub_errors(target.repo_id):
        open_repo(api, target)
        retry(
            lambda: api.create_branch(branch=staging, revision=target.revision or "main", exist_ok=True, **target.where)
        )
        try:
            retry(lambda: _push_card(api, splits, card, target, staging))
            retry(lambda: splits.push_to_hub(target.repo_id, revision=staging))
            return target.url_of(retry(lambda: _move(api, target, staging)))
        finally:
            _delete_branch(api, target, staging)


def _push_card(api: HfApi, splits: DatasetDict, card: DatasetCard, target: Target, branch: str) -> None:
    api.create_commit(
        operations=[CommitOperationAdd(path, content) for path, content in _beside_the_data(splits, card).items()],
        commit_message="Write the card",
        revision=branch,
        **target.where,
    )


def _move(api: HfApi, target: Target, branch: str) -> CommitInfo:
    """Copy everything on `branch` to the target, in one commit."""
    staged = list_paths(api, target, branch)
    stale = [path for path in list_paths(api, target) if path.startswith("data/") and path not in staged]
    copies = [CommitOperationCopy(path, path, src_revision=branch) for path in staged if path != ".gitattributes"]
    return send_commit(api, target, [*copies, *map(CommitOperationDelete, stale)], "Upload data set with hf_smile")


def _delete_branch(api: HfApi, target: Target, branch: str) -> None:
    try:
        retry(lambda: api.delete_branch(branch=branch, **target.where))
    except Exception as error:  # a leftover branch is harmless, and must not hide why the push failed
        logger.warning(f"Note: branch {branch} of {target.repo_id} was not deleted; delete it by hand: {error}")


def _beside_the_data(splits: DatasetDict, card: DatasetCard) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "class_distribution.png")
        plot_class_distribution(splits, picture)
        return {"README.md": str(card).encode(), picture.name: picture.read_bytes()}
