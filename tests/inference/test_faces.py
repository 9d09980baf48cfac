"""Face detection in public-domain photos: Grace Hopper (matplotlib), the astronaut (scikit-image)."""

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_image

from hf_smile.errors import SmileModelError
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.faces import YUNET_FILE, Face, HaarDetector, YuNetDetector, make_detector
from hf_smile.inference.runtimes import load_runtime
from hf_smile.labels import LABEL_NAMES

cv2 = pytest.importorskip("cv2")

HOPPER_FACE, ASTRONAUT_FACE = (266, 217), (225, 113)  # between eyes and mouth, measured in the photos


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
    """Whether a box is about `size` wide and centred near the point."""
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


def test_largest_takes_one_face_and_all_takes_all(hopper, classifier):
    pair = Image.new("RGB", (800, 600))
    pair.paste(hopper.resize((256, 300)), (0, 0))
    pair.paste(hopper.resize((427, 500)), (350, 50))
    assert len(classifier.predict_photo(pair, faces="all")) == 2
    (largest,) = classifier.predict_photo(pair)
    assert largest.box[0] > 350


class EverywhereAFace:
    """A fake detector: a row of `n` faces, the largest first."""

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
    first = crowd.predict_photo(china, faces="all", max_faces=5)
    assert [prediction.box for prediction in first] == [prediction.box for prediction in predictions[:5]]
    assert batches == [5] and {prediction.note for prediction in first} == {
        "only the largest 5 of 100 faces were classified"
    }
    assert {prediction.note for prediction in predictions} == {None}
    assert len(crowd.predict_photo(china, faces="all", max_faces=500)) == 100
    assert len(crowd.predict_photo(china, faces="largest", max_faces=5)) == 1
    with pytest.raises(ValueError, match="max_faces is 0"):
        crowd.predict_photo(china, max_faces=0)


def test_a_thread_of_pixels_without_a_face_has_its_error(classifier):
    assert classifier.predict_photo(Image.new("RGB", (60_000, 1)), faces="all") == []
    (prediction,) = classifier.predict(Image.new("RGB", (60_000, 1)))
    assert "60000 x 1" in prediction.error and prediction.note is None and prediction.label is None


def test_no_face_no_verdict(china, classifier):
    photos = [china, Image.new("RGB", (300, 300), "teal")]
    data = pytest.importorskip("skimage.data", reason="coffee and a cat come with scikit-image")
    photos += [Image.fromarray(photo) for photo in (data.coffee(), data.chelsea(), data.coffee()[:, 100:500])]
    assert list(classifier.predict_photos(photos, faces="all")) == [[]] * len(photos)


def test_the_whole_picture_is_classified_only_where_it_is_asked_for(hopper, classifier):
    crop = hopper.rotate(15, center=HOPPER_FACE).crop((146, 97, 387, 338))
    assert classifier.predict_photo(crop, faces="all") == []
    (whole,) = classifier.predict_photo(crop, faces="whole")
    assert whole.box is None and whole == classifier.predict(crop)[0]


def test_many_photos_get_the_answers_that_each_gets_alone(hopper, astronaut, china, classifier):
    pair = Image.new("RGB", (800, 600))
    pair.paste(hopper.resize((256, 300)), (0, 0))
    pair.paste(hopper.resize((427, 500)), (350, 50))
    photos = [pair, china, b"nothing", hopper, astronaut] * 2
    alone = [classifier.predict_photo(photo, faces="all") for photo in photos]
    for batch_size in (1, 4, 100):
        together = classifier.predict_photos(iter(photos), faces="all", batch_size=batch_size)
        for found, expected in zip(together, alone, strict=True):
            assert [(face.box, face.label, face.error) for face in found] == [
                (face.box, face.label, face.error) for face in expected
            ]
            for face, one in zip(found, expected, strict=True):
                assert face.probabilities is None or face.probabilities == pytest.approx(one.probabilities, abs=1e-5)


def test_photos_are_read_when_their_turn_comes(hopper, classifier):
    taken = []
    photos = (taken.append(number) or hopper for number in range(100))
    found = classifier.predict_photos(photos, batch_size=1)
    for _ in range(3):
        next(found)
    assert len(taken) < 20


