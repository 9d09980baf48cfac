"""Example pictures: drawn faces, and public-domain photos included in matplotlib and scikit-image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image

from hf_smile.data.sample import draw_face
from hf_smile.labels import NEGATIVE_SMILE, NOT_SMILE, POSITIVE_SMILE

_DRAWN = {"drawn, genuine": POSITIVE_SMILE, "drawn, posed": NEGATIVE_SMILE, "drawn, no smile": NOT_SMILE}
_SAME_PERSON = 3  # the seed determines the person, for any expression


def write_samples(folder: Path, drawn: bool) -> dict[str, Path]:
    """Write the example pictures to a folder.

    Args:
        folder: existing folder.
        drawn: whether to include drawn faces. A model trained on photos of people can't classify them.

    Returns:
        Mapping from the name on the page to the file.

    >>> list(write_samples(Path("samples"), drawn=False))[0]  # doctest: +SKIP
    'Grace Hopper'
    """
    written = {}
    for number, (name, image) in enumerate(_samples(drawn)):
        written[name] = folder / f"sample_{number}.jpg"
        image.save(written[name], quality=92)
    return written


def _samples(drawn: bool) -> Iterator[tuple[str, Image.Image]]:
    people = [("Grace Hopper", Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB"))]
    with suppress(ImportError):  # one example fewer
        # `skimage.data.astronaut` imports SciPy, which takes a second.
        people.append(("Eileen Collins", Image.open(str(files("skimage") / "data" / "astronaut.png")).convert("RGB")))
    yield from people
    if len(people) > 1:
        yield "both of them", _side_by_side([image for _, image in people], height=480)
    for name, label_id in _DRAWN.items() if drawn else ():
        yield name, draw_face(label_id, np.random.default_rng(_SAME_PERSON), size=256)


def _side_by_side(images: list[Image.Image], height: int) -> Image.Image:
    scaled = [image.resize((round(image.width * height / image.height), height)) for image in images]
    both = Image.new("RGB", (sum(image.width for image in scaled), height))
    left = 0
    for image in scaled:
        both.paste(image, (left, 0))
        left += image.width
    return both
