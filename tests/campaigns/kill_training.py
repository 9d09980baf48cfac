"""Kill a small run of `scripts/train.py` at random moments, start it again, and compare it with an undisturbed run.

Half of the runs load their images in a separate process, which receives the signal too.

    python tests/campaigns/kill_training.py --kills 30
    python tests/campaigns/kill_training.py --kills 10 --streamed --save_every 2s --signal SIGKILL
    python tests/campaigns/kill_training.py --kills 10 --streamed --save_every 2s --signal SIGKILL --empty_disk

With `--empty_disk` the output folder is deleted after each kill, and the run resumes from its checkpoints on a Hub on
this machine.

One process does the imports once, and forks for every run, which then executes the script as a user runs it.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tqdm.auto import tqdm

from hf_smile.errors import SmileError
from hf_smile.utils.console import run_script

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "hub"))
from hub_server import TOKEN, running_hub  # noqa: E402

SCRIPT = ROOT / "scripts" / "train.py"
COMPARED = ("test_metrics.json", "model.safetensors", "training_history.csv", "test_predictions.csv")
SETTINGS = [
    "--backbone",
    "test_resnet",
    "--no_pretrained",
    "--image_size",
    "64",
    "--use_cpu",
    "--num_train_epochs",
    "4",
]
SETTINGS += ["--per_device_train_batch_size", "8", "--imbalance", "oversample", "--mixup", "0.2", "--cutmix", "0.5"]
SETTINGS += ["--drop_path", "0.2", "--ema_decay", "0.9", "--layer_decay", "0.8", "--warmup_frozen_epochs", "1"]
IMPORTED = ("datasets", "evaluate", "hf_smile.hub.model_card", "hf_smile.training.run_folder")
IMPORTED += ("hf_smile.training.trainer",)
TOO_LONG = 30  # seconds from SIGTERM to the end


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: %(default)s)")
    parser.add_argument("--streamed", action="store_true", help="train from shards")
    parser.add_argument("--save_every", metavar="10min|200", help="as for `hf-smile train`")
    parser.add_argument("--signal", choices=("SIGKILL", "SIGTERM"), help="default: alternating")
    parser.add_argument("--empty_disk", action="store_true", help="resume from the Hub, in an empty output folder")
    parser.add_argument("--train_size", type=int, default=320, metavar="N", help="faces to draw (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.environ |= {"HF_HOME": folder, "HF_HUB_OFFLINE": str(int(not args.empty_disk))}
        if args.empty_disk:
            os.environ |= {"HF_ENDPOINT": stack.enter_context(hub_process()), "HF_TOKEN": TOKEN}
            os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        campaign(Path(folder), args)


@contextmanager
def hub_process() -> Iterator[str]:
    """The address of a loopback Hub in a process of its own, because this one forks."""
    receives, sends = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=serve_hub, args=(sends,), daemon=True)
    process.start()
    try:
        yield receives.recv()
    finally:
        process.kill()


def serve_hub(address: Connection) -> None:
    with running_hub() as hub:
        address.send(hub.url)
        signal.pause()


def campaign(folder: Path, args: argparse.Namespace) -> None:
    from hf_smile.data.sample import draw_sample_dataset
    from hf_smile.shards.write import Sharding, write_shards

    for name in IMPORTED:
        importlib.import_module(name)
    data = draw_sample_dataset(folder / "data", train_size=args.train_size, test_size=60, size=64)
    if args.streamed:
        SETTINGS[SETTINGS.index("oversample")] = "class_weights"
        SETTINGS.extend(("--shuffle_buffer_size", "50"))
        write_shards(data, folder / "shards", Sharding(images_per_shard=40))
        data = folder / "shards"
    often = ("--save_every", args.save_every) if args.save_every else ()
    warm = folder / "warm"  # fills the cache of the data, so that all later runs take the same time
    if code := wait_for(start(data, warm, "--max_steps", "1")):
        raise SmileError(f"the run fails to start (exit code {code}):\n{(folder / 'warm.log').read_text()}")
    begin = time.perf_counter()
    wait_for(start(data, folder / "undisturbed"))
    seconds = time.perf_counter() - begin
    print(f"undisturbed: {seconds:.1f} s\nkill  signal   workers  after s  exit  took s  resumes from      equal")

    rng = random.Random(args.seed)
    wrong = 0
    for kill in tqdm(range(1, args.kills + 1), desc="Kills", unit=" runs"):
        run, chosen = folder / f"run_{kill}", (signal.SIGKILL, signal.SIGTERM)[kill % 2]
        chosen = signal.Signals[args.signal] if args.signal else chosen
        workers = "--dataloader_num_workers", str(kill // 2 % 2), *often
        if args.empty_disk:
            workers = *workers, "--checkpoint_to", f"me/run-{kill}"
        while True:
            child, after = start(data, run, *workers), rng.uniform(0, seconds)
            time.sleep(after)
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                break
            wait_for(child)  # it had already ended, because the machine is faster now; this kill does not count
            seconds *= 0.9
            shutil.rmtree(run)
        begin = time.perf_counter()
        os.killpg(child, chosen)  # as Slurm and service managers do
        code, took = wait_for(child), time.perf_counter() - begin
        if args.empty_disk:
            shutil.rmtree(run, ignore_errors=True)
        again = wait_for(start(data, run, *workers))
        log = run.with_suffix(".log").read_text()
        origin = log.rpartition("Resuming from ")[2].split("\n")[0].rpartition("/")[2] if "Resuming" in log else "-"
        different = [name for name in COMPARED if content(run / name) != content(folder / "undisturbed" / name)]
        clean = again == 0 and "Traceback" not in log and code in (-chosen, 128 + signal.SIGTERM) and took < TOO_LONG
        wrong += bool(different) or not clean
        same = "yes" if not different and clean else f"NO {', '.join(different)}\n{log}"
        tqdm.write(
            f"{kill:>4}  {chosen.name}  {workers[1]:>7}  {after:>7.2f}  {code:>4}  {took:>6.2f}  {origin:<16}  {same}"
        )
    print(f"{args.kills} kills, {args.kills - wrong} of the runs ended like the undisturbed one, {wrong} did not")
    if wrong:
        sys.exit(1)


def start(data: Path, run: Path, *words: str) -> int:
    """Start a run, with its output in a file next to its folder; returns the process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [str(SCRIPT), *SETTINGS, "--data_dir", str(data), "--output_dir", str(run), *words]
    code = 1
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_for(child: int) -> int:
    """The exit code of a process, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


if __name__ == "__main__":
    run_script(main)