def test_one_photo_is_not_taken_for_several(classifier):
    with pytest.raises(TypeError, match="use predict_photo for a single photo"):
        next(classifier.predict_photos("photo.jpg"))


def test_photos_without_a_face_do_not_hold_back_the_answers(classifier):
    taken = []
    empty, broken = Image.new("RGB", (64, 64)), b"nothing"
    photos = (taken.append(number) or (empty, broken)[number % 2] for number in range(500))
    found = classifier.predict_photos(photos, faces="all", batch_size=8)
    assert next(found) == [] and next(found)[0].error and len(taken) < 40
    assert len(list(found)) == 498


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
    """If the face fills the picture, the square around it is the picture."""
    crop = hopper.crop(HaarDetector().detect(hopper)[0].box)
    (face,) = HaarDetector().detect(crop)
    assert face.box[2] - face.box[0] > 0.93 * crop.width


def test_pictures_of_any_shape_do_no_harm(classifier):
    for size in ((1, 1), (3, 900), (900, 2), (39, 39)):
        assert classifier.predict_photo(Image.new("RGB", size), faces="all") == []


def test_a_broken_photo_and_a_wrong_word(classifier):
    (prediction,) = classifier.predict_photo(b"nothing")
    assert "not a JPEG" in prediction.error
    with pytest.raises(ValueError, match="largest, all, whole"):
        classifier.predict_photo(b"", faces="none")


def test_a_detector_is_chosen_by_name(model_dir, hopper, tmp_path):
    chosen = SmileClassifier.from_pretrained(model_dir, detector="haar")
    assert isinstance(chosen.detector, HaarDetector) and chosen.predict_photo(hopper)[0].label
    with pytest.raises(TypeError, match="unexpected keyword argument 'detecter'"):
        SmileClassifier.from_pretrained(model_dir, detecter="haar")
    nothing = SmileClassifier.from_pretrained(model_dir, detector=tmp_path / "none.onnx")
    with pytest.raises(SmileModelError, match=r"none\.onnx: no such file; the detector must be auto, yunet, haar"):
        nothing.predict_photo(hopper)


def test_threads_share_a_detector(hopper, china):
    detector = HaarDetector()
    expected = [detector.detect(photo) for photo in (hopper, china)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.detect, [hopper, china] * 3)) == expected * 3


@pytest.fixture(scope="module")
def yunet() -> YuNetDetector:
    weights = Path(__file__).parents[3] / "shared" / "detectors" / YUNET_FILE
    if not weights.is_file():
        pytest.skip("there are no weights of YuNet")
    return YuNetDetector(weights)


def test_yunet_finds_each_portrait_and_nothing_in_other_things(yunet, hopper, astronaut, china):
    for photo, point, size in ((hopper, HOPPER_FACE, 232), (astronaut, ASTRONAUT_FACE, 98)):
        for scale in (1, 4):
            (face,) = yunet.detect(photo.resize((photo.width * scale, photo.height * scale)))
            assert holds(np.array(face.box) / scale, point, size), face
    data = pytest.importorskip("skimage.data", reason="coffee and a cat come with scikit-image")
    for photo in (china, *map(Image.fromarray, (data.coffee(), data.chelsea(), data.rocket()))):
        assert yunet.detect(photo) == []


def test_yunet_looks_closer_where_faces_are_small(yunet, hopper, monkeypatch):
    sides, search = [], yunet._search
    monkeypatch.setattr(yunet, "_search", lambda pixels: sides.append(max(pixels.shape)) or search(pixels))
    far = Image.new("RGB", (2400, 1600), "teal")
    far.paste(hopper.resize((171, 200)), (1500, 700))
    (face,) = yunet.detect(far)
    assert holds(face.box, (1500 + HOPPER_FACE[0] / 3, 700 + HOPPER_FACE[1] / 3), 232 / 3)
    assert len(sides) == 2
    sides.clear()
    assert len(yunet.detect(hopper)) == 1 and len(sides) == 1


