"""Clips of drawn faces: tracking, times and bounded memory."""

import csv
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileDataError
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.faces import Face
from hf_smile.inference.video import (
    FaceTracker,
    analyse_video,
    mean_over_faces,
    plot_timeline,
    read_frames,
    write_analysis,
)

cv2 = pytest.importorskip("cv2")

SETTINGS = {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}


class BrightnessIsSmile:
    """A fake network: brighter pictures have a higher probability of a genuine smile."""

    pretrained_cfg = SETTINGS

    def __call__(self, pixel_values):
        light = pixel_values.mean(axis=(1, 2, 3))
        return np.stack([light * 0, 20 * light, -20 * light], axis=1)


class WholeFrame:
    """A fake detector, because real ones miss many drawn faces: one face that moves a little."""

    def detect(self, image):
        return [Face((10, 0, 10 + image.height, image.height), 1.0)]


def write_clip(path, seconds: int, smile: tuple[int, int], fps: int = 4) -> None:
    """A clip of a drawn face that is bright while it smiles."""
    faces = [np.asarray(draw_face(i, np.random.default_rng(3), size=48)) for i in (2, 1)]
    frames = [(faces[0] * 0.3).astype(np.uint8), (255 - (255 - faces[1]) * 0.3).astype(np.uint8)]
    frames = [np.ascontiguousarray(np.pad(frame, ((0, 0), (8, 8), (0, 0)))[..., ::-1]) for frame in frames]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for index in range(seconds * fps):
        writer.write(frames[smile[0] <= index / fps < smile[1]])
    writer.release()


@pytest.fixture
def classifier() -> SmileClassifier:
    return SmileClassifier(BrightnessIsSmile(), WholeFrame())


def test_ten_minutes_show_the_smile_where_it_was_drawn_in_bounded_memory(classifier, tmp_path):
    write_clip(tmp_path / "clip.avi", seconds=600, smile=(200, 260))
    tracemalloc.start()
    n = write_analysis(analyse_video(classifier, tmp_path / "clip.avi", fps=1), tmp_path / "out", fps=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 600
    with (tmp_path / "out" / "timeline.csv").open() as file:
        rows = list(csv.DictReader(file))
    smiling = [float(row["seconds"]) for row in rows if row["predicted_label"] == "positive smile"]
    assert (min(smiling), max(smiling), len(smiling)) == (200.0, 259.0, 60)
    assert {row["face"] for row in rows} == {"1"}
    (still,) = (tmp_path / "out" / "peaks").iterdir()
    assert 200 <= float(still.name.split("s_")[0]) < 260
    assert Image.open(tmp_path / "out" / "timeline.png").width > 500
    assert peak < 60e6


def test_what_is_interrupted_leaves_the_clip_before_it_whole(classifier, tmp_path):
    write_clip(tmp_path / "clip.avi", seconds=3, smile=(1, 2))
    write_analysis(analyse_video(classifier, tmp_path / "clip.avi", fps=2), tmp_path / "out", fps=2)
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert {path.suffix for path in files} == {".csv", ".png", ".jpg"}

    def interrupted():
        for frame in analyse_video(classifier, tmp_path / "clip.avi", fps=4):
            if frame.seconds >= 2:
                raise KeyboardInterrupt
            yield frame

    with pytest.raises(KeyboardInterrupt):
        write_analysis(interrupted(), tmp_path / "out", fps=4)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == files
    write_analysis(analyse_video(classifier, tmp_path / "clip.avi", 4, max_seconds=0.5), tmp_path / "out", fps=4)
    assert not list((tmp_path / "out" / "peaks").iterdir())
    assert len((tmp_path / "out" / "timeline.csv").read_text().splitlines()) == 4


class Recording:
    """A fake OpenCV capture: frames at these time stamps in milliseconds."""

    def __init__(self, stamps, size=(64, 48)):
        self.stamps, self.size, self.at = stamps, size, -1

    def get(self, what):
        known = {
            cv2.CAP_PROP_FPS: 10.0,
            cv2.CAP_PROP_FRAME_WIDTH: self.size[0],
            cv2.CAP_PROP_FRAME_HEIGHT: self.size[1],
        }
        return known[what] if what in known else self.stamps[self.at]

    def grab(self):
        self.at += 1
        return self.at < len(self.stamps)

    def retrieve(self):
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self):
        pass


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        ([0, 40, 300, 340, 5000, 5040, 5400], [0, 0.04, 0.3, 0.34, 5, 5.04, 5.4]),
        ([0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),
        ([-1, -1, -1], [0, 0.1, 0.2]),
        ([0, 100, 50, 60, 400], [0, 0.1, 0.2, 0.3, 0.4]),
        ([float("nan")] * 2, [0, 0.1]),
    ],
)
def test_frames_come_at_their_time_stamps_where_these_make_sense(monkeypatch, tmp_path, stamps, seconds):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Recording(stamps))
    found = [second for second, _ in read_frames(tmp_path / "clip.mp4", fps=1000)]
    assert found == pytest.approx(seconds)


def test_after_a_gap_no_more_frames_are_looked_at_than_asked_for(monkeypatch, tmp_path):
    (tmp_path / "clip.mp4").touch()
    stamps = [0, *range(60_000, 70_000, 40)]
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Recording(stamps))
    assert len(list(read_frames(tmp_path / "clip.mp4", fps=1))) == pytest.approx(11, abs=2)


