"""Export a model to ONNX, float32 and optionally int8, in its own folder; each file is checked before it is kept.

hf-smile export --model outputs/model
hf-smile export --model outputs/model --quantize int8   # with the train and validation splits of its run
hf-smile export --model outputs/model --quantize int8 --data_dir data/others --held_out
"""

from __future__ import annotations

import argparse

from hf_smile.commands.options import job_parser
from hf_smile.data.arguments import add_data_arguments, given_data_arguments


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="output folder of `hf-smile train`")
    parser.add_argument("--quantize", choices=("int8",), help="precision of an additional onnx/model_quantized.onnx")
    parser.add_argument("--held_out", action="store_true", help="confirm that these images were held out")
    add_data_arguments(parser, of_the_run=True)
    args = parser.parse_args(words)
    if not args.quantize and (args.held_out or given_data_arguments(args)):
        parser.error("data are only used with --quantize int8; add it, or leave out the data")
    return args


def run(args: argparse.Namespace) -> None:
    from hf_smile.errors import SmileDataError
    from hf_smile.utils.model_files import read_config

    read_config(args.model)  # report errors before the slow imports
    if args.quantize:
        from datasets import concatenate_datasets

        from hf_smile.data.dataset import load_smile_dataset
        from hf_smile.data.record import read_as_labelled_by, require_held_out, run_data
        from hf_smile.data.splits import hold_out

        data, seed = run_data(args.model, given_data_arguments(args), others=args.held_out)
        data = read_as_labelled_by(args.model, data)
        splits = load_smile_dataset(**vars(data), seed=seed, as_they_are=args.held_out)
        if args.held_out:
            columns = ["image", "label", "image_id"]
            together = concatenate_datasets([split.select_columns(columns) for split in splits.values()])
            splits = hold_out(together, "validation", 0.5, seed)
        if "validation" not in splits:
            raise SmileDataError(
                f"{args.model} was trained on all of train, but the check of int8 needs held-out images; "
                "add --data_dir DIR --held_out"
            )
        require_held_out(args.model, "validation", splits["validation"], args.held_out)
    from hf_smile.inference.onnx_export import export_onnx, quantize_onnx

    path, difference = export_onnx(args.model)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, logits within {difference:.1g} of those of torch", flush=True)
    if args.quantize:
        path, check = quantize_onnx(args.model, splits["train"], splits["validation"])
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {check}")