def test_a_large_photo_gives_the_box_and_verdict_of_a_small_one(yunet, hopper, astronaut, model_dir):
    """A photo is made smaller in steps for the detector. The verdict comes from the pixels of the photo."""
    classifier = SmileClassifier(load_runtime(model_dir, "onnx"), yunet)
    for photo in (hopper, astronaut):
        (small,) = classifier.predict_photo(photo)
        for scale in (1.9, 3.3, 5.7):
            large = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
            file = io.BytesIO()
            large.save(file, "JPEG", quality=95)
            (found,) = classifier.predict_photo(file.getvalue())
            side = small.box[2] - small.box[0]
            assert np.abs(np.array(found.box) / scale - small.box).max() < 0.03 * side
            assert found.probabilities == pytest.approx(small.probabilities, abs=0.05)


def test_yunet_finds_what_it_finds_in_opencv(yunet, hopper, astronaut, china):
    opencv = cv2.FaceDetectorYN.create(str(yunet._path), "", (320, 320), 0.8)
    pair = Image.new("RGB", (1101, 613), "teal")  # no multiples of 32, as most photos
    pair.paste(hopper, (3, 5))
    pair.paste(astronaut, (520, 80))
    for photo, faces in ((pair, 2), (hopper.resize((171, 200)), 1), (china, 0)):
        pixels = np.asarray(photo)
        opencv.setInputSize(photo.size)
        _, expected = opencv.detect(np.ascontiguousarray(pixels[..., ::-1]))
        found = yunet._search(pixels)
        assert len(found) == faces
        if faces:
            assert np.allclose(found, expected[:, [0, 1, 2, 3, -1]], atol=0.01)


@pytest.mark.parametrize("side", [320, 480])
def test_a_file_of_yunet_for_pictures_of_another_size_finds_the_same(yunet, hopper, tmp_path, side):
    def fixed_at(side: int) -> bytes:  # two dimensions in ONNX's encoding
        return bytes([0x0A, 0x03, 0x08, side % 128 + 128, side // 128]) * 2

    network = yunet._path.read_bytes()
    assert network.count(fixed_at(640)) == 1
    (tmp_path / "other.onnx").write_bytes(network.replace(fixed_at(640), fixed_at(side)))
    assert YuNetDetector(tmp_path / "other.onnx").detect(hopper) == yunet.detect(hopper)


def test_threads_share_yunet(yunet, hopper, astronaut):
    expected = [yunet.detect(photo) for photo in (hopper, astronaut)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(yunet.detect, [hopper, astronaut] * 4)) == expected * 4


def test_yunet_finds_the_real_face_crops_and_keeps_them_nearly_whole(yunet, real_data):
    with zipfile.ZipFile(real_data / "happy_images.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        crops = [Image.open(archive.open(name)).convert("RGB") for name in names[::64]]
    found = [(crop, yunet.detect(crop)) for crop in crops]
    shares = [(faces[0].box[2] - faces[0].box[0]) / crop.width for crop, faces in found if faces]
    assert len(crops) >= 100 and len(shares) / len(crops) > 0.9 and np.median(shares) > 0.9


def test_a_hub_that_can_not_be_reached_is_asked_once(monkeypatch):
    from huggingface_hub.errors import HTTPError

    def unreachable(*_, **__):
        raise HTTPError("no connection")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked again"))
    with pytest.raises(SmileModelError, match="no connection"):
        make_detector("yunet")


def test_auto_is_yunet_from_the_cache_and_else_haar_with_a_word(yunet, tmp_path, monkeypatch, caplog):
    assert isinstance(make_detector("auto"), HaarDetector)  # the tests are offline
    assert "Haar" in caplog.text and len(caplog.records) == 1
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(yunet._path))
    assert isinstance(make_detector("auto"), YuNetDetector) and len(caplog.records) == 1


def test_yunet_without_its_weights_says_what_to_do(tmp_path):
    with pytest.raises(SmileModelError, match="haar"):
        YuNetDetector()  # the tests are offline
    with pytest.raises(SmileModelError, match="no such file"):
        make_detector(str(tmp_path / "none.onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(SmileModelError, match="can't run it as YuNet"):
        make_detector(str(broken))
