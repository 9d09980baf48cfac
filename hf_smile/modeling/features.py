"""What a pretrained backbone sees in an image: its pooled features, computed once and kept on disk."""

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
from hf_smile.modeling.backbone import DEFAULT_BACKBONE, build_model

_MAX_THREADS = 4


@torch.inference_mode()
def pooled_features(
    images: Iterable[bytes],
    backbone: str = DEFAULT_BACKBONE,
    *,
    batch_size: int = 64,
    cache_dir: str | Path | None = None,
) -> np.ndarray:
    """Pooled features of images, as the backbone hands them to its classifier.

    Args:
        images: encoded files; they are read a batch at a time and let go.
        backbone: pretrained, as in `build_model`.
        batch_size: images at a time.
        cache_dir: keeps the features of each image in one `.npy` file per backbone and transform. An image is known
            by the digest of its bytes: one that changes is computed anew, the others are not.

    Returns:
        (N, F) float32 in the order of `images`; F is the backbone's `num_features`.

    Raises:
        SmileModelError: the backbone can't be had.
        SmileDataError: an image will not decode.

    >>> files = (path.read_bytes() for path in sorted(Path("faces").glob("*.jpg")))
    >>> pooled_features(files, "timm/resnet18.a1_in1k", cache_dir="outputs/cache").shape  # doctest: +SKIP
    (42, 512)
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(backbone).to(device, memory_format=torch.channels_last).eval()
    network, config = model.timm_model, model.config.pretrained_cfg
    transform = evaluation_transform(config)
    cache = _Cache(cache_dir, _key(model, config))

    def load(data: bytes) -> torch.Tensor:
        return transform(decode_image(data))

    digests: list[bytes] = []
    stream = iter(images)
    try:
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            while batch := {_digest(data): data for data in _take(stream, batch_size, digests)}:
                new = {digest: data for digest, data in batch.items() if digest not in cache.rows}
                if not new:
                    continue
                pixel_values = torch.stack(list(pool.map(load, new.values()))).to(
                    device, memory_format=torch.channels_last
                )
                pooled = network.forward_head(network.forward_features(pixel_values), pre_logits=True)
                cache.rows.update(zip(new, pooled.float().cpu().numpy(), strict=True))
    finally:
        cache.save()  # of a run that is interrupted, too
    return np.stack([cache.rows[digest] for digest in digests]) if digests else np.zeros((0, network.num_features))
