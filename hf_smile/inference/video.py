"""A clip -> probabilities over time for every face, a timeline, and a still of each smile at its peak."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from hf_smile.data.images import IMAGE_SUFFIXES, MAX_PIXELS
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.schema import probability_columns
from hf_smile.inference.classifier import SmileClassifier, SmilePrediction
from hf_smile.inference.files import annotate
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.figures import class_colors, new_figure, save_figure

SMILE_FROM = 0.5
"""A face smiles while its `p_smile` is at least this."""

_SAME_FACE = 0.3  # intersection over union of the boxes
_FORGET_AFTER = 1.0  # seconds, or two frames where these are further apart
_MOST_BINS = 2000


@dataclass
class _Track:
    """A face that is followed, and the best moment of the smile it is in."""

    number: int
    box: tuple[int, int, int, int]
    seconds: float
    peak: float = 0.0
    peak_seconds: float = 0.0
    still: Image.Image | None = None


class FaceTracker:
    """Gives the faces of a frame the numbers they had in the frame before, by overlap, the best overlap first.

    >>> tracker = FaceTracker()
    >>> [track.number for track in tracker.follow(0.0, [(0, 0, 10, 10)])]
    [1]
    >>> [track.number for track in tracker.follow(0.2, [(50, 0, 60, 10), (1, 0, 11, 10)])]
    [2, 1]
    """

    def __init__(self, forget_after: float = _FORGET_AFTER, on_lost: Callable[[_Track], None] | None = None) -> None:
        self._forget_after, self._on_lost = forget_after, on_lost
        self._tracks: list[_Track] = []
        self._count = 0

    def follow(self, seconds: float, boxes: list[tuple[int, int, int, int]]) -> list[_Track]:
        """The track of each box, in the order of the boxes."""
        self.forget(lambda track: seconds - track.seconds > self._forget_after)
        pairs = [
            (_overlap(track.box, box), t, b) for t, track in enumerate(self._tracks) for b, box in enumerate(boxes)
        ]
        found: dict[int, _Track] = {}
        taken: set[int] = set()
        for overlap, t, b in sorted(pairs, reverse=True):
            if overlap >= _SAME_FACE and t not in taken and b not in found:
                taken.add(t)
                found[b] = self._tracks[t]
        for b, box in enumerate(boxes):
            if b not in found:
                self._count += 1
                found[b] = _Track(self._count, box, seconds)
                self._tracks.append(found[b])
            found[b].box, found[b].seconds = box, seconds
        return [found[b] for b in range(len(boxes))]

    def forget(self, is_lost: Callable[[_Track], bool] = lambda _: True) -> None:
        """Let go of the tracks that are lost: of all, at the end of the clip."""
        lost = [track for track in self._tracks if is_lost(track)]
        self._tracks = [track for track in self._tracks if track not in lost]
        for track in lost:
            if self._on_lost:
                self._on_lost(track)


class _Timeline:
    """The mean probabilities of a face over time, in at most `_MOST_BINS` bins however long the clip is."""

    def __init__(self, bin_seconds: float, classes: int) -> None:
        self.bin_seconds = bin_seconds
        self._sums = np.zeros((_MOST_BINS, classes + 2))  # of the probabilities, of the times; how many

    def add(self, seconds: float, probabilities: list[float]) -> None:
        # 0.6 / 0.2 is 2.9999...
        while (index := int(seconds / self.bin_seconds + 1e-6)) >= _MOST_BINS:
            pairs = self._sums.reshape(_MOST_BINS // 2, 2, -1).sum(axis=1)
            self._sums = np.concatenate([pairs, np.zeros_like(pairs)])
            self.bin_seconds *= 2
        self._sums[index] += [*probabilities, seconds, 1.0]

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Seconds (K,), and mean probabilities (K, C), of the bins with a face."""
        (filled,) = np.nonzero(self._sums[:, -1])
        means = self._sums[filled, :-1] / self._sums[filled, -1:]
        return means[:, -1], means[:, :-1]


def analyse_video(
    classifier: SmileClassifier,
    clip: str | Path,
    output_dir: str | Path,
    fps: float = 5.0,
    on_frame: Callable[[float], None] | None = None,
    max_seconds: float = float("inf"),
) -> int:
    """Follow every face through a clip. One frame is held at a time, and one still for each smiling face in it.

    Everything gets its place when all of it is there: what is interrupted leaves the folder as it was.

    Args:
        classifier: does the work.
        clip: any file that OpenCV can read.
        output_dir: gets `timeline.csv` (one row a face and frame), `timeline.png` (mean over the faces) and
            `peaks/<seconds>s_face<number>.jpg`, the moment of each smile at which `p_smile` is highest.
        fps: frames to look at, a second.
        on_frame: told the time of each frame, in seconds.
        max_seconds: what comes later is not looked at.

    Returns:
        The number of frames looked at.

    Raises:
        SmileDataError: the clip can't be read, its frames are too large, or `fps` is not positive.

    >>> analyse_video(classifier, "holiday.mp4", "outputs/holiday")  # doctest: +SKIP
    3000
    """
    if not fps > 0:
        raise SmileDataError(f"fps is {fps}; it must be above 0")
    frames = read_frames(clip, fps)
    first = next(frames)  # a clip that can't be read leaves no folder behind
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished_", dir=output_dir) as unfinished:
        n = _analyse(classifier, chain([first], frames), Path(unfinished), fps, on_frame, max_seconds)
        _replace(Path(unfinished), Path(output_dir))
    return n


