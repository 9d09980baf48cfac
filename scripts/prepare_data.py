"""Check a data set, write it ready for training, and show what is in it.

python scripts/prepare_data.py --data_dir data/happy_images --output_dir data/prepared
python scripts/prepare_data.py --draw_sample --data_dir data/sample
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_smile.data.arguments import DEFAULT_DATA_DIR, add_data_arguments, data_arguments
from hf_smile.utils.console import run_script


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", help="where to write the prepared data set and its pictures")
    parser.add_argument("--draw_sample", action="store_true", help="first draw the sample data set into --data_dir")
    parser.add_argument("--seed", type=int, default=42, help="of the splits (default: 42)")
    parser.add_argument("--image_size", type=int, default=224, help="size of the pictured samples (default: 224)")
    parser.add_argument("--export_imagefolder", metavar="DIR", help="also write train/0..2 and test/0..2 into DIR")
    add_data_arguments(parser)
    arguments = parser.parse_args()
    if arguments.draw_sample and arguments.data_dir == DEFAULT_DATA_DIR:
        arguments.data_dir = "data/sample"
    if arguments.image_size < 1 or arguments.seed < 0:
        parser.error("--image_size must be at least 1, and --seed at least 0")
    return arguments


def main() -> None:
    arguments = parse_arguments()

    if arguments.draw_sample:
        from hf_smile.data.sample import draw_sample_dataset
        from hf_smile.errors import SmileDataError

        for name in ("train.csv", "test.csv", "happy_images.zip"):
            if (path := Path(arguments.data_dir, name)).exists():
                raise SmileDataError(f"{path} is there already; name a new folder with --data_dir")
        draw_sample_dataset(arguments.data_dir)
        print(f"Drew the sample data set into {arguments.data_dir}")
        if arguments.output_dir is None and not arguments.export_imagefolder:
            return

    import datasets

    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.data.layouts import refuse_data_folder
    from hf_smile.data.plots import class_table, plot_class_distribution, plot_samples
    from hf_smile.data.prepare import export_imagefolder, save_prepared
    from hf_smile.data.splits import describe

    output_dir = Path(arguments.output_dir or "data/prepared")
    data = data_arguments(arguments)
    refuse_data_folder(output_dir, data.data_dir, "dataset_dict.json")
    splits = load_smile_dataset(**vars(data), seed=arguments.seed, bad_image_list=output_dir / "bad_images.csv")
    save_prepared(splits, output_dir)
    if data.group_by:
        print(describe(splits, data.group_by))
    plot_class_distribution(splits, output_dir / "class_distribution.png")
    if arguments.export_imagefolder:
        export_imagefolder(splits, arguments.export_imagefolder)

    table = class_table(splits)
    for split, dataset in splits.items():
        shares = (
            f"{label} {table.loc[label, (split, 'images')]:,} ({table.loc[label, (split, 'share')]:.1%})"
            for label in table.index
        )
        print(f"{split}: {len(dataset):,} images: {', '.join(shares)}")

    from hf_smile.data.augmentation import AugmentationArguments

    train = datasets.load_from_disk(output_dir)["train"].cast_column("image", datasets.Image(decode=False))
    plot_samples(train, AugmentationArguments(), output_dir / "samples.png", arguments.image_size, seed=arguments.seed)
    print(f"The prepared data set, class_distribution.png and samples.png are in {output_dir}")


if __name__ == "__main__":
    run_script(main)
