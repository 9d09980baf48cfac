"""`SmileClassifier`: every type of input, both runtimes, errors, threads, memory."""

import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_smile.errors import SmileDataError, SmileModelError
from hf_smile.inference.classifier import NamedImage, SmileClassifier, SmilePrediction
from hf_smile.labels import LABEL_NAMES
from hf_smile.utils.cores import own_cores


@pytest.fixture(scope="module")
def classifier(model_dir) -> SmileClassifier:
    return SmileClassifier.from_pretrained(model_dir, runtime="onnx")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def numbers(predictions) -> np.ndarray:
    return np.array([list(prediction.probabilities.values()) for prediction in predictions])


def test_both_runtimes_say_what_the_transformers_pipeline_says(model_dir, faces, classifier):
    from transformers import pipeline

    pipe = pipeline("image-classification", model=str(model_dir), device="cpu")
    answers = [{answer["label"]: answer["score"] for answer in answers} for answers in pipe(faces, top_k=3)]
    expected = [[answer[name] for name in LABEL_NAMES] for answer in answers]
    torch_classifier = SmileClassifier.from_pretrained(model_dir, device="cpu")
    assert numbers(torch_classifier.predict(faces)) == pytest.approx(np.array(expected), abs=1e-5)
    assert numbers(classifier.predict(faces)) == pytest.approx(np.array(expected), abs=1e-5)


def test_every_kind_of_input_gets_the_same_verdict(classifier, faces, face_files):
    kinds = [
        str(face_files[0]),
        face_files[0],
        face_files[0].read_bytes(),
        faces[0],
        Image.open(face_files[0]),
        np.asarray(faces[0]),
        NamedImage("faces.zip/00.png", face_files[0].read_bytes),
    ]
    predictions = classifier.predict(kinds)
    assert len({tuple(row) for row in numbers(predictions)}) == 1
    path = str(face_files[0])
    assert [p.source for p in predictions] == [path, path, None, None, path, None, "faces.zip/00.png"]
    for kind in kinds:
        (alone,) = classifier.predict(kind)
        assert alone.label == predictions[0].label


def test_order_and_number_do_not_depend_on_the_batch_size(classifier, face_files):
    expected = [prediction.source for prediction in classifier.predict(face_files)]
    assert expected == [str(path) for path in face_files]
    for batch_size in (1, 4, 11, 100):
        predictions = classifier.predict(face_files, batch_size=batch_size)
        assert [prediction.source for prediction in predictions] == expected
        assert numbers(predictions) == pytest.approx(numbers(classifier.predict(face_files)), abs=1e-5)


def test_an_iterator_is_read_batch_by_batch(classifier, faces):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield faces[len(taken) % 3]

    predictions = classifier.predict(endless(), batch_size=4)
    assert not taken
    for _ in range(5):
        assert next(predictions).label in LABEL_NAMES
    assert 8 <= len(taken) <= 8 + own_cores()  # several images are read in parallel


def test_a_bad_image_yields_its_error_and_the_rest_goes_on(classifier, faces, tmp_path):
    def unreadable() -> bytes:
        raise SmileDataError("can't be unpacked")

    text = tmp_path / "notes.jpg"
    text.write_text("not an image")
    inputs = [
        faces[0],
        tmp_path / "missing.jpg",
        text,
        b"",
        NamedImage("zip/1.jpg", unreadable),
        png(Image.new("RGB", (1, 60_000))),
        faces[1],
    ]
    predictions = classifier.predict(inputs, batch_size=3)
    assert [prediction.error is None for prediction in predictions] == [True, *[False] * 5, True]
    assert predictions[1].source == str(tmp_path / "missing.jpg") and "No such file" in predictions[1].error
    assert predictions[1].label is None and predictions[1].p_smile is None and predictions[1].probabilities is None
    assert numbers([predictions[0], predictions[-1]]) == pytest.approx(numbers(classifier.predict(faces[:2])), abs=1e-5)
    assert classifier.predict([]) == []


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (None, TypeError, "a path, bytes, a PIL image or an array, not NoneType"),
        (3.5, TypeError, "not float"),
        (np.zeros((4, 4, 3)), TypeError, "must be uint8, 0 to 255, not float64"),
        (np.zeros((4, 4), np.uint8), ValueError, r"shape \(H, W, 3\), not \(4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r"not \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"not \(0, 4, 3\)"),
        (Path(__file__).parent, ValueError, "is a folder; pass its files"),
        (str(Path(__file__).parent), ValueError, "is a folder; pass its files"),
        (NamedImage("a.jpg", lambda: "not bytes"), TypeError, "encoded image must be bytes, not str"),
        (NamedImage("a.jpg", lambda: None), TypeError, "encoded image must be bytes, not NoneType"),
    ],
)
def test_a_programmer_s_mistake_is_raised_and_no_prediction(classifier, faces, image, error, message):
    ways = [classifier.predict, classifier.predict_photo, lambda image: classifier.predict([faces[0], image])]
    ways.append(lambda image: list(classifier.predict(iter([image]))))
    for way in ways:
        with pytest.raises(error, match=message):
            way(image)


