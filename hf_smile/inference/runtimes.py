"""Run a network with torch or ONNX Runtime: from `pixel_values` to logits, both NumPy arrays."""

from __future__ import annotations

import ctypes
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileModelError, first_line
from hf_smile.labels import LabelSet
from hf_smile.utils.cores import own_cores
from hf_smile.utils.model_files import WEIGHTS_FIX, HubOptions, file_sha256, model_file, read_config
from hf_smile.utils.words import counted

if TYPE_CHECKING:
    import onnxruntime

ONNX_FILES = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_quantized.onnx"}
"""File of the network by runtime, where Optimum and Transformers.js expect it."""

RUNTIMES = ("auto", "torch", *ONNX_FILES)


class Runtime(Protocol):
    """A loaded network that threads can share."""

    pretrained_cfg: dict[str, Any]
    """timm's data settings: input size, interpolation, mean, std."""
    labels: LabelSet

    def __call__(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert `pixel_values (N, 3, H, W) float32` to `logits (N, K) float32`."""


def has_gpu() -> bool:
    """Whether torch finds a GPU. Without a driver, torch is not imported, which saves seconds and half a gigabyte.

    >>> has_gpu()  # doctest: +SKIP
    False
    """
    for driver in ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so"):
        with suppress(OSError):
            ctypes.CDLL(driver)
            break
    else:
        return False
    import torch

    return torch.cuda.is_available()


def choose_runtime(model: str | Path, device: str | None = None, **hub: Unpack[HubOptions]) -> str:
    """The runtime for `auto`: `onnx` if the model is exported, in its folder or on the Hub, otherwise `torch`.

    With a GPU as the device it is `torch`. If the Hub gives no clear answer it is `onnx`, and loading the file reports
    the problem.

    Raises:
        SmileModelError: there is no such model, or its `config.json` can't be fetched from the Hub.

    >>> choose_runtime("outputs/model")  # doctest: +SKIP
    'onnx'
    """
    if device not in (None, "cpu"):
        return "torch"
    if Path(model).is_dir():
        return "onnx" if Path(model, ONNX_FILES["onnx"]).is_file() else "torch"
    read_config(model, **hub)  # if this fails, the Hub is not asked for more files
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        hf_hub_download(str(model), ONNX_FILES["onnx"], **hub)
    except RemoteEntryNotFoundError:
        return "torch"
    except (OSError, ValueError):
        pass
    return "onnx"


def load_runtime(
    model: str | Path, runtime: str = "auto", device: str | None = None, **hub: Unpack[HubOptions]
) -> Runtime:
    """Load a model to predict with.

    Args:
        model: output folder of `hf-smile train` (and, for ONNX, of `hf-smile export`), or Hub id.
        runtime: `torch`, `onnx`, `onnx-int8` for the quantized network, or `auto` (see `choose_runtime`). The ONNX
            runtimes do not import torch.
        device: `cpu` or `cuda`; None for a GPU if torch finds one.
        hub: `revision`, `token` and `cache_dir` for a model on the Hub.

    Raises:
        SmileModelError: there is no such model, runtime or device, or the ONNX file was exported from other weights
            than those in its folder.

    >>> load_runtime("outputs/model", "onnx")(np.zeros((1, 3, 160, 160), np.float32)).shape  # doctest: +SKIP
    (1, 3)
    """
    if runtime not in RUNTIMES:
        raise SmileModelError(f"unknown runtime {runtime!r}; choose one of {', '.join(RUNTIMES)}")
    if runtime == "auto":
        runtime = choose_runtime(model, device, **hub)
    if runtime == "torch":
        # Report errors in these files before the import of torch, which takes seconds.
        read_config(model, **hub)
        model_file(model, "model.safetensors", WEIGHTS_FIX, **hub)
        return TorchRuntime(str(model), device, **hub)
    path = model_file(model, ONNX_FILES[runtime], f"export it with: {_export(str(model), runtime)}", **hub)
    loaded = OnnxRuntime(path, device)
    _check_weights(loaded, str(model), runtime)
    return loaded


def check_onnx_matches(folder: str | Path) -> None:
    """Check that the ONNX files in a model's folder were exported from its current `model.safetensors`.

    Raises:
        SmileModelError: a file was exported from other weights, is broken, or was not written by `hf-smile export`.

    >>> check_onnx_matches("outputs/model")  # doctest: +SKIP
    """
    for runtime, name in ONNX_FILES.items():
        if Path(folder, name).is_file():
            _check_weights(OnnxRuntime(Path(folder, name)), str(folder), runtime)


def weights_sha256(folder: str | Path) -> str | None:
    """Hexadecimal SHA-256 of `model.safetensors` in a model's folder; None if there is none."""
    path = Path(folder, "model.safetensors")
    return file_sha256(path) if path.is_file() else None


def onnx_session(network: str | bytes, device: str | None = None) -> onnxruntime.InferenceSession:
    """Load a network, the path of an .onnx file or its bytes, for all cores of this process; threads can share it.

    ONNX Runtime has some ten error types without a common base class for a file that it can't load.

    Raises:
        SmileModelError: ONNX Runtime can't use the device.

    >>> onnx_session("outputs/model/onnx/model.onnx").get_inputs()[0].name  # doctest: +SKIP
    'pixel_values'
    """
    # Turns off ONNX Runtime's telemetry; it reads this variable on import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    kind, _, number = (device or "cpu").partition(":")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind)
    if provider not in onnxruntime.get_available_providers():
        raise SmileModelError(f"the installed ONNX Runtime can't use the device {device!r}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and need not be logged too
    options.intra_op_num_threads = own_cores()
    # Threads that spin while they wait slow everything down on shared cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen = (provider, {"device_id": int(number)}) if number.isdecimal() and kind == "cuda" else provider
    return onnxruntime.InferenceSession(network, options, providers=[chosen])


class TorchRuntime:
    """A checkpoint in torch."""

    def __init__(self, model: str, device: str | None = None, **hub: Unpack[HubOptions]) -> None:
        import torch

        from hf_smile.modeling.checkpoint import load_model

        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            self.model = load_model(model, **hub).to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
            raise SmileModelError(f"device {device!r} can't be used: {first_line(error)}") from None
        self.pretrained_cfg: dict[str, Any] = self.model.config.pretrained_cfg
        self.labels = LabelSet.of(self.model.config.id2label)

    def __call__(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(pixel_values).to(self.device, memory_format=torch.channels_last)
            try:
                return self.model(pixel_values=batch).logits.float().cpu().numpy()
            except Exception as error:  # weights for another input size, or out of memory
                raise _failed(pixel_values, error) from None


class OnnxRuntime:
    """A network exported by `hf-smile export`, with its labels and data settings in the file.

    Args:
        path: the .onnx file.
        device: `cpu` or `cuda`; None for the CPU.

    Raises:
        SmileModelError: the file is broken or was not written by `hf-smile export`.
    """

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        try:
            self._session = onnx_session(str(path), device)
        except (SmileModelError, ImportError):
            raise
        except Exception as error:
            raise SmileModelError(f"{path}: ONNX Runtime can't load it: {first_line(error)}") from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            names, self.pretrained_cfg = (json.loads(metadata[name]) for name in ("labels", "pretrained_cfg"))
            if not isinstance(names, list) or not isinstance(self.pretrained_cfg, dict):
                raise TypeError
            self.labels = LabelSet.of(names)
        except (KeyError, ValueError, TypeError, RecursionError):
            raise SmileModelError(
                f"{path} was not written by hf-smile export: it has no labels or data settings"
            ) from None
        try:
            preprocess = Preprocessor(self.pretrained_cfg)
        except SmileModelError as error:
            raise SmileModelError(f"{path}: {error}") from None
        ports = [
            (port.name, port.type, *port.shape[1:])
            for port in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        expected = [
            ("pixel_values", "tensor(float)", 3, preprocess.height, preprocess.width),
            ("logits", "tensor(float)", len(self.labels)),
        ]
        if ports != expected:
            raise SmileModelError(
                f"{path} was not written by hf-smile export: its input and output are {ports}, not {expected}"
            )
        self.weights_sha256: str | None = metadata.get("weights_sha256")
        """SHA-256 of the exported `model.safetensors`."""

    def __call__(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return self._session.run(["logits"], {"pixel_values": pixel_values})[0]
        except Exception as error:  # for example, out of memory
            raise _failed(pixel_values, error) from None


def _failed(pixel_values: NDArray[np.float32], error: Exception) -> SmileModelError:
    n, _, height, width = pixel_values.shape
    return SmileModelError(
        f"the network failed on {counted(n, 'image')} of {width} x {height} pixels: {first_line(error)}"
    )


def _check_weights(loaded: OnnxRuntime, model: str, runtime: str) -> None:
    """Compare with the weights in the same folder; a file from the Hub has no such folder, and is not checked."""
    expected = weights_sha256(model)
    if expected is not None and loaded.weights_sha256 != expected:
        raise SmileModelError(
            f"{model}: {ONNX_FILES[runtime]} was exported from other weights than those in model.safetensors; "
            f"export it again with: {_export(model, runtime)}"
        )


def _export(model: str, runtime: str) -> str:
    quantize = " --quantize int8" if runtime == "onnx-int8" else ""
    return f"hf-smile export --model {model}{quantize}"
