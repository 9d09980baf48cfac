"""Publish a model, the data or the demo on the Hugging Face Hub, each in one commit.

hf-smile push model outputs/model me/smile --license apache-2.0 --dry_run
hf-smile push dataset data/happy_images me/faces --license cc-by-4.0 --i_have_the_right_to_publish
hf-smile push space me/smile-demo --model me/smile

The token comes from HF_TOKEN or from `hf auth login`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.commands.options import job_parser
from hf_smile.data.arguments import add_data_arguments, data_arguments

if TYPE_CHECKING:
    from hf_smile.hub.upload import Target


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    from hf_smile.hub.space import HARDWARE
    from hf_smile.utils.shipped import shipped

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--dry_run", action="store_true", help="list the files to upload, without contacting the Hub")
    branch = common.add_mutually_exclusive_group()
    branch.add_argument("--revision", metavar="BRANCH", help="branch, created if needed (default: main)")
    branch.add_argument("--create_pr", action="store_true", help="open a pull request instead of changing the branch")

    parser = job_parser(prog, __doc__)
    commands = parser.add_subparsers(dest="what", metavar="model|dataset|space", required=True)

    model = commands.add_parser("model", parents=[common], help="model of `hf-smile train`")
    model.add_argument("folder", help="output folder of a finished run")
    model.add_argument("repo_id", metavar="OWNER/NAME")
    model.add_argument("--private", action="store_true", help="make the repository private")
    model.add_argument("--license", help="licence of the weights as a Hub identifier, for example apache-2.0")
    model.add_argument("--dataset", metavar="OWNER/NAME", help="data set it was trained on, if it is on the Hub")

    dataset = commands.add_parser("dataset", parents=[common], help="annotations and images, private by default")
    add = dataset.add_argument
    add("data_dir", help="data as for `hf-smile train`")
    add("repo_id", metavar="OWNER/NAME")
    visibility = dataset.add_mutually_exclusive_group()
    visibility.add_argument("--private", action="store_true", default=True, help="keep these faces private (default)")
    visibility.add_argument("--public", dest="private", action="store_false", help="make these faces public")
    add("--license", help="licence of the pictures as a Hub identifier, for example cc-by-4.0")
    add(
        "--i_have_the_right_to_publish",
        action="store_true",
        help="declare that the people in the pictures and the photographers agreed",
    )
    add("--provenance", metavar="TEXT", help="text for the card: who collected the data, when, where and how")
    add("--consent", metavar="TEXT", help="text for the card: what the people in the pictures agreed to")
    add("--seed", type=int, default=42, help="seed of the splits, as in training (default: %(default)s)")
    add_data_arguments(dataset, "data_dir", "on_bad_image")

    space = commands.add_parser("space", parents=[common], help="the demo")
    add = space.add_argument
    add("repo_id", metavar="OWNER/NAME")
    add("--model", required=True, metavar="OWNER/NAME", help="model of the demo")
    add("--private", action="store_true", help="make the repository private")
    add("--hardware", choices=HARDWARE, metavar="NAME", help="hardware, for example cpu-basic (free), t4-small")
    add("--space_dir", default=shipped("space"), help="folder of the app (default: space)")
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> None:
    from hf_smile.hub.upload import Target

    target = Target(args.repo_id, args.what, args.private, args.revision, args.create_pr)
    print({"model": push_model, "dataset": push_dataset, "space": push_space}[args.what](args, target))


def push_model(args: argparse.Namespace, target: Target) -> str:
    from hf_smile.hub import model
    from hf_smile.hub.upload import file_sizes, list_files

    files = model.model_files(args.folder, args.repo_id, args.license, args.dataset)
    if args.dry_run:
        return f"{list_files(file_sizes(files))}\nnot uploaded: {', '.join(model.left_here(args.folder)) or 'nothing'}"
    return model.push_model(files, target)


def push_dataset(args: argparse.Namespace, target: Target) -> str:
    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.hub import dataset
    from hf_smile.hub.dataset_card import dataset_card
    from hf_smile.hub.upload import list_files

    dataset.check_permission(args.license, args.i_have_the_right_to_publish)
    splits = dataset.publishable(load_smile_dataset(**vars(data_arguments(args)), seed=args.seed))
    card = dataset_card(splits, args.repo_id, args.license, args.provenance, args.consent)
    if args.dry_run:
        return list_files(dataset.dataset_sizes(splits, card))
    return dataset.push_dataset(splits, card, target)


def push_space(args: argparse.Namespace, target: Target) -> str:
    from hf_smile.errors import SmileError
    from hf_smile.hub import space
    from hf_smile.hub.connection import check_repo_id
    from hf_smile.hub.upload import file_sizes, list_files
    from hf_smile.utils.hub_id import missing_folder

    if Path(args.model).is_dir():
        raise SmileError(
            f"--model {args.model} is a folder, but a Space loads its model from the Hub; publish it first: "
            f"hf-smile push model {args.model} OWNER/NAME"
        )
    if message := missing_folder(check_repo_id(args.model)):
        raise SmileError(message)
    files = space.space_files(args.space_dir, args.model, args.repo_id)
    return list_files(file_sizes(files)) if args.dry_run else space.push_space(files, target, args.model, args.hardware)
