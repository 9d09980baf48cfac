"""Compare backbones on your data: as they are, by a linear probe, or fine-tuned; over several seeds."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_smile.data.arguments import DEFAULT_DATA_DIR, add_data_arguments, data_arguments
from hf_smile.utils.console import run_script

if TYPE_CHECKING:
    import numpy as np

    from hf_smile.labels import LabelSet

Facts = dict[str, Any]
"""A row of `hf_smile.evaluation.backbones.write_comparison`'s `backbones`."""
Scores = dict[str, Any]
"""A row of its `scores`."""

_EXAMPLES = """\
examples:
  python scripts/compare_backbones.py --backbones timm/resnet50.a1_in1k timm/tf_efficientnet_lite0.in1k \\
      --data_dir data/happy_images --output_dir outputs/probe
  python scripts/compare_backbones.py --backbones timm/resnet50.a1_in1k timm/tf_efficientnet_lite0.in1k \\
      --mode fine_tune --recipe recipes/efficientnet_lite0.yaml --output_dir outputs/compared --num_train_epochs 4

Settings of scripts/train.py may follow in the mode fine_tune. A run that is there already is not made again.
"""


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backbones", nargs="+", required=True, metavar="DIR_OR_HUB_ID", help="what to compare")
    parser.add_argument("--data_dir", help="default: the recipe's, or data/happy_images")
    parser.add_argument("--mode", default="linear_probe", choices=("linear_probe", "fine_tune"), help="%(default)s")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of the validation split (1 2 3)")
    parser.add_argument(
        "--output_dir", required=True, help="folder for comparison.csv, .md and .png, and <backbone>/<seed> of each run"
    )
    parser.add_argument("--validation_size", type=float, help="share of train (default: the recipe's, or 0.1)")
    parser.add_argument(
        "--test", action="store_true", help="report the test split, too: once all is chosen, not to choose by it"
    )
    parser.add_argument("--cache_dir", metavar="DIR", help="keeps the features (default: OUTPUT_DIR/cache)")
    parser.add_argument("--recipe", metavar="FILE.yaml", help="settings of the mode fine_tune")
    add_data_arguments(parser, "data_dir", "validation_size", "on_bad_image")
    args, settings = parser.parse_known_args()
    if args.validation_size is not None and not 0 < args.validation_size < 1:
        parser.error(f"--validation_size is {args.validation_size}; it must lie between 0 and 1")
    if args.mode == "linear_probe" and (args.recipe or settings):
        parser.error(f"{args.recipe or settings[0]} is for --mode fine_tune")
    if args.mode == "fine_tune" and args.cache_dir:
        parser.error("--cache_dir is for --mode linear_probe")
    if len(set(args.seeds)) < len(args.seeds):
        parser.error(f"--seeds {' '.join(map(str, args.seeds))}: each one once")
    names = [Path(backbone).name for backbone in args.backbones]
    if twice := [name for name in names if names.count(name) > 1]:
        parser.error(f"two backbones are called {twice[0]}; their runs would share a folder")
    return args, settings


def probe_all(args: argparse.Namespace) -> Iterator[tuple[Facts, list[Scores]]]:
    """Features of all images once a backbone, and a probe on them for every seed."""
    import datasets
    import numpy as np
    from tqdm.auto import tqdm

    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.data.images import encoded_bytes
    from hf_smile.data.record import images_of, refuse_trained_on
    from hf_smile.data.rows import labels_of
    from hf_smile.modeling.features import pooled_features
    from hf_smile.modeling.probe import describe_backbone, probe, split_rows
    from hf_smile.training.device import keep_freed_memory

    keep_freed_memory()
    # Backbones first: a mistake in a name should not wait for the images.
    facts = {name: describe_backbone(name)._asdict() for name in args.backbones}
    data = data_arguments(args, data_dir=args.data_dir or DEFAULT_DATA_DIR, validation_size=0)
    splits = load_smile_dataset(**vars(data))
    seeds = args.seeds
    if "validation" in splits:  # the data bring one of their own, and a probe has nothing else to draw
        seeds = seeds[:1]
        print("Note: the data bring a validation split, which no seed changes; one probe a backbone", file=sys.stderr)
    if not args.test:
        splits.pop("test")
    labels = {split: np.array(dataset["label"]) for split, dataset in splits.items()}
    names = labels_of(splits["train"])
    for name in args.backbones:
        features = {}
        refuse_trained_on(name, chain(*map(images_of, splits.values())))
        for split, dataset in splits.items():
            images = dataset.cast_column("image", datasets.Image(decode=False))["image"]
            progress = tqdm(images, desc=f"{Path(name).name}, {split}", unit=" images", delay=1)
            cache_dir = args.cache_dir or Path(args.output_dir) / "cache"
            features[split] = pooled_features(map(encoded_bytes, progress), name, cache_dir=cache_dir)
        rows = []
        for seed in seeds:
            if "validation" in splits:
                fit, held_out = (features["train"], labels["train"]), (features["validation"], labels["validation"])
            else:
                fit, held_out = (
                    (features["train"][rows_of], labels["train"][rows_of])
                    for rows_of in split_rows(splits["train"], args.validation_size or 0.1, seed, args.group_by)
                )
            found = probe(*fit, *held_out, *([features["test"]] if args.test else []), labels=names)
            rows.append(scores(name, seed, "validation", found[0], held_out[1], names))
            if args.test:
                rows.append(scores(name, seed, "test", found[1], labels["test"], names))
        yield {"backbone": Path(name).name, **facts[name]}, rows


