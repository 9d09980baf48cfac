"""Predictions for images on the command line, as a table, CSV, JSON lines, annotated pictures or heat maps."""

from __future__ import annotations

import csv
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from glob import glob
from itertools import chain, count
from pathlib import Path
from typing import Any, TextIO

from PIL import Image, ImageDraw

from hf_smile.data.images import read_file
from hf_smile.data.sources import ImageSource
from hf_smile.errors import SmileDataError
from hf_smile.inference.classifier import NamedImage, SmileClassifier, load_image
from hf_smile.inference.explain import Explainer
from hf_smile.inference.prediction import NO_FACE, SmilePrediction
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.csv_cells import guarded
from hf_smile.utils.figures import class_colors
from hf_smile.utils.files import make_folder, written_whole

logger = logging.getLogger(__name__)

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".txt": "table"}
"""Format by suffix of the output. Other suffixes are refused, so that no picture or model is overwritten."""

_LONGEST_JPEG = 65_500  # pixels, of libjpeg
_OURS = b"written by hf-smile predict"  # comment in a JPEG file, which may be overwritten by the next run
_CLIP_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")


def find_images(paths: Sequence[str]) -> tuple[int, Iterator[NamedImage]]:
    """Find the images in files, folders (with their subfolders), zips and glob patterns, in the order given.

    Returns:
        Their number, and the images, which are read lazily.

    Raises:
        SmileDataError: a path does not exist, a pattern matches no file, or a zip is broken or unsafe.

    >>> find_images(["holiday/", "more.zip", "*.jpg"])[0]  # doctest: +SKIP
    1204
    """
    sources: list[ImageSource | Path] = []
    for text in paths:
        if not text:
            raise SmileDataError("one of the paths is empty (an unset shell variable?)")
        # Path.glob does not accept absolute patterns.
        found = [text] if Path(text).exists() else sorted(glob(text, recursive=True))  # noqa: PTH207
        if not found:
            hint = "; download it first" if "://" in text else ""
            raise SmileDataError(f"{text}: no file or folder matches this path or pattern{hint}")
        matched = set(map(Path, found))
        for path in sorted(matched):
            if matched.intersection(path.parents) and path.suffix.lower() != ".zip":
                continue  # `**` also matches the folder that contains it
            sources.append(ImageSource(path) if path.is_dir() or path.suffix.lower() == ".zip" else path)
    empty = [source.why_empty for source in sources if isinstance(source, ImageSource) and not len(source)]
    total = sum(map(_count, sources))
    if not total:
        raise SmileDataError("\n".join(empty))
    for why in empty:
        logger.warning(f"Note: {why}")
    return total, chain.from_iterable(map(_images_of, sources))


def _count(source: ImageSource | Path) -> int:
    return 1 if isinstance(source, Path) else len(source) + len(_zips_in_zip(source))


def _zips_in_zip(source: ImageSource) -> list[str]:
    """The zips in a zip that has images, too. A zip in a folder is as foreign to it as any other file."""
    return source.inner_zips if len(source) and source.path.is_file() else []


def _images_of(source: ImageSource | Path) -> Iterator[NamedImage]:
    if isinstance(source, Path):
        yield NamedImage(str(source), partial(_read_image, source))
        return
    for name in source.names:
        yield NamedImage(f"{source.path}/{name}", partial(source.read, name))
    for name in _zips_in_zip(source):
        yield NamedImage(f"{source.path}/{name}", _refuse_zip)


def _refuse_zip() -> bytes:
    raise SmileDataError("a zip in a zip; unpack it first")


def _read_image(path: Path) -> bytes:
    if path.suffix.lower() in _CLIP_SUFFIXES:
        raise SmileDataError("a clip, not a picture; analyse it with: hf-smile video")
    return read_file(path)


def predict_files(
    classifier: SmileClassifier, images: Iterator[NamedImage], faces: str = "all", batch_size: int = 32
) -> Iterator[tuple[NamedImage, list[SmilePrediction]]]:
    """Predict images in order, with bounded memory. An image without a face gets one prediction with a note.

    Args:
        classifier: the classifier.
        images: images from `find_images`.
        faces, batch_size: as for `SmileClassifier.predict_photos`.
    """
    waiting: deque[NamedImage] = deque()

    def remembered() -> Iterator[NamedImage]:
        for image in images:
            waiting.append(image)
            yield image

    for predictions in classifier.predict_photos(remembered(), faces, batch_size=batch_size):
        image = waiting.popleft()
        yield image, predictions or [SmilePrediction(source=image.source, note=NO_FACE, labels=classifier.labels)]


