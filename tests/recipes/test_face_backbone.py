"""`recipes/face_backbone.py` on a package with the original's graph and random weights, and on the real one."""

import base64
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from hf_smile.data.preprocessing import Preprocessor
from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "face_backbone.py"
SHARED = ROOT.parent / "shared" / "backbones" / "mobilenetv1_100.vggface2"
REAL_PACKAGE = "HF_SMILE_FACE_PACKAGE"  # environment variable: path of the .tgz that npm packs

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("face_backbone", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def base64_of(*words: str) -> list[str]:
    return [base64.b64encode(word.encode()).decode() for word in words]


def network(clip: float = 6, floats: str = "float16", seed: int = 0) -> tuple[dict, bytes]:
    """model.json and the weights of Keras' MobileNet v1 with folded batch norms and two heads, drawn at random."""
    rng = np.random.default_rng(seed)
    nodes, weights = [], {}

    def add(name: str, op: str, *inputs: str, **attr: object) -> str:
        nodes.append({"name": name, "op": op, "input": list(inputs), "attr": attr})
        return name

    def weight(name: str, values: object) -> str:
        weights[name] = np.asarray(values, dtype=np.int32 if "indices" in name else floats)
        return name

    def layer(name: str, x: str, op: str, kernel: str, stride: int, width: int) -> str:
        strides, (padding,) = ["1", str(stride), str(stride), "1"], base64_of("SAME")
        x = add(f"{name}/conv", op, x, kernel, strides={"list": {"i": strides}}, padding={"s": padding})
        if op == "DepthwiseConv2dNative":
            x = add(f"{name}/mul", "Mul", x, weight(f"{name}_bn/batchnorm_1/mul", rng.uniform(0.5, 1.5, width)))
        x = add(f"{name}/add", "Add", x, weight(f"{name}_bn/batchnorm_1/sub", rng.normal(0.3, 0.3, width)))
        x = add(f"{name}/minimum", "Minimum", add(f"{name}/relu", "Relu", x), weight(f"{name}_relu/Cast", clip))
        return add(f"{name}_relu", "Maximum", x, weight(f"{name}_relu/Const_1", 0))

    def dense(name: str, x: str, inputs: int, outputs: int, *ops: str) -> str:
        kernel = weight(f"{name}/kernel", rng.normal(0, math.sqrt(2 / inputs), (inputs, outputs)))
        bias = weight(f"{name}/bias", rng.normal(0, 0.1, outputs))
        return add(f"{name}/out", "_FusedMatMul", x, kernel, bias, fused_ops={"list": {"s": base64_of(*ops)}})

    def drawn(name: str, *shape: int, gain: float = 1) -> str:
        return weight(name, rng.normal(0, gain * math.sqrt(2 / math.prod(shape[:-1])), shape))

    nodes.append({"name": "input_1", "op": "Placeholder"})
    stem = drawn("conv1/convolution/merged_input", 3, 3, 3, 32, gain=0.01)  # pixels go up to 255
    x = layer("conv1", "input_1", "Conv2D", stem, 2, 32)
    for number, (stride, inputs, outputs) in enumerate(zip(STRIDES, WIDTHS[:-1], WIDTHS[1:], strict=True), 1):
        name = f"conv_dw_{number}"
        kernel = weight(f"{name}/depthwise_kernel", rng.normal(0, math.sqrt(2 / 9), (3, 3, inputs, 1)))
        x = layer(name, x, "DepthwiseConv2dNative", kernel, stride, inputs)
        name = f"conv_pw_{number}"
        x = layer(name, x, "Conv2D", drawn(f"{name}/convolution/merged_input", 1, 1, inputs, outputs), 1, outputs)
    x = add("global_pooling/Mean", "Mean", x, weight("global_pooling/Mean/reduction_indices", [1, 2]))
    x = dense("feats", x, 1024, 256, "BiasAdd", "Relu")
    add("age_pred/Softmax", "Softmax", dense("age_pred", x, 256, 100, "BiasAdd"))
    add("gender_pred/Sigmoid", "Sigmoid", dense("gender_pred", x, 256, 1, "BiasAdd"))
    entries = []
    for name, values in weights.items():
        entry = {"name": name, "shape": list(values.shape), "dtype": str(values.dtype)}
        if values.dtype == np.float16:  # as TensorFlow.js writes it: float32, but stored with less precision
            entry |= {"dtype": "float32", "quantization": {"dtype": "float16", "original_dtype": "float32"}}
        entries.append(entry)
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": entries}]}
    return model, b"".join(values.tobytes() for values in weights.values())


def pack(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as package:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(f"package/{name}")
            info.size = 0 if content is info else len(content)
            package.addfile(info, None if content is info else io.BytesIO(content))
    return path


def npm_package(path: Path, **networks: tuple[dict, bytes]) -> Path:
    members: dict[str, bytes | tarfile.TarInfo] = {"LICENSE": b"MIT License"}
    for name, (model, data) in networks.items():
        members |= {f"models/{name}.json": json.dumps(model).encode(), f"models/{name}.bin": data}
    return pack(path, members)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return npm_package(
        tmp_path_factory.mktemp("package") / "package.tgz",
        **{"faceres": network(), "faceres-deep": network(floats="float32", seed=1)},
    )


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """12 drawn faces, in the colours of skin and hair."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    for number in range(12):
        draw_face(number % 3, rng, size=96).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def made(package, faces, tmp_path_factory) -> tuple[Path, str]:
    """The folder that a user gets, and what the script says."""
    folder = tmp_path_factory.mktemp("backbones") / "mobilenetv1_100.faceres"
    command = [sys.executable, SCRIPT, package, "--images", faces, "--output_dir", folder]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def pixel_values(image: Image.Image, model: torch.nn.Module, size: int = 160) -> torch.Tensor:
    return torch.from_numpy(Preprocessor(model.pretrained_cfg | {"input_size": (3, size, size)})(image))


def test_it_says_what_it_did(made):
    folder, output = made
    assert "statistics of 12 images" in output and "Photo of Grace Hopper: age" in output
    assert f"--backbone {folder}" in output
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "LICENSE"}
    assert [*folder.parent.iterdir()] == [folder]


@pytest.mark.parametrize("size", [160, 97])
@torch.no_grad()
def test_timm_loads_the_original_s_function_from_the_folder(size, made, package, faces, script):
    model = timm.create_model(f"local-dir:{made[0]}", pretrained=True).eval()
    face = Image.open(faces / "0.png").resize((size, size))
    blue_green_red = np.asarray(face, dtype=np.float64)[None, ..., ::-1] - (103.939, 116.779, 123.68)
    original, _, _ = script.read_package(package)
    expected, _, _ = original({"input_1": torch.from_numpy(blue_green_red)})
    features = model(pixel_values(face, model, size)[None]).double()
    assert expected.std() > 0.1  # not all alike
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)


def test_the_package_holds_two_networks(package, script):
    for name, (model, data) in {
        "faceres": network(),
        "faceres-deep": network(floats="float32", seed=1),
    }.items():
        original, _, _ = script.read_package(package, name)
        last = model["weightsManifest"][0]["weights"][-1]
        kind = last.get("quantization", last)["dtype"]
        stored = np.frombuffer(data, kind)[-math.prod(last["shape"]) :]
        np.testing.assert_array_equal(original.weights[last["name"]].numpy().ravel(), stored)


@torch.no_grad()
def test_training_starts_from_that_function(made, faces):
    """Batch norms in training take the mean and variance of the batch: here the images whose statistics they hold."""
    model = timm.create_model(f"local-dir:{made[0]}", pretrained=True).eval()
    batch = torch.stack([pixel_values(Image.open(path), model) for path in sorted(faces.iterdir())])
    expected = model(batch)
    torch.testing.assert_close(model.train()(batch), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("operation", ["Conv2D", "DepthwiseConv2dNative"])
def test_convolutions_are_those_of_tensorflow(operation, stride, script):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 6, 5, 2)), rng.normal(size=(3, 3, 2, 4 if operation == "Conv2D" else 1))
    height, width = math.ceil(6 / stride), math.ceil(5 / stride)
    expected = np.zeros((1, height, width, 4 if operation == "Conv2D" else 2))
    # In steps of 2, all of the padding of 6 rows is below; 5 columns have one on either side, as without steps.
    above = 0 if stride == 2 else 1
    padded = np.pad(x, ((0, 0), (above, 2 - above), (1, 1), (0, 0)))
    for row, column in np.ndindex(height, width):
        window = padded[0, row * stride : row * stride + 3, column * stride : column * stride + 3]
        product = window[..., None] * kernel
        expected[0, row, column] = product.sum((0, 1, 2)) if operation == "Conv2D" else product.sum((0, 1, 3))
    (padding,), strides = base64_of("SAME"), ["1", str(stride), str(stride), "1"]
    node = {"op": operation, "attr": {"padding": {"s": padding}, "strides": {"list": {"i": strides}}}}
    found = script.apply(node, torch.from_numpy(x), torch.from_numpy(kernel))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_of_a_data_set_it_looks_at_training_images_only(faces, script, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes((faces / f"{number}.png").read_bytes())
    (tmp_path / "images" / "test.png").write_bytes(b"would be an error if it were read")
    (tmp_path / "train.csv").write_text("image_id,label\n0,0\n1,1\n2,2\n")
    (tmp_path / "test.csv").write_text("image_id,label\ntest,0\n")
    assert [image.shape for image in script.read_images(tmp_path)] == [(3, 160, 160)] * 3
    assert "3 images" in capsys.readouterr().out


def run(script, monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["face_backbone.py", *map(str, words)])
    script.main()


def test_a_network_that_computes_something_else_is_refused(script, faces, tmp_path, monkeypatch):
    other = npm_package(tmp_path / "other.tgz", faceres=network(clip=1))
    with pytest.raises(SmileError, match=r"changes features, age or gender by up to \d"):
        run(script, monkeypatch, other, "--images", faces, "--output_dir", tmp_path / "out" / "backbone")
    assert not any((tmp_path / "out").iterdir())


def link() -> tarfile.TarInfo:
    info = tarfile.TarInfo("package/models/faceres.json")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (None, r"bad\.tgz: not a gzip file; download the package again: npm pack"),
        ({"LICENSE": b""}, r"package/models/faceres\.json"),
        (
            {"models/faceres.json": link(), "models/faceres.bin": b"", "LICENSE": b""},
            "is a link or too large",
        ),
        (
            {"models/faceres.json": b"[]", "models/faceres.bin": b"", "LICENSE": b""},
            r"not .* version 3\.0\.4",
        ),
        ("without weights", r"not the network of version 3\.0\.4 \(buffer"),
    ],
)
def test_a_package_that_is_not_the_one_is_refused(members, message, script, faces, tmp_path, monkeypatch):
    bad = tmp_path / "bad.tgz"
    if members is None:
        bad.write_bytes(b"no package")
    elif members == "without weights":
        npm_package(bad, faceres=(network()[0], b""))
    else:
        pack(bad, members)
    with pytest.raises(SmileError, match=message):
        run(script, monkeypatch, bad, "--images", faces, "--output_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_and_output_folder_are_checked(script, package, faces, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.jpg").write_bytes(b"no image")
    for images, output, message in (
        (tmp_path / "empty", "out", "empty: no image found; set --images"),
        (tmp_path / "nowhere", "out", "nowhere: no such folder or zip"),
        (tmp_path / "broken", "out", r"0\.jpg in .*broken: not a JPEG"),
        (faces, "empty", "already exists; set --output_dir"),
    ):
        with pytest.raises(SmileError, match=message):
            run(script, monkeypatch, package, "--images", images, "--output_dir", tmp_path / output)
    assert not (tmp_path / "out").exists() and not any((tmp_path / "empty").iterdir())


@torch.no_grad()
def test_the_real_package_gives_the_function_of_the_folder_that_was_measured(script, faces, tmp_path, monkeypatch):
    if REAL_PACKAGE not in os.environ or not SHARED.is_dir():
        pytest.skip(f"{REAL_PACKAGE} does not name the npm package, or there is no {SHARED.name} to compare with")
    words = "--network", "faceres-deep", "--images", faces, "--output_dir", tmp_path / "out"
    run(script, monkeypatch, os.environ[REAL_PACKAGE], *words)
    model, measured = (
        timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        for folder in (tmp_path / "out", SHARED)
    )
    face = pixel_values(Image.open(faces / "0.png"), measured)[None]
    torch.testing.assert_close(pixel_values(Image.open(faces / "0.png"), model)[None], face)
    torch.testing.assert_close(model(face), measured(face), rtol=0, atol=1e-4)
