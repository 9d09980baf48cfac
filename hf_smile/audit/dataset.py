"""Audit a data set: scan the images, compute their features, and call `run_audit`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from hf_smile.audit.run import Audit, run_audit
from hf_smile.audit.scan import scan_images
from hf_smile.data.arguments import DataArguments
from hf_smile.data.dataset import read_tables
from hf_smile.data.record import refuse_trained_on
from hf_smile.data.sources import Images


def audit_dataset(
    data_dir: str | Path, backbone: str | None = None, *, test_size: float | None = None, seed: int = 42, **options: Any
) -> Audit:
    """Find duplicates, leaks from train to test, suspicious labels and unusual images in a data set.

    Args:
        data_dir: folder, zip or Hub id of the data; see `load_smile_dataset`.
        backbone: pretrained model; see `audit_images`.
        test_size: share of train to use as the test split, if the data have none.
        seed: seed of the splits and the folds.
        options: further arguments of `audit_images`.

    Raises:
        SmileError: if the data or the backbone can't be loaded.

    >>> audit_dataset("data/sample").summary["duplicates"]["all"]["groups"]  # doctest: +SKIP
    0
    """
    tables, images = read_tables(DataArguments(str(data_dir), test_size=test_size), seed)
    return audit_images(tables, images, backbone, seed=seed, **options)


def audit_images(
    tables: Mapping[str, pd.DataFrame],
    images: Images,
    backbone: str | None = None,
    *,
    batch_size: int = 32,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> Audit:
    """Audit data whose annotations are already loaded.

    Args:
        tables: annotations by split, from `read_tables`.
        images: source of the images, from `read_tables`.
        backbone: pretrained model, not fine-tuned on these data. Without it, duplicates are only found by hashes, and
            similarity and labels are not analysed.
        batch_size: number of images per forward pass.
        cache_dir: folder in which the features are cached.
        options: further arguments of `run_audit`.
    """
    if not backbone:
        return run_audit(scan_images(tables, images), **options)
    from hf_smile.modeling import build_model
    from hf_smile.modeling.features import pooled_features

    build_model(backbone)  # fail before the scan if the backbone can't be loaded
    scan = scan_images(tables, images)
    refuse_trained_on(backbone, zip(scan.table["image_id"], scan.table["digest"].map(bytes.decode), strict=True))
    good = scan.table.loc[scan.table["problem"] == "", "file"]
    files = (images.read(file) for file in tqdm(good, desc="Features", unit=" images", delay=1))
    features = pooled_features(files, backbone, batch_size=batch_size, cache_dir=cache_dir)
    return run_audit(scan, features, **options)
