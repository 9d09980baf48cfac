"""A checkpoint -> ONNX files that check themselves before they are written: float32, and int8 on request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from hf_smile.data.images import decode_image, encoded_bytes
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.data.rows import labels_of
from hf_smile.errors import SmileModelError, first_line
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.inference.runtimes import ONNX_FILES, OnnxRuntime, TorchRuntime, load_runtime, weights_sha256
from hf_smile.labels import LabelSet
from hf_smile.utils.files import make_folder, written_whole
from hf_smile.utils.words import counted

if TYPE_CHECKING:
    import datasets

LOGIT_TOLERANCE = 1e-4
"""How far a logit of the float32 file may be from torch's."""
LEAST_AGREEMENT = 0.95
"""Share of validation images on which int8 and float32 must give the same label."""
LARGEST_ACCURACY_LOSS = 0.01
"""How much validation accuracy int8 may lose against float32."""
LARGEST_MACRO_F1_LOSS = 0.02
"""How much macro F1 int8 may lose: it tells of a rare class what accuracy does not. Measured with
tf_efficientnet_lite0 on 484 images, of which some 40 are of the rarest class, one face of it that turns costs 0.015 to
0.018, one of another class 0.003 at most."""
CALIBRATION_IMAGES = 256
FLOAT_SHARE = 1 / 4
"""This share of the convolutions, from the entrance on, stays float32: errors made there grow through all that follows.
Measured on held-out training images with tf_efficientnet_lite0, the divergence from float32 falls to a sixth by it;
leaving more of them float32 gains nothing."""

_BATCH_SIZE = 16


@dataclass(frozen=True)
class QuantizationCheck:
    """int8 against float32 on the validation split."""

    images: int
    agreement: float
    """Share of images with the same label."""
    accuracy: float
    accuracy_float32: float
    macro_f1: float
    """Mean of the F1 of the classes."""
    macro_f1_float32: float

    @property
    def passed(self) -> bool:
        """Whether int8 is close enough to be written."""
        return (
            self.agreement >= LEAST_AGREEMENT
            and self.accuracy >= self.accuracy_float32 - LARGEST_ACCURACY_LOSS
            and self.macro_f1 >= self.macro_f1_float32 - LARGEST_MACRO_F1_LOSS
        )

    def __str__(self) -> str:
        return (
            f"on {counted(self.images, 'validation image')} int8 agrees with float32 on {100 * self.agreement:.1f} %, "
            f"accuracy {100 * self.accuracy:.1f} % against {100 * self.accuracy_float32:.1f} %, "
            f"macro F1 {100 * self.macro_f1:.1f} % against {100 * self.macro_f1_float32:.1f} %"
        )


