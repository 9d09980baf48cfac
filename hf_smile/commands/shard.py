"""Write a data set as Parquet shards, which training and prediction stream if the data do not fit on a disk.

hf-smile shard --data_dir data/happy_images --output_dir data/shards
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from hf_smile.commands.options import job_parser, positive
from hf_smile.data.arguments import add_data_arguments, data_arguments


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    add = parser.add_argument
    add("--output_dir", required=True, help="folder for the shards, in train/, validation/ and test/")
    add("--images_per_shard", type=positive, default=2000, help="maximum per shard (default: %(default)s)")
    add(
        "--divisible_by",
        type=positive,
        default=8,
        help="divisor of the number of train shards; if that is also a multiple of the number of processes, each "
        "process reads its own shards, otherwise each reads all of them (default: %(default)s)",
    )
    add("--seed", type=int, default=42, help="seed of the order and the splits (default: 42)")
    add_data_arguments(parser)
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> None:
    data = data_arguments(args)

    from hf_smile.shards.folder import shard_files
    from hf_smile.shards.write import Sharding, write_shards

    how = Sharding(**{field.name: getattr(args, field.name) for field in fields(Sharding)})
    images = write_shards(args.data_dir, args.output_dir, how, data.reading())
    for split, count in images.items():
        print(f"{split}: {count:,} images in {len(shard_files(args.output_dir, split))} shards")
    print(f"Train on them: hf-smile train --data_dir {args.output_dir}")
