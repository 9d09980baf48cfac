"""A photo on the page: the text that a person reads, and its place."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

pytest.importorskip("cv2")
sys.path.insert(0, str(Path(__file__).parents[2] / "space"))
from words import sentence, word

SIZES = [(360, 740), (820, 1180), (1440, 900)]
BOTH = "both of them"


def settle(page) -> None:
    """Wait until nothing moves: the page scrolls to a result a moment after it comes."""
    page.locator(".hs-result").wait_for()
    page.evaluate("""async () => {
        const places = () => JSON.stringify([...document.querySelectorAll('body *')]
            .map((part) => part.getBoundingClientRect()));
        for (let before = '', same = 0, left = 600; same < 5; before = places()) {
            if (!--left) throw new Error('the page does not come to rest');
            await new Promise((wake) => setTimeout(wake, 50));
            same = places() === before ? same + 1 : 0;
        }
    }""")


def give(page, path: Path) -> None:
    page.set_input_files("#photo input[type=file]", path)
    settle(page)


def take(page, example: str) -> None:
    page.get_by_role("button", name=example).click()
    settle(page)


def read(page, selector: str) -> str:
    return re.sub(r"\s+", " ", page.inner_text(selector))


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def is_in_sight(page, selector: str) -> bool:
    box = page.locator(selector).bounding_box()
    size = page.viewport_size
    return box["y"] >= -1 and box["y"] + box["height"] <= size["height"] and box["x"] + box["width"] <= size["width"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_verdict_and_the_one_picture_come_into_sight(open_demo, classifier, hopper, width, height, dark):
    page = open_demo(width, height, dark)
    give(page, hopper)
    (expected,) = classifier.predict_photo(hopper, faces="all")
    assert read(page, ".hs-answer h2") == plain(sentence(expected))
    assert is_in_sight(page, ".hs-answer h2") and is_in_sight(page, ".hs-photo")
    large = "[...document.images].filter((image) => image.checkVisibility() && image.width > 100).length"
    assert page.evaluate(large) == 1
    assert page.get_by_text("Another photo").is_visible() and not page.get_by_text("Choose a photo").is_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.evaluate("""[...document.querySelectorAll('#picture *')].filter((part) => part.innerText)
        .every((part) => parseFloat(getComputedStyle(part).fontSize) >= 12)""")


def test_a_portrait_gets_bars_and_where_it_looked_when_that_is_opened(open_demo, classifier, hopper):
    page = open_demo()
    give(page, hopper)
    (expected,) = classifier.predict_photo(hopper, faces="all")
    bars = read(page, ".hs-bars").lower()
    for label, probability in expected.probabilities.items():
        assert f"{word(label)} {100 * probability:.0f} %" in bars
    assert not page.get_by_alt_text("Heat map: ").is_visible()
    page.get_by_role("button", name="Where it looked").click()
    page.get_by_alt_text("Heat map: ").wait_for()
    assert f"Evidence for “{word(expected.label)}”" in read(page, "#heat")
    assert f"covering the brightest one lowers the probability of “{word(expected.label)}” by" in read(page, "#heat")


def test_of_several_faces_one_is_chosen_with_the_keyboard_alone_and_without_the_server(open_demo):
    page = open_demo()
    page.get_by_role("button", name=BOTH).focus()
    page.keyboard.press("Enter")
    page.locator(".hs-result").wait_for()
    assert "Face 1 of 2" in read(page, ".hs-result")
    page.route("**/gradio_api/**", lambda asking: asking.abort())  # for example, because the photo was deleted
    second = page.locator(".hs-badge").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    assert "Face 2 of 2" in read(page, ".hs-result") and "Face 1 of 2" not in read(page, ".hs-result")
    assert page.locator("[aria-pressed=true]").evaluate_all("them => them.map((one) => one.dataset.face)") == ["1", "1"]
    spoken = read(page, "#hs-said")
    assert spoken.startswith("Face 2 of 2: ") and spoken.endswith(read(page, ".hs-answer:not([hidden]) h2"))


def test_where_it_looked_is_about_the_face_that_is_chosen(open_demo):
    page = open_demo()
    take(page, BOTH)
    where, heat = page.get_by_role("button", name="Where it looked"), page.get_by_alt_text("Heat map: ")
    where.click()
    heat.wait_for()
    first = heat.get_attribute("src")
    page.locator(".hs-badge").nth(1).click()
    heat.wait_for(state="hidden")
    where.click()
    heat.wait_for()
    second = heat.get_attribute("src")
    assert second != first
    bars = page.locator(".hs-bars:not([hidden]) [role=meter]")
    highest = bars.evaluate_all("them => them.sort((a, b) => b.ariaValueNow - a.ariaValueNow)[0].ariaLabel")
    assert f"Evidence for “{highest}”" in read(page, "#heat")
    asked = []
    page.on("request", lambda asking: asked.append(asking.url) if "/queue/join" in asking.url else None)
    for number in (0, 1, 0, 1):  # faster than the answers
        page.locator(".hs-badge").nth(number).click()
        where.click()
    heat.wait_for()
    page.wait_for_timeout(2000)  # no earlier answer comes later
    assert len(asked) == 4 and heat.get_attribute("src") == second


def test_of_photos_given_in_quick_succession_the_last_one_is_answered(open_demo):
    page = open_demo()
    for example in ("Grace Hopper", "Eileen Collins", "Grace Hopper", BOTH):
        page.get_by_role("button", name=example).click()
    page.get_by_text("Face 1 of 2", exact=True).wait_for()
    page.wait_for_timeout(2000)  # no earlier answer comes later
    assert "Face 1 of 2" in read(page, ".hs-result")


def test_on_a_phone_faces_have_a_strip_to_tap_and_numbers_on_the_photo(open_demo, classifier):
    page = open_demo(360, 740)
    take(page, BOTH)
    for number in (0, 1):
        picture = page.locator(".hs-badge img").nth(number).bounding_box()
        assert picture["width"] >= 56 and picture["height"] >= 56
        tag = page.locator(".hs-photo .hs-face span").nth(number)
        assert tag.inner_text() == str(number + 1) and tag.bounding_box()["x"] + tag.bounding_box()["width"] <= 360
    names = page.locator(".hs-badge").evaluate_all("them => them.map((one) => one.ariaLabel)")
    assert all(re.fullmatch(r"Face \d: .+", name) for name in names)


@pytest.mark.parametrize(("width", "height"), [*SIZES, (1000, 760)])
def test_boxes_lie_on_the_faces(open_demo, width, height):
    page = open_demo(width, height)
    take(page, BOTH)
    photo, picture = (page.locator(part).bounding_box() for part in (".hs-photo", ".hs-photo img"))
    assert photo == pytest.approx(picture, abs=1)
    for index in (0, 1):
        box = page.locator(".hs-photo .hs-face").nth(index).bounding_box()
        assert box["y"] + box["height"] <= picture["y"] + picture["height"]
        assert box["width"] == pytest.approx(box["height"], rel=0.1)  # squares, as the detector gives them


def test_nothing_moves_when_the_verdict_comes(open_demo, hopper):
    for width, height in SIZES:
        page = open_demo(width, height)
        page.evaluate("""window.moved = 0; new PerformanceObserver((list) => list.getEntries()
            .filter((entry) => !entry.hadRecentInput).forEach((entry) => window.moved += entry.value))
            .observe({type: 'layout-shift', buffered: true})""")
        give(page, hopper)
        assert page.evaluate("window.moved") < 0.1


def test_the_photo_does_not_travel_back(open_demo, hopper):
    page, fetched = open_demo(), []
    page.on("request", lambda asking: fetched.append(asking.url))
    give(page, hopper)
    assert not [url for url in fetched if "/file=" in url]


def test_a_photo_without_a_face_gets_no_verdict_until_it_is_said_to_be_one(open_demo, classifier, tmp_path):
    temple = tmp_path / "temple.png"
    Image.fromarray(load_sample_image("china.jpg")).save(temple)
    page = open_demo()
    page.set_input_files("#photo input[type=file]", temple)
    page.get_by_role("heading", name="No face found").wait_for()
    assert "No face, no verdict." in read(page, "#picture")
    assert not page.get_by_role("button", name="Where it looked").is_visible()
    page.get_by_role("button", name="This is a face crop").click()
    page.locator(".hs-answer p", has_text="The whole picture was classified as one face").wait_for()
    (whole,) = classifier.predict_photo(temple, faces="whole")
    assert read(page, ".hs-answer h2") == plain(sentence(whole))


def test_a_broken_file_is_told_in_words_and_the_next_one_works(open_demo, hopper, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(hopper.read_bytes()[:2000])
    page = open_demo()
    page.set_input_files("#photo input[type=file]", broken)
    page.get_by_role("heading", name="This picture can't be read").wait_for()
    assert "%" not in read(page, "#picture")
    give(page, hopper)


def test_a_photo_that_is_too_large_is_refused_in_words(open_demo, tmp_path):
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(31 * 1024 * 1024))
    page = open_demo()
    page.set_input_files("#photo input[type=file]", large)
    page.get_by_text("The photo could not be sent").wait_for()


def test_a_photo_that_is_not_sent_leaves_no_verdict_on_the_one_before(open_demo, hopper, tmp_path):
    page = open_demo()
    give(page, hopper)
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(31 * 1024 * 1024))
    page.set_input_files("#photo input[type=file]", large)
    page.get_by_text("The photo could not be sent").wait_for()
    page.locator(".hs-result").wait_for(state="hidden")
    give(page, hopper)
    assert page.locator(".hs-result").is_visible()


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_photo_is_pasted_on_any_tab_and_dropped(open_demo, hopper, way):
    page = open_demo(at="/#about" if way == "paste" else "")
    page.wait_for_timeout(500)
    event = {"paste": "ClipboardEvent('paste', {clipboardData: data,", "drop": "DragEvent('drop', {dataTransfer: data,"}
    page.evaluate(
        f"""(bytes) => {{
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'pasted.jpg', {{type: 'image/jpeg'}}));
            document.body.dispatchEvent(new {event[way]} bubbles: true, cancelable: true}}));
        }}""",
        [*hopper.read_bytes()],
    )
    page.locator(".hs-result").wait_for()
    assert page.get_by_role("tab", name="Photo", exact=True).get_attribute("aria-selected") == "true"


def test_examples_are_thumbnails_and_drawn_faces_are_not_for_a_model_of_people(open_demo):
    page = open_demo()
    thumbnails = page.locator("#photo [data-example] img")
    assert thumbnails.count() >= 1 and thumbnails.first.bounding_box()["width"] >= 56
    assert "drawn" not in read(page, "#photo")
