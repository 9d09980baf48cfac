"""Do one, two and four processes with the same total batch size reach the same validation metric, each image once?

    python tests/campaigns/processes.py

The data are drawn faces, cached and streamed; the processes communicate on the loopback (gloo). Each process records
the ids that it trains on, to check that every image is used once per epoch. By default the network has no batch
normalisation, which on a CPU depends on the images of one process, not on those of the step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from tqdm.auto import tqdm

from hf_smile.errors import SmileError
from hf_smile.utils.console import run_script

PROCESSES = (1, 2, 4)
SEEDS = (42, 43, 44, 45)
DATA = ("cached", "streamed")


def train(folder: Path, data: str, seed: int, options: argparse.Namespace) -> tuple[dict[str, float], dict[int, list]]:
    """One run: its last validation metrics, and the ids that this process trained on, by epoch."""
    from transformers import set_seed

    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.modeling import build_model
    from hf_smile.shards.folder import load_shards
    from hf_smile.training.arguments import SmileTrainingArguments
    from hf_smile.training.trainer import SmileTrainer

    shards = folder / "shards"
    with tempfile.TemporaryDirectory() as output_dir:
        args = SmileTrainingArguments(
            output_dir,
            seed=seed,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size // int(os.environ.get("WORLD_SIZE", "1")),
            learning_rate=1e-3,
            ema_decay=0.9,
            select_best="last",
            use_cpu=True,
            disable_tqdm=True,
        )
        with args.main_process_first():
            splits = load_shards(shards, train_images=False) if data == "streamed" else load_smile_dataset(shards)
        set_seed(seed)
        model = build_model(options.backbone, pretrained=False, image_size=64)
        train = shards if data == "streamed" else splits["train"]
        trainer = SmileTrainer(model, args, train, splits["validation"])
        seen: dict[int, list[str]] = defaultdict(list)
        step = trainer.training_step

        def noted(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            seen[int(trainer.state.epoch or 0)] += inputs["image_ids"]
            return step(model, inputs, *rest)

        trainer.training_step = noted  # type: ignore[method-assign]
        trainer.train()
        metrics = [line for line in trainer.state.log_history if "eval_accuracy" in line][-1]
    return metrics, seen


def work(folder: Path, options: argparse.Namespace) -> None:
    """Main function of each process: all runs, one after another; the first process writes the results."""
    import torch
    from datasets import disable_progress_bars

    disable_progress_bars()
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    train_ids = sorted(json.loads((folder / "train_ids.json").read_text()))
    for data in options.data:
        for seed in SEEDS:
            metrics, own = train(folder, data, seed, options)
            everyone = [own] * processes
            if processes > 1:
                torch.distributed.all_gather_object(everyone, own)
            for epoch in range(options.epochs):
                if sorted(image_id for seen in everyone for image_id in seen[epoch]) != train_ids:
                    raise SmileError(f"{processes} processes, {data}: epoch {epoch + 1} did not use each image once")
            if rank == 0:
                row = {"data": data, "seed": seed, "processes": processes}
                row |= {name: metrics[f"eval_{name}"] for name in ("accuracy", "nll")}
                with (folder / "rows.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")


def print_table(rows: list[dict[str, Any]], epochs: int) -> None:
    """Print a Markdown table of the validation metrics of every run, and their differences from one process."""
    print("| data | seed | processes | accuracy | nll | nll, from one process | each image once per epoch |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    one = {(row["data"], row["seed"]): row for row in rows if row["processes"] == 1}
    for row in rows:
        apart = row["nll"] - one[row["data"], row["seed"]]["nll"]
        print(
            f"| {row['data']} | {row['seed']} | {row['processes']} | {row['accuracy']:.4f} | {row['nll']:.4f} "
            f"| {apart:+.4f} | yes, in {epochs} |"
        )
    print()
    for data in dict.fromkeys(row["data"] for row in rows):
        for metric in ("accuracy", "nll"):
            means = {n: mean(r[metric] for r in rows if (r["data"], r["processes"]) == (data, n)) for n in PROCESSES}
            spread = [one[data, seed][metric] for seed in SEEDS]
            apart = max(abs(value - means[1]) for value in means.values())
            verdict = "within" if apart <= max(spread) - min(spread) else "BEYOND"
            averages = ", ".join(f"{processes}: {value:.4f}" for processes, value in means.items())
            print(
                f"{data}, {metric} by processes, on average: {averages}; "
                f"{apart:.4f} apart, {verdict} the {max(spread) - min(spread):.4f} between the seeds of one process"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600, help="training images; half as many for validation")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch_size", type=int, default=32, help="total batch size of all processes")
    parser.add_argument("--backbone", default="test_convnext", help="name of a timm model (default: %(default)s)")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="kinds of data (default: both)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(Path(args.worker), args)
        return
    from hf_smile.data.sample import draw_sample_dataset
    from hf_smile.shards.folder import load_shards
    from hf_smile.shards.write import Sharding, write_shards

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = os.environ | {"HF_HOME": f"{folder}/cache", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        draw_sample_dataset(folder / "faces", train_size=args.images * 3 // 2, test_size=30, size=64)
        write_shards(folder / "faces", folder / "shards", Sharding(50, max(PROCESSES), validation_size=1 / 3))
        train_ids = load_shards(folder / "shards")["train"]["image_id"]
        (folder / "train_ids.json").write_text(json.dumps(list(train_ids)))
        for processes in tqdm(PROCESSES, unit=" launches"):
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            words = [__file__, "--worker", folder, "--data", *args.data, "--backbone", args.backbone]
            words += ["--epochs", args.epochs, "--batch_size", args.batch_size]
            command = [sys.executable, *(launcher if processes > 1 else []), *map(str, words)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SmileError(f"{processes} processes failed:\n{done.stderr[-3000:]}")
        rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
        print_table(sorted(rows, key=lambda row: (row["data"], row["seed"], row["processes"])), args.epochs)


if __name__ == "__main__":
    run_script(main)
