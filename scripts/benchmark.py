"""Measure how fast it is, against what users would take otherwise; everything in one run, alternating."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from hf_smile.console import run_script

_EXAMPLES = """\
examples:
  python scripts/benchmark.py predict --output outputs/benchmark/predict.json
  python scripts/benchmark.py predict --model outputs/model --images faces/ --output outputs/benchmark/mine.json
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    predict = what.add_parser("predict", help="transformers' pipeline, torch, ONNX Runtime, ONNX Runtime int8")
    predict.add_argument("--model", metavar="DIR", help="a model with both ONNX files; else random weights")
    predict.add_argument("--backbone", default="resnet50", help="timm name, for random weights (default: %(default)s)")
    predict.add_argument("--image_size", type=int, default=224, help="for random weights (default: %(default)s)")
    predict.add_argument("--images", metavar="DIR", help="folder of face crops; else drawn faces of 200 pixels")
    predict.add_argument("--n_images", type=int, default=64, help="images of a run (default: %(default)s)")
    predict.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16], help="default: 1 16")
    predict.add_argument("--rounds", type=int, default=5, help="the median of so many counts (default: %(default)s)")
    predict.add_argument("--output", metavar="FILE.json", required=True, help="a table and a chart go beside it")
    args = parser.parse_args()
    if min(args.n_images, args.rounds, *args.batch_sizes) < 1:
        parser.error("--n_images, --rounds and --batch_sizes must be at least 1")
    if Path(args.output).suffix != ".json":
        parser.error(f"--output is {args.output}; it must end in .json")
    return args


def main() -> None:
    args = parse_arguments()
    if args.model:
        from hf_smile.model_files import model_file

        for name in ("config.json", "onnx/model.onnx", "onnx/model_quantized.onnx"):
            model_file(args.model, name, "make it with scripts/export_onnx.py, with --quantize int8")
    from transformers.utils import logging

    from hf_smile.benchmarks.measure import write_results
    from hf_smile.benchmarks.predict import benchmark_predict, draw_images, make_model
    from hf_smile.data.images import IMAGE_SUFFIXES
    from hf_smile.errors import SmileDataError
    from hf_smile.training.device import use_all_cores

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    use_all_cores()
    with tempfile.TemporaryDirectory() as temporary:
        if args.images:
            paths = sorted(path for path in Path(args.images).glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            if not paths:
                raise SmileDataError(f"--images {args.images}: no images in that folder")
        else:
            paths = draw_images(Path(temporary, "faces"), args.n_images)
        model = args.model or Path(temporary, "model")
        if not args.model:
            make_model(model, args.backbone, args.image_size, paths)
        rows, ratios = benchmark_predict(model, paths[: args.n_images], args.batch_sizes, args.rounds)
    title = f"{args.model or f'{args.backbone} at {args.image_size} pixels'}, from file to probabilities"
    print(write_results(rows, ratios, args.output, title))
    print(f"The same as JSON, Markdown and picture: {Path(args.output).with_suffix('')}.json .md .png")


if __name__ == "__main__":
    run_script(main)