def test_frames_that_are_too_large_are_told_before_they_are_decoded(monkeypatch, tmp_path):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Recording([0], size=(16_000, 16_000)))
    with pytest.raises(SmileDataError, match="16000 x 16000 pixels are over the limit"):
        next(read_frames(tmp_path / "clip.mp4", fps=5))


def timeline(seconds, not_smile=0.5) -> pd.DataFrame:
    columns = {"p_negative_smile": 0.2, "p_positive_smile": 0.8 - not_smile, "p_not_smile": not_smile}
    return pd.DataFrame({"seconds": seconds}).assign(**columns)


def test_a_timeline_of_any_length_keeps_its_size():
    table = pd.concat([timeline(np.arange(0, 18_000, 5.0), 0.8), timeline(np.arange(18_000, 36_000, 5.0), 0.0)])
    means = mean_over_faces(table, 0.2)
    assert 1000 < len(means) <= 2000 and means["seconds"].max() == pytest.approx(36_000, rel=0.01)
    assert means["seconds"][means["p_positive_smile"] > 0.5].min() == pytest.approx(18_000, abs=40)


def test_a_frame_is_drawn_at_its_time_and_no_frame_is_missing():
    seconds = np.arange(50) / 5
    means = mean_over_faces(pd.concat([timeline(seconds, 0.6), timeline(seconds, 0.4)]), 0.2)
    assert means["seconds"].to_numpy() == pytest.approx(seconds)
    assert means["p_not_smile"].to_numpy() == pytest.approx(0.5)


def colored_columns(path) -> np.ndarray:
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    row = picture[int(0.7 * len(picture))]  # crosses the coloured areas
    return row.max(axis=1) - row.min(axis=1) > 60


def test_the_plot_is_broken_only_where_there_is_no_face(tmp_path):
    """Two frames per second of a clip with five come at 0, 0.6, 1, 1.6, ... seconds."""
    seconds = [second + part for second in range(60) for part in (0, 0.6) if not 20 <= second < 40]
    plot_timeline(timeline(seconds), 0.5, tmp_path / "timeline.png")
    colored = np.flatnonzero(colored_columns(tmp_path / "timeline.png"))
    steps = np.diff(colored)
    assert (steps > 3).sum() == 1, "exactly one gap"
    assert steps.max() == pytest.approx((colored[-1] - colored[0]) / 3, rel=0.15)


def test_faces_keep_their_numbers_when_they_move_and_lose_them_when_they_go():
    tracker = FaceTracker()
    first = tracker.follow(0.0, [(0, 0, 40, 40), (100, 0, 140, 40)])
    moved = tracker.follow(0.2, [(95, 3, 135, 43), (6, 0, 46, 40)])
    assert [track.number for track in first] == [1, 2] and [track.number for track in moved] == [2, 1]
    assert tracker.follow(0.4, []) == []
    assert [track.number for track in tracker.follow(0.6, [(6, 0, 46, 40)])] == [1]
    for seconds in (0.8, 1.0):
        assert tracker.follow(seconds, []) == []
    assert [track.number for track in tracker.follow(9.0, [(6, 0, 46, 40)])] == [3]


def test_a_clip_with_few_frames_keeps_its_faces_and_gets_its_plot(classifier, tmp_path):
    write_clip(tmp_path / "clip.avi", seconds=16, smile=(4, 8), fps=1)
    write_analysis(analyse_video(classifier, tmp_path / "clip.avi", fps=5), tmp_path / "out", fps=5)
    assert set(pd.read_csv(tmp_path / "out" / "timeline.csv")["face"]) == {1}
    assert colored_columns(tmp_path / "out" / "timeline.png").mean() > 0.5
    tracker = FaceTracker()
    assert {tracker.follow(seconds, [(0, 0, 9, 9)])[0].number for seconds in (0.0, 10.0, 20.0)} == {1}


def test_where_faces_are_rare_the_plot_shows_none_between_them(classifier, tmp_path, monkeypatch):
    write_clip(tmp_path / "clip.avi", seconds=30, smile=(0, 30), fps=4)
    found = iter(range(10**6))
    detect = classifier.detector.detect
    monkeypatch.setattr(classifier.detector, "detect", lambda image: [] if next(found) % 40 else detect(image))
    write_analysis(analyse_video(classifier, tmp_path / "clip.avi", fps=4), tmp_path / "out", fps=4)
    assert 0 < colored_columns(tmp_path / "out" / "timeline.png").mean() < 0.2


def test_one_frame_with_a_face_is_seen_in_the_plot(tmp_path):
    plot_timeline(timeline([1.0]), 0.2, tmp_path / "timeline.png")
    assert colored_columns(tmp_path / "timeline.png").any()


def test_what_is_no_clip_is_told(classifier, tmp_path):
    (tmp_path / "text.mp4").write_text("no film")
    for name, words in (("missing.mp4", "no such file"), ("text.mp4", "no frame can be read")):
        with pytest.raises(SmileDataError, match=words):
            write_analysis(analyse_video(classifier, tmp_path / name), tmp_path / "out", fps=5)
    with pytest.raises(SmileDataError, match="fps"):
        write_analysis(analyse_video(classifier, tmp_path / "text.mp4", fps=0), tmp_path / "out", fps=5)
    assert not (tmp_path / "out").exists()


def test_a_gif_may_be_a_clip(tmp_path):
    frames = [draw_face(1, np.random.default_rng(i), size=64) for i in range(5)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=200)
    assert len(list(read_frames(tmp_path / "clip.gif", fps=5))) > 1