@contextmanager
def text_output(path: Path) -> Iterator[TextIO]:
    """Context that opens a text file for writing; the file appears only if the block succeeds.

    Raises:
        SmileDataError: the suffix is not in `FORMATS`, or the file can't be written, or holds anything but verdicts.
    """
    path = path.resolve()  # a link stays a link
    if path.suffix.lower() not in FORMATS:
        raise SmileDataError(f"--output {path.name}: the name must end in {', '.join(FORMATS)}")
    if path.exists() and not path.is_file():
        raise SmileDataError(f"--output {path.name} exists and is not a file; use another name")
    if path.exists() and not _is_result(path):
        raise SmileDataError(f"--output {path.name} exists and does not hold verdicts; use another name")
    if not path.parent.is_dir():
        why = "is a file; name a folder" if path.parent.exists() else "does not exist; create it first"
        raise SmileDataError(f"--output {path.name}: the folder {path.parent} {why}")
    make_folder(path.parent)
    # A file name need not be valid text.
    with (
        written_whole(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def _is_result(path: Path) -> bool:
    """Whether a file is empty or begins like one that `make_writer` wrote."""
    with path.open("rb") as file:
        line = file.readline(20_000)  # in JSON lines, a long file name comes first
    return not line or b"predicted_label" in line or line.startswith(b"label ")


def make_writer(form: str, file: TextIO, labels: LabelSet = SMILE_LABELS) -> Callable[[SmilePrediction], object]:
    """Make a function that writes predictions with these labels to a file: `table`, `csv` or `jsonl`.

    >>> make_writer("table", sys.stdout)(SmilePrediction(source="a.jpg", error="gone"))  # doctest: +SKIP
    label           smile  genuine  image
    error               -        -  a.jpg (gone)
    """
    if form == "jsonl":
        return lambda prediction: file.write(json.dumps(prediction.to_dict(), ensure_ascii=False) + "\n")
    if form == "csv":
        writer = csv.DictWriter(file, [*_csv_row(SmilePrediction(labels=labels))], lineterminator="\n")
        writer.writeheader()
        return lambda prediction: writer.writerow(_csv_row(prediction))
    width = max(map(len, (*labels, "no face")))
    file.write("  ".join([f"{'label':<{width}}", *_answers(SmilePrediction(labels=labels)), "image"]) + "\n")
    return lambda prediction: file.write(_table_line(prediction, width) + "\n")


def _csv_row(prediction: SmilePrediction) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in prediction.to_dict().items():
        sides = zip(("left", "top", "right", "bottom"), value or [None] * 4, strict=True) if name == "box" else ()
        row |= dict(sides) if name == "box" else {name: guarded(value)}
    return row


def _answers(prediction: SmilePrediction) -> dict[str, str]:
    """The cells of a line by column heading, padded to the same width."""
    values = {"smile": prediction.p_smile, "genuine": prediction.p_genuine_given_smile}
    labels = prediction.labels
    names = ["smile"] * bool(labels.smile_ids) + ["genuine"] * labels.tells_genuine or ["sure"]
    values["sure"] = max((prediction.probabilities or {}).values(), default=None)
    widths = {name: max(len(name), 5) for name in names}
    return {
        f"{name:>{width}}": f"{'-':>{width}}" if values[name] is None else f"{values[name]:{width}.2f}"
        for name, width in widths.items()
    }


def _table_line(prediction: SmilePrediction, width: int) -> str:
    where = prediction.source or "-"
    if prediction.box:
        where += f" {prediction.box[0]},{prediction.box[1]} to {prediction.box[2]},{prediction.box[3]}"
    if remark := prediction.error or (prediction.note if prediction.label else None):
        where += f" ({remark})"
    # A file name may hold line breaks and terminal commands; a line stays a line.
    where = "".join(letter if letter.isprintable() else "?" for letter in where)
    verdict = prediction.label or ("error" if prediction.error else "no face")
    return "  ".join([f"{verdict:<{width}}", *_answers(prediction).values(), where])


def annotate(image: Image.Image, predictions: Sequence[SmilePrediction]) -> Image.Image:
    """Draw a box and the verdict of each face on a copy of the image, in the colours of the classes.

    >>> annotate(Image.new("RGB", (100, 80)), []).size
    (100, 80)
    """
    picture = image.copy()
    pen = ImageDraw.Draw(picture)
    size = max(10, min(image.size) // 30)
    for prediction in predictions:
        if prediction.label is None or prediction.probabilities is None:
            continue
        left, top, right, bottom = prediction.box or (0, 0, *image.size)
        color = class_colors(prediction.labels)[prediction.label]
        pen.rectangle((left, top, right - 1, bottom - 1), outline=color, width=max(2, size // 6))
        text = f"{prediction.label} {100 * prediction.probabilities[prediction.label]:.0f} %"
        place = left, top - 1.3 * size if top >= 1.3 * size else top
        pen.rectangle(pen.textbbox(place, text, font_size=size), fill=color)
        pen.text(place, text, fill="white", font_size=size)
    return picture


class PictureWriter:
    """Write annotated pictures and heat maps to folders. A file of another origin is never overwritten.

    The pictures of `photo.png` are `photo.jpg` and `photo_heat.jpg`, or `photo_heat_1.jpg`, `photo_heat_2.jpg` and so
    on for several faces, in the order of the predictions. A name that is taken gets a number.

    Args:
        classifier: as for `Explainer`.
        originals: images that will be written about.
        annotate: folder for the annotated pictures; created if needed.
        heat_maps: folder for the heat map of each face, for the predicted class; created if needed.

    Raises:
        SmileDataError: a folder can't be created, or contains the original pictures.
        SmileModelError: as `Explainer`.
    """

    def __init__(
        self,
        classifier: SmileClassifier,
        originals: Iterable[NamedImage] = (),
        annotate: str | Path | None = None,
        heat_maps: str | Path | None = None,
    ) -> None:
        self.annotate = _folder("--annotate", annotate, originals)
        self.heat_maps = _folder("--heat_maps", heat_maps, originals)
        self._explain = Explainer(classifier) if self.heat_maps else None
        self._stems: set[str] = set()
        self._written: set[Path] = set()

    def write(self, image: NamedImage, predictions: Sequence[SmilePrediction]) -> None:
        """Write the pictures of one image; an image that can't be read is skipped."""
        if any(prediction.error for prediction in predictions):
            return
        try:
            photo = load_image(image)
        except SmileDataError as error:  # deleted since it was classified
            logger.warning("no pictures of %s: %s", image.source, error)
            return
        stem = self._stem(image)
        if self.annotate:
            self._save(annotate(photo, predictions), self.annotate, stem)
        if self.heat_maps and self._explain:
            faces = [prediction for prediction in predictions if prediction.label is not None]
            for number, face in enumerate(faces, start=1):
                crop = photo.crop(face.box) if face.box else photo
                name = f"{stem}_heat_{number}" if len(faces) > 1 else f"{stem}_heat"
                self._save(self._explain(crop, face.label).overlay(), self.heat_maps, name)

    def _stem(self, image: NamedImage) -> str:
        # File systems allow 255 bytes; the names in a zip can be longer, and need not be valid text.
        whole = Path(image.source).stem.encode(errors="replace")[:200].decode(errors="ignore")
        stem = next(name for name in _numbered(whole) if name.lower() not in self._stems)
        self._stems.add(stem.lower())
        return stem

    def _save(self, picture: Image.Image, folder: Path, name: str) -> None:
        path = next(path for path in (folder / f"{each}.jpg" for each in _numbered(name)) if self._is_free(path))
        self._written.add(_ignoring_case(path))
        picture.thumbnail((_LONGEST_JPEG, _LONGEST_JPEG))
        with written_whole(path) as unfinished:
            picture.save(unfinished, "JPEG", quality=90, comment=_OURS)

    def _is_free(self, path: Path) -> bool:
        """Whether there is no such file, or one that an earlier run wrote."""
        if _ignoring_case(path) in self._written or path.is_symlink():
            return False
        if not path.is_file():
            return not path.exists()
        with path.open("rb") as file:
            return _OURS in file.read(1000)


def _folder(option: str, name: str | Path | None, originals: Iterable[NamedImage]) -> Path | None:
    if not name:
        return None
    folder = Path(name)
    make_folder(folder)
    if folder.resolve() in {parent.resolve() for parent in {Path(image.source).parent for image in originals}}:
        raise SmileDataError(f"{option} {folder} contains the original pictures; name another folder")
    return folder


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def _ignoring_case(path: Path) -> Path:  # as some file systems do
    return path.parent.resolve() / path.name.lower()
