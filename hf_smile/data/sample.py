"""A drawn sample data set: cartoon faces that smile genuinely, smile for the camera, or do not smile.

The quick start, the tests and the demo use it, so they need no download. Its layout is that of users' data.

The two smiles differ by the Duchenne marker: both raise the mouth corners (AU12, *zygomatic major*), but only the
genuine smile also narrows the eyes, lifts the cheeks and forms crow's feet (AU6, *orbicularis oculi*). See Ekman,
Davidson & Friesen (1990), "The Duchenne smile: Emotional expression and brain physiology II", Journal of Personality
and Social Psychology 58(2), 342-353.
"""

from __future__ import annotations

import io
import tempfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from hf_smile.labels import NOT_SMILE, POSITIVE_SMILE, SMILE_LABELS

DRAWN = "drawn-"
"""Prefix of the image ids, so that results on these faces are recognised wherever they go."""

_LABEL_SHARES = (0.2, 0.3, 0.5)
_EYE_OPENNESS = ((0.90, 1.20), (0.30, 0.50), (0.75, 1.15))  # range for each label; 1 is an ordinary eye
_HAIR_STYLES = ("bald", "short", "fringe", "parting", "long", "bun", "curly")
_SKINS = ((255, 224, 196), (241, 194, 160), (224, 172, 125), (198, 134, 90), (160, 103, 66), (115, 74, 50))
_HAIRS = ((38, 30, 30), (74, 48, 34), (120, 76, 44), (176, 118, 60), (224, 184, 110), (150, 58, 34), (176, 176, 180))
_IRISES = ((70, 45, 30), (96, 66, 36), (62, 98, 66), (58, 96, 140), (90, 100, 108))
_SUPERSAMPLING = 3
_JPEG_QUALITY = 90

_Colour = tuple[int, ...]


def draw_face(label_id: int, rng: np.random.Generator, size: int = 128) -> Image.Image:
    """Draw one cartoon face.

    Two generators in the same state give the same person, pose and light, and the same mouth for both smiles. The
    negative and the positive smile then differ only at the eyes and the cheeks.

    Args:
        label_id: 0 negative smile, 1 positive smile, 2 NOT smile.
        rng: random generator for everything that varies.
        size: width and height in pixels.

    Returns:
        RGB image of ``size`` x ``size`` pixels.

    Raises:
        ValueError: if ``label_id`` is not 0, 1 or 2.

    >>> draw_face(1, np.random.default_rng(0), size=96).size
    (96, 96)
    """
    if label_id not in range(len(SMILE_LABELS)):
        raise ValueError(f"label_id must be 0, 1 or 2, not {label_id!r}")
    person = _Person(rng)
    canvas = Image.new("RGB", (size * _SUPERSAMPLING,) * 2, _vary((150, 150, 150), rng, 70))
    pen = _Pen(canvas, rng)
    _draw_behind_face(pen, person)
    _draw_head(pen, person)
    _draw_eyes(pen, person, openness=rng.uniform(*_EYE_OPENNESS[label_id]))
    _draw_cheeks(pen, person, raised=label_id == POSITIVE_SMILE)
    if label_id == NOT_SMILE:
        _draw_resting_mouth(pen, person, rng)
    else:
        _draw_smiling_mouth(pen, person, rng)
    _draw_hair(pen, person)
    if person.glasses:
        _draw_glasses(pen)
    if label_id == POSITIVE_SMILE:  # after the glasses, whose rims would cover them
        _draw_crows_feet(pen, person)
    return _light_and_noise(canvas.resize((size, size), Image.Resampling.BOX), rng)


