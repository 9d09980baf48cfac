"""`SmileClassifier`: predictions for face crops and photos."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_smile.data.images import decode_image, decoding_problem, read_file, upright_rgb
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileDataError, SmileModelError
from hf_smile.inference.prediction import SmilePrediction, with_verdict
from hf_smile.inference.runtimes import Runtime, load_runtime
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.cores import in_order, own_cores
from hf_smile.utils.extras import needed_by
from hf_smile.utils.model_files import HubOptions

if TYPE_CHECKING:
    from hf_smile.inference.faces import FaceDetector

PHOTO_FACES = ("largest", "all", "whole")

_BATCH_SIZE = 32


@dataclass(frozen=True)
class NamedImage:
    """An image that is read when it is needed, with a name to show, for example a member of a zip."""

    source: str
    read: Callable[[], bytes]
    """Returns the encoded bytes, or raises SmileDataError."""


ImageInput = str | Path | bytes | Image.Image | NDArray[np.uint8] | NamedImage

_Searched = tuple[list[SmilePrediction], list[NDArray[np.float32]]]
"""The faces of a photo: a prediction without a verdict and `pixel_values (3, H, W)` for each."""

_IMAGE_TYPES = (str, Path, bytes, Image.Image, np.ndarray, NamedImage)


class SmileClassifier:
    """Classifier for no smile, a genuine smile and a posed smile. Threads can share one instance.

    Args:
        runtime: a loaded network; `from_pretrained` loads one.
        detector: face detector for photos, or its name; see `from_pretrained`.

    >>> classifier = SmileClassifier.from_pretrained("outputs/model", runtime="onnx")  # doctest: +SKIP
    >>> classifier.predict("face.jpg")[0].label  # doctest: +SKIP
    'positive smile'
    """

    def __init__(self, runtime: Runtime, detector: FaceDetector | str | Path = "auto") -> None:
        self.runtime = runtime
        self.labels: LabelSet = getattr(runtime, "labels", SMILE_LABELS)
        self.preprocess = Preprocessor(runtime.pretrained_cfg)
        self.source: str | None = None
        """Folder or Hub id that the model was loaded from."""
        self._detector = detector
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        dir_or_hub_id: str | Path,
        runtime: str = "auto",
        device: str | None = None,
        detector: FaceDetector | str | Path = "auto",
        **hub: Unpack[HubOptions],
    ) -> SmileClassifier:
        """Load a model.

        Args:
            dir_or_hub_id: output folder of `hf-smile train`, or Hub id.
            runtime: `torch`, `onnx`, `onnx-int8`, or `auto`: `onnx` if the model is exported, otherwise `torch`. The
                ONNX runtimes do not import torch.
            device: `cpu` or `cuda`; None for a GPU if torch finds one.
            detector: face detector for photos, or its name: `auto`, `yunet`, `haar`, or a file with YuNet's weights.
            hub: `revision`, `token` and `cache_dir` for a model on the Hub, as in transformers.

        Raises:
            TypeError: an option is unknown.
            SmileModelError: there is no such model, runtime or device.
            MissingPackageError: the model runs on torch, which is not installed.
        """
        if unknown := hub.keys() - HubOptions.__annotations__.keys():
            raise TypeError(f"from_pretrained() got an unexpected keyword argument {min(unknown)!r}")
        with needed_by(f"{cls.__name__}.from_pretrained"):
            classifier = cls(load_runtime(dir_or_hub_id, runtime, device, **hub), detector)
        classifier.source = str(dir_or_hub_id)
        return classifier

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, revision: str | None = None
    ) -> str:
        """Publish the finished run that the model was loaded from: weights, settings, card, metrics and plots.

        Args:
            repo_id: `owner/name`.
            private: whether to make the repository private.
            token: Hub token; that of HF_TOKEN or `hf auth login` if None.
            revision: branch; the main branch if None.

        Returns:
            The address of the model.

        Raises:
            SmileError: the model was not loaded from a folder, or the Hub can't be reached or refuses.
        """
        from hf_smile import publish_model  # imported lazily, because hub is above inference

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
            images: a path, encoded bytes, a PIL image, a uint8 array (H, W, 3), a `NamedImage`, or a list or iterator
                of them.
            batch_size: images per batch; memory use depends only on this.

        Returns:
            One prediction per image, in order: a lazy iterator for an iterator, otherwise a list, even for a single
            image. The prediction for an image that can't be read has an `error`.

        Raises:
            TypeError: an image has another type, or an array another dtype.
            ValueError: an array has another shape, a path is a folder, or `batch_size` is not positive.

        >>> for prediction in classifier.predict(Path("faces").glob("*.jpg")):  # doctest: +SKIP
        ...     print(prediction.source, prediction.label)
        """
        if isinstance(images, _IMAGE_TYPES) or not isinstance(images, Iterable):
            images = [images]
        verdicts = chain.from_iterable(self.predict_photos(images, "whole", batch_size=batch_size))
        return verdicts if isinstance(images, Iterator) else list(verdicts)

    def predict_photo(
        self, image: ImageInput, faces: str = "largest", max_faces: int | None = None
    ) -> list[SmilePrediction]:
        """Find the faces of a photo and classify them, cropped like the training images.

        Args:
            image: as for `predict`; photos are rotated according to their EXIF orientation.
            faces: `largest` for one face, `all` for all faces, the largest first. `whole` takes the image as a face
                crop without looking for faces, as `predict` does.
            max_faces: with `all`, the maximum number of faces; None for no limit.

        Returns:
            One prediction per face, with its `box` and `detector_score`; an empty list if there is no face. If the
            image can't be read, one prediction with an `error`. If there are more than `max_faces`, a `note` says so.

        Raises:
            TypeError, ValueError: as for `predict`, or `faces` is not one of the three, or `max_faces` is not positive.
            SmileModelError: OpenCV is version 5, and YuNet's weights can't be had.

        >>> classifier.predict_photo("grace_hopper.jpg")[0].box  # doctest: +SKIP
        (146, 97, 387, 338)
        """
        return next(self.predict_photos([image], faces, max_faces))

    def predict_photos(
        self,
        images: Iterable[ImageInput],
        faces: str = "largest",
        max_faces: int | None = None,
        batch_size: int = _BATCH_SIZE,
    ) -> Iterator[list[SmilePrediction]]:
        """`predict_photo` for many photos, in order. Several are searched in parallel, and their faces share batches.

        Memory grows with `batch_size`, the number of cores and the size of a photo, not with the number of photos.

        >>> for predictions in classifier.predict_photos(Path("holiday").glob("*.jpg")):  # doctest: +SKIP
        ...     print(len(predictions), "faces")
        """
        if isinstance(images, _IMAGE_TYPES) and not isinstance(images, np.ndarray):  # an array may hold several
            raise TypeError(
                "predict_photos takes a list or an iterator of photos; use predict_photo for a single photo"
            )
        if faces not in PHOTO_FACES:
            raise ValueError(f"faces is {faces!r}; choose one of {', '.join(PHOTO_FACES)}")
        for name, value in (("max_faces", max_faces), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        search = partial(self._search, faces=faces, most=max_faces)
        return self._judge(in_order(search, images, own_cores()), batch_size)

    def _search(self, image: ImageInput, faces: str, most: int | None) -> _Searched:
        blank = SmilePrediction(source=source_of(image), labels=self.labels)
        try:
            photo = load_image(image)
            if faces == "whole":
                return [blank], [self.preprocess(photo)]
            found = self.detector.detect(photo)
            chosen = found[: 1 if faces == "largest" else most]
            if faces == "all" and len(chosen) < len(found):
                blank = replace(blank, note=f"only the largest {len(chosen)} of {len(found)} faces were classified")
            return (
                [replace(blank, box=face.box, detector_score=face.score) for face in chosen],
                [self.preprocess(photo.crop(face.box)) for face in chosen],
            )
        except SmileDataError as error:
            return [replace(blank, error=str(error))], []

    def _judge(self, photos: Iterable[_Searched], batch_size: int) -> Iterator[list[SmilePrediction]]:
        """Classify the faces of several photos at a time."""
        waiting: list[_Searched] = []
        for photo in chain(photos, [None]):
            waiting += [photo] if photo else []
            inputs = [pixel_values for _, of_photo in waiting for pixel_values in of_photo]
            if photo and max(len(inputs), len(waiting)) < batch_size:  # a photo may have no face
                continue
            starts = range(0, len(inputs), batch_size)
            rows = chain.from_iterable(self.probabilities(np.stack(inputs[at : at + batch_size])) for at in starts)
            for faces, of_photo in waiting:
                yield [with_verdict(face, next(rows)) for face in faces] if of_photo else faces
            waiting = []

    @property
    def detector(self) -> FaceDetector:
        """The face detector. It is made, and OpenCV imported, on first use."""
        with self._lock:
            if isinstance(self._detector, (str, Path)):
                from hf_smile.inference.faces import make_detector

                self._detector = make_detector(str(self._detector))
            return self._detector

    def probabilities(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Convert `pixel_values (N, 3, H, W) float32` to probabilities (N, K) float64, in the order of label ids.

        Raises:
            SmileModelError: the network fails, or its logits are not finite.
        """
        logits = self.runtime(pixel_values).astype(np.float64)
        if not np.isfinite(logits).all():
            raise SmileModelError("the logits contain NaN or infinity, so the weights are broken; train it again")
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def source_of(image: ImageInput) -> str | None:
    """Path or name of an image, if it has one."""
    if isinstance(image, NamedImage):
        return image.source
    if isinstance(image, (str, Path)):
        return str(image)
    return str(getattr(image, "filename", "") or "") or None


def check_image(image: object) -> None:
    """Check for programming errors. An image that can't be read is the user's error, and becomes an `error` instead.

    Raises:
        TypeError: the type is not one of an image, or an array is not uint8.
        ValueError: an array does not have the shape (H, W, 3), or a path is a folder.

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
    # Path.is_dir raises if a name is too long.
    if isinstance(image, (str, Path)) and os.path.isdir(image):  # noqa: PTH112
        raise ValueError(f"{str(image)!r} is a folder; pass its files: Path({str(image)!r}).glob('*.jpg')")


def load_image(image: ImageInput) -> Image.Image:
    """Load an image as upright RGB.

    Raises:
        TypeError, ValueError: as `check_image`.
        SmileDataError: the image can't be read or decoded.

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
    except Exception as error:  # PIL reads a file that the caller opened only now
        raise SmileDataError(f"can't be decoded: {decoding_problem(error)}") from None
    return upright_rgb(image)
