"""Write a data set as Parquet shards, for training and prediction that stream what does not fit a disk.

python scripts/shard_dataset.py --data_dir data/happy_images --output_dir data/shards
"""

from __future__ import annotations

import argparse

from hf_smile.data.arguments import add_data_arguments, data_arguments
from hf_smile.utils.console import run_script


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", required=True, help="gets train/, validation/ and test/, with shards in them")
    parser.add_argument("--images_per_shard", type=int, default=2000, help="at most (default: %(default)s)")
    parser.add_argument(
        "--divisible_by",
        type=int,
        default=8,
        help="make the number of shards of train a multiple of this; if it is one of the number of processes too, "
        "each reads its own shards, else each reads all (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=42, help="of the order and the splits (default: 42)")
    add_data_arguments(parser)
    arguments = parser.parse_args()
    if arguments.images_per_shard < 1 or arguments.divisible_by < 1:
        parser.error("--images_per_shard and --divisible_by must be at least 1")
    for name in ("validation_size", "test_size"):
        if not 0 <= (getattr(arguments, name) or 0) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}; it must lie between 0 and 1, for example 0.1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    from hf_smile.shards.folder import shard_files
    from hf_smile.shards.write import Sharding, write_shards

    how = Sharding(
        arguments.images_per_shard,
        arguments.divisible_by,
        arguments.validation_size,
        arguments.test_size,
        arguments.group_by,
        arguments.seed,
        arguments.on_bad_image,
    )
    images = write_shards(arguments.data_dir, arguments.output_dir, how, data_arguments(arguments).reading())
    for split, count in images.items():
        print(f"{split}: {count:,} images in {len(shard_files(arguments.output_dir, split))} shards")
    print(f"Train on them: accelerate launch scripts/train.py --data_dir {arguments.output_dir}")


if __name__ == "__main__":
    run_script(main)
