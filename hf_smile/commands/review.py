"""Review labels that are likely wrong, one picture at a time; the annotations themselves are not changed.

hf-smile review --data_dir data/happy_images --audit outputs/audit
hf-smile review --data_dir data/happy_images --audit outputs/audit --backbone timm/tf_efficientnet_lite0.in1k
hf-smile review --data_dir data/happy_images --blind --reviewer ann --output ann.csv
hf-smile review --data_dir data/happy_images --compare ann.csv ben.csv
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.commands.options import job_parser
from hf_smile.data.arguments import add_data_arguments, data_arguments

if TYPE_CHECKING:
    from hf_smile.data.arguments import DataArguments


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    parser.add_argument("--audit", metavar="DIR", help="folder of `hf-smile audit`, with the doubted labels")
    parser.add_argument(
        "--backbone", metavar="DIR_OR_HUB_ID", help="backbone for an audit, which is run first if DIR has none"
    )
    parser.add_argument("--model", metavar="DIR_OR_HUB_ID", help="model of `hf-smile train` as another opinion")
    parser.add_argument(
        "--blind",
        action="store_true",
        help="show pictures in random order without labels and opinions, for an independent opinion on the labels",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="FILE.csv",
        help="files of two reviewers, or one made with --blind, to compare with each other or the labels; no page",
    )
    parser.add_argument(
        "--reviewer",
        default=os.environ.get("USER", "reviewer"),
        metavar="NAME",
        help="name of the reviewer (default: %(default)s)",
    )
    parser.add_argument(
        "--output", default="corrections.csv", metavar="FILE", help="file for the decisions (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, metavar="N", help="port of the page (default: first free port from 7860)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the splits (default: %(default)s)")
    add_data_arguments(parser, "validation_size", "on_bad_image", "corrections")
    args = parser.parse_args(words)
    if args.backbone and not args.audit:
        parser.error("--backbone needs --audit DIR, the folder to write the audit to")
    if args.blind and (args.audit or args.model):
        parser.error("--blind does not show --audit and --model; leave them out")
    if args.compare and (len(args.compare) > 2 or args.audit or args.model or args.blind):
        parser.error("--compare takes one or two files, and opens no page; leave out --audit, --model and --blind")
    return args


def run(args: argparse.Namespace) -> None:
    from hf_smile.errors import SmileError
    from hf_smile.utils.extras import require
    from hf_smile.utils.model_files import read_config

    data = data_arguments(args)
    if args.compare:
        compare(data, args)
        return
    if not (args.audit or args.model or args.blind):
        raise SmileError(
            "nothing to review; add --audit DIR (the folder of hf-smile audit, or with --backbone a "
            "new one), --model DIR, or both, or use --blind"
        )
    if args.model:
        read_config(args.model)  # report errors before the slow imports
    audit_first = args.backbone is not None and not Path(args.audit, "audit.json").is_file()
    require("datasets", *["imagehash", "cleanlab"] * audit_first, "gradio")  # the page comes last
    if audit_first:
        audit(args)
    from hf_smile.data.dataset import read_tables
    from hf_smile.review.opinions import NO_LIKENESS, ask_model, read_audit
    from hf_smile.review.page import Page, serve
    from hf_smile.review.queue import make_queue
    from hf_smile.review.session import Session

    tables, images = read_tables(data, args.seed)
    labels = tables.labels
    opinions, likeness = read_audit(args.audit, labels) if args.audit else ([], NO_LIKENESS)
    if args.model:
        cache = Path(args.audit or Path(args.output).parent, "cache")
        opinion, neighbours = ask_model(args.model, tables, images, labels, cache)
        opinions.append(opinion)
        if likeness.neighbours.empty:
            likeness = likeness._replace(neighbours=neighbours)
    queue = make_queue(tables, opinions, likeness, args.blind)
    session = Session(queue, labels, args.output, args.reviewer, args.blind)
    page = Page(session, images)
    print(f"{len(page.doubted) or len(queue):,} pictures to review; decisions are saved in {args.output}")
    serve(page, args.port, lambda url: print(f"The review runs at {url} (Ctrl-C ends it)", flush=True))


def compare(data: DataArguments, args: argparse.Namespace) -> None:
    """Print the agreement of two reviewers, or of one reviewer and the annotations in each split."""
    from hf_smile.data.corrections import LEAVE_OUT, UNSURE, Corrections
    from hf_smile.data.dataset import read_tables
    from hf_smile.errors import Problems
    from hf_smile.evaluation.agreement import measure_agreement
    from hf_smile.utils.words import counted

    tables, _ = read_tables(data, args.seed)
    given = {split: dict(zip(table["image_id"], table["label"], strict=True)) for split, table in tables.items()}
    annotations = {image_id: label for of_split in given.values() for image_id, label in of_split.items()}
    problems = Problems()
    files = [Corrections(path, annotations.items(), tables.labels, problems) for path in args.compare]
    problems.raise_if_any(data.data_dir)
    for file in files:
        words = Counter(row.decision for row in file.decisions.values())
        unused = ", ".join(f"{words[word]:,} {text}" for word, text in ((UNSURE, "unsure"), (LEAVE_OUT, "left out")))
        print(f"{file.path}: {counted(len(file.opinions), 'label')}; not counted: {unused}")
    first, *second = (file.opinions for file in files)
    others = {"": second[0]} if second else {f"{split}, ": labels for split, labels in given.items()}
    names = [*(file.path.name for file in files), "annotations"][:2]
    for split, other in others.items():
        both = [image_id for image_id in other if image_id in first]
        if both or second or not first:
            found = measure_agreement([first[i] for i in both], [other[i] for i in both], tables.labels)
            print(f"\n{split}{found.describe(*names)}")


def audit(args: argparse.Namespace) -> None:
    """Run `hf-smile audit` on the same data."""
    from dataclasses import fields

    from hf_smile.commands import audit as job
    from hf_smile.data.arguments import DataArguments

    words = ["--output_dir", args.audit, "--backbone", args.backbone, "--seed", str(args.seed)]
    for setting in fields(DataArguments):
        if value := getattr(args, setting.name, None):
            words += [f"--{setting.name}", *(value if isinstance(value, list) else [str(value)])]
    job.run(job.parse_arguments(words, "hf-smile audit"))
