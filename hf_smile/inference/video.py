"""Analyse a clip: probabilities over time for every face, a timeline, and a still of each smile at its peak."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise, takewhile
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd
from PIL import Image

from hf_smile.data.images import IMAGE_SUFFIXES, MAX_PIXELS
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.schema import probability_columns
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.files import annotate
from hf_smile.inference.prediction import SmilePrediction
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.figures import class_colors, new_figure, save_figure
from hf_smile.utils.files import make_folder

SMILE_FROM = 0.5
"""A face counts as smiling while its `p_smile` is at least this."""

_SAME_FACE = 0.3  # intersection over union of the boxes
_FORGET_AFTER = 1.0  # seconds, or two frames if these are longer
_MOST_POINTS = 2000  # in the plot


class Peak(NamedTuple):
    """The moment of a smile at which `p_smile` is highest."""

    seconds: float
    face: int
    prediction: SmilePrediction
    """The prediction for this face."""
    picture: Image.Image
    """The frame."""


class Frame(NamedTuple):
    """The result for one frame of a clip."""

    seconds: float
    faces: list[tuple[int, SmilePrediction]]
    """The number of each face, which stays the same through the clip, and its prediction."""
    peaks: list[Peak]
    """Peaks of the smiles that end with this frame."""
    picture: Image.Image
    """The frame itself."""


@dataclass
class _Track:
    """A tracked face, and the peak of its current smile."""

    number: int
    box: tuple[int, int, int, int]
    seconds: float
    frame: int = 0
    """When the face was seen last."""
    p_peak: float = 0.0
    peak: Peak | None = None

    def end_smile(self) -> list[Peak]:
        peaks = [self.peak] if self.peak else []
        self.p_peak, self.peak = 0.0, None
        return peaks


class FaceTracker:
    """Give faces the numbers that they had in the previous frame, matched by overlap, the largest overlap first.

    >>> tracker = FaceTracker()
    >>> [track.number for track in tracker.follow(0.0, [(0, 0, 10, 10)])]
    [1]
    >>> [track.number for track in tracker.follow(0.2, [(50, 0, 60, 10), (1, 0, 11, 10)])]
    [2, 1]
    """

    def __init__(self, on_lost: Callable[[_Track], None] | None = None) -> None:
        self._on_lost = on_lost
        self._tracks: list[_Track] = []
        self._count = 0
        self._frame = 0

    def follow(self, seconds: float, boxes: list[tuple[int, int, int, int]]) -> list[_Track]:
        """The track of each box, in the order of the boxes."""
        self._frame += 1
        self.forget(lambda track: seconds - track.seconds > _FORGET_AFTER and self._frame - track.frame > 2)
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
            found[b].box, found[b].seconds, found[b].frame = box, seconds, self._frame
        return [found[b] for b in range(len(boxes))]

    def forget(self, is_lost: Callable[[_Track], bool] = lambda _: True) -> None:
        """Drop lost tracks; by default all of them, as at the end of the clip."""
        lost = [track for track in self._tracks if is_lost(track)]
        self._tracks = [track for track in self._tracks if track not in lost]
        for track in lost:
            if self._on_lost:
                self._on_lost(track)


def analyse_video(
    classifier: SmileClassifier, clip: str | Path, fps: float = 5.0, max_seconds: float = float("inf")
) -> Iterator[Frame]:
    """Track every face through a clip. Memory holds one frame, and one still per smiling face.

    Args:
        classifier: the classifier.
        clip: any video file that OpenCV can read.
        fps: frames to analyse per second.
        max_seconds: later frames are not analysed.

    Raises:
        SmileDataError: the clip can't be read, its frames are too large, or `fps` is not positive.

    >>> for frame in analyse_video(classifier, "holiday.mp4"):  # doctest: +SKIP
    ...     print(frame.seconds, [prediction.label for _, prediction in frame.faces])
    """
    if not fps > 0:
        raise SmileDataError(f"fps is {fps}; it must be above 0")
    ended: list[Peak] = []
    tracker = FaceTracker(on_lost=lambda track: ended.extend(track.end_smile()))
    frame: Frame | None = None
    for seconds, image in takewhile(lambda frame: frame[0] <= max_seconds, read_frames(clip, fps)):
        if frame is not None:
            yield frame
        predictions = [face for face in classifier.predict_photo(image, faces="all") if face.box]
        tracks = tracker.follow(seconds, [face.box for face in predictions if face.box])
        for track, prediction in zip(tracks, predictions, strict=True):
            p_smile = prediction.p_smile or 0.0
            if p_smile < SMILE_FROM:
                ended += track.end_smile()
            elif p_smile > track.p_peak:
                track.p_peak, track.peak = p_smile, Peak(seconds, track.number, prediction, image)
        numbered = [(track.number, face) for track, face in zip(tracks, predictions, strict=True)]
        frame = Frame(seconds, numbered, [*ended], image)
        ended.clear()
    if frame is not None:
        tracker.forget()
        yield frame._replace(peaks=frame.peaks + ended)


def write_analysis(frames: Iterable[Frame], output_dir: str | Path, fps: float, labels: LabelSet = SMILE_LABELS) -> int:
    """Write the results of `analyse_video` as they come.

    Files are moved into the folder at the end, so an interruption leaves it unchanged.

    Args:
        frames: frames from `analyse_video`.
        output_dir: folder for `timeline.csv` (one row per face and frame), `timeline.png` (mean over the faces) and
            `peaks/<seconds>s_face<number>.jpg`.
        fps: frames per second, as in `analyse_video`.
        labels: labels of the classifier.

    Returns:
        The number of frames.

    >>> write_analysis(analyse_video(classifier, "holiday.mp4"), "outputs/holiday", fps=5)  # doctest: +SKIP
    3000
    """
    frames = iter(frames)
    first = next(frames)  # a clip that can't be read leaves no folder behind
    make_folder(output_dir)
    n = 0
    with TemporaryDirectory(prefix=".unfinished_", dir=output_dir) as name:
        unfinished = Path(name)
        (unfinished / "peaks").mkdir()
        with (unfinished / "timeline.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            columns = probability_columns(labels).values()
            writer.writerow(["seconds", "face", "predicted_label", *columns, "left", "top", "right", "bottom"])
            times = []
            for frame in chain([first], frames):
                times.append(frame.seconds)
                for number, face in frame.faces:
                    probabilities = (face.probabilities or {}).values()
                    writer.writerow([round(frame.seconds, 3), number, face.label, *probabilities, *(face.box or ())])
                for peak in frame.peaks:
                    still = unfinished / "peaks" / f"{peak.seconds:08.2f}s_face{peak.face}.jpg"
                    annotate(peak.picture, [peak.prediction]).save(still, quality=90)
                n += 1
        table = pd.read_csv(unfinished / "timeline.csv", usecols=["seconds", *columns])
        distances = [after - before for before, after in pairwise(times)]
        step = max(1 / fps, median(distances or [0]))  # a clip may have fewer frames per second
        plot_timeline(table, step, unfinished / "timeline.png", labels)
        _replace(unfinished, Path(output_dir))
    return n


def _replace(unfinished: Path, folder: Path) -> None:
    """Move the finished files into the folder, replacing those of an earlier clip."""
    (folder / "peaks").mkdir(exist_ok=True)
    for still in (folder / "peaks").glob("*s_face*.jpg"):
        still.unlink()
    for path in sorted(unfinished.rglob("*.*")):
        path.replace(folder / path.relative_to(unfinished))


def read_frames(clip: str | Path, fps: float) -> Iterator[tuple[float, Image.Image]]:
    """Time in seconds and RGB picture of `fps` frames per second, or of every frame if the clip has fewer.

    Times are the clip's own time stamps, which phones space unevenly. If these are missing or run backwards, times
    continue at the clip's frame rate.

    Raises:
        SmileDataError: there is no such file, it is a picture, OpenCV finds no frame in it, or a frame has more than
            `MAX_PIXELS` pixels.
    """
    import cv2

    if not Path(clip).is_file():
        raise SmileDataError(f"{clip}: {'a folder, not a clip' if Path(clip).is_dir() else 'no such file'}")
    # OpenCV would read a picture, and all pictures numbered like it, as frames. A GIF may be a clip.
    if (suffix := Path(clip).suffix.lower()) in IMAGE_SUFFIXES and suffix != ".gif":
        raise SmileDataError(f"{clip}: a picture, not a clip; classify its faces with: hf-smile predict")
    capture = cv2.VideoCapture(str(clip))
    try:
        width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            raise SmileDataError(f"{clip}: frames of {width} x {height} pixels are over the limit of {MAX_PIXELS:,}")
        own_fps = capture.get(cv2.CAP_PROP_FPS)
        own_fps = own_fps if 0 < own_fps < 1000 else 25.0  # some containers lack it
        seconds, due = -1 / own_fps, 0.0
        while capture.grab():
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = stamp if stamp > max(seconds, -1e-6) else seconds + 1 / own_fps
            if seconds >= due - 1e-6:  # other frames are not decoded
                ok, pixels = capture.retrieve()
                if ok:
                    yield seconds, Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
                    due = max(due + 1 / fps, seconds)  # do not catch up after a gap
        if due == 0.0:
            raise SmileDataError(f"{clip}: no frame can be read; the file is damaged or not a video")
    finally:
        capture.release()


def mean_over_faces(table: pd.DataFrame, step: float) -> pd.DataFrame:
    """Mean of a timeline's columns for every `step` seconds, or for longer steps to get at most 2,000 rows."""
    step = max(step, 1.001 * table["seconds"].max() / _MOST_POINTS) if len(table) else step
    means = table.groupby((table["seconds"] / step + 1e-6).astype(int)).mean()  # 0.6 / 0.2 is 2.9999...
    return means.assign(gap=means["seconds"].diff() > 2 * step)


