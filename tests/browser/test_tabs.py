"""The other tabs: many photos, a clip, the camera, and the text about the model."""

from __future__ import annotations

import csv
import io
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hf_smile.data.sample import draw_face

pytest.importorskip("cv2")
sys.path.insert(0, str(Path(__file__).parents[2] / "space"))
from words import short


def read(page, selector: str) -> str:
    return re.sub(r"\s+", " ", page.inner_text(selector))


def give_many(page, files: list[Path]) -> None:
    page.get_by_role("tab", name="Many photos", exact=True).click()
    page.set_input_files("#files input[type=file]", files)
    page.locator("#files").get_by_text(files[-1].stem[:10]).first.wait_for()
    page.get_by_role("button", name="Classify photos").click()


def test_many_photos_become_faces_a_table_and_a_csv(open_demo, classifier, drawn, tmp_path):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(drawn[1], "album/one.png")
        archive.write(drawn[2], "album/two.png")
        archive.writestr("album/broken.png", b"no image")
    page = open_demo()
    give_many(page, [drawn[0], tmp_path / "more.zip"])
    page.get_by_role("heading", name="3 verdicts, 1 file could not be read").wait_for()
    predictions = [classifier.predict_photo(path, faces="all")[0] for path in drawn]
    captions = page.locator("#verdicts figcaption strong").all_inner_texts()
    assert [caption.lower() for caption in captions] == [short(prediction) for prediction in predictions]
    errors = read(page, "#verdicts .hs-errors")
    assert errors.startswith("more.zip/album/broken.png not a JPEG") and errors.count("broken.png") == 1
    with page.expect_download() as download:
        page.get_by_text("Download verdicts.csv").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    in_zip = [f"more.zip/album/{name}.png" for name in ("one", "two", "broken")]
    assert [row["image_id"] for row in rows] == ["face_0.png", *in_zip]
    assert [row["predicted_label"] for row in rows] == [*(prediction.label for prediction in predictions), ""]
    assert float(rows[0]["p_smile"]) == pytest.approx(predictions[0].p_smile)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_phone_no_result_and_no_broken_file_widens_the_page(open_demo, drawn, tmp_path, dark):
    broken = tmp_path / "a_broken_file_with_a_very_long_name_that_no_phone_shows_in_one_line_20260101.jpg"
    broken.write_bytes(b"no image")
    page = open_demo(360, 740, dark)
    give_many(page, [*drawn, broken])
    page.get_by_role("heading", name="3 verdicts, 1 file").wait_for()
    page.locator("#table [role=gridcell]").first.wait_for()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
    error = page.locator(".hs-errors").bounding_box()
    assert error["x"] >= 0 and error["x"] + error["width"] <= 360


def test_the_table_is_sorted_by_a_click(open_demo, classifier, drawn):
    page = open_demo()
    give_many(page, drawn)
    page.locator("#table [role=gridcell]").first.wait_for()
    header = page.locator("#table [role=columnheader]", has_text="smiling %")
    header.hover()
    header.get_by_role("button", name="Open cell menu").click()
    page.get_by_text("Sort ascending").click()
    page.wait_for_timeout(500)
    shown = page.locator("#table [role=gridcell][data-col='2']").all_inner_texts()
    expected = [classifier.predict_photo(path, faces="all")[0].p_smile for path in drawn]
    assert [int(cell) for cell in shown] == sorted(round(100 * share) for share in expected)


def test_work_is_stopped_by_a_button_and_the_next_is_done(open_demo, drawn, tmp_path):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        file = io.BytesIO()  # large photos, so that there is time to stop
        draw_face(1, np.random.default_rng(0), size=1400).save(file, "JPEG", quality=40)
        for i in range(200):
            archive.writestr(f"{i}.jpg", file.getvalue())
    page = open_demo()
    give_many(page, drawn)
    page.locator("#table [role=gridcell]").first.wait_for()
    page.get_by_role("button", name="Clear").first.click()
    give_many(page, [tmp_path / "many.zip"])
    stop = page.locator("button:visible", has_text="Stop")
    page.get_by_text("Classifying photos").first.wait_for()
    assert stop.is_enabled()
    stop.click()
    page.get_by_role("button", name="Classify photos").and_(page.locator(":enabled")).wait_for()
    page.get_by_role("heading", name="Stopped").wait_for()
    assert not page.locator("#table [role=gridcell]").count() and not page.get_by_text("Download").count()
    other = open_demo()
    give_many(other, drawn)
    other.get_by_role("heading", name="3 verdicts").wait_for()
    assert page.locator("#verdicts h2").all_inner_texts() == ["Stopped"]


