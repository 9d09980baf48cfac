"""Visitors with bad intentions or a bad connection: the answers they get, and that the demo keeps working."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileError
from hf_smile.inference.faces import Face
from hf_smile.inference.files import find_images

pytest.importorskip("cv2")
pytest.importorskip("gradio")

import app
import engine
import environment
import forgetting
import gate
import gradio as gr
from engine import Engine
from forgetting import Health, Mailboxes, Uploads, drop_idle_connections, forget_idle_visitors
from starlette.requests import Request

SPACE = Path(app.__file__).parent
HOPPER = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))


@pytest.fixture(scope="module")
def visitor(demo_url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo_url, trust_env=False, timeout=30) as client:
        yield client


def upload(visitor: httpx.Client, name: str, content: bytes) -> Path:
    return Path(visitor.post("/gradio_api/upload", files={"files": (name, content)}).json()[0])


def uploaded(path: Path | str) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def call(visitor: httpx.Client, api: str, argument: object, **more: object) -> str:
    posted = visitor.post(f"/gradio_api/call/{api}", json={"data": [argument], **more})
    return visitor.get(f"/gradio_api/call/{api}/{posted.json()['event_id']}").text


def test_what_the_demo_does_not_need_is_not_there(visitor):
    offered = [
        "proxy=http://127.0.0.1/",
        "dev/reload",
        "deep_link?session_hash=a",
        "custom_component/a/client/b/c",
        "vibe-code",
        "token",
        "stream/a/b/1/playlist.m3u8",
        "runs",
        "file=http://127.0.0.1/",
        "file=HTTPS://example.org/a.png",
        "file/etc/passwd",
    ]
    codes = {path: visitor.get(f"/gradio_api/{path}").status_code for path in offered}
    codes |= {path: visitor.post(f"/gradio_api/{path}").status_code for path in ("process_recording", "vibe-edit")}
    codes |= {path: visitor.post(f"/gradio_api/{path}", json={}).status_code for path in ("run/other", "api/predict")}
    codes |= {path: visitor.get(path).status_code for path in ("/monitoring", "/openapi.json", "/login_check")}
    assert set(codes.values()) == {404}, codes


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/theme.css?v=1",
        "/static/img/logo.svg",
        "/gradio_api/info?all_endpoints=True",
        "/gradio_api/queue/status",
        "/gradio_api/heartbeat/592a2f48-6684-4a89-ab84-367a35dd80bc",  # of gradio_client
        "/gradio_api/heartbeat/1a2b3c",  # of the page
        "/gradio_api/call/v2/predict/0123abcd",
        "/gradio_api/file=/uploads/my photo.jpg",
    ],
)
def test_what_the_page_and_gradio_client_ask_for_is_let_in(path):
    assert gate._NEEDED.fullmatch(path.split("?")[0])


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=..%2f..%2f..%2f..%2fetc/passwd",
        "/gradio_api/file=file:///etc/passwd",
        f"/gradio_api/file={SPACE / 'app.py'}",
        "/gradio_api/file=space/app.py",
        "/gradio_api/file=.",
        "/static/%2e%2e/%2e%2e/%2e%2e/routes.py",
        "/assets/..%2f..%2f..%2froutes.py",
    ],
)
def test_files_that_nobody_uploaded_are_not_served(visitor, path):
    answer = visitor.get(path)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text and "import" not in answer.text


def test_the_folder_of_uploads_and_links_out_of_it_are_not_served(visitor):
    mine = upload(visitor, "mine.jpg", HOPPER.read_bytes())
    (mine.parent / "link.txt").symlink_to("/etc/passwd")
    for path in (mine.parent, mine.parents[1], mine.parent / "link.txt", mine.parent / ".." / ".." / "log"):
        assert visitor.get(f"/gradio_api/file={path}").status_code == 403
    posted = visitor.post("/gradio_api/call/predict", json={"data": [uploaded(mine.parent / "link.txt")]})
    assert posted.status_code == 400


@pytest.mark.parametrize("name", ["../../../mine.png", "/etc/mine.png", "..\\..\\mine.png", "a/../../mine.png"])
def test_an_upload_stays_in_its_folder_whatever_its_name(visitor, name):
    folder = upload(visitor, "mine.png", b"a picture").parents[1]
    path = upload(visitor, name, name.encode())
    assert path.parents[1] == folder and ".." not in path.parts and path.is_file()


@pytest.mark.parametrize("api", ["predict", "predict_batch"])
def test_the_server_fetches_nothing_from_other_servers(visitor, api):
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.2)
        file = uploaded(f"http://127.0.0.1:{inside.getsockname()[1]}/secret.png")
        posted = visitor.post(f"/gradio_api/call/{api}", json={"data": [file if api == "predict" else [file]]})
        assert posted.status_code == 400 and "upload it first" in posted.json()["detail"]
        with pytest.raises(TimeoutError):
            inside.accept()


@pytest.mark.parametrize("name", ["page.html", "page.svg", "page.xhtml", "page.xml", "page.js", "page", "page.mhtml"])
def test_an_upload_that_is_a_page_is_downloaded_not_shown(visitor, name):
    path = upload(visitor, name, b"<script>alert(1)</script>")
    for headers in ({}, {"Range": "bytes=0-30"}):
        answer = visitor.get(f"/gradio_api/file={path}", headers=headers)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")


def test_a_page_under_the_name_of_a_picture_is_taken_for_a_picture(visitor):
    answer = visitor.get(f"/gradio_api/file={upload(visitor, 'page.jpg', b'<script>alert(1)</script>')}")
    assert answer.headers["content-type"] == "image/jpeg" and answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b"\xff\xfe",
        b'{"data": 1}',
        b'{"data": [], "session_hash": "a", "fn_index": -1}',
        b'{"data": [], "session_hash": "a", "fn_index": 99999}',
        b'{"data": [], "session_hash": "a", "fn_index": 1e99}',
        b'{"data": [], "session_hash": 7, "fn_index": 0}',
        b'{"data": "x", "session_hash": "a", "fn_index": 0}',
        b'{"data": ' + 20_000 * b"[" + 20_000 * b"]" + b"}",
    ],
)
def test_a_call_that_makes_no_sense_is_answered_as_one(visitor, body):
    answer = visitor.post("/gradio_api/queue/join", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500 and answer.json()["detail"]


def test_a_function_of_the_page_alone_is_none_of_the_server_s(demo_model, tmp_path):
    page = app.build_page(Engine(str(demo_model)), tmp_path)
    in_page = [function for function in page.fns.values() if function.fn is None]
    assert in_page
    for function in in_page:
        with pytest.raises(gr.Error, match="no such function") as caught:
            page.validate_inputs(function, [])
        assert not caught.value.print_exception


def test_other_requests_that_make_no_sense_are_answered_too(visitor):
    path = upload(visitor, "a.png", b"a picture")
    answers = [
        visitor.post("/gradio_api/call/nothing", json={"data": []}),
        visitor.post("/gradio_api/call/v2/nothing", json={}),
        visitor.post("/gradio_api/cancel", json={"fn_index": -1}),
        visitor.get(f"/gradio_api/file={path}", headers={"Range": "bytes=1-2-3"}),
        visitor.post("/gradio_api/upload", content=b"no form"),
        visitor.post("/gradio_api/upload", data={"files": "no file"}, files={"other": ("a.png", b"a")}),
        visitor.post("/gradio_api/upload?upload_id=1", data={"text": "first"}, files={"files": ("a.png", b"a")}),
    ]
    assert [400 <= answer.status_code < 500 for answer in answers] == [True] * len(answers)
    assert "no such function" in answers[0].json()["detail"]


def test_a_call_without_a_file_is_answered_in_words(visitor):
    posted = visitor.post("/gradio_api/call/predict", json={"data": []})
    answer = visitor.get(f"/gradio_api/call/predict/{posted.json()['event_id']}").text
    assert "event: error" in answer and "invalid input for this function" in answer


def test_a_huge_call_is_refused(visitor):
    answer = visitor.post("/gradio_api/queue/join", json={"data": ["a" * gate.MAX_CALL]})
    assert answer.status_code == 413 and "4 MB" in answer.json()["detail"]


def test_answers_are_only_for_who_knows_their_number(visitor):
    assert "404" in visitor.get("/gradio_api/call/predict/" + 32 * "0").text
    assert "session_not_found" in visitor.get("/gradio_api/queue/data?session_hash=somebody").text


def test_a_visitor_without_a_name_does_not_stop_the_work_for_all(visitor):
    hopper = uploaded(upload(visitor, "hopper.jpg", HOPPER.read_bytes()))
    for name in ("first", "second", ""):  # Gradio's queue broke when the empty name waited behind two others
        join = {"data": [3 * [hopper]], "session_hash": name}
        assert visitor.post("/gradio_api/call/predict_batch", json=join).status_code == 200
    assert "p_smile" in call(visitor, "predict_batch", [hopper])
    assert "p_smile" in call(visitor, "predict", hopper)


def test_a_greedy_visitor_is_told_to_wait_and_others_are_served(visitor):
    many = [uploaded(upload(visitor, "hopper.jpg", HOPPER.read_bytes()))] * 20
    greedy, other = ({"X-Forwarded-For": address} for address in ("10.0.0.1", "10.0.0.2"))
    call_many = {"url": "/gradio_api/call/predict_batch", "json": {"data": [many]}}
    answers = [visitor.post(**call_many, headers=greedy) for _ in range(gate.MAX_WAITING + 4)]
    assert [answer.status_code for answer in answers][-1] == 429
    assert "wait until some are done" in answers[-1].json()["detail"]
    posted = visitor.post("/gradio_api/call/predict", json={"data": [many[0]]}, headers=other)
    assert "p_smile" in visitor.get(f"/gradio_api/call/predict/{posted.json()['event_id']}").text


def test_a_clip_that_nobody_waits_for_is_looked_at_no_further(demo_model, tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    path = Path(environment.UPLOADS.name) / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 8, (64, 64))
    for _ in range(80):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    engine, looked = Engine(str(demo_model)), []
    monkeypatch.setattr(engine.classifier, "predict_photo", lambda photo, **_: looked.append(1) or [])
    page = app.build_page(engine, tmp_path)
    (follow,) = [each.fn for each in page.fns.values() if "video_tab.<locals>.follow" in str(each.fn)]
    running = follow(uploaded(path), progress=lambda *_, **__: None)
    next(running)
    running.close()  # as Gradio does if the visitor has left or pressed Stop
    assert 1 <= len(looked) <= 3


def test_a_round_of_forgetting_that_fails_is_told_by_health_and_the_next_one_clears_it(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(forgetting, "EVERY", 0)
    monkeypatch.setattr(forgetting, "drop_idle_connections", lambda *_: None)
    broken = SimpleNamespace(_queue=SimpleNamespace(event_ids_to_events={}), server=None)  # has no state_holder
    health = Health()

    async def some_rounds() -> None:
        async with forgetting.keep_forgetting(broken, Uploads(tmp_path), health)(None):
            while health.problem is None:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(some_rounds(), 20))
    told = gate.Gate(None, Uploads(tmp_path), health, lambda client: 0)._tell_health()
    assert told.status_code == 503 and b"AttributeError in forget_idle_visitors" in told.body
    assert "Traceback" not in capfd.readouterr().err


def test_a_healthy_demo_says_so(visitor):
    answer = visitor.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_every_answer_forbids_the_page_to_ask_other_servers(visitor):
    for path in ("/", "/config", "/gradio_api/info", "/health"):
        policy = visitor.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy and "http" not in policy


def test_poison_among_good_pictures_spoils_nothing_else(visitor):
    good = io.BytesIO()
    draw_face(1, np.random.default_rng(11), size=64).save(good, "PNG")  # a seed whose face the detector finds
    header = struct.pack(">4sIIBBBBB", b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    strip = io.BytesIO()
    Image.new("RGB", (1, 20_000)).save(strip, "PNG")
    members = {
        "good_0.png": good.getvalue(),
        "bomb.png": bomb + struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")),
        "cut.jpg": HOPPER.read_bytes()[:5000],
        "svg.jpg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "page.png": b"<script>alert(1)</script>",
        "empty.webp": b"",
        "strip.png": strip.getvalue(),
        "good_1.png": good.getvalue(),
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        for name, content in members.items():
            writing.writestr(name, content)
    answer = call(visitor, "predict_batch", [uploaded(upload(visitor, "mixed.zip", archive.getvalue()))])
    (verdicts,) = json.loads(answer.split("event: complete\ndata: ")[1])
    assert [verdict["image_id"] for verdict in verdicts] == [f"mixed.zip/{name}" for name in members]
    read = [verdict["image_id"].split("/")[1] for verdict in verdicts if verdict["p_smile"] is not None]
    assert read == ["good_0.png", "good_1.png"]
    assert verdicts[0]["p_smile"] == verdicts[-1]["p_smile"]


def test_a_zip_named_again_and_again_is_listed_until_there_are_too_many(demo_model, tmp_path, monkeypatch):
    names, listed = [f"{i}.png" for i in range(100)], []
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    monkeypatch.setattr(engine, "find_images", lambda paths: listed.append(paths) or find_images(paths))
    with pytest.raises(SmileError, match="at most 200"):
        next(Engine(str(demo_model)).look_at_many(1500 * [tmp_path / "many.zip"]))
    assert len(listed) == 3
    monkeypatch.setattr(engine, "_MAX_MEMBERS", 99)
    (answer,) = Engine(str(demo_model)).look_at_many([tmp_path / "many.zip"])
    assert "more than 99 files" in answer.error and len(listed) == 3


def test_a_photo_too_thin_to_be_looked_at_has_no_face(visitor, demo_model, tmp_path):
    strip = Path(environment.UPLOADS.name) / "strip.png"
    Image.new("RGB", (1, 20_000)).save(strip)
    page = app.build_page(Engine(str(demo_model)), tmp_path)
    look = next(each.fn for each in page.fns.values() if "photo_tab.<locals>.look" in str(each.fn))
    html, where, faces = look(gr.EventData(None, {"path": str(strip)}), gr.Request(session_hash="a"))
    assert "No face found" in html and (where["visible"], faces) == (False, [])
    answer = call(visitor, "predict", uploaded(upload(visitor, "strip.png", strip.read_bytes())))
    assert "no face found" in answer and "event: complete" in answer


def test_who_hangs_up_in_mid_request_leaves_the_others_alone(visitor, demo_url):
    hopper = uploaded(upload(visitor, "hopper.jpg", HOPPER.read_bytes()))
    beginning = b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nContent-Type: multipart/"
    part = b'form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    for text in (b"GET / HT", beginning, beginning + part + 100_000 * b"a"):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", int(demo_url.rsplit(":", 1)[1]))) as line:
                line.sendall(text)
    visitor.post("/gradio_api/call/predict_batch", json={"data": [[hopper]]})  # and never fetches the answer
    assert "p_smile" in call(visitor, "predict", hopper)


def through_gate(
    tmp_path: Path, path: str, *parts: bytes | float, waiting=lambda client: 0, headers=()
) -> tuple[int, str]:
    """Status and text of the answer to a POST request sent in parts; a number is a pause in seconds.

    If it is let through, the text has the client's address and the address that it claims.
    """
    sent, coming = [], iter(parts)

    async def receive() -> dict:
        part = next(coming, b"")
        if isinstance(part, float):
            await asyncio.sleep(part)
            part = b""
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    async def read(scope, receive, send) -> None:
        await Request(scope, receive).body()
        claimed = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b" ".join([b"read", *claimed])})

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [*headers], "client": ("10.0.0.1", 1)}
    asyncio.run(gate.Gate(read, Uploads(tmp_path), Health(), waiting)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode()


def test_uploads_and_calls_get_through_in_parts(tmp_path):
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        assert through_gate(tmp_path, path, b'{"data"', b": []}") == (200, "read")


def test_a_call_that_names_very_many_files_is_refused_before_they_are_looked_up(tmp_path, monkeypatch):
    looked_up = []
    monkeypatch.setattr(Uploads, "holds", lambda self, path: looked_up.append(path) or True)
    body = json.dumps({"data": [{"path": str(tmp_path)}] * 20_000}).encode()
    assert through_gate(tmp_path, "/gradio_api/queue/join", body)[0] == 413
    assert through_gate(tmp_path, "/gradio_api/queue/join", json.dumps({"path": "a/" * 600}).encode())[0] == 400
    assert not looked_up


def test_bytes_that_arrive_during_a_sweep_count(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    uploads = Uploads(tmp_path)
    lstat = Path.lstat

    def arrive(path):
        uploads.held += 10_000
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", arrive)
    uploads.sweep(300)
    assert uploads.held == 14_096


def test_who_begins_many_calls_at_once_is_told_to_wait(tmp_path):
    counts = iter([0, gate.MAX_WAITING])  # others are accepted between the head and the end of the request
    code, _ = through_gate(tmp_path, "/gradio_api/call/predict", b"{", b"}", waiting=lambda client: next(counts))
    assert code == 429


def test_a_tool_call_counts_as_its_client_s_whatever_its_headers_say(tmp_path):
    headers = [(b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-for", b"5.6.7.8")]
    assert through_gate(tmp_path, "/gradio_api/mcp/", b"{}", headers=headers) == (200, "read 10.0.0.1")


def test_tool_calls_share_the_space_of_uploads(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "MAX_HELD", 500)
    code, text = through_gate(tmp_path, "/gradio_api/mcp/", b'{"photo": "%s"}' % (600 * b"a"))
    assert code == 503 and "try again" in text


@pytest.mark.parametrize(("length", "ends"), [([], True), ([(b"content-length", b"100")], False)])
def test_an_answer_that_breaks_off_is_ended_if_its_length_was_not_announced(tmp_path, length, ends):
    sent = []

    async def break_off(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b"a part", "more_body": True})
        raise FileNotFoundError("gone")

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/config", "headers": []}
    asyncio.run(gate.Gate(break_off, Uploads(tmp_path), Health(), lambda client: 0)(scope, None, send))
    assert (sent[-1] == {"type": "http.response.body"}) == ends


def test_who_dawdles_is_sent_away(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "_PAUSE", 0.05)
    monkeypatch.setattr(gate, "_CALL_WITHIN", 0.05)
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        code, text = through_gate(tmp_path, path, b"{", 5.0)
        assert code == 408 and "too long" in text


def test_one_upload_and_all_uploads_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "MAX_BATCH", 1000)
    code, text = through_gate(tmp_path, "/gradio_api/upload", 600 * b"a", 600 * b"a")
    assert code == 413 and "exceeds the limit" in text
    monkeypatch.setattr(gate, "MAX_HELD", 500)
    code, text = through_gate(tmp_path, "/gradio_api/upload", 600 * b"a")
    assert code == 503 and "try again" in text


def test_a_fault_after_the_answer_sends_no_second_one(tmp_path):
    sent = []

    async def answer_and_fail(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all of it"})
        raise FileNotFoundError("gone")

    async def send(message) -> None:
        sent.append(message["type"])

    scope = {"type": "http", "method": "GET", "path": "/config", "headers": []}
    asyncio.run(gate.Gate(answer_and_fail, Uploads(tmp_path), Health(), lambda client: 0)(scope, None, send))
    assert sent == ["http.response.start", "http.response.body"]


def test_a_full_disk_is_said(capsys):
    try:
        raise OSError(28, "No space left on device", "/uploads/mine.jpg")
    except OSError as error:
        answer = gate._refusal(error)
    assert answer.status_code == 503 and b"try again later" in answer.body
    assert "OSError" in capsys.readouterr().err


def test_old_uploads_go_and_those_under_way_stay(tmp_path, monkeypatch):
    for name in ("sample/0.jpg", "whole/mine.jpg", "first_of_two"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"a picture")
    uploads, now = Uploads(tmp_path), time.time()
    monkeypatch.setattr(time, "time", lambda: now + gate._UPLOAD_WITHIN - 1)
    assert uploads.sweep(300, {uploads.folder / "sample" / "0.jpg"}) == set()
    assert uploads.held == 2 * 4096  # so that the number of small files is limited, too
    monkeypatch.setattr(time, "time", lambda: now + 301)
    gone = [uploads.sweep(300, {uploads.folder / "sample" / "0.jpg"}) for _ in range(2)]
    assert gone == [{str(uploads.folder / name) for name in ("whole/mine.jpg", "first_of_two")}, set()]
    assert uploads.held == 0
    assert {path.name for path in tmp_path.rglob("*")} == {"sample", "0.jpg"}


def test_an_answer_that_nobody_fetches_is_forgotten_and_no_other(monkeypatch):
    boxes, now = Mailboxes(), time.monotonic()
    queue = SimpleNamespace(
        event_ids_to_events={"3": SimpleNamespace(session_hash="waiting")},
        pending_event_ids_session={"fetched": set(), "unread": {"2"}, "waiting": {"3"}},
    )
    for name in queue.pending_event_ids_session:
        boxes[name].put_nowait("an answer")
    boxes.forget(queue)
    assert set(boxes) == {"unread", "waiting"}
    monkeypatch.setattr(time, "monotonic", lambda: now + forgetting._FETCH_WITHIN + 10)
    boxes.forget(queue)
    assert set(boxes) == set(queue.pending_event_ids_session) == {"waiting"}


def test_only_the_last_visitors_are_remembered_and_those_without_a_photo_never(demo_model, tmp_path, monkeypatch):
    monkeypatch.setattr(forgetting, "_MOST_REMEMBERED", 2)
    page = app.build_page(Engine(str(demo_model)), tmp_path)
    page.app.configure_app(page)
    visitors = page.app.state_holder
    for name in ("first", "second", "third", "by the API"):
        visitors[name].state_data |= {} if name == "by the API" else {1: "a photo"}
    forget_idle_visitors(page, 300)
    assert list(visitors.session_data) == list(visitors.time_last_used) == ["second", "third"]


def test_large_photos_are_not_kept_in_memory(demo_model, tmp_path, monkeypatch):
    engine, path = Engine(str(demo_model)), tmp_path / "large.png"
    Image.new("RGB", (3000, 2000)).save(path)
    a_crop = SimpleNamespace(detect=lambda photo: [Face((0, 0, 2000, 2000), 1.0)])
    monkeypatch.setattr(engine.classifier, "_detector", a_crop)
    (alone,) = engine.look(Image.open(path))
    (of_many,) = engine.look_at_many([path])
    assert alone.crop.size == (384, 384) and of_many.crop.size == (160, 160)


def test_connections_that_never_finish_their_request_are_closed(monkeypatch):
    closed = []
    request = SimpleNamespace(response_complete=False)
    answered = SimpleNamespace(response_complete=True)

    class Line(SimpleNamespace):
        __hash__ = object.__hash__

    lines = {
        name: Line(cycle=cycle, transport=SimpleNamespace(close=lambda name=name: closed.append(name)))
        for name, cycle in {"half a header": None, "working": request, "between two": answered}.items()
    }
    server, idle, now = (
        SimpleNamespace(server_state=SimpleNamespace(connections=set(lines.values()))),
        {},
        time.monotonic(),
    )
    drop_idle_connections(server, idle)
    lines["between two"].cycle = SimpleNamespace(response_complete=True)  # requested again in the meantime
    monkeypatch.setattr(time, "monotonic", lambda: now + 40)
    drop_idle_connections(server, idle)
    assert closed == ["half a header"]


@pytest.mark.parametrize("port", ["abc", "99999", "0", "-1", "1.5", "²"])
def test_a_port_that_is_none_is_told_in_words(port):
    with pytest.raises(SmileError, match="GRADIO_SERVER_PORT is"):
        app._port(port)


def test_a_port_that_is_none_does_not_end_in_a_traceback_of_gradio(tmp_path):
    done = subprocess.run(
        [sys.executable, SPACE / "app.py"],
        env=os.environ | {"TMPDIR": str(tmp_path), "GRADIO_SERVER_PORT": "abc"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: GRADIO_SERVER_PORT is 'abc'")
    assert "Traceback" not in done.stderr and not list(tmp_path.glob("hf_smile_*"))
