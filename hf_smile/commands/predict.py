"""Classify photos or face crops in files, folders and zips.

hf-smile predict holiday/*.jpg --model outputs/model
hf-smile predict faces.zip --model outputs/model --faces whole --format csv --output verdicts.csv
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from hf_smile.commands.options import add_classifier_arguments, job_parser, load_classifier, positive
from hf_smile.errors import SmileDataError
from hf_smile.utils.words import counted

# torch is imported only if it runs the network.


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="files, folders, zips, or patterns such as '**/*.jpg'")
    add_classifier_arguments(parser)
    add("--format", choices=("table", "csv", "jsonl"), help="default: by the suffix of --output, otherwise table")
    add("--output", metavar="FILE", help=".csv, .jsonl or .txt file to write (default: stdout)")
    add(
        "--faces",
        default="all",
        choices=("all", "largest", "whole"),
        help="faces to classify; whole: every image is a face crop (default: %(default)s)",
    )
    add("--annotate", metavar="DIR", help="folder for pictures with boxes and predictions")
    add("--heat_maps", metavar="DIR", help="folder for heat maps of where the network looked, one per face")
    add("--batch_size", type=positive, default=32, metavar="N", help="faces per batch (default: %(default)s)")
    args = parser.parse_args(words)
    if args.detector and args.faces == "whole":
        parser.error("--detector has no effect with --faces whole; leave one of them out")
    return args


def run(args: argparse.Namespace) -> int:
    """Return the exit code: 0, or 1 if an image failed."""
    from tqdm import tqdm

    from hf_smile.inference.files import (
        FORMATS,
        PictureWriter,
        find_images,
        make_writer,
        predict_files,
        text_output,
    )
    from hf_smile.inference.prediction import NO_FACE

    output = Path(args.output) if args.output else None
    by_suffix = FORMATS.get(output.suffix.lower()) if output else None
    if args.format and by_suffix not in (None, args.format):
        raise SmileDataError(f"--format {args.format} and --output {args.output} disagree; leave --format out")
    form = args.format or by_suffix or "table"
    total, images = find_images(args.paths)
    failed = without_face = 0
    with ExitStack() as stack:
        file = stack.enter_context(text_output(output)) if output else sys.stdout
        classifier = load_classifier(args, with_faces=args.faces != "whole")
        pictures = None
        if args.annotate or args.heat_maps:
            images = iter(originals := list(images))
            pictures = PictureWriter(classifier, originals, args.annotate, args.heat_maps)
        write = make_writer(form, file, classifier.labels)
        progress = stack.enter_context(tqdm(total=total, unit=" images", file=sys.stderr, disable=None))
        for image, predictions in predict_files(classifier, images, args.faces, args.batch_size):
            for prediction in predictions:
                write(prediction)
            failed += any(prediction.error for prediction in predictions)
            without_face += any(prediction.note == NO_FACE for prediction in predictions)
            if pictures:
                pictures.write(image, predictions)
            progress.update()
        file.flush()
    if without_face:
        hint = "if these are face crops, classify them whole with --faces whole"
        print(f"no face found in {without_face:,} of {counted(total, 'image')}; {hint}", file=sys.stderr)
    if failed:
        print(f"{failed:,} of {counted(total, 'image')} could not be classified", file=sys.stderr)
    return 1 if failed else 0
