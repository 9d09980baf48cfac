"""The model, loaded once, and what the page and the API ask of it. Knows nothing of Gradio."""

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
from hf_smile.inference.files import find_images
from hf_smile.inference.prediction import NO_FACE, SmilePrediction
from hf_smile.inference.runtimes import TorchRuntime
from hf_smile.inference.video import analyse_video
from hf_smile.utils.extras import needed_by

if TYPE_CHECKING:
    from hf_smile.inference.explain import Explanation
    from hf_smile.labels import LabelSet

MAX_FACES = 20
"""Faces of one photo, the largest first."""
MAX_IMAGES = 200
"""Images of one batch."""
MAX_SECONDS = 30.0
"""Of a clip; what comes later is not looked at."""
FPS = 4.0
"""Frames of a clip to look at, a second."""
FORGET_AFTER = 300
"""Seconds after which an upload is deleted, and what is known about an idle visitor forgotten."""
FORGOTTEN = "forgotten after five minutes; upload it again"
"""What is said of an upload that was deleted while it waited for its turn."""
_MAX_MEMBERS = 10_000  # of a zip, whose list of names is read whole

_CROP_SIDE = 384  # pixels; more than networks look at
_THUMBNAIL_SIDE = 160  # of a batch, whose pictures are all kept until the last one is seen


class SeenFace(NamedTuple):
    """A verdict, and the part of the photo it is about, made small: a photo takes up to 150 MB."""

    prediction: SmilePrediction
    crop: Image.Image


@dataclass
class Clip:
    """What was seen in a clip."""

    seconds: float = 0.0
    """How far it was looked at."""
    rows: list[tuple[float, str, float]] = field(default_factory=list)
    """One a face and frame: seconds, who it is, probability of a smile in percent."""
    people: dict[str, Image.Image] = field(default_factory=dict)
    """What each of them looks like, at their largest."""
    peaks: list[tuple[float, str, SmilePrediction, Image.Image]] = field(default_factory=list)
    """When each smile was at its strongest, whose it was, the verdict, and the face."""


class Engine:
    """Answers every visitor with one model. Threads may share it.

    Args:
        model: folder that `hf-smile train` made, or an id on the Hub. ONNX Runtime runs it where it is exported.

    Raises:
        SmileModelError: there is no such model, or its ONNX file can't be run.

    >>> Engine("outputs/quickstart").look(load_image("face.jpg"))[0].prediction.label  # doctest: +SKIP
    'positive smile'
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.classifier = SmileClassifier.from_pretrained(model)
        self._on_torch = self.classifier if isinstance(self.classifier.runtime, TorchRuntime) else None
        self._lock = threading.Lock()
        self.metrics = _metrics(model_file(model, "test_metrics.json"))

    @property
    def labels(self) -> LabelSet:
        """Of the model."""
        return self.classifier.labels

    def look(self, photo: Image.Image, side: int = _CROP_SIDE, whole: bool = False) -> list[SeenFace]:
        """The faces of a photo.

        Args:
            photo: RGB.
            side: pixels that the longer side of a crop has at most.
            whole: take the photo for a face that was cut out, and look for none in it.

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
        self, paths: Sequence[Path], on_image: Callable[[int, int], object] = lambda done, total: None
    ) -> Iterator[SeenFace | SmilePrediction]:
        """The faces of images and zips, file by file; one prediction for an image without a face or with an `error`.

        Args:
            paths: uploaded files, no folders.
            on_image: told how many images are done, and of how many.

        Raises:
            SmileDataError: there are more than `MAX_IMAGES` images.
        """
        listed = (image for path in paths for image in _images_of(path))
        images = list(islice(listed, MAX_IMAGES + 1))  # what is beyond it is not even looked for
        if len(images) > MAX_IMAGES:
            raise SmileDataError(f"these are too many images: at most {MAX_IMAGES} at a time")
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
        """Every face through a clip: what was seen so far, after each frame.

        Args:
            clip: any file that OpenCV can read; its first `MAX_SECONDS` are looked at.

        Raises:
            SmileDataError: it is no clip.
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
        """Where the network looked. The first call loads it in torch, which takes seconds.

        Raises:
            SmileModelError: the network has no feature map.
            MissingPackageError: torch or captum is not installed.
        """
        with needed_by("a heat map"):
            from hf_smile.inference.explain import explain

            return explain(self._torch_classifier(), face.crop, face.prediction.label)

    def warm_up(self) -> threading.Thread:
        """Look at something, and explain it in the background: the first time takes seconds.

        What is wrong with explaining, `explain` says.
        """
        blank = Image.new("RGB", (320, 240))
        self.look(blank)

        def load() -> None:
            with suppress(SmileModelError, ImportError):
                self.explain(self.look(blank, whole=True)[0])

        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        return thread

    def _torch_classifier(self) -> SmileClassifier:
        with self._lock:
            if self._on_torch is None:
                self._on_torch = SmileClassifier.from_pretrained(self.model, runtime="torch")
            return self._on_torch


def _small(photo: Image.Image, box: tuple[int, int, int, int] | None, side: int) -> Image.Image:
    crop = photo.crop(box) if box else photo.copy()
    crop.thumbnail((side, side))
    return crop


def model_file(model: str, name: str) -> str:
    """The text of a file of the model, a folder or an id on the Hub; empty where it has none."""
    if Path(model).is_dir():
        return Path(model, name).read_text("utf-8", "replace") if Path(model, name).is_file() else ""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model, name)).read_text("utf-8", "replace")
    except (OSError, ValueError):  # not there, or no way to the Hub
        return ""


def _metrics(text: str) -> dict[str, Any]:
    """What a model was measured to do; empty where anybody may have written it."""
    try:
        metrics = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def why(error: SmileDataError, path: Path) -> str:
    """Why an upload can't be read, without the folder it was put into.

    >>> why(SmileDataError("can't be read: No such file or directory"), Path("gone.jpg"))
    'forgotten after five minutes; upload it again'
    """
    return _without_folder(str(error), path) if path.exists() else FORGOTTEN


def _images_of(path: Path) -> list[NamedImage | SmilePrediction]:
    """The images of an uploaded file under names without the folder it was put into."""
    if is_zipfile(path) and _members(path) > _MAX_MEMBERS:
        return [SmilePrediction(source=path.name, error=f"a zip of more than {_MAX_MEMBERS:,} files; pack less")]
    try:
        _, images = find_images([escape(str(path))])  # a visitor's path is never a pattern
    except SmileDataError as error:  # a broken zip, or one without images
        return [SmilePrediction(source=path.name, error=why(error, path))]
    return [NamedImage(_without_folder(image.source, path), partial(_read, image, path)) for image in images]


def _members(path: Path) -> int:
    """At least as many as a zip has, without reading its directory into memory."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return sum(1 for _ in re.finditer(rb"PK\x01\x02", data))


def _read(image: NamedImage, path: Path) -> bytes:
    try:
        return image.read()
    except SmileDataError as error:
        raise SmileDataError(why(error, path)) from None


def _without_folder(text: str, path: Path) -> str:
    return text.replace(f"{path.parent}/", "")
