"""Several runs, each in a process and a folder of its own; one that is finished is not made again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hf_smile.errors import SmileError
from hf_smile.training.arguments import Arguments, parse_arguments, to_recipe
from hf_smile.training.run_folder import RECIPE, is_finished
from hf_smile.training.settings import read_words, without

SEEDS_TABLE = "seeds.csv"


class Seeds(NamedTuple):
    """Runs that differ in their seed alone, in `<output_dir>/<seed>`.

    Attributes:
        words: of `hf-smile train`, without the seeds.
        seeds: of the runs.
        output_dir: of them all.
    """

    words: list[str]
    seeds: list[int]
    output_dir: Path


def plan_seeds(words: Sequence[str]) -> Seeds:
    """The runs that words with `--seeds` ask for.

    Raises:
        SmileError: a setting is wrong or makes no sense with several seeds, or the folder holds something else.

    >>> plan_seeds(["--data_dir", "data/sample", "--seeds", "1", "2"]).seeds
    [1, 2]
    """
    *_, args = parse_arguments(words)
    seeds, folder = args.seeds or [], Path(str(args.output_dir))
    if len({*seeds}) < len(seeds):
        raise SmileError(f"seeds {' '.join(map(str, seeds))}: each one once")
    if args.world_size > 1:
        raise SmileError("--seeds starts the runs by itself, with `accelerate launch`; leave out the launcher")
    if args.publish_to:
        raise SmileError("push_to_hub would publish one seed over the other; choose one: hf-smile push model")
    if args.checkpoint_to:
        raise SmileError("the seeds would write over each other's checkpoints on the Hub; leave out --checkpoint_to")
    if (folder / RECIPE).exists() or ((folder / "README.md").exists() and not (folder / SEEDS_TABLE).exists()):
        raise SmileError(f"{folder} holds a run or another card; name another --output_dir for the seeds")
    return Seeds(without(read_words(words), "seeds"), seeds, folder)


def train_in(folder: Path, words: Sequence[str], tell: Callable[[str], None]) -> Arguments:
    """Train in that folder, or resume, or find the run finished.

    Args:
        folder: of the run.
        words: of `hf-smile train`, but for the folder.
        tell: gets each line that the run prints.

    Returns:
        The settings of the run.

    Raises:
        SmileError: a setting is wrong, or the run failed.
    """
    words = [*words, "--output_dir", str(folder)]
    arguments = parse_arguments(words)
    if is_finished(folder, to_recipe(arguments)):
        tell(f"{folder} is finished already")
        return arguments
    tell(f"{folder}: fine-tuning")
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "-m", "hf_smile"]
    run = subprocess.Popen([*launch, "train", *words], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        tell(line.rstrip("\n"))
    if run.wait():
        raise SmileError(f"{folder}: the run failed; its message is above. Fix it and start again: what is done stays")
    return arguments
