"""The model, loaded once, with the functions that the page and the API use. Independent of Gradio."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import is_zipfile

from PIL import Image

from hf_smile.errors import SmileDataError, SmileModelError
from hf_smile.inference.classifier import NamedImage, SmileClassifier, load_image
from hf_smile.inference.explain import Explanation, explain
from hf_smile.inference.files import find_images
from hf_smile.inference.prediction import NO_FACE, SmilePrediction
from hf_smile.inference.video import analyse_video
from hf_smile.utils.extras import needed_by

if TYPE_CHECKING:
    from hf_smile.labels import LabelSet

MAX_FACES = 20
"""Maximum number of faces per photo, the largest first."""
MAX_IMAGES = 200
"""Maximum number of images per batch."""
MAX_SECONDS = 30.0
"""Analysed length of a clip in seconds; the rest is ignored."""
FPS = 4.0
"""Analysed frames of a clip per second."""
FORGET_AFTER = 300
"""Seconds after which an upload and the state of an idle visitor are deleted."""
FORGOTTEN = "deleted after five minutes; upload it again"
"""Message for an upload that was deleted while it waited in the queue."""
_MAX_MEMBERS = 10_000  # files in a zip, because its complete list of names is read

_CROP_SIDE = 384  # pixels; larger than the input of the networks
_THUMBNAIL_SIDE = 160  # pixels; all thumbnails of a batch are kept in memory until its end


class SeenFace(NamedTuple):
    """A verdict and a small crop of its face. The complete photo would take up to 150 MB."""

    prediction: SmilePrediction
    crop: Image.Image


@dataclass
class Clip:
    """Results for a clip."""

    seconds: float = 0.0
    """Analysed length in seconds."""
    rows: list[tuple[float, str, float]] = field(default_factory=list)
    """One row per face and frame: time in seconds, person, probability of a smile in percent."""
    people: dict[str, Image.Image] = field(default_factory=dict)
    """The largest crop of each person."""
    peaks: list[tuple[float, str, SmilePrediction, Image.Image]] = field(default_factory=list)
    """The strongest moment of each smile: time in seconds, person, verdict, crop of the face."""


class Engine:
    """Answer all visitors with one model. Thread-safe.

    Args:
        model: output folder of `hf-smile train`, or an id on the Hub. An ONNX export in it runs on ONNX Runtime.
        detector: as in `SmileClassifier.from_pretrained`.

    Raises:
        SmileModelError: the model does not exist, or its ONNX file can't be run.

    >>> Engine("outputs/quickstart").look(load_image("face.jpg"))[0].prediction.label  # doctest: +SKIP
    'positive smile'
    """

    def __init__(self, model: str, detector: str = "auto") -> None:
        self.model = model
        self.classifier = SmileClassifier.from_pretrained(model, detector=detector)
        self.metrics = _metrics(model_text(model, "test_metrics.json"))

    @property
    def labels(self) -> LabelSet:
        """The labels of the model."""
        return self.classifier.labels

    def look(self, photo: Image.Image, side: int = _CROP_SIDE, whole: bool = False) -> list[SeenFace]:
        """Classify the faces in a photo.

        Args:
            photo: RGB image.
            side: maximum length of the longer side of a crop, in pixels.
            whole: whether to classify the photo as a face crop, without face detection.

        Raises:
            SmileDataError: the photo is too long and thin.
        """
        faces = "whole" if whole else "all"
        predictions = self.classifier.predict_photo(photo, faces=faces, max_faces=MAX_FACES)
        for prediction in predictions:
            if prediction.error:
                raise SmileDataError(prediction.error)
        return [SeenFace(prediction, _small(photo, prediction.box, side)) for prediction in predictions]

    def look_at_many(
        self, files: Sequence[Path | NamedImage], on_image: Callable[[int, int], object] = lambda done, total: None
    ) -> Iterator[SeenFace | SmilePrediction]:
        """Classify the faces in images and zips, file by file.

        An image without a face, or with an `error`, yields one prediction.

        Args:
            files: uploaded files, no folders, or images in memory.
            on_image: called with the number of finished images and the total number.

        Raises:
            SmileDataError: there are more than `MAX_IMAGES` images.
        """
        listed = (image for file in files for image in _images_of(file))
        images = list(islice(listed, MAX_IMAGES + 1))  # the rest is not even listed
        if len(images) > MAX_IMAGES:
            raise SmileDataError(f"upload at most {MAX_IMAGES} images at a time")
        for done, image in enumerate(images, start=1):
            if isinstance(image, SmilePrediction):
                yield replace(image, labels=self.labels)
            else:
                try:
                    faces = self.look(load_image(image), _THUMBNAIL_SIDE)
                    for face in faces:
                        yield face._replace(prediction=replace(face.prediction, source=image.source))
                    if not faces:
                        yield SmilePrediction(source=image.source, note=NO_FACE, labels=self.labels)
                except SmileDataError as error:
                    yield SmilePrediction(source=image.source, error=str(error), labels=self.labels)
            on_image(done, len(images))

    def follow(self, clip: Path) -> Iterator[Clip]:
        """Track and classify every face in a clip; yields the results so far after each frame.

        Args:
            clip: any file that OpenCV can read. Its first `MAX_SECONDS` are analysed.

        Raises:
            SmileDataError: the file is not a clip.
        """
        seen, widths = Clip(), dict[str, int]()
        try:
            for frame in analyse_video(self.classifier, clip, FPS, MAX_SECONDS):
                seen.seconds = frame.seconds
                for number, face in frame.faces:
                    name, (left, _, right, _) = f"person {number}", face.box or (0, 0, 0, 0)
                    seen.rows.append((frame.seconds, name, 100 * (face.p_smile or 0.0)))
                    if right - left > widths.get(name, 0):
                        widths[name] = right - left
                        seen.people[name] = _small(frame.picture, face.box, _THUMBNAIL_SIDE)
                for peak in frame.peaks:
                    crop = _small(peak.picture, peak.prediction.box, _CROP_SIDE)
                    seen.peaks.append((peak.seconds, f"person {peak.face}", peak.prediction, crop))
                yield seen
        except SmileDataError as error:
            raise SmileDataError(why(error, clip)) from None

    def explain(self, face: SeenFace) -> Explanation:
        """Compute where the network looked.

        Raises:
            SmileModelError: the model is not exported, and its network has no feature map.
            MissingPackageError: the model is not exported, and captum is not installed.
        """
        with needed_by("a heat map"):
            return explain(self.classifier, face.crop, face.prediction.label)

    def warm_up(self) -> threading.Thread:
        """Classify a blank picture, and explain the result in the background, because the first calls take seconds.

        Errors of the explanation are ignored here; `explain` raises them again.
        """
        blank = Image.new("RGB", (320, 240))
        self.look(blank)

        def load() -> None:
            with suppress(SmileModelError, ImportError):
                self.explain(self.look(blank, whole=True)[0])

        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        return thread


def _small(photo: Image.Image, box: tuple[int, int, int, int] | None, side: int) -> Image.Image:
    crop = photo.crop(box) if box else photo.copy()
    crop.thumbnail((side, side))
    return crop


def model_text(model: str, name: str) -> str:
    """Return the text of a file in a model (a folder or an id on the Hub); empty if the file does not exist."""
    if Path(model).is_dir():
        return Path(model, name).read_text("utf-8", "replace") if Path(model, name).is_file() else ""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model, name)).read_text("utf-8", "replace")
    except (OSError, ValueError):  # missing, or the Hub can't be reached
        return ""


def _metrics(text: str) -> dict[str, Any]:
    """Parse the metrics of a model; empty if the file, which is untrusted, is malformed."""
    try:
        metrics = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def why(error: SmileDataError, path: Path) -> str:
    """Return why an upload can't be read, without the path of the upload folder.

    >>> why(SmileDataError("can't be read: No such file or directory"), Path("gone.jpg"))
    'deleted after five minutes; upload it again'
    """
    return _without_folder(str(error), path) if path.exists() else FORGOTTEN


def _images_of(path: Path | NamedImage) -> list[NamedImage | SmilePrediction]:
    """Return the images in an uploaded file, named without the path of the upload folder."""
    if isinstance(path, NamedImage):
        return [path]
    if is_zipfile(path) and _members(path) > _MAX_MEMBERS:
        return [SmilePrediction(source=path.name, error=f"the zip has more than {_MAX_MEMBERS:,} files; split it")]
    try:
        _, images = find_images([escape(str(path))])  # uploaded names are not patterns
    except SmileDataError as error:  # a broken zip, or one without images
        return [SmilePrediction(source=path.name, error=why(error, path))]
    return [NamedImage(_without_folder(image.source, path), partial(_read, image, path)) for image in images]


def _members(path: Path) -> int:
    """Return an upper bound of the number of files in a zip, without reading its directory into memory."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return sum(1 for _ in re.finditer(rb"PK\x01\x02", data))


def _read(image: NamedImage, path: Path) -> bytes:
    try:
        return image.read()
    except SmileDataError as error:
        raise SmileDataError(why(error, path)) from None


def _without_folder(text: str, path: Path) -> str:
    return text.replace(f"{path.parent}/", "").removeprefix(f"{path.name}: ")