def draw_sample_dataset(
    output_dir: str | Path, train_size: int = 1200, test_size: int = 300, size: int = 96, seed: int = 0
) -> Path:
    """Write a drawn data set: ``train.csv``, ``test.csv`` and ``happy_images.zip``.

    The CSV files have rows ``image_id,label`` and no header; the zip file contains ``happy_images/<image_id>.jpg``.
    About half of the faces do not smile, 30 % smile genuinely and 20 % for the camera; each file has all three. The
    same arguments give the same bytes. The files only appear when all are complete.

    Args:
        output_dir: folder to write to, created if needed. An existing data set is replaced.
        train_size: number of training images, at least 3.
        test_size: number of test images, at least 3.
        size: width and height of the images in pixels.
        seed: seed of the random generator.

    Returns:
        ``output_dir`` as a path.

    Raises:
        ValueError: if there are fewer than 3 training or test images, too few for the three labels.

    >>> draw_sample_dataset("data/sample", train_size=12, test_size=6)  # doctest: +SKIP
    PosixPath('data/sample')
    """
    if min(train_size, test_size) < len(SMILE_LABELS):
        raise ValueError(f"train_size and test_size must be at least 3, not {train_size} and {test_size}")
    rng = np.random.default_rng(seed)
    rows = {"train.csv": _random_rows(train_size, rng), "test.csv": _random_rows(test_size, rng)}
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".drawing-") as unfinished:
        _write_images(Path(unfinished, "happy_images.zip"), rows["train.csv"] + rows["test.csv"], size, rng)
        for name, named_rows in rows.items():
            text = "".join(f"{image_id},{SMILE_LABELS[label_id]}\n" for image_id, label_id in named_rows)
            Path(unfinished, name).write_text(text, encoding="utf-8", newline="\n")
        for name in ("happy_images.zip", *rows):  # the images first, so that a CSV file never names missing images
            Path(unfinished, name).replace(output_dir / name)
    return output_dir


