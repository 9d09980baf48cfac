"""Find faces in photos, and crop them like the training images."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_smile.errors import SmileModelError, first_line
from hf_smile.inference.runtimes import onnx_session

logger = logging.getLogger(__name__)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the photo; right and bottom are exclusive."""

YUNET_REPO = "opencv/face_detection_yunet"
YUNET_FILE = "face_detection_yunet_2023mar.onnx"
SMALLEST_FACE = 40
"""Side in pixels. The smallest training images are 55 pixels wide; below 40, little of the eyes is left."""

_LONGEST_SIDE = 1280
_FIRST_SIDE = 320
_LARGE = 0.15  # side of a face, relative to the longer side of the photo, that needs no second search
_BORDER = 0.25
_OVERLAP = 0.4
_LEAST_INSIDE = 0.8

# YuNet takes pictures of any size, but its file fixes height and width of the input: two dimensions with a `dim_value`
# of 128 to 16,383 in ONNX's encoding. OpenCV ignores this, ONNX Runtime does not, so each gets a name (`dim_param`).
_FIXED_SIZE = re.compile(rb"(\x0a\x03\x08[\x80-\xff][\x01-\x7f]){2}")
_ANY_SIZE = b"\x0a\x03\x12\x01h\x0a\x03\x12\x01w"
_STRIDES = (8, 16, 32)


class Face(NamedTuple):
    """A face in a photo."""

    box: Box
    """A square within the photo, cropped like a training image."""
    score: float
    """Confidence of the detector; the scale depends on the detector."""


class FaceDetector(Protocol):
    """Interface of face detectors. Threads can share one detector."""

    def detect(self, image: Image.Image) -> list[Face]:
        """Find all faces in an upright RGB photo, the largest first."""


class HaarDetector:
    """The frontal-face cascades that come with OpenCV (Viola and Jones, 2001; Lienhart and Maydt, 2002).

    One cascade proposes faces, and a second, separately trained one confirms them: the first one alone finds faces in
    foliage and in a space shuttle. Nothing is downloaded.

    The square is 1 / 0.985 times the box. This was measured on 202 real training crops with a border around them,
    because without one no box can be larger than the crop: the median box is 0.985 times their side (quartiles 0.960
    and 1.011), and is centred within 1 %. A face was found in 82 of 100 of them.

    Args:
        smallest_face: side of the smallest face to report, in pixels of the photo.

    Raises:
        SmileModelError: OpenCV is version 5, which has no cascades.

    >>> HaarDetector().detect(Image.open("grace_hopper.jpg"))  # doctest: +SKIP
    [Face(box=(146, 97, 387, 338), score=5.2)]
    """

    _LEAST_SCORE = 1.0  # most real faces score 1 to 7; foliage scored up to 0.98
    _MARGIN = 1 / 0.985

    def __init__(self, smallest_face: int = SMALLEST_FACE) -> None:
        self._propose, self._confirm = (
            _load_cascade(f"haarcascade_frontalface_{name}") for name in ("default", "alt2")
        )
        self._lock = threading.Lock()  # OpenCV's detectors keep their state between the steps of a call
        self.smallest_face = smallest_face

    def detect(self, image: Image.Image) -> list[Face]:
        """Find all faces in an upright RGB photo, the largest first."""
        scale = min(1.0, _LONGEST_SIDE / max(image.size))
        pixels, border = _for_detection(image, scale)
        grey: Any = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        smallest = max(20, round(self.smallest_face * scale))
        with self._lock:
            boxes, _, scores = self._propose.detectMultiScale3(
                grey, scaleFactor=1.1, minNeighbors=3, minSize=(smallest, smallest), outputRejectLevels=True
            )
            confirmed = [
                (_on_photo(box, scale, border), float(score))
                for box, score in zip(boxes, scores, strict=True)
                if score >= self._LEAST_SCORE and self._is_confirmed(grey, box)
            ]
        return _to_faces(confirmed, image, self._MARGIN, self.smallest_face)

    def _is_confirmed(self, grey: NDArray[Any], box: NDArray[np.int32]) -> bool:
        """Whether the second cascade finds a face of about the same size around the box."""
        left, top, side, _ = box.tolist()
        margin = round(0.3 * side)
        around = grey[max(0, top - margin) : top + side + margin, max(0, left - margin) : left + side + margin]
        shrunk: Any = cv2.resize(around, (160, 160), interpolation=cv2.INTER_AREA)
        return len(self._confirm.detectMultiScale(shrunk, scaleFactor=1.1, minNeighbors=3, minSize=(70, 70))) > 0


