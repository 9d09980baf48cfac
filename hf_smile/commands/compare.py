"""Compare backbones on your data with a linear probe or by fine-tuning, over several seeds.

hf-smile compare --backbones timm/resnet50.a1_in1k timm/tf_efficientnet_lite0.in1k \\
    --data_dir data/happy_images --output_dir outputs/probe
hf-smile compare --backbones timm/resnet50.a1_in1k timm/tf_efficientnet_lite0.in1k \\
    --mode fine_tune --recipe recipes/efficientnet_lite0.yaml --output_dir outputs/compared --num_train_epochs 4

In the mode fine_tune, settings of `hf-smile train` may follow. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_smile.commands.options import job_parser
from hf_smile.data.arguments import DATA_SETTINGS, DEFAULT_DATA_DIR, add_data_arguments, data_arguments


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    add = parser.add_argument
    add("--backbones", nargs="+", required=True, metavar="DIR_OR_HUB_ID", help="backbones to compare")
    add("--data_dir", help="data to compare on (default: those of the recipe, or data/happy_images)")
    add("--mode", default="linear_probe", choices=("linear_probe", "fine_tune"), help="default: %(default)s")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], help="seeds of the validation split (default: 1 2 3)")
    add("--output_dir", required=True, help="folder for comparison.csv, .md and .png, and the runs <backbone>/<seed>")
    add("--validation_size", type=float, help="share of train (default: that of the recipe, or 0.1)")
    add("--test", action="store_true", help="report the test split too; use it after choosing, not to choose")
    add("--cache_dir", metavar="DIR", help="folder for the features (default: OUTPUT_DIR/cache)")
    add("--recipe", metavar="FILE.yaml", help="settings for the mode fine_tune")
    add_data_arguments(parser, "data_dir", "validation_size", "on_bad_image")
    args, settings = parser.parse_known_args(words)
    args.settings = settings
    if args.validation_size is not None and not 0 < args.validation_size < 1:
        parser.error(f"--validation_size is {args.validation_size}; it must lie between 0 and 1")
    if args.mode == "linear_probe" and (args.recipe or args.settings):
        parser.error(f"{args.recipe or args.settings[0]} is for --mode fine_tune")
    if args.mode == "fine_tune" and args.cache_dir:
        parser.error("--cache_dir is for --mode linear_probe")
    if len(set(args.seeds)) < len(args.seeds):
        parser.error(f"--seeds {' '.join(map(str, args.seeds))}: name each seed once")
    names = [Path(backbone).name for backbone in args.backbones]
    if twice := [name for name in names if names.count(name) > 1]:
        parser.error(f"two backbones are called {twice[0]}, so their runs would share a folder; rename one folder")
    return args


def run(args: argparse.Namespace) -> None:
    from hf_smile.benchmarks.backbones import fine_tune_all, probe_all
    from hf_smile.evaluation.backbones import write_comparison

    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)  # fail early if it can't be written
    if args.mode == "linear_probe":
        data = data_arguments(args, data_dir=args.data_dir or DEFAULT_DATA_DIR, validation_size=0)
        cache_dir = Path(args.cache_dir or output_dir / "cache")
        found = probe_all(args.backbones, data, args.seeds, args.validation_size or 0.1, args.test, cache_dir)
    else:
        found = fine_tune_all(args.backbones, training_settings(args), args.seeds, args.test, output_dir)
    title = "Linear probe on pooled features" if args.mode == "linear_probe" else "Fine-tuned"
    print(write_comparison(output_dir, *found, title))
    print(f"\nTable and chart: {output_dir}/comparison.csv, comparison.md, comparison.png")


def training_settings(args: argparse.Namespace) -> list[str]:
    """Words of `hf-smile train` for every run: the recipe, then the settings given here, which override it."""
    from hf_smile.training.settings import to_words

    given = {name: value for name, value in vars(args).items() if name in DATA_SETTINGS}
    return [*([args.recipe] if args.recipe else []), *to_words(given), *args.settings]
