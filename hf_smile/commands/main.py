"""The console script `hf-smile JOB ...`. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from hf_smile import __version__
from hf_smile.commands.options import job_parser
from hf_smile.utils.console import run_script
from hf_smile.utils.extras import needed_by
from hf_smile.utils.words import did_you_mean

JOBS = (
    *("prepare", "shard", "audit", "review", "compare", "tune", "train", "evaluate", "export"),
    *("predict", "bulk", "video", "info", "push", "benchmark"),
)
"""Modules of this package, in the order in which a project needs them. Only the module that runs is imported."""


def main(job: str | None = None) -> None:
    """Run `job`, by default the job named on the command line, and exit with its code.

    The code is 2 after a user's mistake, with one message, and 130 after Ctrl-C.

    >>> main("train")  # doctest: +SKIP
    """
    # Threads that spin for long while they wait slow everything down on shared cores. Threads that sleep at once halve
    # the speed of torch for single images, hence a short spin where GNU's OpenMP is used. torch reads both on import.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    run_script(lambda: _run(job))


def _run(job: str | None) -> None:
    for name in ("stdout", "stderr"):  # the caller may have closed them, or their encoding may lack characters
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    prog, words = f"scripts/{Path(sys.argv[0]).name}", sys.argv[1:]
    if job is None:
        job, words = _read_job(words)
        prog = f"hf-smile {job}"
    module = import_module(f"hf_smile.commands.{job}")
    try:
        with needed_by(prog):
            code = module.run(module.parse_arguments(words, prog))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, for example `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code or 0)


def _read_job(words: list[str]) -> tuple[str, list[str]]:
    parser = job_parser("hf-smile", "Classify faces as not smiling, a genuine smile, or a posed smile.")
    parser.epilog = "jobs:\n" + "\n".join(f"  {job:<11}{_summary(job)}" for job in JOBS)
    parser.epilog += "\n\nHelp on a job: hf-smile JOB --help"
    parser.add_argument("--version", action="version", version=f"hf-smile {__version__}")
    parser.add_argument("job", metavar="JOB", type=_known_job, help="one of the jobs below")
    parser.add_argument("words", metavar="...", nargs=argparse.REMAINDER, help="arguments of the job")
    args = parser.parse_args(words or ["--help"])
    return args.job, args.words


def _known_job(word: str) -> str:
    if word not in JOBS:
        raise argparse.ArgumentTypeError(f"{word!r} is not a job{did_you_mean(word, JOBS)}")
    return word


def _summary(job: str) -> str:
    """The first line of a job's module."""
    return str(import_module(f"hf_smile.commands.{job}").__doc__).partition("\n")[0]
