"""Phones store photos as the sensor saw them, with an EXIF orientation. Every code path must apply it exactly once."""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

from hf_smile.commands.main import main
from hf_smile.inference.classifier import NamedImage, SmileClassifier

ROOT = Path(__file__).parents[2]
# The inverse of each orientation: the stored picture is upright again after applying its EXIF orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
FORMATS = {"jpg": {"quality": 98, "subsampling": 0}, "png": {}, "webp": {"lossless": True}}


@pytest.fixture(scope="module")
def hopper() -> Image.Image:
    """A portrait that is not square, with a face that the detector only finds upright."""
    photo = Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB")
    return photo.crop((100, 40, photo.width - 60, 480))


@pytest.fixture(scope="module", params=["torch", "onnx"])
def classifier(request, model_dir) -> SmileClassifier:
    return SmileClassifier.from_pretrained(model_dir, runtime=request.param)


def stored(upright: Image.Image, orientation: int, suffix: str) -> bytes:
    turn, exif, file = STORED[orientation], Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture = upright if turn is None else upright.transpose(turn)
    picture.save(file, {"jpg": "JPEG"}.get(suffix, suffix.upper()), exif=exif, **FORMATS[suffix])
    return file.getvalue()


def numbers(prediction) -> list[float]:
    return list(prediction.probabilities.values())


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("orientation", STORED)
def test_every_road_gives_the_verdict_of_the_upright_picture(hopper, classifier, tmp_path, orientation, suffix):
    data = stored(hopper, orientation, suffix)
    path = tmp_path / f"face.{suffix}"
    path.write_bytes(data)
    crop = numbers(classifier.predict(hopper)[0])
    (photo,) = classifier.predict_photo(hopper)
    for road in (data, path, str(path), Image.open(path), NamedImage("face", lambda: data)):
        assert np.allclose(numbers(classifier.predict(road)[0]), crop, atol=0.01), type(road)
        (found,) = classifier.predict_photo(road)
        assert np.abs(np.subtract(found.box, photo.box)).max() <= 3, type(road)
        assert np.allclose(numbers(found), numbers(photo), atol=0.05), type(road)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("orientation", STORED)
def test_the_command_line_turns_it_too(hopper, model_dir, tmp_path, monkeypatch, orientation, suffix):
    path = tmp_path / f"face.{suffix}"
    path.write_bytes(stored(hopper, orientation, suffix))
    (expected,) = SmileClassifier.from_pretrained(model_dir, runtime="onnx").predict_photo(hopper)
    output = tmp_path / "found.jsonl"
    words = ["predict", path, "--model", model_dir, "--faces", "all", "--output", output]
    monkeypatch.setattr(sys, "argv", ["hf-smile", *map(str, words)])
    with contextlib.suppress(SystemExit):
        main()
    found = json.loads(output.read_text())
    assert found["p_smile"] == pytest.approx(expected.p_smile, abs=0.05)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("orientation", STORED)
def test_the_space_turns_it_too(hopper, model_dir, tmp_path, monkeypatch, orientation, suffix):
    pytest.importorskip("gradio")
    monkeypatch.setattr(sys, "path", [str(ROOT / "space"), *sys.path])
    from engine import Engine

    from hf_smile.inference.classifier import load_image

    path = tmp_path / f"face.{suffix}"
    path.write_bytes(stored(hopper, orientation, suffix))
    engine = Engine(str(model_dir))
    (expected,) = engine.look(hopper)
    (found,) = engine.look(load_image(path))
    assert found.prediction.p_smile == pytest.approx(expected.prediction.p_smile, abs=0.05)


def test_a_still_of_a_clip_asks_for_no_turn(hopper, model_dir, tmp_path):
    cv2 = pytest.importorskip("cv2")
    from hf_smile.inference.video import analyse_video, write_analysis

    frame = np.asarray(hopper)[:, :, ::-1].copy()
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 2, (hopper.width, hopper.height)
    )
    for _ in range(8):
        writer.write(frame)
    writer.release()
    classifier = SmileClassifier.from_pretrained(model_dir, runtime="onnx")
    (photo,) = classifier.predict_photo(hopper)
    write_analysis(analyse_video(classifier, tmp_path / "clip.avi"), tmp_path / "out", fps=5)
    stills = list((tmp_path / "out" / "peaks").glob("*.jpg"))
    for still in stills:
        assert not Image.open(still).getexif()
        assert classifier.predict(still)[0].label == photo.label
    if not stills:
        pytest.skip("this network finds no smile")
