"""Untrusted model folders: refused with a message, and nothing in them is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from safetensors.torch import load_file, save_file

from hf_smile.commands.main import main
from hf_smile.errors import SmileModelError
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.faces import make_detector
from hf_smile.labels import LABEL_NAMES
from hf_smile.modeling import load_model

Change = Callable[[Path], object]
MARK = "code_was_run"


class Payload:
    """A pickle that writes a file when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(MARK),)


EVIL_MODULE = f"from pathlib import Path\nPath({MARK!r}).touch()\nclass Evil: pass\n"


def settings(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def data_settings(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        settings(pretrained_cfg=config["pretrained_cfg"] | changes)(folder)

    return change


def without(name: str) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        del config[name]
        (folder / "config.json").write_text(json.dumps(config))

    return change


def config_text(content: bytes) -> Change:
    return lambda folder: (folder / "config.json").write_bytes(content)


def weights(change_weights: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        loaded = load_file(folder / "model.safetensors")
        change_weights(loaded)
        save_file(loaded, folder / "model.safetensors")

    return change


def weights_bytes(edit: Callable[[bytes], bytes]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(edit(path.read_bytes()))

    return change


def pickle_only(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Payload()))

    return change


def sharded(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    pickle_only("../shard.bin")(folder)
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../shard.bin")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def evil_code(key: str, value: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / "evil.py").write_text(EVIL_MODULE)
        settings(**{key: value})(folder)

    return change


def checkpoint_path(folder: Path) -> None:
    (folder / "evil.pth").write_bytes(pickle.dumps(Payload()))
    settings(model_args={"checkpoint_path": str(folder / "evil.pth")})(folder)


def instead(name: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def set_first(name_part: str, value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    def change(loaded: dict[str, torch.Tensor]) -> None:
        name = next(name for name in loaded if name_part in name)
        loaded[name].view(-1)[0] = value

    return change


NAMES = list(LABEL_NAMES)
HUGE_HEADER = struct.pack("<Q", 2**40)

REFUSED: dict[str, tuple[Change, str]] = {
    # weights
    "pytorch_model.bin": (pickle_only("pytorch_model.bin"), "no model.safetensors"),
    "model.pt": (pickle_only("model.pt"), "no model.safetensors"),
    "model.ckpt": (pickle_only("model.ckpt"), "no model.safetensors"),
    "shards of pickle": (sharded, "no model.safetensors"),
    "pickle under the name": (weights_bytes(lambda _: pickle.dumps(Payload())), "damaged or incomplete"),
    "cut off": (weights_bytes(lambda content: content[: len(content) // 2]), "damaged or incomplete"),
    "cut in the header": (weights_bytes(lambda content: content[:20]), "damaged or incomplete"),
    "empty weights": (weights_bytes(lambda _: b""), "damaged or incomplete"),
    "oversized header": (weights_bytes(lambda content: HUGE_HEADER + content[8:]), "damaged or incomplete"),
    "a missing weight": (weights(lambda loaded: loaded.pop("fc.weight")), "do not fit config.json.*missing"),
    "a weight too many": (weights(lambda loaded: loaded.update(more=torch.zeros(2))), "do not fit config.json.*more"),
    "five classes": (weights(lambda loaded: loaded.update({"fc.weight": torch.zeros(5, 96)})), "5 x 96"),
    "whole numbers": (weights(lambda loaded: loaded.update({"fc.weight": torch.zeros(3, 96).int()})), "int32"),
    "NaN": (weights(set_first("fc.weight", float("nan"))), "fc.weight.*NaN or infinity"),
    "infinity": (weights(set_first("running_var", float("inf"))), "running_var.*NaN or infinity"),
    "a folder for weights": (instead("model.safetensors", Path.mkdir), "no model.safetensors"),
    "a device for weights": (instead("model.safetensors", lambda path: path.symlink_to("/dev/zero")), "no model"),
    "no weights, a giant": (settings(architecture="vit_giant_patch14_dinov2", num_features=1536), "do not fit"),
    # code
    "auto_map": (evil_code("auto_map", {"AutoModelForImageClassification": "evil.Evil"}), "custom Python code .auto"),
    "auto_map, config": (evil_code("auto_map", {"AutoConfig": "evil.Evil"}), "custom Python code .auto"),
    "custom pipeline": (evil_code("custom_pipelines", {"x": {"impl": "evil.Evil"}}), "custom Python code .custom"),
    "checkpoint_path": (checkpoint_path, "model_args"),
    "features_only": (settings(model_args={"features_only": True}), "model_args"),
    "in_chans": (settings(model_args={"in_chans": 1}), "model_args"),
    "img_size": (settings(model_args={"img_size": 100_000}), "model_args"),
    "a layer by name": (settings(model_args={"act_layer": "os.system"}), "model_args"),
    # architecture
    "from the Hub": (settings(architecture="hf-hub:evil/model"), "architecture 'hf-hub:evil/model'"),
    "from a folder": (settings(architecture="local-dir:/etc"), "architecture 'local-dir:/etc'"),
    "a path": (settings(architecture="../../evil"), "architecture"),
    "unknown architecture": (settings(architecture="resnet51"), "architecture 'resnet51'"),
    "architecture of another type": (settings(architecture=["resnet50"]), "no architecture"),
    "another architecture": (settings(architecture="test_efficientnet"), "do not fit"),
    "hidden layer": (settings(model_type="smile_timm", head_hidden_size=10**9), "do not fit"),
    "hidden layer below 0": (settings(model_type="smile_timm", head_hidden_size=-5), "config.json"),
    "hidden layer in words": (
        settings(model_type="smile_timm", head_hidden_size="ten"),
        "no model can be built from config.json",
    ),
    "no timm model": (config_text(b'{"model_type": "vit", "hidden_size": 10}'), "does not describe a timm model"),
    # labels
    "ten classes": (settings(label_names=[str(i) for i in range(10)]), "label_names are"),
    "a million classes": (settings(label_names=["x"] * 100_000, num_classes=100_000), "label_names are"),
    "another order": (settings(label_names=NAMES[::-1]), "spelling and order"),
    "no labels": (without("label_names"), "label_names are None"),
    "labels of another type": (settings(label_names={"0": "x"}), "label_names are"),
    # the text of config.json
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "empty config.json": (config_text(b""), "is not JSON"),
    "a list": (config_text(b"[]"), "must be a JSON object"),
    "a number": (config_text(b"1"), "must be a JSON object"),
    "nested": (config_text(b"[" * 100_000), "is not JSON"),
    "digits": (config_text(b'{"a": ' + b"9" * 10_000 + b"}"), "is not JSON"),
    "not UTF-8": (config_text('{"a": "é"}'.encode("latin-1")), "is not JSON in UTF-8"),
    "UTF-16": (config_text('{"a": 1}'.encode("utf-16")), "is not JSON in UTF-8"),
    "much text": (config_text(b'{"a": "' + b"x" * 2_000_000 + b'"}'), "over the limit"),
    "5 GB": (lambda folder: os.truncate(folder / "config.json", 5 * 10**9), "over the limit"),
    "a folder for config.json": (instead("config.json", Path.mkdir), "no config.json"),
    "a device for config.json": (instead("config.json", lambda path: path.symlink_to("/dev/zero")), "no config.json"),
    "a pipe for config.json": (instead("config.json", os.mkfifo), "no config.json"),
    "no pretrained_cfg": (without("pretrained_cfg"), "pretrained_cfg"),
    "pretrained_cfg is a list": (settings(pretrained_cfg=[1]), "pretrained_cfg"),
    # data settings
    "huge images": (data_settings(input_size=[3, 100_000, 100_000]), "input_size"),
    "images without pixels": (data_settings(input_size=[3, 0, 0]), "input_size"),
    "images below zero": (data_settings(input_size=[3, -64, 64]), "input_size"),
    "part of a pixel": (data_settings(input_size=[3, 64.5, 64]), "input_size"),
    "two sizes": (data_settings(input_size=[64, 64]), "input_size"),
    "grey images": (data_settings(input_size=[1, 64, 64]), "input_size"),
    "size in words": (data_settings(input_size="64"), "input_size"),
    "crop_pct 0": (data_settings(crop_pct=-1), "crop_pct"),
    "crop_pct NaN": (data_settings(crop_pct=float("nan")), "crop_pct"),
    "crop_pct tiny": (data_settings(crop_pct=1e-9), "crop_pct"),
    "crop_pct in words": (data_settings(crop_pct="all"), "crop_pct"),
    "crop_mode": (data_settings(crop_mode="spiral"), "crop_mode"),
    "mean NaN": (data_settings(mean=[float("nan")] * 3), "mean"),
    "mean in words": (data_settings(mean="grey"), "mean"),
    "two means": (data_settings(mean=[0.5, 0.5]), "mean"),
    "std 0": (data_settings(std=[0.5, 0, 0.5]), "std"),
    "std below 0": (data_settings(std=[-1, -1, -1]), "std"),
    "std infinite": (data_settings(std=[float("inf")] * 3), "std"),
    "std of lists": (data_settings(std=[[1], [1], [1]]), "std"),
    "interpolation": (data_settings(interpolation="nonsense"), "interpolation"),
    "interpolation of another type": (data_settings(interpolation=3), "interpolation"),
}

RIGHT: dict[str, Change] = {
    "pickle beside safetensors": lambda folder: (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload())),
    "an adapter": lambda folder: (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/x"}'),
    "a processor of its own": lambda folder: (folder / "preprocessor_config.json").write_text(
        '{"auto_map": {"AutoImageProcessor": "evil.Evil"}}'
    ),
    "url and file": data_settings(url="http://127.0.0.1:1/evil.pth", file="evil.pth", custom_load=True),
    "other weights": settings(transformers_weights="../evil.safetensors"),
    "a kernel of the Hub": settings(_attn_implementation="evil/kernel", attn_implementation="evil/kernel"),
    "quantization": settings(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "half precision": settings(dtype="float16"),
    "a dtype that is none": settings(dtype="os.system"),
    "num_classes": settings(num_classes=10**9),
    "weights in bfloat16": weights(
        lambda loaded: loaded.update({k: v.bfloat16() for k, v in loaded.items() if v.is_floating_point()})
    ),
    "a key twice": lambda folder: (folder / "config.json").write_text(
        '{"architecture": "hf-hub:evil/x", ' + (folder / "config.json").read_text()[1:]
    ),
}


@pytest.fixture
def own_model(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder, ignore=shutil.ignore_patterns("onnx"))
    return folder


@pytest.fixture(autouse=True)
def no_code_is_run(tmp_path: Path):
    yield
    assert not list(tmp_path.rglob(MARK))


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_folder_is_refused_in_words(name, own_model):
    change, message = REFUSED[name]
    change(own_model)
    with pytest.raises(SmileModelError, match=message) as caught:
        load_model(str(own_model))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_not_needed_is_not_read(name, own_model, model_dir):
    RIGHT[name](own_model)
    pixel_values = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = load_model(str(model_dir))(pixel_values=pixel_values).logits
        logits = load_model(str(own_model))(pixel_values=pixel_values).logits
    assert logits.dtype == torch.float32 and torch.allclose(logits, expected, atol=0.05)


INPUT, OUTPUT = ("pixel_values", ("n", 3, 64, 64)), ("logits", ("n", 3))
DATA = json.dumps({"input_size": [3, 64, 64], "crop_pct": 1.0})


def network(
    *further: onnx.NodeProto,
    weights: onnx.TensorProto | None = None,
    ports: tuple[tuple[str, Any], ...] = (INPUT, OUTPUT),
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """A network of the mean colours, followed by `further`."""
    (taken, _), (given, _) = ports[0], ports[-1]
    nodes = [helper.make_node("ReduceMean", [taken], ["mean"], axes=[2, 3], keepdims=0), *further]
    if not further:
        nodes[0].output[0] = given
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ports]
    graph = helper.make_graph(nodes, "graph", values[:-1], values[-1:], [weights] if weights else [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(model, {"labels": json.dumps(NAMES), "pretrained_cfg": DATA} | (metadata or {}))
    return model


def add(weights: str) -> onnx.NodeProto:
    return helper.make_node("Add", ["mean", weights], ["logits"])


def elsewhere(location: str) -> onnx.TensorProto:
    """Weights in an external file."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def numbers(*values: float) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.array(values, np.float32), "w")


def cfg(**changes: Any) -> dict[str, str]:
    return {"pretrained_cfg": json.dumps(json.loads(DATA) | changes)}


ONNX_REFUSED: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "no network": (b"nothing", "can't load"),
    "pickle": (pickle.dumps(Payload()), "can't load"),
    "empty": (b"", "can't load"),
    "weights in the folder above": (network(add("w"), weights=elsewhere("../../secret.bin")), "can't load"),
    "weights by an absolute path": (network(add("w"), weights=elsewhere("/etc/passwd")), "can't load"),
    "weights behind a link": (network(add("w"), weights=elsewhere("link.bin")), "can't load"),
    "an operator of its own": (network(helper.make_node("Evil", ["mean"], ["logits"], domain="evil")), "can't load"),
    "another input": (network(ports=(("input", INPUT[1]), OUTPUT)), "its input and output are"),
    "another output": (network(ports=(INPUT, ("scores", ("n", 3)))), "its input and output are"),
    "two inputs": (network(add("more"), ports=(INPUT, ("more", ("n", 3)), OUTPUT)), "its input and output are"),
    "five classes": (network(add("w"), weights=numbers(0), ports=(INPUT, ("logits", ("n", 5)))), "can't load|output"),
    "one class": (network(ports=(INPUT, ("logits", ("n", 1)))), "can't load|input and output are"),
    "another size": (network(metadata=cfg(input_size=[3, 96, 96])), "its input and output are"),
    "huge images": (network(metadata=cfg(input_size=[3, 99999, 99999])), "input_size"),
    "std 0": (network(metadata=cfg(std=[0, 0, 0])), "std"),
    "labels in another order": (network(metadata={"labels": json.dumps(NAMES[::-1])}), "not written by"),
    "labels that are no JSON": (network(metadata={"labels": "["}), "not written by"),
    "nested labels": (network(metadata={"labels": "[" * 100_000}), "not written by"),
    "settings of another type": (network(metadata={"pretrained_cfg": "[]"}), "not written by"),
    "of other weights": (network(metadata={"weights_sha256": "0" * 64}), "other weights"),
}


@pytest.fixture
def onnx_folder(own_model: Path) -> Path:
    (own_model / "onnx").mkdir()
    (own_model.parent / "secret.bin").write_bytes(bytes(12))
    (own_model / "onnx" / "link.bin").symlink_to(own_model.parent / "secret.bin")
    return own_model


@pytest.mark.parametrize("name", ONNX_REFUSED)
def test_a_hostile_network_is_refused_in_words(name, onnx_folder):
    content, message = ONNX_REFUSED[name]
    content = content if isinstance(content, bytes) else content.SerializeToString()
    (onnx_folder / "onnx" / "model.onnx").write_bytes(content)
    with pytest.raises(SmileModelError, match=message) as caught:
        SmileClassifier.from_pretrained(onnx_folder, "onnx")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (network(add("w"), weights=numbers(float("nan"), 0, 0)), "NaN or infinity"),
        (network(helper.make_node("Reshape", ["mean", "s"], ["logits"]), weights=onnx.numpy_helper.from_array(
            np.array([7, 3]), "s")), "failed on 1 image of 64 x 64"),
    ],
    ids=["NaN", "fails when it runs"],
)  # fmt: skip
def test_a_network_that_goes_wrong_says_so(content, message, onnx_folder, faces):
    (onnx_folder / "model.safetensors").unlink()  # so that weights are not compared
    (onnx_folder / "onnx" / "model.onnx").write_bytes(content.SerializeToString())
    with pytest.raises(SmileModelError, match=message):
        SmileClassifier.from_pretrained(onnx_folder, "onnx").predict(faces[0])


def test_weights_of_another_input_size_say_so(own_model, faces, monkeypatch):
    classifier = SmileClassifier.from_pretrained(own_model)
    monkeypatch.setattr(classifier.runtime.model, "forward", lambda **_: 1 / 0)
    with pytest.raises(SmileModelError, match="the network failed on 1 image of 64 x 64 pixels: division by zero"):
        classifier.predict(faces[0])


def test_another_network_is_no_face_detector(model_dir):
    with pytest.raises(SmileModelError, match=r"model\.onnx: ONNX Runtime can't run it as YuNet.*face_detection_yunet"):
        make_detector(str(model_dir / "onnx" / "model.onnx"))


@pytest.mark.parametrize("command", [["predict", "{face}", "--model", "{model}"], ["info", "{model}"]])
def test_the_command_line_ends_in_one_message(command, own_model, faces, monkeypatch, capsys):
    faces[0].save("face.png")
    settings(auto_map={"AutoConfig": "evil.Evil"}, architecture="\x1b[31mred")(own_model)
    monkeypatch.setattr(sys, "argv", ["hf-smile", *(word.format(face="face.png", model=own_model) for word in command)])
    with pytest.raises(SystemExit) as exit:
        main()
    out, err = capsys.readouterr()
    assert exit.value.code == 2 and out == "" and err.count("error: ") == 1 and "Traceback" not in err
    assert "custom Python code" in err
