"""`SmileClassifier`: face crops or photos in, verdicts out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_smile.data.images import decode_image, decoding_problem, read_file, upright_rgb
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileDataError, SmileModelError
from hf_smile.inference.prediction import SmilePrediction, verdict
from hf_smile.inference.runtimes import Runtime, load_runtime
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.model_files import HubOptions

if TYPE_CHECKING:
    from hf_smile.inference.faces import FaceDetector

PHOTO_FACES = ("largest", "all", "auto")

_BATCH_SIZE = 32


@dataclass(frozen=True)
class NamedImage:
    """An image that is read when its turn comes, under a name to show: a member of a zip, for one."""

    source: str
    read: Callable[[], bytes]
    """Gives the encoded bytes, or raises SmileDataError."""


ImageInput = str | Path | bytes | Image.Image | NDArray[np.uint8] | NamedImage

_IMAGE_TYPES = (str, Path, bytes, Image.Image, np.ndarray, NamedImage)


class SmileClassifier:
    """Tells no smile, a genuine smile and a posed smile apart. One instance may serve many threads.

    Args:
        runtime: a loaded network; `from_pretrained` makes both.
        detector: finds the faces of `predict_photo`; None for `hf_smile.inference.faces.HaarDetector`.

    >>> classifier = SmileClassifier.from_pretrained("outputs/model", runtime="onnx")  # doctest: +SKIP
    >>> classifier.predict("face.jpg")[0].label  # doctest: +SKIP
    'positive smile'
    """

    def __init__(self, runtime: Runtime, detector: FaceDetector | None = None) -> None:
        self.runtime = runtime
        self.labels: LabelSet = getattr(runtime, "labels", SMILE_LABELS)
        self.preprocess = Preprocessor(runtime.pretrained_cfg)
        self.source: str | None = None
        """Folder or id that it was loaded from."""
        self._detector = detector
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        dir_or_hub_id: str | Path,
        runtime: str = "auto",
        device: str | None = None,
        detector: FaceDetector | None = None,
        **hub: Unpack[HubOptions],
    ) -> SmileClassifier:
        """Load a model.

        Args:
            dir_or_hub_id: folder that `hf-smile train` made, or an id on the Hub.
            runtime: `torch`, `onnx`, `onnx-int8`, or `auto` for `onnx` where the model is exported and `torch` where it
                is not. ONNX imports no torch.
            device: `cpu` or `cuda`; None for a GPU where torch sees one.
            detector: finds the faces of `predict_photo`; None for the one that comes with OpenCV.
            hub: `revision`, `token` and `cache_dir` for a model on the Hub, as everywhere in the ecosystem.

        Raises:
            SmileModelError: there is no such model, runtime or device.
        """
        classifier = cls(load_runtime(dir_or_hub_id, runtime, device, **hub), detector)
        classifier.source = str(dir_or_hub_id)
        return classifier

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, revision: str | None = None
    ) -> str:
        """Publish the finished run that the model was loaded from: weights, settings, card, numbers and pictures.

        Args:
            repo_id: `owner/name`.
            private: nobody else sees it.
            token: of the Hub; the one of HF_TOKEN or `hf auth login` if None.
            revision: branch; the main one if None.

        Returns:
            The address of the model.

        Raises:
            SmileError: it was not loaded from a folder, or the Hub can't be reached or refuses.
        """
        from hf_smile import publish_model  # by its public name, because hub stands above this room

        if self.source is None or not Path(self.source).is_dir():
            raise SmileModelError(f"only a model that was loaded from its folder can be published, not {self.source}")
        return publish_model(self.source, repo_id, private, token=token, revision=revision)

    @overload
    def predict(  # type: ignore[overload-overlap]  # an iterator is an iterable too: first match wins
        self, images: Iterator[ImageInput], batch_size: int = _BATCH_SIZE
    ) -> Iterator[SmilePrediction]: ...

    @overload
    def predict(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int = _BATCH_SIZE
    ) -> list[SmilePrediction]: ...

    def predict(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int = _BATCH_SIZE
    ) -> list[SmilePrediction] | Iterator[SmilePrediction]:
        """Classify face crops.

        Args:
            images: a path, encoded bytes, a PIL image, a uint8 array (H, W, 3), a `NamedImage`; or a list or an
                iterator of them.
            batch_size: images at a time; memory grows with it and with nothing else.

        Returns:
            One prediction an image, in order. Of an iterator an iterator, which reads as it is read; else a list,
            also for a single image. An image that can't be read has its `error` there.

        Raises:
            TypeError: an image is of another type, or an array of another dtype.
            ValueError: an array has another shape, a path is a folder, or `batch_size` is not positive.

        >>> for prediction in classifier.predict(Path("faces").glob("*.jpg")):  # doctest: +SKIP
        ...     print(prediction.source, prediction.label)
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        if isinstance(images, Iterator):
            return self._predict(images, batch_size)
        if isinstance(images, _IMAGE_TYPES) or not isinstance(images, Iterable):
            return list(self._predict(iter([images]), batch_size))
        return list(self._predict(iter(images), batch_size))

    def predict_photo(
        self, image: ImageInput, faces: str = "largest", max_faces: int | None = None
    ) -> list[SmilePrediction]:
        """Find the faces of a photo and classify them, cut out as the training images are cut.

        Args:
            image: as for `predict`; turned photos are put upright by their EXIF orientation.
            faces: `largest` takes one face, `all` takes all, the largest first. `auto` takes all, and where there is
                none, the whole image if it resembles a face crop (`FaceDetector.resembles_face`); `note` says so then.
            max_faces: of all faces, so many of the largest; None for no limit.

        Returns:
            One prediction a face, each with its `box` and `detector_score`. None where there is no face. One with an
            `error` where the image can't be read.

        Raises:
            TypeError, ValueError: as for `predict`, or `faces` is not one of the three, or `max_faces` is not positive.
            SmileModelError: OpenCV is not installed.

        >>> classifier.predict_photo("grace_hopper.jpg")[0].box  # doctest: +SKIP
        (146, 97, 387, 338)
        """
        if faces not in PHOTO_FACES:
            raise ValueError(f"faces is {faces!r}; choose one of {', '.join(PHOTO_FACES)}")
        if max_faces is not None and max_faces < 1:
            raise ValueError(f"max_faces is {max_faces}; it must be at least 1")
        source = source_of(image)
        try:
            photo = load_image(image)
        except SmileDataError as error:
            return [SmilePrediction(source=source, error=str(error), labels=self.labels)]
        found = self.detector.detect(photo)
        if found:
            found = found[: 1 if faces == "largest" else max_faces]
            verdicts = self._predict((photo.crop(face.box) for face in found), _BATCH_SIZE)
            return [
                replace(crop, box=face.box, detector_score=face.score, source=source)
                for crop, face in zip(verdicts, found, strict=True)
            ]
        if faces != "auto" or not self.detector.resembles_face(photo):
            return []
        (whole,) = self._predict(iter([photo]), 1)
        note = None if whole.error else "taken for a face crop; the whole image was classified"
        return [replace(whole, source=source, note=note)]

    @property
    def detector(self) -> FaceDetector:
        """What finds the faces. OpenCV is imported when it is first needed."""
        with self._lock:
            if self._detector is None:
                from hf_smile.inference.faces import HaarDetector

                self._detector = HaarDetector()
            return self._detector

    def _predict(self, images: Iterator[ImageInput], batch_size: int) -> Iterator[SmilePrediction]:
        while batch := [self._prepare(image) for image in islice(images, batch_size)]:
            inputs = [pixel_values for _, pixel_values, _ in batch if pixel_values is not None]
            verdicts = iter(self.probabilities(np.stack(inputs)) if inputs else ())
            for source, pixel_values, error in batch:
                if pixel_values is None:
                    yield SmilePrediction(source=source, error=error, labels=self.labels)
                else:
                    yield verdict(next(verdicts), self.labels, source=source)

    def _prepare(self, image: ImageInput) -> tuple[str | None, NDArray[np.float32] | None, str | None]:
        """Source, `pixel_values (3, H, W)`, error: one of the last two is None."""
        source = source_of(image)
        try:
            return source, self.preprocess(load_image(image)), None
        except SmileDataError as error:
            return source, None, str(error)

    def probabilities(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float64]:
        """`pixel_values (N, 3, H, W) float32` -> probabilities (N, K) float64 in label id order.

        Raises:
            SmileModelError: the network fails, or its answer is no number.
        """
        logits = self.runtime(pixel_values).astype(np.float64)
        if not np.isfinite(logits).all():
            raise SmileModelError("the network answers with NaN or infinity: its weights are broken; train it anew")
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def source_of(image: ImageInput) -> str | None:
    """Path or name of an image, where it has one."""
    if isinstance(image, NamedImage):
        return image.source
    if isinstance(image, (str, Path)):
        return str(image)
    return str(getattr(image, "filename", "") or "") or None


