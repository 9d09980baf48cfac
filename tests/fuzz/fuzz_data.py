"""Coverage-guided fuzzing (atheris) of what reads bytes from outside: only `SmileDataError` may escape.

Run by hand; atheris is no dependency (`pip install atheris`). TARGET is `images` or `annotations`:
python tests/fuzz/fuzz_data.py TARGET NEW_CORPUS tests/fuzz/seeds/TARGET \\
    -max_total_time=600 -rss_limit_mb=1024 -timeout=2
NEW_CORPUS is a folder outside the repository for what the fuzzer finds on its way. What it breaks becomes a case in
`found_by_fuzzing` of tests/data/hostile_*.py.
"""

import sys
import tempfile
from pathlib import Path

import atheris
import numpy  # noqa: F401  # before the instrumentation, as it is large and not ours
import pandas  # noqa: F401

with atheris.instrument_imports(include=["hf_smile", "PIL", "zipfile", "csv"]):
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        MpoImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    from hf_smile.data.annotations import read_annotations
    from hf_smile.data.images import decode_image
    from hf_smile.data.sources import ImageSource
    from hf_smile.errors import Problems, SmileDataError

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz_"))


def fuzz_images(data: bytes) -> None:
    """An image, or a zip of images."""
    try:
        if not data.startswith(b"PK"):
            assert decode_image(data).mode == "RGB"
            return
        path = FOLDER / "images.zip"
        path.write_bytes(data)
        source = ImageSource(path)
    except SmileDataError as error:
        assert str(error).strip()
        return
    for name in source.names:
        try:
            decode_image(source.read(name))
        except SmileDataError as error:
            assert str(error).strip()


def fuzz_annotations(data: bytes) -> None:
    path = FOLDER / "train.csv"
    path.write_bytes(data)
    problems = Problems()
    table = read_annotations(path, problems)
    assert set(table["label"]) <= {0, 1, 2, -1}
    try:
        problems.raise_if_any(path)
    except SmileDataError as error:
        assert str(error).strip()


if __name__ == "__main__":
    target = {"images": fuzz_images, "annotations": fuzz_annotations}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
