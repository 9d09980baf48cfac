"""Export a checkpoint to ONNX, float32 and optionally int8. The files are checked before they are written."""

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
"""Largest allowed difference of a logit of the float32 file from torch's."""
LEAST_AGREEMENT = 0.95
"""Share of validation images on which int8 and float32 must give the same label."""
LARGEST_ACCURACY_LOSS = 0.01
"""Validation accuracy that int8 may lose against float32."""
LARGEST_MACRO_F1_LOSS = 0.02
"""Macro F1 that int8 may lose; unlike accuracy, it is sensitive to a rare class. With tf_efficientnet_lite0 on 484
images, of which some 40 are of the rarest class, one changed face of that class costs 0.015 to 0.018, and one of
another class at most 0.003."""
CALIBRATION_IMAGES = 256
FLOAT_SHARE = 1 / 4
"""Share of the convolutions, counted from the input, that stays float32, because errors made there grow through all
later layers. With tf_efficientnet_lite0 on held-out training images, this reduces the divergence from float32 to a
sixth; a larger share gains nothing."""

_BATCH_SIZE = 16


@dataclass(frozen=True)
class QuantizationCheck:
    """Comparison of int8 with float32 on the validation split."""

    images: int
    agreement: float
    """Share of images with the same label."""
    accuracy: float
    accuracy_float32: float
    macro_f1: float
    """Mean F1 of the classes."""
    macro_f1_float32: float

    @property
    def passed(self) -> bool:
        """Whether int8 is close enough to float32."""
        return (
            self.agreement >= LEAST_AGREEMENT
            and self.accuracy >= self.accuracy_float32 - LARGEST_ACCURACY_LOSS
            and self.macro_f1 >= self.macro_f1_float32 - LARGEST_MACRO_F1_LOSS
        )

    def __str__(self) -> str:
        return (
            f"int8 agrees with float32 on {100 * self.agreement:.1f} % of {counted(self.images, 'validation image')}, "
            f"accuracy {100 * self.accuracy:.1f} % against {100 * self.accuracy_float32:.1f} %, "
            f"macro F1 {100 * self.macro_f1:.1f} % against {100 * self.macro_f1_float32:.1f} %"
        )


def export_onnx(model_dir: str | Path) -> tuple[Path, float]:
    """Write `onnx/model.onnx`, where Optimum and Transformers.js expect it, to a model's folder.

    The input is `pixel_values (N, 3, H, W) float32`, the output `logits (N, K)`, for any N. The file's metadata contain
    the labels, the data settings and the SHA-256 of the weights. The file is compared with torch before it is kept.

    Returns:
        The file, and the largest difference of a logit from torch's.

    Raises:
        SmileModelError: the folder is not a model, the network can't be exported, or its logits differ by more than
            `LOGIT_TOLERANCE`. Then nothing is written.

    >>> export_onnx("outputs/model")  # doctest: +SKIP
    (PosixPath('outputs/model/onnx/model.onnx'), 2.1e-06)
    """
    if not Path(model_dir).is_dir():
        raise SmileModelError(f"{model_dir}: no such folder; name the folder of a model")
    torch_runtime = TorchRuntime(str(model_dir), device="cpu")
    preprocess = Preprocessor(torch_runtime.pretrained_cfg)
    shape = (3, preprocess.height, preprocess.width)
    # Trace in the plain memory layout, with a batch size of 2, because torch.export would make 0 or 1 constant.
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
        except Exception as error:  # the exporter's errors have no common base class
            raise SmileModelError(f"torch can't export {model_dir} to ONNX: {first_line(error)}") from error
        labels, weights = torch_runtime.labels, weights_sha256(model_dir)
        _set_metadata(unfinished, labels, torch_runtime.pretrained_cfg, weights, precision="float32")
        difference = _largest_difference(torch_runtime, OnnxRuntime(unfinished), shape)
        if not difference <= LOGIT_TOLERANCE:
            raise SmileModelError(
                f"not written: the logits of the exported network differ from torch's by {difference:.2g}, more than "
                f"{LOGIT_TOLERANCE}"
            )
    return path, difference


def quantize_onnx(
    model_dir: str | Path, train: datasets.Dataset, validation: datasets.Dataset
) -> tuple[Path, QuantizationCheck]:
    """Write `onnx/model_quantized.onnx`: static int8, one scale per channel, activations uint8, weights int8, QDQ.

    Args:
        model_dir: folder with `onnx/model.onnx`.
        train: calibration images; `CALIBRATION_IMAGES` of them are used, spread over the split.
        validation: images for the check; they are not used for calibration.

    Raises:
        SmileModelError: there is no `onnx/model.onnx`, or it was exported from other weights; or int8 disagrees with
            float32, or loses accuracy or macro F1, more than allowed. Then nothing is written.

    >>> splits = load_smile_dataset("data/happy_images")  # doctest: +SKIP
    >>> print(quantize_onnx("outputs/model", splits["train"], splits["validation"])[1])  # doctest: +SKIP
    int8 agrees with float32 on 99.4 % of 484 validation images, accuracy 82.4 % against 82.6 %, ...
    """
    float32 = Path(model_dir, ONNX_FILES["onnx"])
    if not float32.is_file():
        raise SmileModelError(f"{model_dir}: there is no {ONNX_FILES['onnx']}; export it first")
    reference = load_runtime(model_dir, "onnx")
    images = EncodedImages(train, Preprocessor(reference.pretrained_cfg))
    rows = np.linspace(0, len(images) - 1, min(len(images), CALIBRATION_IMAGES)).astype(int).tolist()
    path = Path(model_dir, ONNX_FILES["onnx-int8"])
    with written_whole(path) as unfinished:
        write_int8(float32, unfinished, images.batches(rows))
        check = _compare(reference, OnnxRuntime(unfinished), EncodedImages(validation, images.preprocess))
        if not check.passed:
            raise SmileModelError(f"not written: int8 differs too much from float32: {check}")
    return path, check


def write_int8(float32: Path, path: Path, batches: Iterator[NDArray[np.float32]]) -> None:
    """Quantize `float32` to `path` with the activation ranges on `batches`, without a check.

    Args:
        float32: file written by `export_onnx`.
        path: file to write.
        batches: calibration batches of `pixel_values (N, 3, H, W) float32`.
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
            # 8-bit weights overflow on x86 CPUs without VNNI (ONNX Runtime's "Quantize ONNX models"), so use 7 bits:
            # the file may run on other CPUs than this one.
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
    """A split from `load_smile_dataset` as batches of network inputs.

    Args:
        split: data set with the columns `image` and `label`.
        preprocess: converts a PIL image to `pixel_values (3, H, W)`.
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
        """Batches of `pixel_values (N, 3, H, W) float32` for these rows, or for all."""
        rows = list(range(len(self)) if rows is None else rows)
        for start in range(0, len(rows), _BATCH_SIZE):
            images = self._split.select(rows[start : start + _BATCH_SIZE])["image"]
            yield np.stack([self.preprocess(decode_image(encoded_bytes(image))) for image in images])


def _set_metadata(
    path: Path, labels: LabelSet, pretrained_cfg: dict[str, Any], weights: str | None, precision: str
) -> None:
    import onnx

    network = onnx.load(path)
    del network.metadata_props[:]  # the exporter writes stack traces with local paths
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
    """Largest difference between logits for normally distributed inputs, in batches of 1 and 5."""
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
