"""Faces found in photos of the public domain: Grace Hopper (matplotlib), the astronaut (scikit-image)."""

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_image

from hf_smile.errors import SmileModelError
from hf_smile.inference import faces as faces_module
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.faces import Face, HaarDetector, YuNetDetector, make_detector
from hf_smile.inference.runtimes import load_runtime
from hf_smile.labels import LABEL_NAMES

pytest.importorskip("cv2")

HOPPER_FACE, ASTRONAUT_FACE = (266, 217), (225, 113)  # between eyes and mouth, read off the photos


@pytest.fixture(scope="module")
def hopper() -> Image.Image:
    return Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    data = pytest.importorskip("skimage.data", reason="the astronaut comes with scikit-image")
    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="module")
def china() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg"))


@pytest.fixture(scope="module")
def classifier(model_dir) -> SmileClassifier:
    return SmileClassifier.from_pretrained(model_dir, runtime="onnx")


def holds(box, point, size) -> bool:
    """Whether a box is about `size` wide and its middle is near the point."""
    left, top, right, bottom = box
    distance = np.hypot((left + right) / 2 - point[0], (top + bottom) / 2 - point[1])
    return bool(right - left == bottom - top and 0.75 < (right - left) / size < 1.3 and distance < 0.15 * size)


def test_one_face_in_each_portrait_and_none_in_the_temple(hopper, astronaut, china, classifier):
    for photo, point, size in ((hopper, HOPPER_FACE, 232), (astronaut, ASTRONAUT_FACE, 98)):
        (prediction,) = classifier.predict_photo(photo, faces="all")
        assert holds(prediction.box, point, size), prediction.box
        assert prediction.label in LABEL_NAMES and prediction.detector_score > 0 and prediction.note is None
    assert classifier.predict_photo(china, faces="all") == []


def test_nothing_in_flowers(classifier):
    assert classifier.predict_photo(Image.fromarray(load_sample_image("flower.jpg"))) == []


def test_a_collage_every_face_and_no_extra(hopper, astronaut):
    places = [
        (hopper, 0.5, (20, 20)),
        (astronaut, 1.0, (320, 10)),
        (hopper, 1.0, (860, 10)),
        (astronaut, 0.6, (20, 560)),
        (hopper, 0.35, (400, 600)),
        (astronaut, 0.5, (600, 600)),
    ]
    collage = Image.new("RGB", (1400, 900), (90, 120, 140))
    expected = []
    for photo, scale, (left, top) in places:
        collage.paste(photo.resize((int(photo.width * scale), int(photo.height * scale))), (left, top))
        (x, y), size = (HOPPER_FACE, 232) if photo is hopper else (ASTRONAUT_FACE, 98)
        expected.append(((left + x * scale, top + y * scale), size * scale))
    found = HaarDetector().detect(collage)
    assert len(found) == len(expected)
    for point, size in expected:
        assert sum(holds(face.box, point, size) for face in found) == 1
    sides = [face.box[2] - face.box[0] for face in found]
    assert sides == sorted(sides, reverse=True)
    large = HaarDetector(smallest_face=150).detect(collage)
    assert [holds(face.box, (860 + 266, 10 + 217), 232) for face in large] == [True]


def test_largest_takes_one_face_and_auto_all(hopper, classifier):
    pair = Image.new("RGB", (800, 600))
    pair.paste(hopper.resize((256, 300)), (0, 0))
    pair.paste(hopper.resize((427, 500)), (350, 50))
    assert len(classifier.predict_photo(pair, faces="all")) == len(classifier.predict_photo(pair, faces="auto")) == 2
    (largest,) = classifier.predict_photo(pair)
    assert largest.box[0] > 350


class EverywhereAFace:
    """In place of a detector: a row of `n` faces, the largest first."""

    def __init__(self, n: int) -> None:
        self.n = n

    def detect(self, image):
        return [Face((i, 0, 200, 200 - i), 1.0) for i in range(self.n)]


def test_a_crowd_is_classified_in_order_a_batch_at_a_time_and_only_as_far_as_wished(model_dir, china):
    crowd = SmileClassifier(load_runtime(model_dir, "onnx"), EverywhereAFace(100))
    batches = []
    network = crowd.runtime
    crowd.runtime = lambda pixel_values: batches.append(len(pixel_values)) or network(pixel_values)
    predictions = crowd.predict_photo(china, faces="all")
    assert [prediction.box for prediction in predictions] == [face.box for face in EverywhereAFace(100).detect(china)]
    assert len(batches) > 1 and max(batches) <= 32 and sum(batches) == 100
    (alone,) = crowd.predict(china.crop(predictions[70].box))
    assert predictions[70].probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    batches.clear()
    first = crowd.predict_photo(china, faces="auto", max_faces=5)
    assert [prediction.box for prediction in first] == [prediction.box for prediction in predictions[:5]]
    assert batches == [5]
    assert len(crowd.predict_photo(china, faces="all", max_faces=500)) == 100
    assert len(crowd.predict_photo(china, faces="largest", max_faces=5)) == 1
    with pytest.raises(ValueError, match="max_faces is 0"):
        crowd.predict_photo(china, max_faces=0)