def export_onnx(model_dir: str | Path) -> tuple[Path, float]:
    """Write `onnx/model.onnx`, the layout that Optimum and Transformers.js expect, into a model's folder.

    Input `pixel_values (N, 3, H, W) float32`, output `logits (N, K)`, any N. The labels, the data settings and the
    SHA-256 of the weights are in the file's metadata. It is compared with torch before it gets its name.

    Returns:
        The file, and the largest difference of a logit from torch's.

    Raises:
        SmileModelError: the folder is no model, the network can't be exported, or its logits are off by more than
            `LOGIT_TOLERANCE`. Nothing is written then.

    >>> export_onnx("outputs/model")  # doctest: +SKIP
    (PosixPath('outputs/model/onnx/model.onnx'), 2.1e-06)
    """
    if not Path(model_dir).is_dir():
        raise SmileModelError(f"{model_dir}: no such folder; the ONNX file is written into it")
    torch_runtime = TorchRuntime(str(model_dir), device="cpu")
    preprocess = Preprocessor(torch_runtime.pretrained_cfg)
    shape = (3, preprocess.height, preprocess.width)
    # Traced in the plain memory layout and with a batch that is neither 0 nor 1, which torch.export would fix.
    network = torch_runtime.model.to(memory_format=torch.contiguous_format).eval()
    path = Path(model_dir, ONNX_FILES["onnx"])
    make_folder(path.parent)
    with written_whole(path) as unfinished:
        try:
            torch.onnx.export(
                network,
                (),
                unfinished,
                kwargs={"pixel_values": torch.zeros(2, *shape)},
                input_names=["pixel_values"],
                output_names=["logits"],
                dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # the exporter's errors have no common base
            raise SmileModelError(f"torch can't export {model_dir} to ONNX: {first_line(error)}") from error
        labels, weights = torch_runtime.labels, weights_sha256(model_dir)
        _set_metadata(unfinished, labels, torch_runtime.pretrained_cfg, weights, precision="float32")
        difference = _largest_difference(torch_runtime, OnnxRuntime(unfinished), shape)
        if not difference <= LOGIT_TOLERANCE:
            raise SmileModelError(
                f"the logits of the exported network differ from torch's by {difference:.2g}, more than "
                f"{LOGIT_TOLERANCE}; not written"
            )
    return path, difference


def quantize_onnx(
    model_dir: str | Path, train: datasets.Dataset, validation: datasets.Dataset
) -> tuple[Path, QuantizationCheck]:
    """Write `onnx/model_quantized.onnx`: static int8, one scale per channel, activations uint8, weights int8, QDQ.

    Args:
        model_dir: folder that holds `onnx/model.onnx`.
        train: images to calibrate on: `CALIBRATION_IMAGES` of them, spread over the split.
        validation: images to check on, never calibrated on.

    Raises:
        SmileModelError: there is no `onnx/model.onnx`, or it is of other weights; or int8 disagrees with float32 on
            more validation images, or loses more accuracy or macro F1, than allowed. Nothing is written then.

    >>> splits = load_smile_dataset("data/happy_images")  # doctest: +SKIP
    >>> print(quantize_onnx("outputs/model", splits["train"], splits["validation"])[1])  # doctest: +SKIP
    on 484 validation images int8 agrees with float32 on 99.4 %, accuracy 82.4 % against 82.6 %, ...
    """
    float32 = Path(model_dir, ONNX_FILES["onnx"])
    if not float32.is_file():
        raise SmileModelError(f"{model_dir}: the folder holds no {ONNX_FILES['onnx']}; export it first")
    reference = load_runtime(model_dir, "onnx")
    images = EncodedImages(train, Preprocessor(reference.pretrained_cfg))
    rows = np.linspace(0, len(images) - 1, min(len(images), CALIBRATION_IMAGES)).astype(int).tolist()
    path = Path(model_dir, ONNX_FILES["onnx-int8"])
    with written_whole(path) as unfinished:
        write_int8(float32, unfinished, images.batches(rows))
        check = _compare(reference, OnnxRuntime(unfinished), EncodedImages(validation, images.preprocess))
        if not check.passed:
            raise SmileModelError(f"not written, int8 is too far off: {check}")
    return path, check


def write_int8(float32: Path, path: Path, batches: Iterator[NDArray[np.float32]]) -> None:
    """Quantize `float32` to `path` with the ranges that activations take on `batches`; nothing is checked.

    Args:
        float32: file that `export_onnx` wrote.
        path: file to write.
        batches: `pixel_values (N, 3, H, W) float32` to calibrate on.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    inputs = ({"pixel_values": batch} for batch in batches)
    reader = SimpleNamespace(get_next=lambda: next(inputs, None))
    prepared = path.with_suffix(".prepared")
    try:
        quant_pre_process(str(float32), str(prepared), skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        quantization.quantize_static(
            str(prepared),
            str(path),
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            # Weights of 7 bits, without which x86 CPUs lacking VNNI overflow (ONNX Runtime's "Quantize ONNX models"):
            # what CPU this machine has says nothing of those that the file will run on.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=convolutions[: int(FLOAT_SHARE * len(convolutions))],
        )
    finally:
        prepared.unlink(missing_ok=True)
    source = OnnxRuntime(float32)
    _set_metadata(path, source.labels, source.pretrained_cfg, source.weights_sha256, precision="int8")


class EncodedImages:
    """A split of `load_smile_dataset` as batches of network inputs.

    Args:
        split: rows with `image` and `label`.
        preprocess: PIL image -> `pixel_values (3, H, W)`.
    """

    def __init__(self, split: datasets.Dataset, preprocess: Preprocessor) -> None:
        import datasets

        self._split = split.cast_column("image", datasets.Image(decode=False))
        self.preprocess = preprocess
        self.label_ids = np.array(split["label"])
        self.labels = labels_of(split)

    def __len__(self) -> int:
        return len(self._split)

    def batches(self, rows: Iterable[int] | None = None) -> Iterator[NDArray[np.float32]]:
        """`pixel_values (N, 3, H, W) float32` of these rows, or of all, some at a time."""
        rows = list(range(len(self)) if rows is None else rows)
        for start in range(0, len(rows), _BATCH_SIZE):
            images = self._split.select(rows[start : start + _BATCH_SIZE])["image"]
            yield np.stack([self.preprocess(decode_image(encoded_bytes(image))) for image in images])


def _set_metadata(
    path: Path, labels: LabelSet, pretrained_cfg: dict[str, Any], weights: str | None, precision: str
) -> None:
    import onnx

    network = onnx.load(path)
    del network.metadata_props[:]  # the exporter's own: stack traces with the paths of this machine
    for node in network.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    metadata = {"labels": json.dumps(labels.names), "pretrained_cfg": json.dumps(pretrained_cfg)}
    metadata |= {"precision": precision} | ({"weights_sha256": weights} if weights else {})
    onnx.helper.set_model_props(network, metadata)
    onnx.checker.check_model(network)
    onnx.save(network, path)


Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _largest_difference(a: Network, b: Network, shape: tuple[int, ...]) -> float:
    """Between the logits for inputs as normalised images have them, in batches of 1 and of 5."""
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(n, *shape)).astype(np.float32) for n in (1, 5)]
    return float(max(np.abs(a(batch) - b(batch)).max() for batch in batches))


def _compare(float32: Network, int8: Network, images: EncodedImages) -> QuantizationCheck:
    pairs = [[softmax(run(batch).astype(np.float64), axis=1) for run in (float32, int8)] for batch in images.batches()]
    expected, quantized = (np.concatenate(probabilities) for probabilities in zip(*pairs, strict=True))
    metrics_float32, metrics = (compute_metrics(run, images.label_ids, images.labels) for run in (expected, quantized))
    return QuantizationCheck(
        images=len(images),
        agreement=float((expected.argmax(axis=1) == quantized.argmax(axis=1)).mean()),
        accuracy=metrics["accuracy"],
        accuracy_float32=metrics_float32["accuracy"],
        macro_f1=metrics["macro_f1"],
        macro_f1_float32=metrics_float32["macro_f1"],
    )
