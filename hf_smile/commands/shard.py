"""Write a data set as Parquet shards, for training and prediction that stream what does not fit a disk.

hf-smile shard --data_dir data/happy_images --output_dir data/shards
"""

from __future__ import annotations

import argparse

from hf_smile.commands.options import job_parser, positive
from hf_smile.data.arguments import add_data_arguments, data_arguments


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    parser.add_argument("--output_dir", required=True, help="gets train/, validation/ and test/, with shards in them")
    parser.add_argument("--images_per_shard", type=positive, default=2000, help="at most (default: %(default)s)")
    parser.add_argument(
        "--divisible_by",
        type=positive,
        default=8,
        help="make the number of shards of train a multiple of this; if it is one of the number of processes too, "
        "each reads its own shards, else each reads all (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=42, help="of the order and the splits (default: 42)")
    add_data_arguments(parser)
    args = parser.parse_args(words)
    for name in ("validation_size", "test_size"):
        if not 0 <= (getattr(args, name) or 0) < 1:
            parser.error(f"--{name} is {getattr(args, name)}; it must lie between 0 and 1, for example 0.1")
    return args


def run(args: argparse.Namespace) -> None:
    data = data_arguments(args)

    from hf_smile.shards.folder import shard_files
    from hf_smile.shards.write import Sharding, write_shards

    how = Sharding(
        args.images_per_shard,
        args.divisible_by,
        args.validation_size,
        args.test_size,
        args.group_by,
        args.seed,
        args.on_bad_image,
        args.corrections,
    )
    images = write_shards(args.data_dir, args.output_dir, how, data.reading())
    for split, count in images.items():
        print(f"{split}: {count:,} images in {len(shard_files(args.output_dir, split))} shards")
    print(f"Train on them: hf-smile train --data_dir {args.output_dir}")