def test_choosing_nothing_is_told(open_demo):
    page = open_demo()
    page.get_by_role("tab", name="Many photos", exact=True).click()
    page.get_by_role("button", name="Classify photos").click()
    page.get_by_role("heading", name="No photos yet").wait_for()
    page.get_by_role("tab", name="Video", exact=True).click()
    page.get_by_role("button", name="Track the faces").click()
    page.get_by_role("heading", name="No clip yet").wait_for()


def test_a_clip_is_followed_over_time_and_says_who_is_who(open_demo, classifier, clip, hopper):
    page = open_demo(360, 740)
    page.get_by_role("tab", name="Video", exact=True).click()
    page.set_input_files("#video input[type=file]", clip)
    page.locator("#video video").wait_for()
    page.get_by_role("button", name="Track the faces").click()
    page.get_by_text("The first 30 seconds were analysed.").wait_for()
    said = read(page, "#peaks")
    peaks = page.locator("#peaks .hs-wide figure").count()
    assert said.startswith(("No smile in 30 seconds.", "1 smile in 30 seconds, here at its strongest."))
    assert ("1 smile in" in said) == (peaks == 1)
    if peaks:  # in plain words, as everywhere
        assert "person 1 Smiling (" in said and "positive smile" not in said
    assert "Who is who" in said and page.locator(".hs-people img").count() == 1
    page.locator("#timeline canvas, #timeline svg.marks").first.wait_for()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


def test_the_camera_is_looked_at_frame_by_frame_until_it_is_out_of_sight(open_demo):
    page, calls = open_demo(permissions=["camera"]), []
    page.on("request", lambda asking: calls.append(asking.url) if asking.method == "POST" else None)
    page.get_by_role("tab", name="Live", exact=True).click()
    page.get_by_role("button", name="Start the camera").click()
    page.wait_for_function("document.querySelector('#live-answer [data-number]')?.dataset.number >= 6")
    number = int(page.locator("#live-answer [data-number]").get_attribute("data-number"))
    assert len([url for url in calls if "/queue/join" in url]) >= number  # each frame was sent, none was lost
    assert read(page, ".hs-lines")
    assert not [url for url in calls if "/upload" in url]  # uploads would write frames to disk
    page.get_by_role("tab", name="Photo", exact=True).click()
    page.wait_for_timeout(1500)
    calls.clear()
    page.wait_for_timeout(1000)
    assert calls == []
    page.get_by_role("tab", name="Live", exact=True).click()
    page.get_by_role("button", name="Start the camera").wait_for()


def test_a_camera_that_is_granted_too_late_or_twice_does_not_stay_on(open_demo):
    page = open_demo(permissions=["camera"])
    page.evaluate("""() => {
      window.streams = [];
      window.asked = 0;
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (what) => {
        window.asked += 1;
        await new Promise((grant) => { window.grant = grant; });
        window.streams.push(await ask(what));
        return window.streams.at(-1);
      };
    }""")
    live = (
        "window.streams.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState === 'live').length"
    )
    page.get_by_role("tab", name="Live", exact=True).click()
    page.get_by_role("button", name="Start the camera").dblclick()
    page.evaluate("window.grant()")
    page.get_by_role("button", name="Stop the camera").click()
    assert page.evaluate("window.asked") == 1 and page.evaluate(live) == 0
    page.get_by_role("button", name="Start the camera").click()
    page.get_by_role("tab", name="Photo", exact=True).click()
    page.evaluate("window.grant()")
    page.wait_for_function("window.streams.length === 2")
    page.wait_for_timeout(500)
    assert page.evaluate(live) == 0


def test_a_denied_camera_is_said(open_demo):
    page = open_demo()
    page.get_by_role("tab", name="Live", exact=True).click()
    page.get_by_role("button", name="Start the camera").click()
    page.get_by_text("The browser does not let this page use the camera.").wait_for()


def test_the_about_tab_shows_limits_metrics_and_versions(open_demo):
    page = open_demo()
    page.get_by_role("tab", name="About", exact=True).click()
    page.get_by_role("heading", name="Limits and responsible use").wait_for()
    text = read(page, "body")
    assert "Proves nothing." in text and "Some." not in text
    assert "0.875" in text and "demo_model" in text and "gradio 6" in text


def test_on_a_phone_the_tables_about_the_model_break_no_word(open_demo):
    page = open_demo(width=360, height=740)
    page.get_by_role("tab", name="About", exact=True).click()
    page.locator("table").first.wait_for()
    lines = """cells => cells.map((cell) => {
      const text = document.createRange();
      text.selectNodeContents(cell);
      return [cell.innerText, new Set([...text.getClientRects()].map((line) => line.top)).size];
    })"""
    cells = [cell for cell in page.locator("td, th").evaluate_all(lines) if cell[0]]
    assert len(cells) > 10 and not [(text, count) for text, count in cells if count > len(text.split())]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