class YuNetDetector:
    """YuNet (Wu et al., 2023, "YuNet: A Tiny Millisecond-level Face Detector"), for turned and small faces too.

    A photo is searched at 320 pixels first, and at 1,280 if that finds no face or only small ones.

    The side of the square is 1 / 0.909 times the square root of the area of the box. This was measured as for
    `HaarDetector`, on 500 training crops; YuNet finds a face in 479 of them. The median root is 0.909 times their side
    (quartiles 0.869 and 0.964; the height of the box varies more, 0.975 to 1.122), and the box is centred within 2 %.
    Rotating the crop by the line between the eyes does not help: on 774 held-out faces the NLL was 0.005 higher.

    Args:
        weights: the .onnx file; None fetches it once from the Hub repository `opencv/face_detection_yunet`.

    Raises:
        SmileModelError: the weights can't be fetched or read.

    >>> YuNetDetector("face_detection_yunet_2023mar.onnx").detect(photo)  # doctest: +SKIP
    """

    _LEAST_SCORE = 0.8
    _MARGIN = 1 / 0.909

    def __init__(self, weights: str | Path | None = None) -> None:
        self._path = Path(weights) if weights else _fetch_yunet()
        if not self._path.is_file():
            raise SmileModelError(
                f"{self._path}: no such file; the detector must be auto, yunet, haar, or a file with YuNet's weights "
                f"({YUNET_FILE} of {YUNET_REPO} on the Hub)"
            )
        network = self._path.read_bytes()
        try:
            self._session = onnx_session(_FIXED_SIZE.sub(_ANY_SIZE, network))
            self._search(np.zeros((96, 160, 3), np.uint8))  # another network, or one of a fixed size, fails here
        except ImportError:
            raise
        except Exception as error:  # ONNX Runtime's have no common base class
            raise SmileModelError(
                f"{self._path}: ONNX Runtime can't run it as YuNet ({first_line(error)}); "
                f"use {YUNET_FILE} of {YUNET_REPO} on the Hub"
            ) from None

    def detect(self, image: Image.Image) -> list[Face]:
        """Find all faces in an upright RGB photo, the largest first."""
        faces: list[Face] = []
        longest = max(image.size)
        for side in (_FIRST_SIDE, _LONGEST_SIDE):
            scale = min(1.0, side / longest)
            pixels, border = _for_detection(image, scale)
            found = [(_on_photo(row[:4], scale, border), float(row[-1])) for row in self._search(pixels)]
            faces = _to_faces(found, image, self._MARGIN, SMALLEST_FACE) or faces
            if scale == 1 or (faces and faces[0].box[2] - faces[0].box[0] >= _LARGE * longest):
                break
        return faces

    def _search(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 5): box (left, top, width, height) and score of each face in RGB pixels, as `cv2.FaceDetectorYN`."""
        height, width, _ = pixels.shape
        sides = (-(-side // _STRIDES[-1]) * _STRIDES[-1] for side in (height, width))  # rounded up
        values = np.zeros((1, 3, *sides), np.float32)  # cv2.dnn.blobFromImage takes ten times as long
        values[0, :, :height, :width] = pixels.transpose(2, 0, 1)[::-1]  # YuNet takes BGR, 0 to 255
        names = [f"{part}_{stride}" for stride in _STRIDES for part in ("cls", "obj", "bbox")]
        outputs = [output[0] for output in self._session.run(names, {"input": values})]
        found = []
        for stride, is_face, is_object, box in zip(_STRIDES, outputs[::3], outputs[1::3], outputs[2::3], strict=True):
            scores = np.sqrt(is_face.clip(0, 1) * is_object.clip(0, 1))[:, 0]
            at = np.flatnonzero(scores >= self._LEAST_SCORE)
            cell = np.stack(np.divmod(at, values.shape[3] // stride)[::-1], axis=1)
            middle, size = cell + box[at, :2], np.exp(box[at, 2:])
            found.append(np.column_stack([stride * (middle - size / 2), stride * size, scores[at]]))
        faces = np.concatenate(found)
        whole = faces[:, :4].astype(int).tolist()
        return faces[list(cv2.dnn.NMSBoxes(whole, faces[:, 4].tolist(), self._LEAST_SCORE, 0.3))]


def make_detector(name: str = "auto") -> FaceDetector:
    """Make a detector by name: `auto`, `yunet`, `haar`, or the path of YuNet's weights.

    `auto` is YuNet with weights from the Hub, which are fetched once and cached. If they can't be fetched, it is Haar,
    with a warning.

    >>> make_detector("haar").detect(Image.new("RGB", (200, 200)))
    []
    """
    if name == "auto":
        try:
            return YuNetDetector()
        except SmileModelError as error:
            why = str(error).partition(" (")[0]
            logger.warning("Note: %s; using Haar cascades, which miss more faces", why)
    return HaarDetector() if name in ("auto", "haar") else YuNetDetector(None if name == "yunet" else name)


def _for_detection(image: Image.Image, scale: float) -> tuple[NDArray[np.uint8], int]:
    """Pixels to search, at `scale` times the size of the photo, and the width of the border around them.

    The border repeats the outermost pixels, so that faces that fill the picture are found, as in the training images.
    """
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # With the gap, whole numbers of pixels are averaged before the rest is resampled, in half the time.
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0))
    border = round(_BORDER * min(size))
    bordered: Any = cv2.copyMakeBorder(pixels, border, border, border, border, cv2.BORDER_REPLICATE)
    return bordered, border


def _on_photo(box: NDArray[Any], scale: float, border: int) -> NDArray[np.float64]:
    """Convert a box (left, top, width, height) from the pixels of `_for_detection` to those of the photo."""
    return (np.asarray(box, dtype=np.float64) - (border, border, 0, 0)) / scale


def _to_faces(
    found: list[tuple[NDArray[np.float64], float]], image: Image.Image, margin: float, smallest: int
) -> list[Face]:
    """Convert boxes (left, top, width, height) with scores to faces without overlap, the largest first."""
    kept: list[tuple[NDArray[np.float64], float]] = []
    for box, score in sorted(found, key=lambda item: -item[1]):
        photo = np.array([0.0, 0.0, *image.size])
        if (
            _overlap(box, photo) > _LEAST_INSIDE
            and max(box[2:]) >= smallest
            and all(_overlap(box, other) < _OVERLAP for other, _ in kept)
        ):
            kept.append((box, score))
    faces = [Face(_square(box, image.size, margin), score) for box, score in kept]
    return sorted(faces, key=lambda face: face.box[0] - face.box[2])


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Shared area relative to the smaller box, so that an eye detected as a face loses to the face around it."""
    shared = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    return float(np.prod(shared.clip(0)) / min(np.prod(a[2:]), np.prod(b[2:])))


