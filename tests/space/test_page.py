"""The parts of the demo, without a browser."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileDataError, SmileError, SmileModelError
from hf_smile.inference.classifier import SmilePrediction
from hf_smile.inference.explain import Explanation
from hf_smile.inference.faces import Face
from hf_smile.inference.runtimes import choose_runtime
from hf_smile.labels import LABEL_NAMES
from hf_smile.utils.figures import class_colors

pytest.importorskip("cv2")
pytest.importorskip("gradio")

import about
import app
import gradio as gr
import views
import words
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
    broken = SmilePrediction(source="<script>alert(1)</script>.png", error="no image")
    html = views.batch([broken], [face(source="<b>\"'x")])
    assert "<script>" not in html and "<b>" not in html and "&lt;script&gt;" in html


def test_a_probability_is_never_shown_as_certain():
    assert [words.percent(p).replace("\xa0", " ") for p in (0.0, 0.004, 0.005, 0.5, 0.995, 0.9951, 1.0)] == [
        "under 1 %",
        "under 1 %",
        "under 1 %",
        "50 %",
        "over 99 %",
        "over 99 %",
        "over 99 %",
    ]


@pytest.mark.parametrize(
    ("probabilities", "sentence", "short"),
    [
        ((0.28, 0.60, 0.12), "Smiling (88 %). More likely genuine than posed (68 : 32).", "genuine smile"),
        ((0.60, 0.28, 0.12), "Smiling (88 %). More likely posed than genuine (68 : 32).", "posed smile"),
        ((0.45, 0.47, 0.08), "Smiling (92 %). Can't tell whether genuine or posed (51 : 49).", "smile"),
        ((0.54, 0.37, 0.09), "Smiling (91 %). Can't tell whether genuine or posed (41 : 59).", "smile"),
        ((0.24, 0.30, 0.46), "Can't tell whether this is a smile (54 % for it).", "can't tell"),
        ((0.10, 0.20, 0.70), "Not smiling (70 %).", "no smile"),
        ((0.00, 1.00, 0.00), "Smiling (over 99 %). More likely genuine than posed (99 : 1).", "genuine smile"),
    ],
)
def test_one_sentence_says_it_all_and_nothing_about_genuine_where_there_is_no_smile(probabilities, sentence, short):
    prediction = face(probabilities).prediction
    assert words.sentence(prediction).replace("\xa0", " ") == sentence and words.short(prediction) == short
    headers, rows = views.table([prediction])
    assert headers[2:] == ["smiling %", "genuine %"] and (rows[0][3] is None) == ("Not smiling" in sentence)


def test_a_verdict_says_how_often_such_a_one_was_right():
    metrics = {"precision_negative_smile": 1 / 3, "precision_positive_smile": None, "precision_not_smile": 0.96}
    posed, genuine, none = (face(p).prediction for p in ((0.7, 0.2, 0.1), (0.2, 0.7, 0.1), (0.1, 0.1, 0.8)))
    assert "“posed smile”, it was right 3 times in 10" in words.track_record(posed, metrics)
    assert "“no smile”, it was right almost every time" in words.track_record(none, metrics)
    for precision, often in (
        (1.0, "right every time"),
        (0.95, "right almost every time"),
        (0.05, "right almost never"),
        (0.0, "right never"),
    ):
        assert often in words.track_record(none, {"precision_not_smile": precision})
    assert words.track_record(genuine, metrics) == ""
    open_question = face((0.45, 0.47, 0.08)).prediction
    assert words.track_record(open_question, metrics | {"precision_positive_smile": 0.7}) == ""


def test_other_labels_have_sentences_too():
    from hf_smile.labels import LabelSet

    labels = LabelSet(("smile", "NOT smile"))
    smiling = SmilePrediction("smile", {"smile": 0.9, "NOT smile": 0.1}, labels=labels)
    assert words.sentence(smiling) == "Smiling (90\xa0%)." and words.short(smiling) == "smile"
    assert words.sentence(replace(smiling, probabilities={"smile": 0.2, "NOT smile": 0.8})) == "Not smiling (80\xa0%)."
    grin = SmilePrediction("grin", {"grin": 0.9, "neutral": 0.1}, labels=LabelSet(("grin", "neutral")))
    assert words.sentence(grin) == "Grin (90\xa0%)." and words.short(grin) == "grin"


def test_faces_are_numbered_on_the_photo_and_their_verdicts_stand_in_a_strip():
    photo = Image.new("RGB", (400, 100))
    crowd = [face(box=(50 * i, 10, 50 * i + 40, 50)) for i in range(8)]
    html = views.photo(photo, crowd, {})
    assert html.count('class="hs-badge"') == html.count('class="hs-face"') == 8
    assert html.count('aria-pressed="true"') == 2 and html.count("<h2>") == 8 and html.count("hidden") == 14
    assert 'aria-label="Face 8: genuine smile"' in html
    assert "hs-badge" not in views.photo(photo, crowd[:1], {})


@pytest.mark.parametrize(
    ("probabilities", "named"),
    [
        ((0.2, 0.7, 0.1), 1),
        ((0.6, 0.28, 0.12), 0),
        ((0.1, 0.2, 0.7), 2),
        ((0.45, 0.47, 0.08), None),
        ((0.24, 0.30, 0.46), None),
        ((0.31, 0.31, 0.38), None),
    ],
)
def test_the_colour_of_a_face_is_that_of_the_class_that_its_sentence_names(probabilities, named):
    seen = face(probabilities)
    html = views.photo(Image.new("RGB", (100, 100)), [seen], {})
    color = re.search(r'class="hs-face"[^>]*--class:(#\w+)', html)[1]
    assert color == (views._GREY if named is None else class_colors(LABEL_NAMES)[LABEL_NAMES[named]])


def test_the_samples_are_pictures_of_faces_without_a_download(tmp_path, demo_model):
    from samples import write_samples

    files = write_samples(tmp_path, drawn=False)
    engine = Engine(str(demo_model))
    found = {name: [seen.prediction.box for seen in engine.look(Image.open(path))] for name, path in files.items()}
    assert all(found["Grace Hopper"]) and len(found["Grace Hopper"]) == 1
    if importlib.util.find_spec("skimage"):
        assert len(found["both of them"]) == 2
    drawn = {"drawn, genuine", "drawn, posed", "drawn, no smile"}  # only for a model that was trained on drawn faces
    assert not drawn & set(files) and drawn < set(write_samples(tmp_path, drawn=True))


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
    with pytest.raises(SmileError, match="needs onnxruntime, which is not installed: pip install 'hf_smile'"):
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
    with pytest.raises(SmileModelError, match=r"config\.json of me/smile could not be downloaded"):
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
        next(engine.follow(tmp_path / "gone.mp4"))


@pytest.mark.parametrize("index", [2, -1, "0", None, 0.5])
def test_a_choice_of_a_face_that_is_not_there_explains_the_first(demo_model, tmp_path, index):
    page = app.build_page(Engine(str(demo_model)), tmp_path)
    functions = {function.fn.__name__: function.fn for function in page.fns.values() if function.fn}
    faces = [face((0.2, 0.7, 0.1)), face((0.2, 0.1, 0.7))]
    assert "for “genuine smile”" in functions["explain"](faces, {"face": index}, gr.Request(session_hash="a"))
    assert "was deleted" in functions["explain"](None, 0, gr.Request())


def test_of_overlapping_calls_the_one_with_the_highest_number_is_the_latest():
    from tabs import _Latest

    latest = _Latest()
    with latest.call("ann", 1) as first, latest.call("bob", 7) as other:
        assert first() and other()
        with latest.call("ann", 3) as third, latest.call("ann", 2) as second:
            assert (first(), second(), third(), other()) == (False, False, True, True)
        assert not first()
    assert not latest._running


def test_an_argument_of_the_demo_is_refused_with_what_it_takes_instead():
    done = subprocess.run([sys.executable, SPACE / "app.py", "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "HF_SMILE_MODEL" in done.stderr and "Traceback" not in done.stderr


def test_the_words_of_a_model_are_text_on_the_page(demo_model, tmp_path, monkeypatch):
    def fail(face):
        raise SmileModelError("the node <img src=x onerror=alert()> failed")

    engine = Engine(str(demo_model))
    monkeypatch.setattr(engine, "explain", fail)
    functions = {
        function.fn.__name__: function.fn for function in app.build_page(engine, tmp_path).fns.values() if function.fn
    }
    assert "&lt;img" in functions["explain"]([face((0.2, 0.7, 0.1))], 0, gr.Request())


def test_a_heat_map_says_how_it_was_computed_and_how_much_the_hottest_place_matters():
    heat, picture = np.eye(4, dtype=np.float32), Image.new("RGB", (4, 4))
    maps = [
        Explanation("positive smile", heat, picture, np.zeros((3, 4, 4), np.float32), drop) for drop in (None, 0.12)
    ]
    by_gradients, by_occlusion = map(views.heat_map, maps)
    assert "gradients of the network (HiResCAM)" in by_gradients and "covering" not in by_gradients
    assert "lowers the probability of “genuine smile” by 12.0 percentage points (occlusion)" in by_occlusion
    assert "HiResCAM" not in by_occlusion


def test_without_torch_the_demo_shows_where_it_looked_on_each_face(demo_model, tmp_path):
    code = """
