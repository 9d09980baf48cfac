"""Classify millions of face crops from Parquet shards, a folder of images or a zip, and write Parquet files.

hf-smile bulk --model outputs/model --data data/shards --output_dir outputs/predictions
accelerate launch --num_processes 8 -m hf_smile bulk --model outputs/model --data data/shards --output_dir DIR

Each process takes its share of the parts. After an interruption, the same command skips finished parts.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from pathlib import Path

from hf_smile.commands.options import job_parser, positive


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    from hf_smile.inference.runtimes import RUNTIMES

    parser = job_parser(prog, __doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="DIR_OR_HUB_ID", help="model of `hf-smile train`")
    add("--data", required=True, metavar="DIR_OR_ZIP", help="Parquet shards or face crops")
    add("--output_dir", required=True, help="folder for the Parquet files, one per part")
    add("--runtime", choices=RUNTIMES, help="default: onnx on a CPU if the model is exported, otherwise torch")
    add("--batch_size", type=positive, default=32, help="images per batch (default: %(default)s)")
    add("--part_size", type=positive, default=2000, help="images per part of a folder or zip (default: %(default)s)")
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> None:
    if "ACCELERATE_USE_CPU" in os.environ:
        from hf_smile.training.device import join_launcher

        join_launcher()

    from tqdm import tqdm

    from hf_smile.inference.bulk import find_parts, open_predictions, parts_digest, predict_part, verdicts_of
    from hf_smile.inference.classifier import SmileClassifier
    from hf_smile.inference.runtimes import choose_runtime, has_gpu, weights_sha256
    from hf_smile.utils.words import counted

    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    parts = find_parts(args.data, args.part_size)
    on_gpu = has_gpu()
    runtime = args.runtime or choose_runtime(args.model, "cuda" if on_gpu else None)
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if runtime == "torch" and on_gpu else None
    classifier = SmileClassifier.from_pretrained(args.model, runtime, device)
    settings = {"weights": weights_sha256(args.model) or args.model, "runtime": runtime, "images": parts_digest(parts)}
    open_predictions(args.output_dir, settings, classifier.labels)

    mine = parts[rank::world_size]
    verdicts: Counter[str] = Counter()
    skipped, begin = 0, time.perf_counter()
    with tqdm(total=sum(part.images for part in mine), unit=" images", position=rank, disable=None) as progress:
        for part in mine:
            path = Path(args.output_dir, part.name)
            if path.exists():
                skipped += part.images
                progress.update(part.images)
            else:
                predict_part(classifier, part, path, args.batch_size, progress.update)
            verdicts += verdicts_of(path)
    done = verdicts.total() - skipped
    rate = done / (time.perf_counter() - begin)
    who = f"process {rank + 1} of {world_size}: " if world_size > 1 else ""
    counts = ", ".join(f"{count:,} {name}" for name, count in verdicts.most_common())
    images, in_parts = counted(verdicts.total(), "image"), counted(len(mine), "part")
    print(f"{who}{images} in {in_parts}, {skipped:,} of them from earlier, {rate:.0f} images/s: {counts}", flush=True)
