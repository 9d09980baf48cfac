"""The API as gradio_client and curl use it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from matplotlib.cbook import get_sample_data
from PIL import Image

from hf_smile.inference.classifier import SmileClassifier

pytest.importorskip("cv2")

FORGOTTEN = "deleted after five minutes; upload it again"
HOPPER = str(get_sample_data("grace_hopper.jpg", asfileobj=False))


@pytest.fixture(scope="module")
def client(demo_url) -> Client:
    return Client(demo_url, verbose=False)


@pytest.fixture(scope="module")
def classifier(demo_model) -> SmileClassifier:
    return SmileClassifier.from_pretrained(demo_model, runtime="onnx")


def test_predict_gives_what_the_classifier_gives(client, classifier):
    (verdict,) = client.predict(handle_file(HOPPER), api_name="/predict")
    (expected,) = classifier.predict_photo(HOPPER, faces="all")
    assert verdict["predicted_label"] == expected.label and verdict["box"] == list(expected.box)
    assert verdict["p_positive_smile"] == pytest.approx(expected.probabilities["positive smile"])
    assert verdict["p_smile"] == pytest.approx(expected.p_smile) and verdict["error"] is None


def test_a_broken_photo_is_answered_not_raised(client, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    (verdict,) = client.predict(handle_file(broken), api_name="/predict")
    assert verdict["predicted_label"] is None and "not a JPEG" in verdict["error"]


def test_a_photo_without_a_face_gets_a_row_that_says_so(client, tmp_path):
    Image.new("RGB", (200, 200), "teal").save(tmp_path / "cup.png")
    cup = handle_file(tmp_path / "cup.png")
    for verdict in (*client.predict(cup, api_name="/predict"), *client.predict([cup], api_name="/predict_batch")):
        assert verdict["note"] == "no face found" and verdict["error"] is None
        assert verdict["predicted_label"] is None and verdict["p_smile"] is None


def test_predict_batch_reads_zips_and_names_every_file(client, faces_zip, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    no_zip = tmp_path / "no.zip"
    no_zip.write_bytes(b"no zip")
    files = [handle_file(path) for path in (HOPPER, faces_zip, broken, no_zip)]
    verdicts = client.predict(files, api_name="/predict_batch")
    sources = [verdict["image_id"] for verdict in verdicts]
    assert sources == ["grace_hopper.jpg", "faces.zip/a/0.png", "faces.zip/a/1.png", "broken.png", "no.zip"]
    assert [bool(verdict["predicted_label"]) for verdict in verdicts] == [True, True, True, False, False]
    assert "not a readable zip" in verdicts[-1]["error"] and "/" not in verdicts[-1]["error"]
    with pytest.raises(AppError, match="pass a list of files"):
        client.predict(handle_file(HOPPER), api_name="/predict_batch")


@pytest.fixture
def faces_zip(tmp_path) -> Path:
    import numpy as np

    from hf_smile.data.sample import draw_face

    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for i in range(2):
            file = io.BytesIO()
            draw_face(i, np.random.default_rng((11, 14)[i])).save(file, "PNG")  # seeds of faces that the detector finds
            archive.writestr(f"a/{i}.png", file.getvalue())
    return tmp_path / "faces.zip"


def test_more_images_than_allowed_are_refused_in_words(client, tmp_path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(201):
            archive.writestr(f"{i}.png", b"")
    with pytest.raises(AppError, match="upload at most 200 images"):
        client.predict([handle_file(path)], api_name="/predict_batch")


@pytest.mark.parametrize("language", ["python", "bash"])
def test_the_examples_of_the_readme_run(demo_url, language, tmp_path, demo_model):
    for name in ("photo.jpg", "one.jpg"):
        shutil.copy(HOPPER, tmp_path / name)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(HOPPER, "more.jpg")
    readme = (Path(__file__).parents[2] / "space" / "README.md").read_text()
    code = readme.split(f"```{language}\n")[1].split("```")[0].replace("http://127.0.0.1:7860", demo_url)
    shell = {"python": [sys.executable, "-c"], "bash": ["bash", "-euc"]}[language]
    done = subprocess.run([*shell, code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (expected,) = SmileClassifier.from_pretrained(demo_model, runtime="onnx").predict_photo(HOPPER, faces="all")
    assert str(list(expected.box)) in done.stdout and expected.label in done.stdout


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {}])
def test_files_of_the_server_are_not_read(demo_url, meta):
    call = f"{demo_url}/gradio_api/call/predict"
    data = json.dumps({"data": [{"path": HOPPER, **meta}]})
    answer = json.loads(curl("-H", "Content-Type: application/json", "-d", data, call))
    assert answer == {"detail": "not an uploaded file; upload it first"}


@pytest.fixture(scope="module")
def somebodys_upload(demo_url) -> Path:
    """Path on the server of another visitor's picture."""
    return Path(json.loads(curl("-F", f"files=@{HOPPER}", f"{demo_url}/gradio_api/upload"))[0])