def _random_rows(count: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """``count`` pairs of a new image_id and a label id, in random order."""
    smiles = [max(1, round(count * share)) for share in _LABEL_SHARES[:NOT_SMILE]]
    label_ids = np.repeat(range(len(SMILE_LABELS)), [*smiles, count - sum(smiles)])
    return [
        (f"{DRAWN}{uuid.UUID(bytes=rng.bytes(16), version=4)}", int(label_id))
        for label_id in rng.permutation(label_ids)
    ]


def _write_images(path: Path, rows: list[tuple[str, int]], size: int, rng: np.random.Generator) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # JPEG does not shrink further
        for image_id, label_id in tqdm(rows, desc="drawing faces", unit="face", disable=None):
            jpeg = io.BytesIO()
            draw_face(label_id, rng, size).save(jpeg, "JPEG", quality=_JPEG_QUALITY)
            # An explicit ZipInfo has a fixed date (1980), so the bytes are the same in every run.
            archive.writestr(zipfile.ZipInfo(f"happy_images/{image_id}.jpg"), jpeg.getvalue())


class _Person:
    """Everything that does not depend on the expression. Colours are RGB, lengths are in half face heights."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.skin = _vary(_SKINS[rng.integers(len(_SKINS))], rng, 10)
        self.hair = _vary(_HAIRS[rng.integers(len(_HAIRS))], rng, 12)
        self.iris = _IRISES[rng.integers(len(_IRISES))]
        self.clothes = _vary((128, 128, 128), rng, 100)
        self.hair_style = _HAIR_STYLES[rng.integers(len(_HAIR_STYLES))]
        self.width = rng.uniform(0.74, 0.86)
        self.jaw = rng.uniform(2.0, 2.8)
        self.brow = rng.uniform(-0.03, 0.03)
        self.blush = rng.uniform(0.0, 0.3)
        self.glasses = rng.random() < 0.25

    def shade(self, amount: float) -> _Colour:
        """The skin colour, darker (and redder, like skin in shadow) by ``amount`` from 0 to 1."""
        return _mix(self.skin, (70, 20, 20), amount)


class _Pen:
    """Draws in face coordinates: the origin is the middle of the face, y points down, its half height is 1."""

    def __init__(self, canvas: Image.Image, rng: np.random.Generator) -> None:
        """Draw onto a canvas, on which the face has a random pose."""
        scale = rng.uniform(0.36, 0.42) * canvas.width
        tilt = np.deg2rad(rng.uniform(-12, 12))
        self.draw = ImageDraw.Draw(canvas)
        self.axes = scale * np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])  # pixels per unit
        self.origin = canvas.width * rng.uniform((0.46, 0.48), (0.54, 0.54))

    def fill(self, points: np.ndarray, colour: _Colour) -> None:
        self.draw.polygon((points @ self.axes + self.origin).ravel().tolist(), fill=colour)

    def line(self, points: np.ndarray, colour: _Colour, width: float) -> None:
        pixels = max(1, round(width * float(np.hypot(*self.axes[0]))))
        self.draw.line((points @ self.axes + self.origin).ravel().tolist(), colour, pixels, joint="curve")


def _ellipse(x: float, y: float, rx: float, ry: float, squareness: float = 2.0) -> np.ndarray:
    """Outline of a (super)ellipse, 32 x 2. A squareness above 2 widens the lower half, like a jaw."""
    angle = np.linspace(0, 2 * np.pi, 32)
    cos, sin = np.cos(angle), np.sin(angle)
    power = np.where(sin > 0, 2 / squareness, 1.0)
    return np.stack([x + rx * np.sign(cos) * np.abs(cos) ** power, y + ry * np.sign(sin) * np.abs(sin) ** power], 1)


def _arc(x: float, y: float, half_width: float, sag: float) -> np.ndarray:
    """Parabola, 13 x 2, whose ends are at height ``y`` and whose middle hangs lower by ``sag``."""
    t = np.linspace(-1, 1, 13)
    return np.stack([x + half_width * t, y + sag * (1 - t**2)], 1)


def _mix(one: _Colour, other: _Colour, share: float) -> _Colour:
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def _vary(colour: _Colour, rng: np.random.Generator, spread: int) -> _Colour:
    return tuple(np.clip(np.add(colour, rng.integers(-spread, spread, 3, endpoint=True)), 0, 255).tolist())


def _draw_behind_face(pen: _Pen, person: _Person) -> None:
    """Shoulders, neck, ears, and the hair behind the head."""
    if person.hair_style == "long":
        pen.fill(_ellipse(0, 0.1, person.width + 0.26, 1.25, squareness=5), person.hair)
    if person.hair_style == "bun":
        pen.fill(_ellipse(0, -1.12, 0.32, 0.28), person.hair)
    if person.hair_style == "curly":
        for angle in np.linspace(np.pi * 0.95, np.pi * 2.05, 9):
            x, y = (person.width + 0.02) * np.cos(angle), 0.95 * np.sin(angle) - 0.12
            pen.fill(_ellipse(x, y, 0.25, 0.25), person.hair)
    pen.fill(_ellipse(0, 1.75, 1.15, 0.72), person.clothes)
    pen.fill(_ellipse(0, 1.0, 0.32, 0.38), person.shade(0.25))
    for side in (-1, 1):
        pen.fill(_ellipse(side * person.width, 0.02, 0.13, 0.2), person.shade(0.12))


def _draw_head(pen: _Pen, person: _Person) -> None:
    pen.fill(_ellipse(0, 0, person.width, 1.0, person.jaw), person.skin)
    pen.line(_arc(0, 0.26, 0.1, 0.06), person.shade(0.4), 0.035)  # nose
    for side in (-1, 1):
        brow = _arc(side * 0.36, -0.42 + person.brow, 0.21, -0.08)
        pen.line(brow, _mix(person.hair, (40, 25, 20), 0.4), 0.065)


def _draw_eyes(pen: _Pen, person: _Person, openness: float) -> None:
    # The lower lid rises as the eye narrows, as in a smile. In a drowsy eye, the upper lid would fall instead.
    lower_sag = 0.2 * (openness - 0.6)
    upper_sag = lower_sag - 0.26 * openness
    for side in (-1, 1):
        lower, upper = (_arc(side * 0.36, -0.06, 0.2, sag) for sag in (lower_sag, upper_sag))
        pen.fill(np.concatenate([lower, upper[::-1]]), (250, 250, 250))
        for radius, colour in ((0.11, person.iris), (0.055, (15, 12, 12))):
            disc = _ellipse(side * 0.36, -0.08, radius, radius)
            lids = [np.interp(disc[:, 0], *lid.T) for lid in (upper, lower)]
            disc[:, 1] = disc[:, 1].clip(*lids)  # the lids hide what is beyond them
            pen.fill(disc, colour)
        pen.line(lower, person.shade(0.45), 0.025)
        pen.line(upper, (35, 22, 20), 0.05)


def _draw_cheeks(pen: _Pen, person: _Person, raised: bool) -> None:
    blush = _mix(person.skin, (230, 90, 90), person.blush)
    for side in (-1, 1):
        pen.fill(_ellipse(side * 0.46, 0.22 if raised else 0.34, 0.18, 0.12), blush)
        if raised:  # the fold of the raised cheek below the eye
            pen.line(_arc(side * 0.38, 0.1, 0.17, 0.05), person.shade(0.3), 0.03)


def _draw_crows_feet(pen: _Pen, person: _Person) -> None:
    for side in (-1, 1):
        for slope in (-0.55, 0.0, 0.55):
            ends = np.array([[0.6, -0.07 + 0.04 * slope], [0.73, -0.07 + 0.17 * slope]])
            pen.line(ends * (side, 1), person.shade(0.55), 0.03)


def _draw_smiling_mouth(pen: _Pen, person: _Person, rng: np.random.Generator) -> None:
    """The same for both smiles, which must not differ at the mouth."""
    half_width, sag, opening = rng.uniform((0.3, 0.14, 0.08), (0.42, 0.24, 0.2))
    lips = _mix(person.skin, (150, 35, 45), rng.uniform(0.5, 0.9))
    if rng.random() < 0.5:  # with teeth
        upper, lower = (_arc(0, 0.46, half_width, depth) for depth in (sag / 2, sag / 2 + opening))
        pen.fill(np.concatenate([upper, lower[::-1]]), (250, 248, 240))
        pen.line(np.concatenate([upper, lower[::-1], upper[:1]]), lips, 0.05)
    else:
        pen.line(_arc(0, 0.46, half_width, sag), lips, 0.07)
    for side in (-1, 1):  # the folds beside the raised corners
        pen.line(_arc(side * (half_width + 0.02), 0.44, 0.06, 0.05), person.shade(0.35), 0.03)


def _draw_resting_mouth(pen: _Pen, person: _Person, rng: np.random.Generator) -> None:
    half_width, sag, opening = rng.uniform((0.2, -0.14, 0.05), (0.34, 0.01, 0.11))
    lips = _mix(person.skin, (150, 35, 45), rng.uniform(0.5, 0.9))
    if rng.random() < 0.25:  # slightly open
        pen.fill(_ellipse(0, 0.56, 0.13, opening + 0.05), lips)
        pen.fill(_ellipse(0, 0.56, 0.08, opening), (70, 20, 25))
    else:
        pen.line(_arc(0, 0.56, half_width, sag), lips, 0.07)


def _draw_hair(pen: _Pen, person: _Person) -> None:
    """The hair in front of the head, from the outline of the skull to the hairline."""
    if person.hair_style == "bald":
        return
    angle = np.linspace(np.pi, 2 * np.pi, 17)
    skull = np.stack([(person.width + 0.06) * np.cos(angle), 1.1 * np.sin(angle) - 0.1], 1)
    x = np.linspace(1, -1, 17)
    hairline = {
        "fringe": -0.56 + 0.06 * (-1.0) ** np.arange(17),
        "parting": -0.9 + 0.45 * np.abs(x - 0.4),
        "curly": -0.7 + 0.04 * np.cos(9 * x),
    }.get(person.hair_style, -0.78 + 0.15 * x**2)
    hairline = hairline + 0.35 * x**8  # sideburns
    pen.fill(np.concatenate([skull, np.stack([x * (person.width - 0.04), hairline], 1)]), person.hair)


def _draw_glasses(pen: _Pen) -> None:
    rim = (45, 40, 45)
    pen.line(_arc(0, -0.08, 0.08, -0.05), rim, 0.04)
    for side in (-1, 1):
        pen.line(_ellipse(side * 0.36, -0.06, 0.29, 0.25), rim, 0.04)
        pen.line(np.array([[0.65, -0.08], [0.8, -0.12]]) * (side, 1), rim, 0.04)


def _light_and_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float32)
    level, across, down = rng.uniform((0.8, -0.2, -0.2), (1.15, 0.2, 0.2))
    ramp = np.linspace(-1, 1, image.width)
    light = level + across * ramp[None, :] + down * ramp[:, None]
    noise = rng.uniform(1, 6) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels * light[..., None] + noise, 0, 255).astype(np.uint8))
