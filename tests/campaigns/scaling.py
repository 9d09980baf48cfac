"""Does ten times the data take ten times the time and the same memory? For sharding, streaming training, prediction.

    python tests/campaigns/scaling.py --images 1000 10000 100000

Each job runs in a separate process, as a user runs it. Its CPU time on the 50 images of the first round is the start-up
time (imports, loading the network), which is subtracted before the CPU time is divided by the number of images. Memory
is the highest sum of the resident memory of a job's processes. The images are copies of a few hundred drawn faces, made
different by comments in their JPEG files.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil
from tqdm.auto import tqdm

from hf_smile.data.sample import draw_face
from hf_smile.errors import SmileError
from hf_smile.labels import LABEL_NAMES
from hf_smile.utils.console import run_script

SCRIPTS = Path(__file__).parents[2] / "scripts"
START = 50
FACES = 300
JOBS = ("sharding", "training", "prediction")
MOST_TIME, MOST_MEMORY = 1.15, 1.10  # time per image and total memory, as multiples of those of the smallest size


class Cost(NamedTuple):
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: float


def run(*words: object) -> Cost:
    """Run a script to its end; its CPU time includes that of its child processes."""
    with tempfile.TemporaryFile("w+") as log:
        begin = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent), "HF_HUB_OFFLINE": "1"}
        job = psutil.Popen([sys.executable, *map(str, words)], stdout=log, stderr=log, env=environment)
        peak = 0
        while job.status() != psutil.STATUS_ZOMBIE:
            with suppress(psutil.NoSuchProcess):  # ru_maxrss starts at the size of this process
                family = [job, *job.children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in family))
            time.sleep(0.05)
        _, status, usage = os.wait4(job.pid, 0)
        if status:
            log.seek(0)
            raise SmileError(f"{words[0]} failed:\n{log.read()[-3000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - begin, peak)


def middle(costs: list[Cost]) -> Cost:
    """Medians of the times and of the peaks."""
    return Cost(*(median(values) for values in zip(*costs, strict=True)))


def draw_faces() -> list[tuple[int, bytes]]:
    rng = np.random.default_rng(0)
    faces = []
    for number in tqdm(range(FACES), desc="Drawing", unit=" faces"):
        file = io.BytesIO()
        draw_face(number % len(LABEL_NAMES), rng, size=96).save(file, "JPEG", quality=90)
        faces.append((number % len(LABEL_NAMES), file.getvalue()))
    return faces


def write_data(folder: Path, faces: list[tuple[int, bytes]], images: int) -> None:
    """Write `images` training images and `START` test images, all with different bytes."""
    (folder / "happy_images").mkdir(parents=True)
    for split, count in (("train", images), ("test", START)):
        with (folder / f"{split}.csv").open("w") as table:
            for number in range(count):
                label, data = faces[number % len(faces)]
                comment = f"{split} {number}".encode()
                marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
                (folder / "happy_images" / f"{split}_{number:08d}.jpg").write_bytes(data[:2] + marker + data[2:])
                table.write(f"{split}_{number:08d},{LABEL_NAMES[label]}\n")


def commands(data: Path, output: Path, model: Path) -> dict[str, list[object]]:
    """The jobs by name, in the order of their dependencies."""
    shards = ["--output_dir", output / "shards", "--validation_size", 0, "--images_per_shard", 1000]
    network = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", 64, "--use_cpu"]
    epoch = ["--num_train_epochs", 1, "--select_best", "last", "--output_dir", output / "run"]
    parts = ["--data", output / "shards", "--output_dir", output / "predictions"]
    return {
        "sharding": [SCRIPTS / "shard_dataset.py", "--data_dir", data, *shards],
        "training": [SCRIPTS / "train.py", "--data_dir", output / "shards", *network, *epoch],
        "prediction": [SCRIPTS / "predict.py", "--model", model, *parts],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="sizes to compare")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS, help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of sizes below 10,000 (default: 3)")
    parser.add_argument("--folder", help="folder for the data, about 8 kB per image (default: the temporary folder)")
    args = parser.parse_args()
    from hf_smile.inference.onnx_export import export_onnx
    from hf_smile.modeling import build_model

    faces = draw_faces()
    costs: dict[tuple[str, int], Cost] = {}
    sizes = [START, *sorted(args.images)]
    with (
        tempfile.TemporaryDirectory(dir=args.folder) as temporary,
        tqdm(total=len(sizes) * 3, unit=" jobs") as progress,
    ):
        os.environ["HF_HOME"] = f"{temporary}/cache"
        model = Path(temporary, "model")
        build_model("test_resnet", pretrained=False, image_size=64).save_pretrained(model)
        export_onnx(model)
        for images in sizes:
            folder = Path(temporary, str(images))
            write_data(folder, faces, images)
            repeats = args.repeats if images < 10_000 else 1
            rounds: dict[str, list[Cost]] = {job: [] for job in args.jobs}
            for _ in range(repeats):
                with tempfile.TemporaryDirectory(dir=temporary) as output:
                    for job, words in commands(folder, Path(output), model).items():
                        if job in args.jobs or job == "sharding":
                            rounds.setdefault(job, []).append(run(*words))
                        progress.set_postfix_str(f"{images:,} images: {job}")
                        progress.update(1 / repeats)
            costs |= {(job, images): middle(rounds[job]) for job in args.jobs}
            for job in args.jobs:
                cost = costs[job, images]
                seen = f"{cost.cpu_seconds:.1f} s of CPU, {cost.peak_bytes / 1e6:.0f} MB"
                tqdm.write(f"{job}, {images:,} images: {seen}", file=sys.stderr)
            shutil.rmtree(folder)
    print_table(costs, sizes[1:])


def print_table(costs: dict[tuple[str, int], Cost], sizes: list[int]) -> None:
    """Print a Markdown table, for docs/performance.md."""
    print(
        f"| job | images | CPU s | wall s | CPU ms per image | of the first, at most {MOST_TIME:.2f} "
        f"| peak memory, MB | of the first, at most {MOST_MEMORY:.2f} |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    worst_time = worst_memory = 0.0
    for job in JOBS:
        first: tuple[float, float] | None = None
        for images in sizes:
            if (job, images) not in costs:
                continue
            cost = costs[job, images]
            each = (cost.cpu_seconds - costs[job, START].cpu_seconds) / (images - START)
            first = first or (each, cost.peak_bytes)
            time_ratio, memory_ratio = each / first[0], cost.peak_bytes / first[1]
            worst_time, worst_memory = max(worst_time, time_ratio), max(worst_memory, memory_ratio)
            print(
                f"| {job} | {images:,} | {cost.cpu_seconds:.1f} | {cost.wall_seconds:.1f} | {1000 * each:.2f} "
                f"| {time_ratio:.2f} | {cost.peak_bytes / 1e6:.0f} | {memory_ratio:.2f} |"
            )
    print()
    for what, worst, most in (("time per image", worst_time, MOST_TIME), ("memory", worst_memory, MOST_MEMORY)):
        verdict = "within" if worst <= most else "BEYOND"
        print(f"Against the smallest size, {what}: at most {worst:.2f} times, {verdict} the limit of {most:.2f}.")


if __name__ == "__main__":
    run_script(main)