def test_a_prediction_explains_itself_and_fits_into_json(classifier, faces):
    (prediction,) = classifier.predict(faces[0])
    p = prediction.probabilities
    assert sum(p.values()) == pytest.approx(1)
    assert prediction.label == max(p, key=p.get)
    assert prediction.p_smile == pytest.approx(p["negative smile"] + p["positive smile"])
    assert prediction.p_genuine_given_smile == pytest.approx(p["positive smile"] / prediction.p_smile)
    row = json.loads(json.dumps(prediction.to_dict()))
    assert row["predicted_label"] == prediction.label and row["p_not_smile"] == p["NOT smile"] and row["box"] is None
    certain = SmilePrediction("NOT smile", dict(zip(LABEL_NAMES, (0.0, 0.0, 1.0), strict=True)))
    assert certain.p_genuine_given_smile == 0.5
    with pytest.raises(AttributeError):
        prediction.label = "positive smile"


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_many_threads_share_one_classifier(model_dir, faces, runtime):
    classifier = SmileClassifier.from_pretrained(model_dir, runtime=runtime)
    expected = numbers(classifier.predict(faces))
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: numbers(classifier.predict(faces, batch_size=4)), range(24)):
            assert result == pytest.approx(expected, abs=1e-5)


def test_the_onnx_path_imports_no_torch(model_dir, face_files):
    code = (
        "import sys; from hf_smile.inference.classifier import SmileClassifier as C;"
        f"print(C.from_pretrained({str(model_dir)!r}, runtime='onnx').predict({str(face_files[0])!r})[0].label);"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() in LABEL_NAMES


def test_mistakes_are_told_with_their_mend(model_dir, tmp_path, classifier):
    for arguments, words in [
        ({"runtime": "tensorflow"}, "torch, onnx, onnx-int8"),
        ({"runtime": "onnx-int8"}, "--quantize int8"),
        ({"runtime": "onnx", "device": "tpu"}, "tpu"),
        ({"runtime": "torch", "device": "abacus"}, "abacus"),
    ]:
        with pytest.raises(SmileModelError, match=words):
            SmileClassifier.from_pretrained(model_dir, **arguments)
    for runtime in ("torch", "onnx"):
        with pytest.raises(SmileModelError, match="no such folder"):
            SmileClassifier.from_pretrained(tmp_path / "nowhere", runtime=runtime)
        with pytest.raises(SmileModelError, match="not looked for on the Hub"):
            SmileClassifier.from_pretrained("outputs/modle", runtime=runtime)
    with pytest.raises(SmileModelError, match=r"hf-smile export --model"):
        SmileClassifier.from_pretrained(tmp_path, runtime="onnx")
    Path(tmp_path, "onnx").mkdir()
    Path(tmp_path, "onnx", "model.onnx").write_bytes(b"not a network")
    with pytest.raises(SmileModelError, match="can't load"):
        SmileClassifier.from_pretrained(tmp_path, runtime="onnx")
    with pytest.raises(ValueError, match="batch_size"):
        classifier.predict([], batch_size=0)
