"""The command line of a run, read by transformers' `HfArgumentParser`. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from transformers.hf_argparser import HfArgumentParser

from hf_smile.data.arguments import DataArguments
from hf_smile.errors import SmileError
from hf_smile.training.checks import check_ranges
from hf_smile.training.settings import SETTINGS, TrainingSettings, read_words


class SettingsParser(HfArgumentParser):
    """A parser that reports errors without the usage of a hundred options."""

    def __init__(self, types: Sequence[type]) -> None:
        super().__init__(types, add_help=False, allow_abbrev=False)

    def read(self, argv: Sequence[str]) -> tuple[list[Any], list[str]]:
        """The settings of each type, and the words that belong to no setting."""
        *groups, unknown = self.parse_args_into_dataclasses(
            read_words(argv), return_remaining_strings=True, look_for_args_file=False
        )
        return groups, unknown

    def error(self, message: str) -> NoReturn:
        raise SmileError(f"{message}\nAll settings: hf-smile train --help")


def check_words(argv: Sequence[str]) -> tuple[DataArguments, TrainingSettings]:
    """Check a command line before the import of torch, which takes seconds.

    Returns:
        The data settings and the training settings.

    Raises:
        SmileError: a name, number or choice is invalid. `parse_arguments` checks the settings of transformers.

    >>> data, training = check_words(["--data_dir", "data/sample", "--learning_rate", "1e-3"])
    >>> data.data_dir, training.learning_rate
    ('data/sample', 0.001)
    """
    (data, *_, training), _ = SettingsParser(list(SETTINGS.values())).read(argv)
    check_ranges(training)
    return data, training