def plot_timeline(table: pd.DataFrame, step: float, path: str | Path, labels: LabelSet = SMILE_LABELS) -> None:
    """Plot mean probabilities over time as stacked areas, the smiles at the bottom.

    Args:
        table: `seconds` and the probabilities, one row per face and frame.
        step: seconds between two frames. The areas are interrupted where no face is found for more than two steps.
        path: PNG to write.
        labels: labels of the classifier.
    """
    figure = new_figure(9.0, 3.2)
    axes = figure.subplots()
    columns, colors = probability_columns(labels), class_colors(labels)
    by_id = sorted(range(len(labels)), key=lambda label_id: (label_id not in labels.smile_ids, -label_id))
    order = [labels[label_id] for label_id in by_id]
    means = mean_over_faces(table, step)
    for number, part in means.groupby(means["gap"].cumsum()):
        if len(part) == 1:  # an area needs a width
            part = pd.concat([part.assign(seconds=part["seconds"] + side * step / 2) for side in (-1, 1)])
        axes.stackplot(
            part["seconds"],
            *(part[columns[name]] for name in order),
            labels=[] if number else order,
            colors=[colors[name] for name in order],
            alpha=0.85,
        )
    if len(means):
        axes.legend(loc="upper right", fontsize=8)
    axes.set(xlabel="seconds", ylabel="probability, mean over faces", ylim=(0, 1))
    save_figure(figure, path)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union."""
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared) if shared else 0.0
