"""Files that `hf-smile export` writes or refuses to write."""

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import onnx
import pytest
from safetensors.torch import load_file, save_file

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.data.images import decode_image
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileModelError
from hf_smile.inference import onnx_export
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.onnx_export import EncodedImages, QuantizationCheck, export_onnx, quantize_onnx
from hf_smile.inference.runtimes import check_onnx_matches, load_runtime
from hf_smile.labels import LABEL_NAMES

SCRIPT = Path(__file__).parents[2] / "scripts" / "export_onnx.py"


@pytest.fixture(scope="module")
def sure_model(train_tiny, tmp_path_factory) -> Path:
    """A network trained on more faces. With few, it depends on the processor whether int8 agrees with float32."""
    model = train_tiny(tmp_path_factory.mktemp("sure") / "model", n_faces=120)
    export_onnx(model)
    return model


@pytest.fixture
def own_model(sure_model, tmp_path) -> Path:
    return Path(shutil.copytree(sure_model, tmp_path / "model"))


@pytest.fixture(scope="module")
def splits(sample_dir):
    return load_smile_dataset(sample_dir)


def files(model: Path) -> list[str]:
    return sorted(path.name for path in (model / "onnx").iterdir())


def test_the_network_has_the_names_and_the_metadata_that_others_look_for(model_dir):
    network = onnx.load(model_dir / "onnx" / "model.onnx")
    (pixel_values,), (logits,) = network.graph.input, network.graph.output
    assert (pixel_values.name, logits.name) == ("pixel_values", "logits")
    batch, *shape = pixel_values.type.tensor_type.shape.dim
    assert batch.dim_param and [side.dim_value for side in shape] == [3, 64, 64]
    metadata = {entry.key: entry.value for entry in network.metadata_props}
    assert json.loads(metadata["labels"]) == list(LABEL_NAMES)
    assert json.loads(metadata["pretrained_cfg"])["input_size"] == [3, 64, 64]
    assert metadata["weights_sha256"] == hashlib.sha256((model_dir / "model.safetensors").read_bytes()).hexdigest()


def test_the_file_holds_no_path_of_the_machine_that_made_it(model_dir):
    assert b"site-packages" not in (model_dir / "onnx" / "model.onnx").read_bytes()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_every_batch_size_gives_the_logits_of_torch(model_dir, n):
    pixel_values = np.random.default_rng(n).normal(size=(n, 3, 64, 64)).astype(np.float32)
    expected = load_runtime(model_dir, "torch", "cpu")(pixel_values)
    assert load_runtime(model_dir, "onnx")(pixel_values) == pytest.approx(expected, abs=1e-4)


def test_int8_agrees_with_float32_and_is_smaller(own_model, splits):
    path, check = quantize_onnx(own_model, splits["train"], splits["validation"])
    assert check.images == len(splits["validation"]) and check.agreement >= onnx_export.LEAST_AGREEMENT
    assert files(own_model) == ["model.onnx", "model_quantized.onnx"]
    assert path.stat().st_size < (own_model / "onnx" / "model.onnx").stat().st_size
    weights = [tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4]
    assert weights.count(onnx.TensorProto.INT8) >= 3 / 4 * len(weights)
    assert load_runtime(own_model, "onnx-int8").pretrained_cfg["input_size"] == [3, 64, 64]
    assert "macro F1" in str(check) and 0 <= check.macro_f1 <= 1
    check_onnx_matches(own_model)
    # 7-bit weights, whatever CPU exports the file: 8 bits overflow on x86 CPUs without VNNI.
    values = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    assert max(np.abs(array.astype(int)).max() for array in values if array.dtype == np.int8 and array.ndim == 4) <= 64


def test_int8_of_a_model_with_other_labels(train_tiny, tmp_path):
    model = train_tiny(tmp_path / "model", labels=["posed", "genuine"])
    for number in range(120):
        face = tmp_path / "data" / ("genuine" if number % 2 else "posed") / f"{number}.png"
        face.parent.mkdir(parents=True, exist_ok=True)
        draw_face(number % 2, np.random.default_rng(number), size=64).save(face)
    words = ["export", "--model", model, "--quantize", "int8", "--data_dir", tmp_path / "data", "--held_out"]
    words += ["--test_size", "0.2", "--validation_size", "0.5"]
    done = subprocess.run([sys.executable, "-m", "hf_smile", *words], capture_output=True, text=True)
    assert done.returncode == 0 and "agrees with float32" in done.stdout, done.stderr
    faces = sorted(face.parent.iterdir())
    expected = SmileClassifier.from_pretrained(model, runtime="onnx").predict(faces)
    found = SmileClassifier.from_pretrained(model, runtime="onnx-int8").predict(faces)
    for one, other in zip(found, expected, strict=True):
        assert set(one.probabilities) == {"posed", "genuine"}
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.1)


