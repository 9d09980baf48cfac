"""Export a model to ONNX, float32 and on request int8, into its own folder; each file is checked before it is kept."""

from __future__ import annotations

import argparse

from hf_smile.console import run_script

_EXAMPLES = """\
examples:
  python scripts/export_onnx.py --model outputs/model
  python scripts/export_onnx.py --model outputs/model --quantize int8 --calibration_data data/happy_images
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="a folder that scripts/train.py made")
    parser.add_argument("--quantize", choices=("int8",), help="write onnx/model_quantized.onnx too")
    parser.add_argument("--calibration_data", metavar="DIR", help="the data the model was trained on, for --quantize")
    parser.add_argument("--validation_size", type=float, default=0.1, help="as in training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of the validation split, as in training (%(default)s)")
    args = parser.parse_args()
    if bool(args.quantize) != bool(args.calibration_data):
        parser.error("--quantize int8 and --calibration_data DIR go together")
    if args.quantize and args.validation_size == 0:
        parser.error("--quantize is checked on the validation split; name a --validation_size above 0")
    return args


def main() -> None:
    args = parse_arguments()
    from hf_smile.errors import SmileDataError
    from hf_smile.model_files import read_config

    read_config(args.model)  # what is wrong with it is told before the imports that take seconds
    if args.quantize:
        from hf_smile.data.dataset import load_smile_dataset

        try:
            splits = load_smile_dataset(args.calibration_data, args.validation_size, args.seed)
        except SmileDataError as error:
            raise SmileDataError(str(error).replace("Point --data_dir", "Point --calibration_data")) from None
    from hf_smile.inference.onnx_export import export_onnx, quantize_onnx

    path, difference = export_onnx(args.model)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, logits within {difference:.1g} of torch's", flush=True)
    if args.quantize:
        path, check = quantize_onnx(args.model, splits["train"], splits["validation"])
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {check}")


if __name__ == "__main__":
    run_script(main)