def _square(box: NDArray[np.float64], size: tuple[int, int], margin: float) -> Box:
    """A square around the middle of the box, shifted into the photo, because training images are not padded."""
    side = max(1, min(round(float(np.sqrt(np.prod(box[2:]))) * margin), *size))
    left, top = (
        min(max(0, round(float(box[axis] + box[axis + 2] / 2) - side / 2)), size[axis] - side) for axis in (0, 1)
    )
    return left, top, left + side, top + side


def _load_cascade(name: str) -> Any:
    path = Path(getattr(getattr(cv2, "data", None), "haarcascades", ""), f"{name}.xml")
    if not path.is_file() or not hasattr(cv2, "CascadeClassifier"):
        raise SmileModelError('this OpenCV has no face cascades: pip install "opencv-python-headless<5"')
    return cv2.CascadeClassifier(str(path))


def _fetch_yunet() -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    if isinstance(cached := try_to_load_from_cache(YUNET_REPO, YUNET_FILE), str):
        return Path(cached)  # without asking the Hub
    try:
        # The request comes first, because the download retries for half a minute if the Hub can't be reached.
        get_hf_file_metadata(hf_hub_url(YUNET_REPO, YUNET_FILE), timeout=10)
        return Path(hf_hub_download(YUNET_REPO, YUNET_FILE))
    except (OSError, ValueError, HTTPError) as error:
        raise SmileModelError(
            f"YuNet's weights could not be fetched from the Hub ({first_line(error)}); set the detector to their file "
            f"({YUNET_FILE} of {YUNET_REPO}), or to haar, which needs no download"
        ) from None
