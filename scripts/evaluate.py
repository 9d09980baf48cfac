"""Report on a model or on its predictions: numbers with intervals, pictures, comparisons, groups."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.data.arguments import add_data_arguments, given_data_arguments
from hf_smile.utils.console import run_script

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from hf_smile.evaluation.predictions import Predictions
    from hf_smile.evaluation.report_sections import Values

_EXAMPLES = """\
examples:
  python scripts/evaluate.py --model outputs/model --output_dir outputs/report
  python scripts/evaluate.py --model me/smile --data_dir data/others --held_out --output_dir outputs/others
  python scripts/evaluate.py --predictions outputs/model/test_predictions.csv --output_dir outputs/report \\
      --compare outputs/baseline/test_predictions.csv
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--model", metavar="DIR_OR_HUB_ID", help="a model that scripts/train.py made")
    subject.add_argument("--predictions", metavar="FILE.csv", help="predictions that are there already")
    parser.add_argument(
        "--output_dir", required=True, help="folder for report.md, metrics.json, predictions.csv, pictures"
    )
    parser.add_argument("--split", choices=("train", "validation", "test"), help="with --model (default: test)")
    parser.add_argument(
        "--held_out",
        action="store_true",
        help="you confirm that the images of the split were held out",
    )
    parser.add_argument("--batch_size", type=int, help="with --model: images at a time (default: 64)")
    parser.add_argument(
        "--test_time_flip",
        action="store_true",
        help="with --model: report the mean of an image and its mirror image too",
    )
    parser.add_argument("--compare", metavar="FILE.csv", help="predictions of another model for the same images")
    parser.add_argument("--group_by", metavar="COLUMN", help="a further column of the annotations, to report by group")
    parser.add_argument(
        "--heat_maps", action="store_true", help="with --model: draw where it looks, averaged by class (a few minutes)"
    )
    add_data_arguments(parser, "group_by", of_the_run=True)
    args = parser.parse_args()
    of_the_data = [name for name in given_data_arguments(args) if name != "group_by"]
    for option in ("heat_maps", "test_time_flip", "split", "held_out", "batch_size", *of_the_data):
        if getattr(args, option) not in (None, False) and not args.model:
            parser.error(f"--{option} needs --model")
    args.split, args.batch_size = args.split or "test", 64 if args.batch_size is None else args.batch_size
    if args.batch_size < 1:
        parser.error(f"--batch_size is {args.batch_size}; it must be at least 1")
    return args


def load_split(args: argparse.Namespace) -> Dataset:
    """The split, as the run of `args.model` had it, once it is known to be held out."""
    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.data.record import read_as_labelled_by, require_held_out, run_data
    from hf_smile.errors import SmileDataError
    from hf_smile.training.run_folder import RECIPE, record_look

    given = given_data_arguments(args)
    given.pop("group_by", None)  # which here is of the report
    if args.held_out and "data_dir" not in given and not Path(args.model, RECIPE).is_file():
        raise SmileDataError(f"{args.model} does not say which data are meant; name them with --data_dir")
    data, seed = run_data(args.model, given)
    data = read_as_labelled_by(args.model, data)
    listed = Path(args.output_dir, "bad_images.csv")
    splits = load_smile_dataset(**vars(data), seed=seed, bad_image_list=listed, as_they_are=args.held_out)
    name = next(iter(splits)) if args.held_out and len(splits) == 1 else args.split
    if name not in splits:
        raise SmileDataError(f"{data.data_dir}: there is no {name} split; there is {' and '.join(splits)}")
    require_held_out(args.model, args.split, splits[name], args.held_out)
    if args.split == "test" and Path(args.model, RECIPE).is_file():
        record_look(args.model, splits[name]["image_id"])
    return splits[name]


