"""Describe a model: architecture, input, labels, files and results.

hf-smile info outputs/model
"""

from __future__ import annotations

import argparse

from yaml import YAMLError

from hf_smile.commands.options import job_parser
from hf_smile.errors import SmileModelError
from hf_smile.utils.console import visible
from hf_smile.utils.model_files import file_sizes, model_file, read_config


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    parser.add_argument("model", metavar="DIR_OR_HUB_ID", help="model of `hf-smile train`")
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> None:
    """Print the facts in `config.json`, the files and the card, without loading the network."""
    from hf_smile.data.preprocessing import Preprocessor
    from hf_smile.inference.runtimes import ONNX_FILES

    config = read_config(args.model)
    settings = config["pretrained_cfg"]
    preprocess = Preprocessor(settings)
    rows = {
        "architecture": visible(config["architecture"]),
        "input": f"3 x {preprocess.height} x {preprocess.width}",
        "labels": ", ".join(config["label_names"]),
        "mean, std": f"{settings.get('mean')}, {settings.get('std')}",
    }
    for name, size in file_sizes(args.model, ("model.safetensors", *ONNX_FILES.values())).items():
        rows[name] = "not there" if size is None else f"{size / 1e6:.1f} MB"
    rows["results on its card"] = visible(_results(args.model)) or "none"
    for name, value in rows.items():
        print(f"{name:<25}  {value}")


def _results(model: str) -> str:
    """The metrics in the front matter of the model's card; empty without a card."""
    from huggingface_hub import metadata_load
    from huggingface_hub.repocard_data import model_index_to_eval_results

    try:
        metadata = metadata_load(model_file(model, "README.md")) or {}
        _, results = model_index_to_eval_results(metadata["model-index"])
    except (SmileModelError, KeyError, TypeError, ValueError, YAMLError):
        return ""
    return ", ".join(f"{result.dataset_split} {result.metric_name} {result.metric_value}" for result in results)
