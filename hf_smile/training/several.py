"""Several runs, each in its own process and folder. A finished run is not repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import psutil

from hf_smile.data.record import read_splits
from hf_smile.errors import SmileError
from hf_smile.training.arguments import Arguments, SmileTrainingArguments, parse_arguments, recipe_of
from hf_smile.training.resumable import TERMINATED
from hf_smile.training.run_folder import RECIPE, is_finished
from hf_smile.training.settings import read_words, without

SEEDS_TABLE = "seeds.csv"
SOUP_TABLE = "soup.csv"
_NOT_OF_THE_HEAD = (
    *("freeze_backbone", "freeze_stages", "drop_path", "layer_decay", "select_best", "early_stopping_patience"),
    *("temperature", "prior_adjustment", "learning_rate", "seed"),
)
# Without a configuration file, `accelerate launch` warns about each value that it chooses itself.
_ACCELERATE = """
import logging
logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)
try:
    from accelerate.commands.accelerate_cli import main
    main()
except KeyboardInterrupt:
    raise SystemExit(130)
"""


class Seeds(NamedTuple):
    """Runs that only differ in their seed, in `<output_dir>/<seed>`.

    Attributes:
        words: Settings of `hf-smile train`, without `--seeds` and `--soup`.
        seeds: Seeds of the runs.
        output_dir: Folder of all runs.
        head: With a soup, the settings of the run in `<output_dir>/head`, which trains the shared head.
    """

    words: list[str]
    seeds: list[int]
    output_dir: Path
    head: list[str] | None = None

    def folder(self, seed: int) -> Path:
        return self.output_dir / str(seed)

    def train(self, tell: Callable[[str], None]) -> None:
        """Train or resume the shared head, if any, and then each seed.

        Args:
            tell: Called with each line that a run prints.

        Raises:
            SmileError: a setting is wrong, a run failed, or there is no validation split to select a soup.
        """
        if self.head:
            train_in(self.output_dir / "head", self.head, tell)
            if not any("validation" in splits for splits in read_splits(self.output_dir / "head").values()):
                raise SmileError("--soup needs validation images, and there are none; set --validation_size")
        for seed in self.seeds:
            train_in(self.folder(seed), [*self.words, "--seed", str(seed)], tell)


def plan_seeds(words: Sequence[str]) -> Seeds:
    """Return the runs for command-line words with `--seeds`.

    Raises:
        SmileError: a setting is wrong or not possible with several seeds, or the folder contains something else.

    >>> plan_seeds(["--data_dir", "data/sample", "--seeds", "1", "2"]).seeds
    [1, 2]
    """
    *_, backbone, args = parse_arguments(words)
    seeds, folder = args.seeds or [], Path(str(args.output_dir))
    if args.world_size > 1:
        raise SmileError("--seeds starts each run with `accelerate launch`; start this command without a launcher")
    if args.publish_to:
        raise SmileError("--push_to_hub would publish one seed over the other; use hf-smile push model afterwards")
    if args.checkpoint_to:
        raise SmileError("the seeds would overwrite each other's checkpoints on the Hub; leave out --checkpoint_to")
    if (folder / RECIPE).exists() or ((folder / "README.md").exists() and not (folder / SEEDS_TABLE).exists()):
        raise SmileError(f"{folder} contains a run or another card; choose another --output_dir for the seeds")
    runs = Seeds(without(read_words(words), "seeds", "soup"), seeds, folder)
    return _with_shared_head(runs, backbone.pretrained, args) if args.soup else runs


def _with_shared_head(runs: Seeds, pretrained: bool, args: SmileTrainingArguments) -> Seeds:
    """Divide the training: first only the head, once; then the rest with each seed, on the same split."""
    if len(runs.seeds) < 2:
        raise SmileError("--soup averages several runs; set at least two --seeds")
    if args.max_hours is not None or args.max_steps > 0:
        raise SmileError("--soup needs a length in epochs; replace --max_hours and --max_steps by --num_train_epochs")
    if not args.warmup_frozen_epochs:
        raise SmileError(
            "--soup can only average runs that start from the same head; set --warmup_frozen_epochs, for example to 2"
        )
    if (soup := runs.output_dir / "soup" / RECIPE).is_file() and "\nsoup_of:" not in soup.read_text(encoding="utf-8"):
        raise SmileError(f"{soup.parent} contains another run; choose another --output_dir for the seeds")
    if not pretrained:
        raise SmileError(
            "--soup trains the head on frozen features, which needs pretrained weights; leave out --no_pretrained"
        )
    rate = args.learning_rate if args.head_learning_rate is None else args.head_learning_rate
    split = ["--split_seed", str(runs.seeds[0] if args.split_seed is None else args.split_seed)]
    words = without(runs.words, "warmup_frozen_epochs", "head_learning_rate", "num_train_epochs", "split_seed")
    rest = args.num_train_epochs - args.warmup_frozen_epochs
    head = [
        *without(words, *_NOT_OF_THE_HEAD),
        *("--freeze_backbone", "--select_best", "last", "--temperature", "1", "--learning_rate", str(rate)),
        *("--seed", str(runs.seeds[0]), "--num_train_epochs", str(args.warmup_frozen_epochs), *split),
    ]
    each = [*without(words, "backbone"), "--backbone", str(runs.output_dir / "head")]
    return runs._replace(words=[*each, "--num_train_epochs", str(rest), *split], head=head)


def train_in(folder: Path, words: Sequence[str], tell: Callable[[str], None]) -> Arguments:
    """Train in a folder, or resume there. A finished run is left as it is.

    Args:
        folder: Output folder of the run.
        words: Arguments of `hf-smile train`, without the folder.
        tell: Called with each line that the run prints.

    Returns:
        The settings of the run.

    Raises:
        SmileError: a setting is wrong, or the run failed.
    """
    words = [*words, "--output_dir", str(folder)]
    arguments = parse_arguments(words)
    if not arguments[-1].overwrite and is_finished(folder, recipe_of(arguments)):
        tell(f"{folder} is already finished")
        return arguments
    tell(f"{folder}: fine-tuning")
    launch = [sys.executable, "-c", _ACCELERATE, "launch", "--quiet", "-m", "hf_smile", "train"]
    run = None
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        run = subprocess.Popen([*launch, *words], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        for line in run.stdout:
            tell(line.rstrip("\n"))
    except (KeyboardInterrupt, SystemExit):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if run is not None and run.stdout is not None:
            _terminate(psutil.Process(run.pid))
            run.stdout.read()  # until the run has saved its checkpoint
        raise
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    if run.wait():
        raise SmileError(f"{folder}: the run failed; fix the cause (see above) and run the command again to resume")
    return arguments


def _exit(*_: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def _terminate(launcher: psutil.Process) -> None:
    """Send SIGTERM to the processes of a run. A terminal signals all of them, but `kill` and Docker only this one."""
    launcher.suspend()  # it must not start another process meanwhile
    try:
        for process in launcher.children(recursive=True) or [launcher]:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
    finally:
        launcher.resume()
