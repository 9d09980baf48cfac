"""The audit from a data set to what was found: the pass over the images, the features, and `run_audit`."""

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
    """Find duplicates, leaks from train to test, suspicious labels and odd pictures in a data set.

    Args:
        data_dir: as for `load_smile_dataset`.
        backbone: as for `audit_images`.
        test_size: as for `load_smile_dataset`.
        seed: of the splits and the folds.
        options: further arguments of `audit_images`.

    Raises:
        SmileError: the data can't be read, or the backbone can't be had.

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
    """The same of data that are read already.

    Args:
        tables: of `read_tables`, as `images` are.
        images: where the images are.
        backbone: a pretrained model, not fine-tuned on these data; without one only hashes tell duplicates, and labels
            and likeness are left out.
        batch_size: images at a time.
        cache_dir: keeps the features of the images.
        options: further arguments of `run_audit`.
    """
    if not backbone:
        return run_audit(scan_images(tables, images), **options)
    from hf_smile.modeling import build_model
    from hf_smile.modeling.features import pooled_features

    build_model(backbone)  # a mistake in its name should not wait for the images
    scan = scan_images(tables, images)
    refuse_trained_on(backbone, zip(scan.table["image_id"], scan.table["digest"].map(bytes.decode), strict=True))
    good = scan.table.loc[scan.table["problem"] == "", "file"]
    files = (images.read(file) for file in tqdm(good, desc="Features", unit=" images", delay=1))
    features = pooled_features(files, backbone, batch_size=batch_size, cache_dir=cache_dir)
    return run_audit(scan, features, **options)
