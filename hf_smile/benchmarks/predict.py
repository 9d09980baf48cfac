"""Benchmark of prediction: transformers' pipeline against hf_smile on torch, ONNX Runtime and ONNX Runtime int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import pipeline

from hf_smile.benchmarks.measure import Row, alternate
from hf_smile.data.images import decode_image
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.data.sample import draw_face
from hf_smile.inference.classifier import SmileClassifier
from hf_smile.inference.onnx_export import export_onnx, write_int8
from hf_smile.inference.runtimes import ONNX_FILES
from hf_smile.modeling import build_model

_RUNTIMES = ("torch", *ONNX_FILES)


def benchmark_predict(
    model_dir: str | Path, images: Sequence[Path], batch_sizes: Sequence[int] = (1, 16), rounds: int = 5
) -> tuple[dict[str, Row], dict[str, float]]:
    """Measure prediction from files to probabilities, including decoding.

    Args:
        model_dir: a model with `onnx/model.onnx` and `onnx/model_quantized.onnx`.
        images: files that every contender reads.
        batch_sizes: images per batch.
        rounds: number of rounds; results are medians over the rounds.

    Returns:
        Rows by name, for example `onnx-int8, batch 16`, and ratios such as `onnx_int8/pipeline`, which are for the last
        batch size unless the name gives another.

    >>> rows, ratios = benchmark_predict("outputs/model", sorted(Path("faces").glob("*.jpg")))  # doctest: +SKIP
    >>> ratios["onnx_int8/pipeline"]  # doctest: +SKIP
    4.1
    """
    contenders = make_contenders(model_dir, images)
    rows: dict[str, Row] = {}
    ratios: dict[str, float] = {}
    for batch_size in batch_sizes:
        runs = {name: partial(_count, predict, batch_size) for name, predict in contenders.items()}
        measured = alternate(runs, rounds, f"Batch {batch_size}")
        rows |= {f"{name}, batch {batch_size}": row for name, row in measured.items()}
        where = "" if batch_size == batch_sizes[-1] else f", batch {batch_size}"
        for runtime in _RUNTIMES:
            speedup = measured[runtime].times_as_fast_as(measured["pipeline"])
            ratios[f"{runtime.replace('-', '_')}/pipeline{where}"] = speedup
    return rows, ratios


def _count(predict: Callable[[int], list[Any]], batch_size: int) -> int:
    return len(predict(batch_size))


def make_contenders(
    model_dir: str | Path, images: Sequence[Path], runtimes: Sequence[str] = _RUNTIMES
) -> dict[str, Callable[[int], list[Any]]]:
    """`pipeline` and the runtimes of hf_smile, as functions from a batch size to one prediction per image."""
    files = [str(path) for path in images]

    def ours(runtime: str) -> Callable[[int], list[Any]]:
        classifier = SmileClassifier.from_pretrained(model_dir, runtime, device="cpu")
        return lambda batch_size: classifier.predict(files, batch_size=batch_size)

    plain = pipeline("image-classification", model=str(model_dir), device="cpu", trust_remote_code=False)
    contenders = {"pipeline": lambda batch_size: plain(files, batch_size=batch_size)}
    return contenders | {runtime: ours(runtime) for runtime in runtimes}


def make_model(folder: Path, backbone: str, image_size: int | None, images: Sequence[Path]) -> None:
    """Write a network with random weights, float32 and int8; its speed does not depend on the weights."""
    model = build_model(backbone, pretrained=False, image_size=image_size)
    model.save_pretrained(folder)
    path, _ = export_onnx(folder)
    preprocess = Preprocessor(model.config.pretrained_cfg)
    batch = np.stack([preprocess(decode_image(image.read_bytes())) for image in images[:16]])
    write_int8(path, path.with_name("model_quantized.onnx"), iter([batch]))


def draw_images(folder: Path, n: int, size: int = 200) -> list[Path]:
    """Draw `n` faces as JPEG files of `size` x `size` pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:05}.jpg" for i in range(n)]
    for i, path in enumerate(paths):
        draw_face(i % 3, rng, size=size).save(path, quality=90)
    return paths