def test_files_of_other_weights_are_refused_with_what_to_type(own_model, splits):
    quantize_onnx(own_model, splits["train"], splits["validation"])
    weights = own_model / "model.safetensors"
    tensors = load_file(weights)
    changed = {name: tensor * 1.0001 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(changed, weights, metadata={"format": "pt"})
    fix = rf"other weights.*hf-smile export --model {own_model}"
    with pytest.raises(SmileModelError, match=fix + "$"):
        load_runtime(own_model, "onnx")
    with pytest.raises(SmileModelError, match=fix + " --quantize int8"):
        load_runtime(own_model, "onnx-int8")
    with pytest.raises(SmileModelError, match=fix):
        check_onnx_matches(own_model)
    with pytest.raises(SmileModelError, match=fix):
        quantize_onnx(own_model, splits["train"], splits["validation"])
    export_onnx(own_model)
    with pytest.raises(SmileModelError, match="model_quantized"):
        check_onnx_matches(own_model)
    quantize_onnx(own_model, splits["train"], splits["validation"])
    check_onnx_matches(own_model)
    weights.unlink()  # prediction needs only the ONNX file
    assert load_runtime(own_model, "onnx")


@pytest.mark.parametrize(
    ("figures", "passed"),
    [
        ({}, True),
        ({"agreement": 0.94}, False),
        ({"accuracy": 0.83}, False),
        ({"macro_f1": 0.685}, True),
        ({"macro_f1": 0.675}, False),
    ],
)
def test_a_rare_class_that_is_lost_is_noticed(figures, passed):
    same = {"agreement": 0.99, "accuracy": 0.85, "accuracy_float32": 0.85, "macro_f1": 0.7, "macro_f1_float32": 0.7}
    assert QuantizationCheck(images=484, **same | figures).passed is passed


@pytest.mark.parametrize("limit", [10, 1000])
def test_calibration_takes_its_images_from_the_whole_split(own_model, splits, monkeypatch, limit):
    taken = []
    monkeypatch.setattr(onnx_export, "CALIBRATION_IMAGES", limit)
    monkeypatch.setattr(EncodedImages, "batches", lambda _, rows: taken.extend(rows))
    monkeypatch.setattr(onnx_export, "write_int8", lambda *_: None)
    last = len(splits["train"]) - 1
    with pytest.raises(SmileModelError):  # because no file was written, which is not tested here
        quantize_onnx(own_model, splits["train"], splits["validation"])
    assert (taken[0], taken[-1], len(set(taken))) == (0, last, min(limit, last + 1))


def test_images_that_are_held_as_paths_are_read(face_files):
    settings = {"input_size": [3, 64, 64], "crop_pct": 1.0}
    split = datasets.Dataset.from_dict({"image": [str(path) for path in face_files], "label": [0] * len(face_files)})
    split = split.cast_column("image", datasets.Image())
    (batch,) = EncodedImages(split, Preprocessor(settings)).batches()
    assert batch[0] == pytest.approx(Preprocessor(settings)(decode_image(face_files[0].read_bytes())))


def test_what_fails_its_check_is_not_written(own_model, splits, monkeypatch):
    before = (own_model / "onnx" / "model.onnx").read_bytes()
    monkeypatch.setattr(onnx_export, "LEAST_AGREEMENT", 1.01)
    with pytest.raises(SmileModelError, match="not written"):
        quantize_onnx(own_model, splits["train"], splits["validation"])
    monkeypatch.setattr(onnx_export, "LOGIT_TOLERANCE", -1.0)
    with pytest.raises(SmileModelError, match="not written"):
        export_onnx(own_model)
    assert files(own_model) == ["model.onnx"]
    assert (own_model / "onnx" / "model.onnx").read_bytes() == before


def test_the_script_exports_and_tells_mistakes_in_one_message(own_model, sample_dir, monkeypatch, capsys, tmp_path):
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as exit:
            return int(exit.code or 0)
        return 0

    shutil.rmtree(own_model / "onnx")
    assert run("--model", str(own_model), "--quantize", "int8", "--data_dir", str(sample_dir), "--held_out") == 0
    assert "of those of torch" in (out := capsys.readouterr().out) and "agrees with float32" in out
    assert files(own_model) == ["model.onnx", "model_quantized.onnx"]
    shutil.rmtree(own_model / "onnx")
    (tmp_path / "empty").mkdir()
    quantize = ["--model", str(own_model), "--quantize", "int8", "--data_dir"]
    assert run(*quantize, str(tmp_path / "empty")) == 2
    assert "Point --data_dir at a folder" in capsys.readouterr().err
    for arguments in (
        ["--model", str(tmp_path / "nowhere")],
        ["--model", str(own_model), "--data_dir", str(sample_dir)],
        [*quantize, str(sample_dir)],  # nothing records what it was trained on
        [*quantize, str(tmp_path / "nowhere")],
    ):
        assert run(*arguments) == 2
        assert "error: " in capsys.readouterr().err
    assert not (own_model / "onnx").exists()  # reported before anything is exported


def test_onnx_runtime_reports_to_nobody(own_model, tmp_path):
    """It would store what it is going to send in a file in the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    export_onnx(own_model)
    code = f"from hf_smile.inference.runtimes import load_runtime; load_runtime({str(own_model)!r}, 'onnx')"
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not [path for path in home.rglob("*") if "onnxruntime" in str(path)]