def _replace(unfinished: Path, folder: Path) -> None:
    """Put what was written into its place, instead of what an earlier clip left there."""
    (folder / "peaks").mkdir(exist_ok=True)
    for still in (folder / "peaks").glob("*s_face*.jpg"):
        still.unlink()
    for path in sorted(unfinished.rglob("*.*")):
        path.replace(folder / path.relative_to(unfinished))


def _analyse(
    classifier: SmileClassifier,
    frames: Iterator[tuple[float, Image.Image]],
    folder: Path,
    fps: float,
    on_frame: Callable[[float], None] | None,
    max_seconds: float,
) -> int:
    (folder / "peaks").mkdir()
    timeline = _Timeline(1 / fps, len(classifier.labels))

    def save_peak(track: _Track) -> None:
        if track.still is not None:
            track.still.save(folder / "peaks" / f"{track.peak_seconds:08.2f}s_face{track.number}.jpg", quality=90)
        track.still, track.peak = None, 0.0

    tracker = FaceTracker(max(_FORGET_AFTER, 2 / fps), save_peak)
    n = 0
    with (folder / "timeline.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        probabilities_of = probability_columns(classifier.labels).values()
        writer.writerow(["seconds", "face", "predicted_label", *probabilities_of, "left", "top", "right", "bottom"])
        for seconds, image in takewhile(lambda frame: frame[0] <= max_seconds, frames):
            predictions = [face for face in classifier.predict_photo(image, faces="all") if face.box]
            tracks = tracker.follow(seconds, [face.box for face in predictions if face.box])
            for track, prediction in zip(tracks, predictions, strict=True):
                probabilities = list((prediction.probabilities or {}).values())
                writer.writerow([round(seconds, 3), track.number, prediction.label, *probabilities, *track.box])
                timeline.add(seconds, probabilities)
                if (prediction.p_smile or 0.0) < SMILE_FROM:
                    save_peak(track)
                elif (prediction.p_smile or 0.0) > track.peak:
                    _remember(track, seconds, image, prediction)
            n += 1
            if on_frame:
                on_frame(seconds)
    tracker.forget()
    plot_timeline(*timeline.points(), 2 * timeline.bin_seconds, folder / "timeline.png", classifier.labels)
    return n


def _remember(track: _Track, seconds: float, image: Image.Image, prediction: SmilePrediction) -> None:
    track.peak, track.peak_seconds = prediction.p_smile or 0.0, seconds
    track.still = annotate(image, [prediction])


def read_frames(clip: str | Path, fps: float) -> Iterator[tuple[float, Image.Image]]:
    """Seconds and RGB picture of `fps` frames a second, or of every frame where the clip has fewer.

    The seconds are the clip's own time stamps, which phones space unevenly; where these are missing or run backwards,
    they go on at the clip's frame rate.

    Raises:
        SmileDataError: there is no such file, it is a picture, OpenCV sees no frame in it, or a frame has over
            `MAX_PIXELS` pixels.
    """
    try:
        import cv2
    except ImportError:
        raise SmileDataError('clips need OpenCV: pip install "opencv-python-headless<5"') from None
    if not Path(clip).is_file():
        raise SmileDataError(f"{clip}: {'a folder, not a clip' if Path(clip).is_dir() else 'no such file'}")
    if (
        Path(clip).suffix.lower() in IMAGE_SUFFIXES
    ):  # OpenCV would take it, and all that are numbered like it, for frames
        raise SmileDataError(f"{clip}: a picture, not a clip; classify its faces with: hf-smile predict")
    capture = cv2.VideoCapture(str(clip))
    try:
        width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            raise SmileDataError(f"{clip}: frames of {width} x {height} pixels are over the limit of {MAX_PIXELS:,}")
        own_fps = capture.get(cv2.CAP_PROP_FPS)
        own_fps = own_fps if 0 < own_fps < 1000 else 25.0  # some containers do not say
        seconds, due = -1 / own_fps, 0.0
        while capture.grab():
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = stamp if stamp > max(seconds, -1e-6) else seconds + 1 / own_fps
            if seconds >= due - 1e-6:  # only frames that are looked at are decoded
                ok, pixels = capture.retrieve()
                if ok:
                    yield seconds, Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
                    due = max(due + 1 / fps, seconds)  # after a gap, no catching up
        if due == 0.0:
            raise SmileDataError(f"{clip}: OpenCV can read no frame of it; is it a video?")
    finally:
        capture.release()


def plot_timeline(
    seconds: np.ndarray,
    probabilities: np.ndarray,
    longest_step: float,
    path: str | Path,
    labels: LabelSet = SMILE_LABELS,
) -> None:
    """Probabilities (K, C) over seconds (K,), stacked: all smiles together lie below the top area.

    A step of more than `longest_step` seconds is a time without a face; the areas do not bridge it.
    """
    figure = new_figure(9.0, 3.2)
    axes = figure.subplots()
    order = sorted(range(len(labels)), key=lambda label_id: (label_id not in labels.smile_ids, -label_id))
    colors = class_colors(labels)
    if len(seconds):
        gaps = np.nonzero(np.diff(seconds) > longest_step)[0] + 1
        for x, p in zip(np.split(seconds, gaps), np.split(probabilities, gaps), strict=True):
            axes.stackplot(
                *(x, *(p[:, i] for i in order)),
                labels=[labels[i] for i in order] if x[0] == seconds[0] else [],
                colors=[colors[labels[i]] for i in order],
                alpha=0.85,
            )
        axes.legend(loc="upper right", fontsize=8)
    axes.set(xlabel="seconds", ylabel="probability, mean over faces", ylim=(0, 1))
    save_figure(figure, path)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union."""
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared) if shared else 0.0
