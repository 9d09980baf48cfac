"""Pooled features of images from a pretrained backbone, cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import resolve_data_config
from transformers import TimmWrapperForImageClassification

from hf_smile.data.images import decode_image
from hf_smile.data.transforms import evaluation_transform
from hf_smile.modeling.backbone import build_model
from hf_smile.utils.files import written_whole
from hf_smile.utils.model_files import DEFAULT_BACKBONE

_MAX_THREADS = 4


@torch.inference_mode()
def pooled_features(
    images: Iterable[bytes],
    backbone: str | TimmWrapperForImageClassification = DEFAULT_BACKBONE,
    *,
    batch_size: int = 32,
    cache_dir: str | Path | None = None,
) -> np.ndarray:
    """Compute the pooled features that a backbone passes to its classifier.

    Args:
        images: encoded image files; read and released in batches.
        backbone: name of a pretrained backbone, as in `build_model`, or a model.
        batch_size: images per batch.
        cache_dir: folder that caches features, in one `.npy` file per backbone and transform. Images are identified by
            the digest of their bytes, so only changed images are computed again.

    Returns:
        (N, F) float32 in the order of `images`; F is the backbone's `num_features`.

    Raises:
        SmileModelError: the backbone can't be loaded.
        SmileDataError: an image can't be decoded.

    >>> files = (path.read_bytes() for path in sorted(Path("faces").glob("*.jpg")))
    >>> pooled_features(files, "timm/resnet18.a1_in1k", cache_dir="outputs/cache").shape  # doctest: +SKIP
    (42, 512)
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(backbone) if isinstance(backbone, str) else backbone
    model = model.to(device, memory_format=torch.channels_last).eval()
    network, config = model.timm_model, model.config.pretrained_cfg
    transform = evaluation_transform(config)
    path = None if cache_dir is None else Path(cache_dir, f"features-{_key(model, config)}.npy")
    rows = _read_cache(path)
    known = len(rows)

    digests: list[bytes] = []
    stream = iter(images)
    try:
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            while batch := list(islice(stream, batch_size)):
                digests += map(_digest, batch)
                named = zip(digests[-len(batch) :], batch, strict=True)
                new = {digest: data for digest, data in named if digest not in rows}
                if new:
                    pixel_values = torch.stack(list(pool.map(lambda data: transform(decode_image(data)), new.values())))
                    pixel_values = pixel_values.to(device, memory_format=torch.channels_last)
                    pooled = network.forward_head(network.forward_features(pixel_values), pre_logits=True)
                    rows.update(zip(new, pooled.float().cpu().numpy(), strict=True))
    finally:
        if path is not None and len(rows) > known:  # also after an interruption
            _write_cache(path, rows)
    if not digests:
        return np.zeros((0, network.num_features), np.float32)
    return np.stack([rows[digest] for digest in digests])


def _read_cache(path: Path | None) -> dict[bytes, np.ndarray]:
    """Read features by image digest."""
    if path is None or not path.is_file():
        return {}
    try:
        records = np.load(path, allow_pickle=False)
        return dict(zip(records["digest"].tolist(), records["features"], strict=True))
    except (OSError, EOFError, ValueError, IndexError):  # a broken cache is ignored
        return {}


def _write_cache(path: Path, rows: dict[bytes, np.ndarray]) -> None:
    shape = next(iter(rows.values())).shape
    records = np.fromiter(rows.items(), [("digest", "S32"), ("features", np.float32, shape)], len(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, records, allow_pickle=False)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


def _key(model: TimmWrapperForImageClassification, pretrained_cfg: dict[str, Any]) -> str:
    """Digest of everything that turns an image into features: the backbone's weights and arguments, the transform."""
    key = hashlib.blake2b(digest_size=8)
    head = f"{model.timm_model.pretrained_cfg['classifier']}."  # left out: it is new and random
    for name, value in sorted(model.timm_model.state_dict().items()):
        if not name.startswith(head):
            key.update(name.encode())
            key.update(value.cpu().numpy().tobytes())
    settings = [resolve_data_config(pretrained_cfg), model.config.model_args]
    key.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return key.hexdigest()
