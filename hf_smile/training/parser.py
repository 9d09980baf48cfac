"""The command line of a run, read by transformers' `HfArgumentParser`. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from transformers.hf_argparser import HfArgumentParser

from hf_smile.data.arguments import DataArguments
from hf_smile.errors import SmileError
from hf_smile.training.settings import SETTINGS, TrainingSettings, read_words


class SettingsParser(HfArgumentParser):
    """Errors in one line: the usage of a hundred options would bury them."""

    def __init__(self, types: Sequence[type]) -> None:
        super().__init__(types, add_help=False, allow_abbrev=False)

    def read(self, argv: Sequence[str]) -> tuple[list[Any], list[str]]:
        """The settings of each type, and words that belong to none."""
        *groups, unknown = self.parse_args_into_dataclasses(
            read_words(argv), return_remaining_strings=True, look_for_args_file=False
        )
        return groups, unknown

    def error(self, message: str) -> NoReturn:
        raise SmileError(f"{message}\nAll settings: hf-smile train --help")


def check_words(argv: Sequence[str]) -> tuple[DataArguments, TrainingSettings]:
    """Refuse what is wrong with a command line before torch is imported, which takes seconds.

    Returns:
        The settings of the data, and those of training.

    Raises:
        SmileError: a name, a number or a choice is wrong. What transformers checks is left to `parse_arguments`.

    >>> data, training = check_words(["--data_dir", "data/sample", "--learning_rate", "1e-3"])
    >>> data.data_dir, training.learning_rate
    ('data/sample', 0.001)
    """
    (data, *_, training), _ = SettingsParser(list(SETTINGS.values())).read(argv)
    return data, training
