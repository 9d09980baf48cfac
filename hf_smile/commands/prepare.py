"""Check a data set, write it ready for training, and plot its contents.

hf-smile prepare --data_dir data/happy_images --output_dir data/prepared
hf-smile prepare --draw_sample --data_dir data/sample
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_smile.commands.options import job_parser, positive
from hf_smile.data.arguments import DEFAULT_DATA_DIR, add_data_arguments, data_arguments


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    add = parser.add_argument
    add("--output_dir", help="folder for the prepared data set and its plots (default: data/prepared)")
    add("--draw_sample", action="store_true", help="first draw the sample data set in --data_dir")
    add("--seed", type=int, default=42, help="seed of the splits (default: 42)")
    add("--image_size", type=positive, default=224, help="size of the plotted samples (default: 224)")
    add("--export_imagefolder", metavar="DIR", help="folder for a copy as train/0..2 and test/0..2")
    add_data_arguments(parser)
    args = parser.parse_args(words)
    if args.draw_sample and args.data_dir == DEFAULT_DATA_DIR:
        args.data_dir = "data/sample"
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must be at least 0")
    return args


def run(args: argparse.Namespace) -> None:
    if args.draw_sample:
        from hf_smile.data.sample import draw_sample_dataset
        from hf_smile.errors import SmileDataError

        for name in ("train.csv", "test.csv", "happy_images.zip"):
            if (path := Path(args.data_dir, name)).exists():
                raise SmileDataError(f"{path} already exists; name a new folder with --data_dir")
        draw_sample_dataset(args.data_dir)
        print(f"Drew the sample data set in {args.data_dir}")
        if args.output_dir is None and not args.export_imagefolder:
            return

    data = data_arguments(args)

    import datasets

    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.data.layouts import refuse_data_folder
    from hf_smile.data.plots import class_table, plot_class_distribution, plot_samples
    from hf_smile.data.prepare import export_imagefolder, save_prepared
    from hf_smile.data.splits import describe

    output_dir = Path(args.output_dir or "data/prepared")
    refuse_data_folder(output_dir, data.data_dir, "dataset_dict.json")
    splits = load_smile_dataset(**vars(data), seed=args.seed, bad_image_list=output_dir / "bad_images.csv")
    save_prepared(splits, output_dir)
    if data.group_by:
        print(describe(splits, data.group_by))
    plot_class_distribution(splits, output_dir / "class_distribution.png")
    if args.export_imagefolder:
        export_imagefolder(splits, args.export_imagefolder)

    table = class_table(splits)
    for split, dataset in splits.items():
        shares = (f"{label} {images:,} ({share:.1%})" for label, images, share in table[split].itertuples())
        print(f"{split}: {len(dataset):,} images: {', '.join(shares)}")

    train = datasets.load_from_disk(output_dir)["train"]
    plot_samples(train, output_dir / "samples.png", args.image_size, args.seed)
    print(f"The prepared data set, class_distribution.png and samples.png are in {output_dir}")