def fine_tune_all(args: argparse.Namespace, settings: list[str]) -> Iterator[tuple[Facts, list[Scores]]]:
    """One run of scripts/train.py a backbone and seed, in `<output_dir>/<backbone>/<seed>`."""
    from hf_smile.errors import SmileError
    from hf_smile.evaluation.predictions import read_predictions
    from hf_smile.modeling.probe import describe_backbone
    from hf_smile.training.arguments import parse_arguments, to_recipe
    from hf_smile.training.run_folder import is_finished

    for name in args.backbones:
        rows = []
        for seed in args.seeds:
            folder = Path(args.output_dir) / Path(name).name / str(seed)
            words = [args.recipe] if args.recipe else []
            words += ["--data_dir", args.data_dir] if args.data_dir else []
            words += ["--validation_size", str(args.validation_size)] if args.validation_size else []
            for setting, value in vars(data_arguments(args)).items():
                if hasattr(args, setting) and setting not in ("data_dir", "validation_size") and value is not None:
                    words += [f"--{setting}", *map(str, value if isinstance(value, list) else [value])]
            words += settings
            words += ["--backbone", name, "--seed", str(seed), "--output_dir", str(folder)]
            arguments = parse_arguments(words)
            if is_finished(folder, to_recipe(arguments)):
                print(f"{folder} is finished already", flush=True)
            else:
                print(f"{folder}: fine-tuning", flush=True)
                launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]
                script = str(Path(__file__).with_name("train.py"))
                run = subprocess.Popen([*launch, script, *words], stdout=subprocess.PIPE, text=True)
                assert run.stdout is not None
                for line in run.stdout:
                    if args.test or not line.startswith("Test "):  # or one would choose by it
                        print(line, end="", flush=True)
                if run.wait():
                    raise SmileError(
                        f"{folder}: the run failed; its message is above. Mend it and start again: what is done stays"
                    )
            for split in ("validation", "test")[: 1 + args.test]:
                found = read_predictions(folder / f"{split}_predictions.csv")
                rows.append(scores(name, seed, split, found.probabilities, found.label_ids, found.labels))
        _, _, model, _ = arguments
        facts = describe_backbone(name, pretrained=model.pretrained, image_size=model.image_size)
        yield {"backbone": Path(name).name, **facts._asdict()}, rows


def scores(
    name: str, seed: int, split: str, probabilities: np.ndarray, label_ids: np.ndarray, labels: LabelSet
) -> Scores:
    from hf_smile.evaluation.backbones import METRICS
    from hf_smile.evaluation.metrics import compute_metrics

    metrics = compute_metrics(probabilities, label_ids, labels)
    return {
        "backbone": Path(name).name,
        "seed": seed,
        "split": split,
        **{metric: metrics[metric] for metric in METRICS},
    }


def main() -> None:
    args, settings = parse_arguments()
    import pandas as pd

    from hf_smile.evaluation.backbones import write_comparison

    Path(args.output_dir).mkdir(parents=True, exist_ok=True)  # what can't be written to is better known at once
    found = list(probe_all(args) if args.mode == "linear_probe" else fine_tune_all(args, settings))
    write_comparison(
        args.output_dir,
        pd.DataFrame([facts for facts, _ in found]),
        pd.DataFrame([row for _, rows in found for row in rows]),
        "Linear probe on pooled features" if args.mode == "linear_probe" else "Fine-tuned",
    )
    table, _ = (Path(args.output_dir) / "comparison.md").read_text(encoding="utf-8").split("\n\n![")
    print(f"{table}\n\nTable and picture: {args.output_dir}/comparison.csv, comparison.md, comparison.png")


if __name__ == "__main__":
    run_script(main)
