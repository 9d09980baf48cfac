"""Accessibility: contrast, sizes, keyboard use, and links to the page."""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("cv2")


def show_all(page, hopper, drawn, clip) -> list[str]:
    """Open the tabs one after another, each with a result in it."""
    page.get_by_role("button", name="both of them").click()
    page.locator(".hs-result").wait_for()
    page.get_by_role("button", name="Where it looked").click()
    page.get_by_alt_text("Heat map: ").wait_for()
    yield "Photo"
    page.get_by_role("tab", name="Live", exact=True).click()
    page.get_by_role("button", name="Start the camera").click()
    page.locator(".hs-lines p").first.wait_for()
    yield "Live"
    broken = drawn[0].with_name("broken.jpg")
    broken.write_bytes(b"no image")
    page.get_by_role("tab", name="Many photos", exact=True).click()
    page.set_input_files("#files input[type=file]", [hopper, *drawn, broken])
    page.locator("#files").get_by_text("broken").first.wait_for()
    page.get_by_role("button", name="Classify photos").click()
    page.locator("#table [role=gridcell]").first.wait_for()
    yield "Many photos"
    page.get_by_role("tab", name="Video", exact=True).click()
    page.set_input_files("#video input[type=file]", clip)
    page.locator("#video video").wait_for()
    page.get_by_role("button", name="Track the faces").click()
    page.locator("#peaks h2").first.wait_for()
    yield "Video"
    page.get_by_role("tab", name="About", exact=True).click()
    yield "About"


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(open_demo, hopper, drawn, clip, width, dark):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_demo(width, 900, dark, permissions=["camera"])
    found = {}
    for tab in show_all(page, hopper, drawn, clip):
        page.wait_for_timeout(500)
        for fault in axe.run(page).response["violations"]:
            found[tab, fault["id"]] = [node["html"][:200] for node in fault["nodes"]]
    assert not found


LUMINANCE = """
const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const page = getComputedStyle(document.body).backgroundColor;
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_ring_around_what_has_the_focus_and_the_frames_of_bars_stand_out(open_demo, dark):
    """At least 3 to 1, as required by WCAG 2.2 (1.4.11)."""
    page = open_demo(dark=dark)
    page.get_by_role("button", name="Grace Hopper").focus()
    page.keyboard.press("Enter")
    page.locator(".hs-result").wait_for()
    page.keyboard.press("Shift+Tab")
    ring = "getComputedStyle(document.activeElement.closest('.hs-button, button, a')).outlineColor"
    assert page.evaluate(f"() => {{ {LUMINANCE} return ratio({ring}, page); }}") >= 3
    frame = "getComputedStyle(document.querySelector('.hs-bar > div')).borderTopColor"
    assert page.evaluate(f"() => {{ {LUMINANCE} return ratio({frame}, page); }}") >= 3


def test_targets_are_at_least_24_pixels_in_each_direction(open_demo, hopper, drawn, clip):
    """As required by WCAG 2.2 (2.5.8), except links inside text."""
    page, found = open_demo(360, 740, permissions=["camera"]), {}
    for tab in show_all(page, hopper, drawn, clip):
        small = page.evaluate("""[...document.querySelectorAll('button, a, input, [role=button]')]
            .filter((part) => part.checkVisibility() && !part.closest('[aria-hidden=true], p, [role=grid], .hs-photo'))
            .filter((part) => !(part.tagName === 'INPUT' && (part.type === 'file' || part.hidden)))
            .map((part) => [part.outerHTML.slice(0, 150), part.getBoundingClientRect()])
            .filter(([, box]) => box.width && (box.width < 24 || box.height < 24)).map(([html]) => html)""")
        found[tab] = small
    assert not any(found.values()), found


def test_headings_go_down_step_by_step_and_the_page_says_what_it_is(open_demo):
    page = open_demo()
    page.get_by_role("button", name="both of them").click()
    page.locator(".hs-result").wait_for()
    levels = page.locator("h1, h2, h3, h4").evaluate_all(
        "them => them.filter((one) => one.checkVisibility()).map((one) => +one.tagName[1])"
    )
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    assert page.title() == "Smile: for real or for show?"
    assert "genuine" in page.locator("meta[name=description]").get_attribute("content")


def test_what_changes_is_said_in_one_sentence_and_not_read_out_whole(open_demo):
    page = open_demo()
    page.get_by_role("button", name="Grace Hopper").click()
    page.locator(".hs-result").wait_for()
    assert page.locator("#hs-said[role=status]").inner_text() == page.locator(".hs-answer h2").inner_text()
    regions = page.locator("[aria-live], [role=status]")
    assert all("hs-photo" not in html for html in regions.evaluate_all("them => them.map((one) => one.innerHTML)"))


def test_the_tab_is_in_the_address(open_demo):
    page = open_demo(at="/#many-photos")
    tab = page.get_by_role("tab", name="Many photos", exact=True)
    page.wait_for_function("document.querySelector('[role=tab][aria-selected=true]')?.innerText === 'Many photos'")
    page.get_by_role("tab", name="About", exact=True).click()
    assert page.evaluate("location.hash") == "#about"
    page.reload()
    page.wait_for_function("document.querySelector('[role=tab][aria-selected=true]')?.innerText === 'About'")
    assert tab.get_attribute("aria-selected") == "false"
    page.go_back()
    page.wait_for_function("document.querySelector('[role=tab][aria-selected=true]')?.innerText === 'Many photos'")


def test_no_other_server_is_asked_for_anything_on_a_space_either(open_demo):
    page = open_demo()
    outside = """url => fetch(url).then(() => 'let through', () => 'refused')"""
    assert page.evaluate(outside, "http://127.0.0.1:9/") == "refused"
    policy = page.evaluate("fetch('/').then((answer) => answer.headers.get('content-security-policy'))")
    assert policy.startswith("default-src 'self'") and "http" not in policy