@pytest.fixture(params=["API", "page"])
def look_at(request, demo_url) -> Callable[[Path], str]:
    """The server's answer to a batch of one path, requested by the API or like the page's tab."""
    if request.param == "API":
        call = f"{demo_url}/gradio_api/call/predict_batch"
        return lambda path: curl("-N", f"{call}/{json.loads(post(call, {'data': [[upload_at(path)]]}))['event_id']}")
    config = json.loads(curl(f"{demo_url}/config"))
    (files,) = [part["id"] for part in config["components"] if part["props"].get("elem_id") == "files"]
    (tab,) = [each["id"] for each in config["dependencies"] if each["inputs"] == [files]]

    def ask(path: Path) -> str:
        who = {"session_hash": uuid4().hex, "fn_index": tab}
        post(f"{demo_url}/gradio_api/queue/join", {"data": [[upload_at(path)]], **who})
        return curl("-N", f"{demo_url}/gradio_api/queue/data?session_hash={who['session_hash']}")

    return ask


def upload_at(path: Path) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def post(url: str, content: dict) -> str:
    return curl("-H", "Content-Type: application/json", "-d", json.dumps(content), url)


def test_an_upload_is_looked_at_and_its_folder_not_told(look_at, somebodys_upload):
    answer = look_at(somebodys_upload)
    assert "grace_hopper.jpg" in answer and "smile" in answer
    assert somebodys_upload.parent.name not in answer


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (".", "not an uploaded file"),
        ("**/*", FORGOTTEN),
        ("*/grace_hopper.jpg", FORGOTTEN),
        ("*/*.[j]pg", FORGOTTEN),
    ],
)
def test_nobody_finds_the_pictures_of_others(look_at, somebodys_upload, pattern, said):
    folder = somebodys_upload.parents[1]
    answer = look_at(folder / pattern)
    assert said in answer and str(folder) not in answer
    assert re.search(r'"p_smile": ?\d|data:image', answer) is None


def test_a_broken_zip_does_not_tell_where_uploads_lie(look_at, demo_url, tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    (path,) = json.loads(curl("-F", f"files=@{tmp_path}/broken.zip", f"{demo_url}/gradio_api/upload"))
    answer = look_at(Path(path))
    words = re.sub("<.*?>", "", answer)
    assert re.search("not a readable zip", words) and str(Path(path).parent) not in answer


def test_uploads_have_a_limit(demo_url, tmp_path):
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(31 * 1024 * 1024))
    assert "exceeded" in curl("-F", f"files=@{large}", f"{demo_url}/gradio_api/upload").lower()


def test_the_description_of_the_api_gives_types_and_says_what_comes(demo_url):
    api = json.loads(curl(f"{demo_url}/gradio_api/info"))["named_endpoints"]
    assert set(api) == {"/predict", "/predict_batch"}
    for endpoint, name in (("/predict", "photo"), ("/predict_batch", "files")):
        assert api[endpoint]["description"].startswith("Classify each face")
        assert [parameter["parameter_name"] for parameter in api[endpoint]["parameters"]] == [name]
        (answer,) = api[endpoint]["returns"]
        assert "p_smile: None | float" in answer["python_type"]["type"] and "Any" not in answer["python_type"]["type"]


def test_an_mcp_client_finds_the_tools_and_gets_a_verdict_but_has_nothing_fetched(demo_url, classifier):
    pytest.importorskip("mcp")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def use() -> tuple:
        async with (
            streamablehttp_client(f"{demo_url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = [tool.name for tool in (await session.list_tools()).tools]
            photo = f"data:image/jpeg;base64,{base64.b64encode(Path(HOPPER).read_bytes()).decode()}"
            verdict = await session.call_tool("predict", {"photo": photo})
            verdicts = await session.call_tool("predict_batch", {"files": [photo, "data:image/png;base64,AAAA", photo]})
            refused = [
                await session.call_tool("predict", {"photo": f"{demo_url}/config"}),
                await session.call_tool("predict_batch", {"files": [f"{demo_url}/config"]}),
                await session.call_tool("predict_batch", {"files": ["data:image/png;base64,!"]}),
            ]
            return tools, verdict, verdicts, refused

    tools, verdict, verdicts, refused = asyncio.run(use())
    (expected,) = classifier.predict_photo(HOPPER, faces="all")
    assert tools == ["predict", "predict_batch"]
    assert not verdict.isError and expected.label in verdict.content[0].text
    told = "".join(content.text for content in verdicts.content)
    assert not verdicts.isError and told.count(expected.label) == 2 and "file 3" in told and "not a JPEG" in told
    words = ("400 Bad Request", "file 1 is not a data: URI", "file 1 is not a data: URI")
    assert all(answer.isError and word in answer.content[0].text for answer, word in zip(refused, words, strict=True))


def curl(*words: str) -> str:
    return subprocess.run(["curl", "-sS", "--noproxy", "*", *words], capture_output=True, text=True, timeout=60).stdout