def predict(args: argparse.Namespace, split: Dataset) -> tuple[Predictions, dict[str, np.ndarray]]:
    """Predict one split with a single forward pass; the second result holds other rules, such as the flip, by name."""
    import numpy as np

    from hf_smile.evaluation.predictions import Predictions
    from hf_smile.evaluation.report import check_group_column
    from hf_smile.evaluation.schema import prediction_columns
    from hf_smile.labels import LabelSet
    from hf_smile.modeling import load_model, predict_probabilities
    from hf_smile.training.device import keep_freed_memory
    from hf_smile.utils.files import make_folder

    keep_freed_memory()
    model = load_model(args.model)
    labels = LabelSet.of(model.config.id2label)
    further = [name for name in split.column_names if name not in ("image", "label", *prediction_columns(labels))]
    # What can go wrong after the prediction had better go wrong before it.
    if args.group_by:
        check_group_column(args.group_by, further)
    make_folder(args.output_dir)
    predictions = Predictions(
        image_ids=list(split["image_id"]),
        label_ids=np.array(split["label"]),
        probabilities=predict_probabilities(model, split, args.batch_size),
        further_columns={name: [str(value) for value in split[name]] for name in further},
        labels=labels,
    )
    variants = {}
    if args.test_time_flip:
        flipped = predict_probabilities(model, split, args.batch_size, test_time_flip=True)
        variants["Mean over the image and its mirror image (test-time flip)"] = flipped
    return predictions, variants


def draw_heat_maps(args: argparse.Namespace, split: Dataset) -> str:
    """Write `heat_maps.png`, and say whether the maps can be trusted."""
    import datasets
    import numpy as np

    from hf_smile.data.images import encoded_bytes
    from hf_smile.inference.classifier import SmileClassifier
    from hf_smile.inference.heat_maps import check_sanity, mean_heat_maps, plot_heat_maps

    classifier = SmileClassifier.from_pretrained(args.model, runtime="torch")
    split = split.cast_column("image", datasets.Image(decode=False))
    labels = np.array(split["label"])
    rows = np.concatenate([np.flatnonzero(labels == label)[:100] for label in np.unique(labels)])
    images = [encoded_bytes(image) for image in split.select(rows)["image"]]
    plot_heat_maps(mean_heat_maps(classifier, images, labels[rows].tolist()), Path(args.output_dir, "heat_maps.png"))
    return str(check_sanity(classifier, images[:: max(1, len(images) // 30)]))


def _in_short(metrics: Values) -> str:
    accuracy = metrics["accuracy"]
    value, low, high = (100 * accuracy[key] for key in ("value", "low", "high"))
    return f"Accuracy {value:.1f} % (95 % interval {low:.1f} to {high:.1f}), ECE {metrics['ece']['value']:.3f}"


def main() -> None:
    args = parse_arguments()
    from hf_smile.utils.model_files import read_config

    if args.model:
        read_config(args.model)  # what is wrong with it is told before the imports that take seconds
    from hf_smile.evaluation.predictions import read_predictions
    from hf_smile.evaluation.report import check_no_model, write_report
    from hf_smile.utils.words import counted

    check_no_model(args.output_dir)
    other = read_predictions(args.compare) if args.compare else None
    sanity: str | None = None
    variants: dict[str, np.ndarray] = {}
    if args.predictions:
        predictions = read_predictions(args.predictions)
    else:
        split = load_split(args)
        sanity = draw_heat_maps(args, split) if args.heat_maps else None
        predictions, variants = predict(args, split)
    title = args.predictions or f"{args.model}, {args.split} split"
    report = write_report(
        args.output_dir,
        predictions,
        title=title,
        name=args.predictions or args.model,
        compare_with=other,
        compare_name=args.compare or "",
        group_by=args.group_by,
        variants=variants,
        heat_maps=sanity,
    )
    print(f"{_in_short(report['metrics'])}, {counted(report['n'], 'image')}")
    for way, metrics in report.get("variants", {}).items():
        print(f"{way}: {_in_short(metrics)}")
    if "comparison" in report:
        print(report["comparison"]["sentence"])
    if sanity:
        print(sanity)
    print(f"The whole report: {args.output_dir}/report.md")


if __name__ == "__main__":
    run_script(main)
