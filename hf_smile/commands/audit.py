"""Audit a data set before training: duplicates, leaks from train to test, suspicious labels, unusual pictures.

hf-smile audit --data_dir data/happy_images --output_dir outputs/audit
hf-smile audit --data_dir data/happy_images --output_dir outputs/audit \\
    --backbone timm/tf_efficientnet_lite0.in1k --predictions outputs/model/test_predictions.csv --write_clean
hf-smile audit --data_dir data/happy_images --output_dir outputs/audit --folds 5 --recipe face_mobilenet
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.commands.options import job_parser, positive
from hf_smile.data.arguments import add_data_arguments, data_arguments
from hf_smile.utils.extras import require
from hf_smile.utils.files import make_folder

if TYPE_CHECKING:
    import pandas as pd


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    add = parser.add_argument
    add("--output_dir", required=True, help="folder for audit.md, audit.json, lists, plots, splits")
    add("--predictions", metavar="FILE.csv", help="predictions for the test split, to measure the effect of leaks")
    add("--write_clean", action="store_true", help="also write clean/, the splits without leaks and conflicts")
    add("--contact_sheets", metavar="DIR", help="folder for pictures (default: OUTPUT_DIR/contact_sheets)")
    add("--seed", type=int, default=42, help="seed of the splits and the folds (default: %(default)s)")
    add = parser.add_argument_group("similarity and labels").add_argument
    backbone = "pretrained model, not fine-tuned on these data; one trained on faces can distinguish people"
    add("--backbone", metavar="DIR_OR_HUB_ID", help=backbone)
    add("--duplicate_similarity", type=similarity, help="lowest cosine similarity of duplicates (default: 0.95)")
    add(
        "--cluster_similarity",
        type=similarity,
        help="lowest cosine similarity of images that must be in the same split (default: chosen by the data)",
    )
    add("--batch_size", type=positive, help="images per batch (default: 32)")
    add("--cache_dir", metavar="DIR", help="folder for the features (default: OUTPUT_DIR/cache)")
    add = parser.add_argument_group("labels, with fine-tuned models instead of a linear probe").add_argument
    add("--folds", type=positive, help="number of models, each trained on the other folds; finished runs are kept")
    add("--recipe", metavar="FILE.yaml", help="recipe of these models")
    add("--leave_out", type=share, help="largest share of train, the most suspicious labels, for leave_out.csv")
    add_data_arguments(parser, "validation_size", "on_bad_image")
    args = parser.parse_args(words)
    if bool(args.folds) != bool(args.recipe) or args.folds == 1:
        parser.error("--folds and --recipe go together, and --folds must be at least 2")
    if args.leave_out and not (args.folds or args.backbone):
        parser.error("--leave_out needs --backbone or --folds")
    if args.leave_out and args.corrections:
        parser.error("--leave_out writes a file for --corrections, and train takes only one; leave out --corrections")
    for option in ("duplicate_similarity", "cluster_similarity", "batch_size", "cache_dir"):
        if getattr(args, option) is not None and not args.backbone:
            parser.error(f"--{option} needs --backbone")
    return args


def share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"it is {text}; it must lie between 0 and 1")
    return value


def similarity(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"it is {text}; it must be above 0 and at most 1")
    return value


def run(args: argparse.Namespace) -> None:
    output_dir = Path(args.output_dir)
    sheets_dir = Path(args.contact_sheets or output_dir / "contact_sheets")

    data = data_arguments(args)
    require("datasets", "imagehash", "cleanlab")  # the last one is imported late
    from hf_smile.audit.dataset import audit_images
    from hf_smile.audit.pictures import draw_contact_sheets, open_private_folder
    from hf_smile.audit.report import (
        refuse_data,
        require_files,
        to_act_on,
        write_clean,
        write_leave_out,
        write_report,
    )
    from hf_smile.audit.run import DUPLICATE_SIMILARITY, doubt_labels
    from hf_smile.data.dataset import read_tables
    from hf_smile.utils.words import counted

    if args.folds:
        from hf_smile.benchmarks.folds import fold_probabilities, fold_settings

        settings = fold_settings(args.recipe)  # report errors before the images are read
    predictions = predicted_ids(args.predictions) if args.predictions else None
    tables, images = read_tables(data, args.seed)
    for option in ("--write_clean", "--folds"):
        if getattr(args, option[2:]):
            require_files(images, option)
    refuse_data(output_dir, Path(args.data_dir))
    make_folder(output_dir)
    open_private_folder(sheets_dir)
    audit = audit_images(
        tables,
        images,
        args.backbone,
        batch_size=args.batch_size or 32,
        cache_dir=args.cache_dir or output_dir / "cache",
        predictions=predictions,
        duplicate_similarity=args.duplicate_similarity or DUPLICATE_SIMILARITY,
        cluster_similarity=args.cluster_similarity,
        seed=args.seed,
    )
    if args.folds:
        models = fold_probabilities(audit, images, settings, args.folds, output_dir / "folds", args.seed)
        doubt_labels(audit, *models)
    audit.summary = {"data": args.data_dir, "backbone": args.backbone, **audit.summary}
    write_report(audit, tables, images, output_dir)
    draw_contact_sheets(audit, images, sheets_dir)
    print(*(to_act_on(audit) or ["Nothing was found."]), sep="\n")
    if args.write_clean:
        left = write_clean(audit, tables, images, output_dir / "clean")
        print("Clean:", ", ".join(f"{name}.csv {count:,} images" for name, count in left.items()))
    if args.leave_out and (count := write_leave_out(audit, args.leave_out, output_dir / "leave_out.csv")):
        print(f"Leaves out {counted(count, 'image')}: hf-smile train --corrections {output_dir}/leave_out.csv")
    print(f"The complete audit: {output_dir}/audit.md; the images of the findings: {sheets_dir}")


def predicted_ids(path: str) -> pd.DataFrame:
    import pandas as pd

    from hf_smile.evaluation.predictions import read_predictions

    predictions = read_predictions(path)
    return pd.DataFrame({"image_id": predictions.image_ids, "prediction": predictions.predicted_ids})