def test_a_thread_of_pixels_without_a_face_has_its_error(classifier):
    assert classifier.predict_photo(Image.new("RGB", (60_000, 1)), faces="auto") == []
    (prediction,) = classifier.predict(Image.new("RGB", (60_000, 1)))
    assert "60000 x 1" in prediction.error and prediction.note is None and prediction.label is None


def test_auto_says_nothing_of_what_resembles_no_face(china, classifier):
    photos = [china, Image.new("RGB", (300, 300), "teal")]
    data = pytest.importorskip("skimage.data", reason="coffee and a cat come with scikit-image")
    photos += [Image.fromarray(photo) for photo in (data.coffee(), data.chelsea(), data.coffee()[:, 100:500])]
    assert [classifier.predict_photo(photo, faces="auto") for photo in photos] == [[]] * len(photos)


def test_auto_classifies_a_face_crop_whole_where_the_detector_is_not_sure_and_says_so(hopper, classifier):
    crop = hopper.rotate(15, center=HOPPER_FACE).crop((146, 97, 387, 338))
    assert HaarDetector().detect(crop) == []
    (prediction,) = classifier.predict_photo(crop, faces="auto")
    assert "taken for a face crop" in prediction.note and prediction.box is None
    assert prediction.probabilities == pytest.approx(classifier.predict(crop)[0].probabilities, abs=1e-6)
    assert classifier.predict_photo(crop, faces="all") == []


def test_auto_accepts_the_real_face_crops(real_data):
    detector = HaarDetector()
    with zipfile.ZipFile(real_data / "happy_images.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith((".jpg", ".jpeg", ".png"))]
        crops = [Image.open(archive.open(name)).convert("RGB") for name in names[::64]]
    seen = [bool(detector.detect(crop)) or detector.resembles_face(crop) for crop in crops]
    assert len(crops) >= 100 and np.mean(seen) > 0.93


def test_the_verdict_is_that_on_the_crop(hopper, classifier):
    (prediction,) = classifier.predict_photo(hopper)
    (crop,) = classifier.predict(hopper.crop(prediction.box))
    assert prediction.probabilities == pytest.approx(crop.probabilities, abs=1e-6)


def test_a_photo_turned_by_exif_gives_the_same_face(hopper, classifier):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    hopper.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    (turned,), (upright,) = classifier.predict_photo(file.getvalue()), classifier.predict_photo(hopper)
    assert turned.box == upright.box and turned.label == upright.label


def test_a_crop_as_in_training_is_found_and_kept_nearly_whole(hopper):
    """Even where the face fills the picture, the square around it is the picture."""
    crop = hopper.crop(HaarDetector().detect(hopper)[0].box)
    (face,) = HaarDetector().detect(crop)
    assert face.box[2] - face.box[0] > 0.93 * crop.width


def test_pictures_of_any_shape_do_no_harm(classifier):
    for size in ((1, 1), (3, 900), (900, 2), (39, 39)):
        assert classifier.predict_photo(Image.new("RGB", size), faces="all") == []


def test_a_broken_photo_and_a_wrong_word(classifier):
    (prediction,) = classifier.predict_photo(b"nothing")
    assert "not a JPEG" in prediction.error
    with pytest.raises(ValueError, match="largest, all, auto"):
        classifier.predict_photo(b"", faces="none")


def test_threads_share_a_detector(hopper, china):
    detector = HaarDetector()
    expected = [detector.detect(photo) for photo in (hopper, china)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.detect, [hopper, china] * 3)) == expected * 3


def test_yunet_speaks_in_pixels_of_the_photo_and_overlaps_are_removed(hopper, tmp_path, monkeypatch):
    """Its weights are not there without a network, so OpenCV's side is played; the real one was not run here."""
    weights = tmp_path / "yunet.onnx"
    weights.write_bytes(b"")

    class Network:
        size = (320, 320)

        def setInputSize(self, size):
            self.size = size

        def detect(self, pixels):
            assert self.size == pixels.shape[1::-1] and pixels.dtype == np.uint8
            border = (self.size[0] - 512) // 2
            rows = [[146, 120, 200, 240], [150, 125, 200, 240], [200, 160, 60, 60], [0, 0, 10, 10]]
            boxes = [[x + border, y + border, w, h, *[0] * 10, 0.9 - i / 10] for i, (x, y, w, h) in enumerate(rows)]
            return 1, np.array(boxes, np.float32)

    monkeypatch.setattr(faces_module._import_cv2().FaceDetectorYN, "create", lambda *_: Network())
    (face,) = make_detector(str(weights)).detect(hopper)
    assert face.box == (126, 120, 366, 360) and face.score == pytest.approx(0.9)


def test_yunet_without_its_weights_says_what_to_do(tmp_path):
    with pytest.raises(SmileModelError, match="haar"):
        YuNetDetector()  # the tests are offline
    with pytest.raises(SmileModelError, match="no such file"):
        make_detector(str(tmp_path / "none.onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(SmileModelError, match="can't run it as YuNet"):
        make_detector(str(broken))
