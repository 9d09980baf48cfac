"""One pass over the images that keeps a digest, perceptual hashes and a few measurements of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from hf_smile.data.images import decode_image
from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.cores import own_cores

MEASURED_SIZE = 128
"""Side of the square, in pixels, on which brightness, sharpness and borders are measured, for images of any size."""

THUMBNAIL_SIZE = 16
"""Side of the grey thumbnail, in pixels, by which images are compared."""

_MEASURES = np.dtype(
    [
        ("digest", "S32"),
        ("dhash", "u8"),
        ("dhash_bilinear", "u8"),
        ("width", "u4"),
        ("height", "u4"),
        ("file_bytes", "u4"),
        ("brightness", "f4"),
        ("contrast", "f4"),
        ("sharpness", "f4"),
        ("grey", "?"),
        ("border", "f4"),
        ("thumbnail", "u1", (THUMBNAIL_SIZE**2,)),
    ]
)
_CHUNK = 256  # images queued at a time
_MAX_THREADS = 4  # each may hold one decoded image
_GREY_SPREAD = 8  # maximum difference between the channels of a grey image, due to JPEG rounding
_BLACK, _WHITE = 12, 243  # all pixels of a border line are below, or above, this level


class Scan(NamedTuple):
    """The result of a scan, one row per image, split by split."""

    table: pd.DataFrame
    """`image_id`, `split`, `label`, `problem` and the measurements; see `scan_images`."""
    thumbnails: np.ndarray
    """(N, 256) uint8, grey."""
    labels: LabelSet = SMILE_LABELS


def scan_images(tables: Mapping[str, pd.DataFrame], images: Images) -> Scan:
    """Read and decode every image once, and keep only measurements: about half a kilobyte per image.

    Args:
        tables: annotations by split, from `read_tables`.
        images: source of the images.

    Returns:
        Thumbnails, and a table with `image_id`, `file`, `split`, `label`; `problem` ("" unless the image can't be read,
        in which case all measurements are zero); `digest` of the file's bytes; `dhash`, the 64-bit difference hash of
        imagehash; `dhash_bilinear`, the same for a bilinear thumbnail, with ties resolved the other way; `width`,
        `height` (pixels, upright), `file_bytes`; `brightness` and `contrast`, mean and standard deviation of the grey
        levels (0 to 255); `sharpness`, the variance of the Laplacian; `grey` (bool); `border`, the share of the image
        (0 to 1) covered by plain black or white bars at its edges.

    The difference hash is from Krawetz (2013), "Kind of Like That"; the variance of the Laplacian as a measure of
    blur is from Pech-Pacheco et al. (2000), "Diatom autofocusing in brightfield microscopy: a comparative study".

    >>> scan = scan_images(*read_tables(DataArguments("data/sample")))  # doctest: +SKIP
    >>> scan.table.loc[scan.table["problem"] != "", ["image_id", "problem"]]  # doctest: +SKIP
    """
    table = pd.concat({split: table[["image_id", "file", "label", "problem"]] for split, table in tables.items()})
    table = table.reset_index(level=0, names="split").reset_index(drop=True)
    table["split"] = pd.Categorical(table["split"], list(tables))
    measures = np.zeros(len(table), _MEASURES)
    files, problems = table["file"].tolist(), table["problem"].tolist()

    def measure(row: int) -> None:
        if problems[row]:
            return
        try:
            data = images.read(files[row])
            measures[row] = measure_image(data, decode_image(data))
        except SmileDataError as error:
            problems[row] = str(error)

    threads = min(_MAX_THREADS, own_cores())
    progress = tqdm(total=len(table), desc="Scanning images", unit=" images", delay=1)
    with ThreadPoolExecutor(threads) as pool, progress:
        for start in range(0, len(table), _CHUNK):  # limits the number of queued images
            for _ in pool.map(measure, range(start, min(start + _CHUNK, len(table)))):
                progress.update()
    thumbnails = np.ascontiguousarray(measures["thumbnail"])
    for name in (_MEASURES.names or ())[:-1]:
        table[name] = measures[name]
    return Scan(table.assign(problem=problems), thumbnails, getattr(tables, "labels", SMILE_LABELS))


def measure_image(data: bytes, image: Image.Image) -> tuple[Any, ...]:
    """The measurements of one image, in the order of the columns of `scan_images`, with the thumbnail last.

    Args:
        data: encoded image.
        image: the image decoded to RGB.
    """
    small = np.asarray(image.resize((MEASURED_SIZE, MEASURED_SIZE), Image.Resampling.BOX), dtype=np.float32)
    grey = small @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    red, green, blue = small.transpose(2, 0, 1)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return (
        hashlib.blake2b(data, digest_size=16).hexdigest(),
        _as_number(imagehash.dhash(image).hash),
        _as_number(_bilinear_dhash(image)),
        *image.size,
        len(data),
        grey.mean(),
        grey.std(),
        laplacian.var(),
        np.percentile(spread, 99) < _GREY_SPREAD,
        _border_share(grey),
        grey.reshape(THUMBNAIL_SIZE, MEASURED_SIZE // THUMBNAIL_SIZE, THUMBNAIL_SIZE, -1).mean(axis=(1, 3)).ravel(),
    )


def _bilinear_dhash(image: Image.Image) -> np.ndarray:
    """(8, 8) bool: whether a pixel of the 9 x 8 thumbnail is brighter than its right neighbour.

    Rounding can change a hash. Two kinds of hashes find duplicates that one of them misses.
    """
    thumbnail = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BILINEAR))
    return thumbnail[:, :-1] > thumbnail[:, 1:]


def _as_number(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _border_share(grey: np.ndarray) -> float:
    """Share of an image (H, W) covered by plain black or white bars at its edges."""
    kept = 1.0
    for axis in (0, 1):
        plain = (grey.max(axis) < _BLACK) | (grey.min(axis) > _WHITE)
        if plain.all():
            return 1.0
        inside = np.flatnonzero(~plain)
        kept *= (inside[-1] - inside[0] + 1) / len(plain)
    return 1 - kept
