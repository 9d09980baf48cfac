"""A review with the keyboard only, in a browser, with a server that is killed in the middle."""

from __future__ import annotations

import csv
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from hf_smile.data.arguments import DataArguments
from hf_smile.data.dataset import read_tables
from hf_smile.data.sample import draw_sample_dataset
from hf_smile.evaluation.predictions import write_predictions
from hf_smile.labels import LABEL_NAMES
from hf_smile.review.opinions import read_audit
from hf_smile.review.queue import Entry, make_queue

pytest.importorskip("gradio")

SCREENSHOTS = Path(__file__).parents[2] / "outputs" / "screenshots"
KEYS = [*"k13u", "Enter", *"x2sk1"] * 3
"""One key per picture; of two keys for the same picture, the last decides."""
RIGHT_EDGE = "Math.max(...[...document.querySelectorAll('.hr *')].map((part) => part.getBoundingClientRect().right))"
DECISIONS = {"k": "keep", "Enter": "keep", "u": "unsure", "x": "leave_out"}


class Server:
    def __init__(self, *words: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [sys.executable, "-m", "hf_smile", "review", "--port", str(self.port), *map(str, words)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=-1, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for line in self.process.stdout:
            if "The review runs at" in line:
                self.url = re.search(r"http://[^ ]+", line)[0]
                return
        pytest.fail("the review did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """30 drawn faces with an audit; the first two are the same picture with two labels."""
    folder = draw_sample_dataset(tmp_path_factory.mktemp("data"), train_size=20, test_size=10, size=64)
    audit, rng = folder / "audit", np.random.default_rng(3)
    audit.mkdir()
    train, test = (read_tables(DataArguments(str(folder)))[0][split] for split in ("train", "test"))
    ids, labels = [*train["image_id"], *test["image_id"]], [*train["label"], *test["label"]]
    write_predictions(audit / "probe_predictions.csv", ids, labels, rng.dirichlet([1, 1, 1], 30))
    pair = [ids[labels.index(0)], ids[labels.index(1)]]
    (audit / "duplicates.csv").write_text(f"group,image_id\n1,{pair[0]}\n1,{pair[1]}\n")
    near = "".join(f"{image_id},{other},0.5\n" for image_id in ids for other in ids[:3] if other != image_id)
    (audit / "neighbours.csv").write_text(f"image_id,neighbour,similarity\n{near}")
    return folder


@pytest.fixture
def queue(data) -> list[Entry]:
    tables, _ = read_tables(DataArguments(str(data)))
    return make_queue(tables, *read_audit(data / "audit", tables.labels))


@pytest.fixture
def review(data, tmp_path):
    servers = []

    def start(*words: object) -> Server:
        servers.append(Server("--data_dir", data, "--output", tmp_path / "c.csv", "--reviewer", "ann", *words))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def open_review(chromium, request):
    """Open the page, which must not contact another server; at the end a screenshot is taken."""
    asked, complaints, pages = set(), [], []

    def open_page(server: Server, width: int = 1200, dark: bool = False):
        size = {"width": width, "height": 800}
        page = chromium.new_context(viewport=size, color_scheme="dark" if dark else "light").new_page()
        page.on("request", lambda asking: asked.add(asking.url))
        page.on("pageerror", lambda error: complaints.append(error))
        page.set_default_timeout(60_000)
        page.goto(server.url)
        page.locator(".hr-about").first.wait_for()
        pages.append(page)
        return page

    yield open_page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for page in pages:
        page.screenshot(path=SCREENSHOTS / f"{request.node.name}.png", full_page=True)
        page.context.close()
    assert not {url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))}
    assert not complaints


def shown(page) -> str:
    """The id of the shown picture; empty at the end."""
    where = page.locator(".hr-where")
    return where.inner_text().rpartition(" ")[2] if where.count() else ""


def press(page, key: str) -> None:
    """Press a key and wait for the next picture."""
    before = page.inner_html(".hr-about")
    page.keyboard.press(key)
    page.wait_for_function("html => document.querySelector('.hr-about').innerHTML != html", arg=before)


def rows(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as file:
        return [tuple(row[:-1]) for row in csv.reader(file)][1:]


def row_of(entry: Entry, key: str) -> tuple[str, ...]:
    old = LABEL_NAMES[entry.label]
    decision, new = DECISIONS.get(key, ""), ""
    if not decision:
        label = LABEL_NAMES[int(key) - 1]
        decision, new = ("keep", "") if label == old else ("relabel", label)
    return entry.image_id, old, new, decision, "ann"


def test_30_pictures_by_the_keyboard_with_a_killed_server_and_an_undo(data, review, open_review, queue, tmp_path):
    server, path, expected = review("--audit", data / "audit"), tmp_path / "c.csv", []
    page = open_review(server)
    for number, (entry, key) in enumerate(zip(queue, KEYS, strict=True)):
        if number == 14:
            server.kill()
            page.keyboard.press(key)
            page.get_by_text("Your decisions are saved").wait_for()
            server.start()
            page.goto("about:blank")
            page.goto(server.url)
            page.locator(".hr-where").wait_for()
        assert shown(page) == entry.image_id
        press(page, key)
        if key != "s":
            expected.append(row_of(entry, key))
        assert rows(path) == expected  # on disk before the next picture is shown
        if number == 20:
            press(page, "z")
            assert shown(page) == entry.image_id
            expected.append((entry.image_id, LABEL_NAMES[entry.label], "", "undo", "ann"))
            press(page, "u")
            expected.append(row_of(entry, "u"))
            assert rows(path) == expected
    for entry, key in zip(queue, KEYS, strict=True):
        if key == "s":  # skipped pictures come again at the end
            assert shown(page) == entry.image_id
            press(page, "k")
            expected.append(row_of(entry, "k"))
    assert rows(path) == expected and len({row[0] for row in expected}) == 30
    page.get_by_role("heading", name="All pictures are decided").wait_for()
    changed = sum(row[3] == "relabel" for row in expected) - (row_of(queue[20], KEYS[20])[3] == "relabel")
    assert f"{changed} labels changed" in page.inner_text(".hr header")


def test_the_page_shows_what_speaks_for_a_decision_and_fits_a_phone(data, review, open_review, queue, tmp_path):
    page = open_review(review("--audit", data / "audit"), width=360, dark=True)
    number = next(number for number, entry in enumerate(queue) if entry.copies)
    for _ in range(number):
        press(page, "ArrowRight")
    entry = queue[number]
    assert shown(page) == entry.image_id and page.locator(".hr-beside img").count() == 2
    assert f"Given label {LABEL_NAMES[entry.label]}" in re.sub(r"\s+", " ", page.inner_text(".hr-about"))
    percents = [f"{100 * p:.0f} %" for p in entry.opinions["linear probe"]]
    assert re.findall(r"\d+.%", page.inner_text(".hr-opinion").replace("\xa0", " ")) == percents
    assert page.locator(".hr-strip img").count() == len(entry.neighbours)
    assert page.evaluate(RIGHT_EDGE) <= 360
    page.get_by_role("button", name="Unsure").focus()
    press(page, "Enter")  # for the focused button, not Keep
    assert [row[3] for row in rows(tmp_path / "c.csv")] == ["unsure"]
    page.get_by_role("button", name="Leave out").click()
    page.wait_for_function("() => document.querySelector('.hr header').innerText.includes('2 of')")
    press(page, "Enter")
    page.wait_for_function("() => document.querySelector('.hr header').innerText.includes('3 of')")
    assert [row[3] for row in rows(tmp_path / "c.csv")] == ["unsure", "leave_out", "keep"]


def test_blind_nothing_on_the_page_tells_the_given_label(review, open_review, tmp_path):
    page = open_review(review("--blind"))
    assert "Which label fits?" in page.inner_text(".hr-about")
    assert page.locator('button[data-key="k"]').count() == 0
    first = shown(page)
    press(page, "3")
    assert rows(tmp_path / "c.csv")[0][0] == first
    assert "changed" not in page.inner_text(".hr header")
    press(page, "ArrowLeft")
    assert shown(page) == first and f"Decided: {LABEL_NAMES[2]}" in page.inner_text(".hr-about")


def test_the_page_is_for_this_machine_alone(review):
    server = review("--blind")
    served = psutil.Process(server.process.pid).net_connections()
    assert {link.laddr.ip for link in served if link.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n")
        assert b"400" in connection.recv(100)
