"""What a person reads on the page, in a browser."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_image

from hf_smile.data.sample import draw_face
from hf_smile.inference.classifier import SmileClassifier, SmilePrediction
from hf_smile.labels import LABEL_NAMES

cv2 = pytest.importorskip("cv2")

HOPPER = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
WORDS = dict(zip(LABEL_NAMES, ("posed smile", "genuine smile", "no smile"), strict=True))


@pytest.fixture(scope="module")
def classifier(demo_model) -> SmileClassifier:
    return SmileClassifier.from_pretrained(demo_model, runtime="onnx")


@pytest.fixture
def drawn(tmp_path) -> list[Path]:
    """Three drawn faces as files, of those that the detector takes for faces."""
    paths = [tmp_path / f"face_{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        draw_face(i, np.random.default_rng(_SEEN[i])).save(path)
    return paths


_SEEN = (6, 1, 8)  # seeds


def words_of(prediction: SmilePrediction) -> str:
    return f"{WORDS[prediction.label]}, {100 * prediction.probabilities[prediction.label]:.0f} %"


def give_photo(page, path: Path) -> None:
    page.set_input_files("#photo input[type=file]", path)


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).lower()


def read(page, selector: str) -> str:
    return re.sub(r"\s+", " ", page.inner_text(selector))


def test_an_uploaded_portrait_gets_a_box_a_verdict_bars_and_a_heat_map(open_demo, classifier):
    page = open_demo()
    give_photo(page, HOPPER)
    page.get_by_text("One face found.").wait_for()
    (expected,) = classifier.predict_photo(HOPPER, faces="all")
    assert page.get_by_role("button", name=f"Face 1: {words_of(expected)}").is_visible()
    details = read(page, "#details").lower()
    assert words_of(expected) in details
    for label, word in WORDS.items():
        assert f"{word} {100 * expected.probabilities[label]:.0f} %" in details
    assert f"smiling? {100 * expected.p_smile:.0f} %" in details
    assert f"genuine, if smiling? {100 * expected.p_genuine_given_smile:.0f} %" in details
    page.get_by_alt_text("Heat map: ").wait_for()
    assert f"What spoke for “{WORDS[expected.label]}”" in read(page, "#heat")


def test_an_example_is_picked(open_demo):
    page = open_demo()
    page.get_by_role("button", name="Grace Hopper").click()
    page.get_by_text("One face found.").wait_for()
    assert page.get_by_role("meter", name="genuine smile").is_visible()


def test_of_several_faces_one_is_chosen_with_the_keyboard(open_demo):
    page = open_demo()
    page.get_by_text("both of them").click()
    page.get_by_text("2 faces found. Choose one").wait_for()
    assert "Face 1 of 2" in read(page, "#details")
    second = page.get_by_role("button", name="Face 2: ")
    second.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Face 2 of 2").wait_for()
    assert second.get_attribute("aria-pressed") == "true"
    assert plain(read(page, "#details h3")) in plain(second.get_attribute("aria-label"))
    page.get_by_text("Where the model looked").wait_for()


def test_a_photo_without_a_face_gets_no_verdict(open_demo, tmp_path):
    temple = tmp_path / "temple.png"
    Image.fromarray(load_sample_image("china.jpg")).save(temple)
    page = open_demo()
    give_photo(page, temple)
    page.get_by_text("No face found").wait_for()
    assert "So there is no verdict." in read(page, "#picture")
    assert read(page, "#details") == read(page, "#heat") == ""


def test_a_broken_file_is_told_in_words_and_the_next_one_works(open_demo, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(HOPPER.read_bytes()[:2000])
    page = open_demo()
    give_photo(page, broken)
    page.get_by_text("This picture can't be read").wait_for()
    page.screenshot(path=Path(__file__).parents[2] / "outputs" / "screenshots" / "broken.png")
    assert read(page, "#details") == ""
    page.get_by_role("button", name="Remove Image").click()
    page.get_by_text("No photo yet").wait_for()
    give_photo(page, HOPPER)
    page.get_by_text("One face found.").wait_for()


def test_a_batch_fills_a_gallery_a_table_and_a_csv(open_demo, classifier, drawn, tmp_path):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(drawn[1], "album/one.png")
        archive.write(drawn[2], "album/two.png")
        archive.writestr("album/broken.png", b"no image")
    page = open_demo()
    page.get_by_role("tab", name="Many photos").click()
    page.set_input_files("#files input[type=file]", [drawn[0], tmp_path / "more.zip"])
    page.locator("#files").get_by_text("more").wait_for()
    page.get_by_role("button", name="Look at them").click()
    page.get_by_text("3 verdicts, 1 file could not be read. The surest come first.").wait_for()
    captions = page.locator("#verdicts figcaption strong").all_inner_texts()
    predictions = [classifier.predict_photo(path, faces="all")[0] for path in drawn]
    surest_first = sorted(predictions, key=lambda prediction: -max(prediction.probabilities.values()))
    assert list(map(plain, captions)) == [words_of(prediction) for prediction in surest_first]
    table = read(page, "#verdicts table")
    assert "more.zip/album/one.png" in table and "not a JPEG" in table
    with page.expect_download() as download:
        page.get_by_text("Download verdicts.csv").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    in_zip = [f"more.zip/album/{name}.png" for name in ("one", "two", "broken")]
    assert [row["image_id"] for row in rows] == ["face_0.png", *in_zip]
    assert [row["predicted_label"] for row in rows] == [*(prediction.label for prediction in predictions), ""]
    assert float(rows[0]["p_smile"]) == pytest.approx(predictions[0].p_smile)


def test_a_clip_is_followed_over_time(open_demo, classifier, tmp_path):
    clip = tmp_path / "clip.webm"
    hopper = np.asarray(Image.open(HOPPER).convert("RGB").resize((256, 300)))[:, :, ::-1]
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"VP80"), 8, hopper.shape[1::-1])
    for _ in range(8 * 33):
        writer.write(hopper)
    writer.release()
    page = open_demo()
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("#video input[type=file]", clip)
    page.locator("#video video").wait_for()
    page.get_by_role("button", name="Follow the faces").click()
    page.get_by_text("The first 30 seconds were looked at.").wait_for()
    (seen,) = classifier.predict_photo(np.ascontiguousarray(hopper[:, :, ::-1]), faces="all")
    assert ("1 smile in 30 seconds" if seen.p_smile > 0.5 else "No face in the clip smiles") in read(page, "#peaks")
    page.locator("#timeline canvas, #timeline svg.marks").first.wait_for()


def test_the_about_tab_shows_limits_metrics_and_versions(open_demo):
    page = open_demo()
    page.get_by_role("tab", name="About").click()
    page.get_by_role("heading", name="Limits and responsible use").wait_for()
    text = read(page, "body")
    assert "Proves nothing." in text and "Some." not in text
    assert "0.875" in text and "demo_model" in text and "gradio 6" in text


CONTRAST = """(selector) => {
    const light = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const element = document.querySelector(selector);
    let behind = element;
    while (behind.parentElement && /, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor))
        behind = behind.parentElement;
    const [low, high] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
        .map(light).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(open_demo, dark):
    """At least 4.5 to 1, as WCAG 2.1 (1.4.3) asks for."""
    page = open_demo(dark=dark)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == dark
    page.get_by_text("both of them").click()
    page.get_by_text("Where the model looked").wait_for()
    readable = ["h1", "[role=tab][aria-selected=true]", "[role=tab][aria-selected=false]", ".hs-status", "#photo label"]
    readable += [".hs-face span", ".hs-about", "#details h3", ".hs-bar span", "#heat p", "footer button"]
    for selector in readable:
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_of_360_pixels_shows_everything(open_demo, dark):
    page = open_demo(width=360, dark=dark)
    page.get_by_text("both of them").click()
    page.get_by_text("Where the model looked").wait_for()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
    for name in ("Face 1: ", "Face 2: "):
        tag = page.get_by_role("button", name=name).locator("span").bounding_box()
        assert tag["x"] >= 0 and tag["x"] + tag["width"] <= 360
    assert page.evaluate("""[...document.querySelectorAll('#picture *, #details *, #heat *')]
        .every((element) => parseFloat(getComputedStyle(element).fontSize) >= 12)""")


def test_everything_has_a_name_for_those_who_do_not_see_it(open_demo):
    page = open_demo()
    page.get_by_text("both of them").click()
    page.get_by_text("Where the model looked").wait_for()
    assert page.evaluate("document.documentElement.lang") == "en" and page.title() == "hf_smile"
    assert page.locator("h1").count() == 1
    for name in ("Photo", "Many photos", "Video", "About"):
        page.get_by_role("tab", name=name, exact=True).click()
        page.wait_for_timeout(200)
        nameless = page.evaluate("""[...document.querySelectorAll('button, a, input, textarea, img')]
            .filter((element) => element.checkVisibility())
            .filter((element) => !(element.tagName === 'IMG' ? element.hasAttribute('alt') :
                element.innerText || element.ariaLabel || element.title || element.labels?.length))
            .map((element) => element.outerHTML.slice(0, 200))""")
        assert nameless == []
    assert page.locator("#picture[aria-live], #picture [aria-live]").count()
