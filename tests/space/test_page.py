"""What the demo is made of, without a browser."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileDataError, SmileModelError
from hf_smile.inference.classifier import SmilePrediction
from hf_smile.inference.faces import Face
from hf_smile.inference.runtimes import choose_runtime
from hf_smile.labels import LABEL_NAMES

pytest.importorskip("cv2")
pytest.importorskip("gradio")

import about
import app
import gradio as gr
import views
from engine import FORGOTTEN, MAX_FACES, Engine, SeenFace
from forgetting import forget_idle_visitors

SPACE = Path(app.__file__).parent


def face(probabilities=(0.2, 0.7, 0.1), box=(10, 10, 50, 50), **about) -> SeenFace:
    by_name = dict(zip(LABEL_NAMES, probabilities, strict=True))
    label = max(by_name, key=by_name.__getitem__)
    return SeenFace(SmilePrediction(label, by_name, box, **about), Image.new("RGB", (40, 40)))


def test_the_front_matter_names_the_installed_gradio_and_what_is_there():
    front = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert front["sdk"] == "gradio" and front["sdk_version"] == importlib.metadata.version("gradio")
    assert (SPACE / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60


def test_names_of_files_are_shown_not_run():
    html = views.batch([face(source="<script>alert(1)</script>.png").prediction], [face(source="<b>\"'x")])
    assert "<script>" not in html and "<b>" not in html and "&lt;script&gt;" in html


def test_a_probability_is_never_shown_as_certain():
    assert [views.percent(p).replace("\xa0", " ") for p in (0.0, 0.004, 0.5, 0.9951, 1.0)] == [
        "under 1 %",
        "under 1 %",
        "50 %",
        "over 99 %",
        "over 99 %",
    ]


def test_no_smile_makes_the_second_question_idle():
    assert "Only worth something" in views.details([face((0.1, 0.1, 0.8))], 0)
    assert "Only worth something" not in views.details([face((0.1, 0.8, 0.1))], 0)


def test_in_a_crowd_only_the_chosen_face_has_a_tag():
    photo = Image.new("RGB", (400, 100))
    crowd = [face(box=(50 * i, 10, 50 * i + 40, 50)) for i in range(8)]
    html = views.photo(photo, crowd)
    assert "8 faces found" in html and "crowd" in html and html.count('aria-pressed="true"') == 1
    assert "crowd" not in views.photo(photo, crowd[:3])


def test_the_samples_are_pictures_of_faces_without_a_download(tmp_path, demo_model):
    from samples import write_samples

    files = write_samples(tmp_path)
    engine = Engine(str(demo_model))
    found = {name: [seen.prediction.box for seen in engine.look(Image.open(path))] for name, path in files.items()}
    assert all(found["Grace Hopper"]) and len(found["Grace Hopper"]) == 1
    if importlib.util.find_spec("skimage"):
        assert len(found["both of them"]) == 2
    assert {"drawn, genuine", "drawn, posed", "drawn, no smile"} < set(files)


def test_a_model_without_onnx_runs_in_torch_and_none_is_told_in_words(demo_model, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((demo_model / name).read_bytes())
    photo = draw_face(1, np.random.default_rng(1), size=96)
    (in_torch,), (in_onnx,) = Engine(str(tmp_path)).look(photo), Engine(str(demo_model)).look(photo)
    assert in_torch.prediction.probabilities == pytest.approx(in_onnx.prediction.probabilities, abs=1e-4)
    with pytest.raises(SmileModelError, match="nowhere"):
        Engine("nowhere")


def test_an_onnx_file_that_can_not_be_run_is_said(demo_model, tmp_path, monkeypatch):
    broken = Path(shutil.copytree(demo_model, tmp_path / "broken"))
    (broken / "onnx" / "model.onnx").write_bytes(b"no network")
    with pytest.raises(SmileModelError, match="ONNX Runtime can't load it"):
        Engine(str(broken))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SmileModelError, match="ONNX Runtime is not installed"):
        Engine(str(demo_model))


def test_a_model_on_the_hub_without_onnx_runs_in_torch(demo_model, monkeypatch):
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    def without_onnx(_model, name):
        if name == "config.json":
            return str(demo_model / name)
        raise RemoteEntryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "http://hub")))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", without_onnx)
    assert choose_runtime("me/smile") == "torch"


def test_a_hub_that_can_not_be_reached_is_asked_for_one_file(monkeypatch):
    import huggingface_hub

    asked = []

    def unreachable(_model, name):
        asked.append(name)
        raise OSError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(SmileModelError, match=r"config\.json of me/smile could not be fetched"):
        choose_runtime("me/smile")
    assert asked == ["config.json"]


def test_of_a_crowd_so_many_faces_are_classified_and_no_more(demo_model, monkeypatch):
    engine = Engine(str(demo_model))
    classified, probabilities = [], engine.classifier.probabilities
    boxes = [Face((i, 0, i + 40, 40), 1.0) for i in range(MAX_FACES + 5)]
    monkeypatch.setattr(engine.classifier, "_detector", SimpleNamespace(detect=lambda photo: boxes))
    monkeypatch.setattr(
        engine.classifier, "probabilities", lambda inputs: classified.append(len(inputs)) or probabilities(inputs)
    )
    assert len(engine.look(Image.new("RGB", (100, 50)))) == MAX_FACES and sum(classified) == MAX_FACES


def test_an_upload_deleted_while_it_waited_is_said_to_be_forgotten(demo_model, tmp_path):
    engine = Engine(str(demo_model))
    for name in ("first.png", "second.png"):
        Image.new("RGB", (80, 80)).save(tmp_path / name)
    paths = [tmp_path / name for name in ("gone.png", "gone.zip", "first.png", "second.png")]
    seen = engine.look_at_many(paths)
    errors = [next(seen).error, next(seen).error]
    next(seen)
    (tmp_path / "second.png").unlink()
    errors.append(next(seen).error)
    assert errors == [FORGOTTEN] * 3
    with pytest.raises(SmileDataError, match=FORGOTTEN):
        engine.follow(tmp_path / "gone.mp4", print)


@pytest.mark.parametrize("index", [2, -1, "0", None, 0.5])
def test_a_click_on_a_face_that_is_not_there_chooses_the_first(demo_model, tmp_path, index):
    page = app.build_page(Engine(str(demo_model)), tmp_path)
    functions = {function.fn.__name__: function.fn for function in page.fns.values() if function.fn}
    faces = [face((0.2, 0.7, 0.1)), face((0.2, 0.1, 0.7))]
    html, chosen = functions["choose"](faces, gr.EventData(None, {"face": index}))
    assert "Face 1 of 2" in html and chosen == 0
    assert "What spoke for “genuine smile”" in functions["explain"](faces, index)


def test_a_model_without_a_card_is_said_to_have_none(tmp_path):
    text = about.about(str(tmp_path))
    assert "comes without a card" in text and "not tested" in text


@pytest.mark.parametrize("metrics", ["[]", "{", '{"accuracy": "x"}', '{"support_not_smile": 3}', 9_999 * "["])
def test_a_card_and_metrics_that_make_no_sense_are_no_hindrance(tmp_path, metrics):
    (tmp_path / "README.md").write_bytes(b"## Limits\n\xff\xfe")
    (tmp_path / "test_metrics.json").write_text(metrics)
    assert "can't be read" in about.about(str(tmp_path))


def test_idle_visitors_are_forgotten_and_others_are_not(demo_model, tmp_path):
    page = app.build_page(Engine(str(demo_model)), tmp_path)
    page.app.configure_app(page)
    visitors = page.app.state_holder
    for name in ("idle", "busy"):
        visitors[name].state_data[1] = "a photo"
    visitors.time_last_used["idle"] = datetime.now() - timedelta(seconds=301)
    forget_idle_visitors(page, 300)
    assert list(visitors.session_data) == ["busy"]


def test_a_picture_without_a_face_gets_no_verdict_anywhere(demo_model, tmp_path):
    photo, path = Image.new("RGB", (80, 80)), tmp_path / "cup.png"
    photo.save(path)
    engine = Engine(str(demo_model))
    faces = engine.look(photo)
    html = views.photo(photo, faces) + views.details(faces, 0)
    assert "No face found" in html and "So there is no verdict" in html and "%" not in html
    (row,) = engine.look_at_many([path])
    assert "no verdict: no face found" in views.batch([row], [])


def test_a_face_crop_that_the_detector_is_not_sure_of_is_said_to_be_classified_whole():
    html = views.photo(Image.new("RGB", (80, 80)), [face(box=None)])
    assert "Taken for a face crop" in html and "No face found" not in html


def test_results_carry_their_pictures_inside(demo_model):
    photo = draw_face(1, np.random.default_rng(1), size=96)
    faces = Engine(str(demo_model)).look(photo)
    html = views.photo(photo, faces) + views.batch([faces[0].prediction], faces)
    assert set(re.findall(r'src="([a-z:/]*)', html)) == {"data:image/jpeg"}
