"""Evaluate a model or its predictions: metrics with intervals, plots, comparisons, groups.

hf-smile evaluate --model outputs/model --output_dir outputs/report
hf-smile evaluate --model me/smile --data_dir data/others --held_out --output_dir outputs/others
hf-smile evaluate --predictions outputs/model/test_predictions.csv --output_dir outputs/report \\
    --compare outputs/baseline/test_predictions.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.commands.options import job_parser, positive
from hf_smile.data.arguments import add_data_arguments, given_data_arguments

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from hf_smile.evaluation.predictions import Predictions
    from hf_smile.evaluation.report_sections import Values


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--model", metavar="DIR_OR_HUB_ID", help="model of `hf-smile train`")
    subject.add_argument("--predictions", metavar="FILE.csv", help="existing predictions")
    add = parser.add_argument
    add("--output_dir", required=True, help="folder for report.md, metrics.json, predictions.csv and plots")
    add("--compare", metavar="FILE.csv", help="predictions of another model for the same images")
    add("--group_by", metavar="COLUMN", help="another column of the annotations, to report by group")
    add = parser.add_argument_group("with --model").add_argument
    add("--split", choices=("train", "validation", "test"), help="split to evaluate (default: test)")
    add("--held_out", action="store_true", help="confirm that the images of the split were held out")
    add("--batch_size", type=positive, help="images per batch (default: 64)")
    add("--test_time_flip", action="store_true", help="report the mean over an image and its mirror image too")
    add("--heat_maps", action="store_true", help="draw the mean heat map of each class (takes a few minutes)")
    add_data_arguments(parser, "group_by", of_the_run=True)
    args = parser.parse_args(words)
    of_the_data = [name for name in given_data_arguments(args) if name != "group_by"]
    for option in ("heat_maps", "test_time_flip", "split", "held_out", "batch_size", *of_the_data):
        if getattr(args, option) not in (None, False) and not args.model:
            parser.error(f"--{option} needs --model")
    args.split, args.batch_size = args.split or "test", args.batch_size or 64
    return args


def run(args: argparse.Namespace) -> None:
    from hf_smile.utils.model_files import WEIGHTS_FIX, model_file, read_config

    if args.model:  # report errors before the slow imports
        read_config(args.model)
        model_file(args.model, "model.safetensors", WEIGHTS_FIX)
    from hf_smile.data.corrections import facts_of
    from hf_smile.evaluation.predictions import read_predictions
    from hf_smile.evaluation.report import check_no_model, write_report
    from hf_smile.hub.finished_run import report_notes
    from hf_smile.utils.words import counted

    check_no_model(args.output_dir)
    other = read_predictions(args.compare) if args.compare else None
    sanity: str | None = None
    variants: dict[str, np.ndarray] = {}
    if args.predictions:
        predictions = read_predictions(args.predictions)
    else:
        from hf_smile.training.held_out import held_out_split

        given = given_data_arguments(args)
        given.pop("group_by", None)  # here it is an option of the report
        split = held_out_split(args.model, args.split, given, args.held_out, Path(args.output_dir, "bad_images.csv"))
        if args.heat_maps:
            from hf_smile.inference.classifier import SmileClassifier
            from hf_smile.inference.heat_maps import draw_heat_maps

            classifier = SmileClassifier.from_pretrained(args.model, runtime="torch")
            sanity = draw_heat_maps(classifier, split, Path(args.output_dir, "heat_maps.png"))
        predictions, variants = predict(args, split)
    notes = report_notes(args.model, args.split, facts_of(split)) if args.model else []
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
        notes=notes,
        heat_maps=sanity,
    )
    print(f"{_in_short(report['metrics'])}, {counted(report['n'], 'image')}")
    for way, metrics in report.get("variants", {}).items():
        print(f"{way}: {_in_short(metrics)}")
    if "comparison" in report:
        print(report["comparison"]["sentence"])
    if sanity:
        print(sanity)
    for note in notes:
        print(note.replace("**", ""))
    print(f"The complete report: {args.output_dir}/report.md")


def predict(args: argparse.Namespace, split: Dataset) -> tuple[Predictions, dict[str, np.ndarray]]:
    """Predict one split in a single forward pass; the second result has variants, such as the flip, by name."""
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
    # Check before the prediction what would fail after it.
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


def _in_short(metrics: Values) -> str:
    accuracy = metrics["accuracy"]
    value, low, high = (100 * accuracy[key] for key in ("value", "low", "high"))
    return f"Accuracy {value:.1f} % (95 % interval {low:.1f} to {high:.1f}), ECE {metrics['ece']['value']:.3f}"