def check_image(image: object) -> None:
    """Tell a programmer's mistake from a picture that can't be read, which is the user's and becomes an `error`.

    Raises:
        TypeError: it is of no type that images have, or an array that is not uint8.
        ValueError: it is an array that is not (H, W, 3), or a folder.

    >>> check_image(np.zeros((4, 6), np.uint8))
    Traceback (most recent call last):
    ValueError: an image array must have the shape (H, W, 3), not (4, 6)
    """
    if not isinstance(image, _IMAGE_TYPES):
        raise TypeError(f"an image must be a path, bytes, a PIL image or an array, not {type(image).__name__}")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"an image array must be uint8, 0 to 255, not {image.dtype}")
        if image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"an image array must have the shape (H, W, 3), not {image.shape}")
    # Path.is_dir raises where a name is too long.
    if isinstance(image, (str, Path)) and os.path.isdir(image):  # noqa: PTH112
        raise ValueError(f"{str(image)!r} is a folder; pass its files: Path({str(image)!r}).glob('*.jpg')")


def load_image(image: ImageInput) -> Image.Image:
    """An upright RGB image of whatever it is given as.

    Raises:
        TypeError, ValueError: as `check_image`.
        SmileDataError: it can't be read, or will not decode.

    >>> load_image(np.zeros((4, 6, 3), np.uint8)).size
    (6, 4)
    """
    check_image(image)
    if isinstance(image, NamedImage):
        return decode_image(image.read())
    if isinstance(image, (str, Path)):
        return decode_image(read_file(Path(image)))
    if isinstance(image, bytes):
        return decode_image(image)
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    try:
        image.load()
    except Exception as error:  # a file that the caller opened and that is read only now
        raise SmileDataError(f"will not decode: {decoding_problem(error)}") from None
    return upright_rgb(image)
