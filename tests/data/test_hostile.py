"""Any input gives the right result, or one clear message that says what is wrong and how to fix it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hostile_csvs import CsvCase, csv_cases
from hostile_images import PICTURE, PNG, ImageCase, encode, image_cases
from hostile_zips import ZipCase, twice, zip_cases
from PIL import Image

from hf_smile.data.annotations import read_annotations
from hf_smile.data.dataset import load_smile_dataset
from hf_smile.data.images import MAX_PIXELS, decode_image
from hf_smile.data.prepare import export_imagefolder
from hf_smile.data.sources import ImageSource
from hf_smile.errors import Problems, SmileDataError
from hf_smile.inference.classifier import load_image
from hf_smile.inference.files import find_images

CODE = re.compile(r"Traceback|NoneType|object has no|unpack_from|0x[0-9a-f]{6}|\berrno\b", re.IGNORECASE)


def by_name(case):
    return case.name


def check_words(message: str, says: str) -> None:
    """A message is a single readable line."""
    assert re.search(says, message), message
    assert len(message.splitlines()) == 1 and len(message) < 1000 and not CODE.search(message), message


def check_image(case: ImageCase) -> str:
    data = case.make()
    try:
        image = decode_image(data)
    except SmileDataError as error:
        assert case.says is not None, f"refused: {error}"
        check_words(str(error), case.says)
        assert ";" in str(error), f"does not say how to fix it: {error}"
        return "refused"
    assert case.looks is not None, f"not refused: {image.size}"
    assert type(image) is Image.Image and image.mode == "RGB" and image.width * image.height <= MAX_PIXELS
    image.tobytes()
    if isinstance(case.looks, Image.Image):
        seen = image.reduce(8) if case.heavy else image
        assert seen.size == case.looks.size
        lossy = data.startswith(b"\xff\xd8") or b"VP8 " in data[:100]
        difference = np.abs(np.asarray(seen, int) - np.asarray(case.looks, int))
        assert difference.mean() < 3 if lossy else difference.max() <= 1
    return "right"


def check_zip(case: ZipCase, folder: Path) -> str:
    path = folder / "images.zip"
    case.write(path)
    try:
        source = ImageSource(path)
    except SmileDataError as error:
        assert case.says is not None, f"refused: {error}"
        assert str(error).startswith(f"{path}: ") and ";" in str(error)
        check_words(str(error).replace(str(path), ""), "" if case.says == "any" else case.says)
        return "refused"
    if case.says == "any":  # bits are flipped
        for name in source.names:
            try:
                decode_image(source.read(name))
            except SmileDataError as error:
                check_words(str(error), ";")
        return "right"
    assert case.says is None, "not refused"
    if not any(isinstance(answer, str) for answer in case.images.values()):
        assert len(source) == (len(case.images) if case.total is None else case.total)
    for image_id, answer in case.images.items():
        if isinstance(answer, bytes):
            assert source.read(source.find(image_id)) == answer
            continue
        with pytest.raises(SmileDataError) as caught:
            source.read(source.find(image_id))
        check_words(str(caught.value), answer)
        assert ";" in str(caught.value)
    return "refused" if any(isinstance(answer, str) for answer in case.images.values()) else "right"


def check_csv(case: CsvCase, folder: Path) -> str:
    path = folder / "train.csv"
    path.write_bytes(case.make())
    problems = Problems()
    table = read_annotations(path, problems)
    assert set(table["label"]) <= ({0, 1, 2, -1} if problems else {0, 1, 2})
    if case.rows is not None:
        assert problems == []
        assert list(zip(table["image_id"], table["label"], strict=True)) == case.rows
        return "right"
    if not problems:
        assert case.name.startswith("noise"), "not refused"
        return "right"
    assert case.says is not None and re.match(case.says, problems[0]), problems[0]
    with pytest.raises(SmileDataError) as caught:
        problems.raise_if_any(folder)
    assert len(caught.value.args[0].splitlines()) <= 22
    for line in str(caught.value).splitlines()[1:]:
        check_words(line, "")
    return "refused"


@pytest.mark.parametrize("case", [case for case in image_cases() if not case.heavy], ids=by_name)
def test_an_image_is_decoded_right_or_refused_in_words(case):
    check_image(case)


@pytest.mark.parametrize("case", zip_cases(), ids=by_name)
def test_a_zip_is_read_right_or_refused_in_words(case, tmp_path):
    check_zip(case, tmp_path)


@pytest.mark.parametrize("case", [case for case in csv_cases() if not case.heavy], ids=by_name)
def test_annotations_are_read_right_or_refused_in_words(case, tmp_path):
    check_csv(case, tmp_path)


def test_good_images_among_hostile_ones_are_prepared_and_the_others_listed(tmp_path):
    """From files to class folders, as in `hf-smile prepare`."""
    cases = [case for case in image_cases() if case.name.startswith(("flipped", "foreign", "polyglots"))]
    members = {f"{number:04}.jpg": case.make() for number, case in enumerate(cases)}
    members |= {f"good{number}.jpg": PNG() for number in range(12)}
    (tmp_path / "happy_images").mkdir()
    for name, data in members.items():
        (tmp_path / "happy_images" / name).write_bytes(data)
    (tmp_path / "train.csv").write_text("".join(f"{name},{number % 3}\n" for number, name in enumerate(members)))
    (tmp_path / "test.csv").write_text("t0,0\nt1,1\nt2,2\n")
    for number in range(3):
        (tmp_path / "happy_images" / f"t{number}.png").write_bytes(PNG())
    listed = tmp_path / "bad_images.csv"
    splits = load_smile_dataset(tmp_path, 0, on_bad_image="skip", bad_image_list=listed)
    kept = set(splits["train"]["image_id"])
    must_stay = {f"{number:04}.jpg" for number, case in enumerate(cases) if case.says is None}
    must_go = {f"{number:04}.jpg" for number, case in enumerate(cases) if case.looks is None}
    assert (
        must_stay <= kept and not must_go & kept and must_go <= set(listed.read_text().replace(",", "\n").split("\n"))
    )
    export_imagefolder(splits, tmp_path / "sorted")
    assert len(list((tmp_path / "sorted" / "train").rglob("*.jpg"))) == len(kept)


def test_no_image_of_a_zip_is_lost_without_a_word_in_prediction(tmp_path):
    twice([PNG(), b"another"], tmp_path / "more.zip")
    for image in find_images([str(tmp_path / "more.zip")])[1]:
        with pytest.raises(SmileDataError, match=r"the zip contains two files named a\.jpg"):
            load_image(image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_nothing_is_waited_for(tmp_path):
    """A pipe without a writer, and an endless device."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zeros.jpg").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(SmileDataError, match="not a regular file"):
            ImageSource(tmp_path).read(f"{name}.jpg")
        with pytest.raises(SmileDataError, match="not a regular file"):
            load_image(tmp_path / f"{name}.jpg")


def test_a_picture_of_the_callers_may_have_a_damaged_exif():
    image = PICTURE.copy()
    image.info["exif"] = b"Exif\0\0" + bytes(range(200))
    assert np.array_equal(load_image(image), PICTURE)


def test_a_file_name_that_is_no_text_is_said_in_an_image_folder(tmp_path):
    for name in (b"train/0/a.jpg", b"train/1/\xff.jpg", b"test/0/b.jpg"):
        path = os.fsencode(tmp_path) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        try:
            with open(path, "wb") as file:  # noqa: PTH123
                file.write(encode(PICTURE, "JPEG"))
        except OSError:
            pytest.skip("this file system takes no such names")
    with pytest.raises(SmileDataError, match="rename the file"):
        load_smile_dataset(tmp_path)