import sys
sys.modules |= dict.fromkeys(["torch", "captum", "timm", "transformers"])
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import app
import gradio as gr
from engine import Engine
from hf_smile.inference.classifier import load_image
engine = Engine(sys.argv[2])
page = app.build_page(engine, Path(sys.argv[3]))
explain = next(function.fn for function in page.fns.values() if function.name == "explain")
faces = [engine.look(load_image(path), whole=True)[0] for path in sys.argv[4:]]
for index in range(len(faces)):
    print(explain(faces, {"face": index, "number": 1}, gr.Request()))
"""
    files = [tmp_path / f"{label_id}.png" for label_id in range(2)]
    for label_id, path in enumerate(files):
        draw_face(label_id, np.random.default_rng(1), size=96).save(path)
    words = [sys.executable, "-c", code, SPACE, demo_model, tmp_path, *files]
    done = subprocess.run(words, capture_output=True, text=True)
    maps = done.stdout.splitlines()
    assert len(set(maps)) == 2 and all("Heat map: " in one and "(occlusion)" in one for one in maps), done.stderr


def test_without_gradio_one_message_says_what_to_install():
    app = str(Path(__file__).parents[2] / "space" / "app.py")
    code = (
        "import runpy, sys; from pathlib import Path; sys.modules['gradio'] = None\n"
        "sys.path.insert(0, str(Path(sys.argv[1]).parent)); runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, app], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: the demo needs gradio, which is not installed: pip install 'hf_smile[demo]'\n"


def test_the_page_is_in_the_module_for_what_looks_for_it_there(demo_model, monkeypatch):
    monkeypatch.setattr(app, "MODEL", str(demo_model))
    assert isinstance(app.demo, gr.Blocks) and app.demo.title == app.TITLE
    with pytest.raises(AttributeError):
        _ = app.something_else


def test_a_model_without_a_card_is_said_to_have_none(tmp_path):
    text = about.about(str(tmp_path))
    assert "has no card" in text and "not tested" in text


@pytest.mark.parametrize(
    "metrics", ["[]", "{", '{"accuracy": "x"}', '{"support_not_smile": 3}', '{"support_not_smile": 1e999}', 9_999 * "["]
)
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
    html = views.photo(photo, faces, engine.metrics)
    assert "No face found" in html and "No face, no verdict" in html and "%" not in html
    (row,) = engine.look_at_many([path])
    assert views.table([row])[1] == [["cup.png", "no face found", None, None]]


def test_a_picture_that_is_said_to_be_a_face_is_classified_whole(demo_model):
    engine, crop = Engine(str(demo_model)), Image.new("RGB", (80, 80))
    (seen,) = engine.look(crop, whole=True)
    assert "classified as one face" in views.photo(crop, [seen], {}) and seen.prediction.box is None


def test_results_carry_their_pictures_inside(demo_model):
    photo = draw_face(1, np.random.default_rng(1), size=96)
    faces = Engine(str(demo_model)).look(photo)
    html = views.photo(photo, faces, {}) + views.batch([faces[0].prediction], faces)
    assert set(re.findall(r'src="([a-z:/]*)', html)) == {"data:image/jpeg"}
