"""Measure speed against the usual alternatives, in alternating rounds.

hf-smile benchmark train --data_dir data/prepared --image_size 160 --output outputs/benchmark/train.json
hf-smile benchmark data --data_dir data/prepared --output outputs/benchmark/data.json
hf-smile benchmark predict --output outputs/benchmark/predict.json
hf-smile benchmark predict --model outputs/model --images faces/ --output outputs/benchmark/mine.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.commands.options import job_parser, positive

if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_smile.benchmarks.measure import Row

Measured = tuple[dict[str, "Row"], Mapping[str, float], str]
"""Rows, ratios and title."""


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    what = parser.add_subparsers(dest="what", metavar="train|data|predict", required=True)

    train = what.add_parser("train", help="hf_smile's training loop, its compute limit, and transformers' Trainer")
    train.add_argument("--backbone", default="resnet50", help="timm name or local folder (default: %(default)s)")
    train.add_argument("--steps", type=positive, default=10, help="training steps per round (default: %(default)s)")
    train.add_argument("--bf16", action="store_true", help="compute in bfloat16 where it is precise enough")

    data = what.add_parser("data", help="decoding and transforms only")
    data.add_argument("--n_images", type=positive, default=512, help="images per round (default: %(default)s)")
    for command in (train, data):
        command.add_argument("--data_dir", metavar="DIR", help="data as for `hf-smile train` (default: drawn faces)")
        command.add_argument("--batch_size", type=positive, default=32, help="images per batch (default: %(default)s)")

    predict = what.add_parser("predict", help="transformers' pipeline, torch, ONNX Runtime, ONNX Runtime int8")
    predict.add_argument("--model", metavar="DIR", help="model with both ONNX files (default: random weights)")
    predict.add_argument("--backbone", default="resnet50", help="timm name, for random weights (default: %(default)s)")
    predict.add_argument("--images", metavar="DIR", help="folder of face crops (default: drawn faces of 200 pixels)")
    predict.add_argument("--n_images", type=positive, default=64, help="images per round (default: %(default)s)")
    predict.add_argument(
        "--batch_sizes", type=positive, nargs="+", default=[1, 16], help="images per batch (default: 1 16)"
    )

    for command in (train, data, predict):
        add = command.add_argument
        add("--image_size", type=int, default=224, help="side of the model's input in pixels (default: %(default)s)")
        add("--rounds", type=positive, default=5, help="rounds to take the median of (default: %(default)s)")
        add("--output", metavar="FILE.json", required=True, help="results; a table and a chart get the same stem")
    args = parser.parse_args(words)
    if args.image_size < 32:
        parser.error(f"--image_size is {args.image_size}; it must be at least 32")
    if Path(args.output).suffix != ".json":
        parser.error(f"--output is {args.output}; it must end in .json")
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)  # fail before the measurement, not after it
    return args


def run(args: argparse.Namespace) -> None:
    if args.what == "predict" and args.model:  # report missing files before the slow imports
        from hf_smile.utils.model_files import model_file

        for name in ("config.json", "onnx/model.onnx", "onnx/model_quantized.onnx"):
            model_file(args.model, name, "export it with hf-smile export --quantize int8")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from hf_smile.benchmarks.measure import write_results

    with tempfile.TemporaryDirectory() as folder:
        rows, ratios, title = {"train": _train, "data": _data, "predict": _predict}[args.what](args, Path(folder))

    print(write_results(rows, ratios, args.output, title))
    print(f"Results as JSON, Markdown and chart: {Path(args.output).with_suffix('')}.json .md .png")


def _train(args: argparse.Namespace, folder: Path) -> Measured:
    from hf_smile.benchmarks.train import TrainSettings, benchmark_train

    sizes = (args.image_size, args.batch_size, args.steps, args.rounds)
    settings = TrainSettings("", args.backbone, *sizes, bf16=args.bf16)
    rows, ratios = benchmark_train(_load(args.data_dir, folder, 256), settings)
    title = f"Training {Path(args.backbone).name} at {args.image_size} pixels, batch {args.batch_size}"
    return rows, ratios, f"{title}, {'bfloat16' if args.bf16 else 'float32'}"


def _data(args: argparse.Namespace, folder: Path) -> Measured:
    from hf_smile.benchmarks.data import benchmark_data
    from hf_smile.training.device import keep_freed_memory, use_all_cores

    use_all_cores()
    keep_freed_memory()  # as training does
    images = _load(args.data_dir, folder, args.n_images)["train"]
    images = images.select(range(min(args.n_images, len(images))))
    rows, ratios = benchmark_data(images, args.image_size, args.batch_size, args.rounds)
    title = f"From encoded images to batches at {args.image_size} pixels, on one core unless stated otherwise"
    return rows, ratios, title


def _load(data_dir: str | None, folder: Path, n_images: int) -> DatasetDict:
    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.data.sample import draw_sample_dataset

    data = data_dir or draw_sample_dataset(folder / "drawn", train_size=max(3, n_images), test_size=3, size=200)
    return load_smile_dataset(data, validation_size=0, bad_image_list=folder / "bad_images.csv")


def _predict(args: argparse.Namespace, folder: Path) -> Measured:
    from hf_smile.benchmarks.predict import benchmark_predict, draw_images, make_model
    from hf_smile.data.images import IMAGE_SUFFIXES
    from hf_smile.errors import SmileDataError
    from hf_smile.training.device import use_all_cores

    use_all_cores()
    if args.images:
        paths = sorted(path for path in Path(args.images).glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise SmileDataError(f"--images {args.images}: no images in that folder")
    else:
        paths = draw_images(folder / "faces", args.n_images)
    if not args.model:
        make_model(folder / "model", args.backbone, args.image_size, paths)
    model = args.model or folder / "model"
    rows, ratios = benchmark_predict(model, paths[: args.n_images], args.batch_sizes, args.rounds)
    return rows, ratios, f"{args.model or f'{args.backbone} at {args.image_size} pixels'}, from file to probabilities"
