"""Command-line options that several jobs share."""

from __future__ import annotations

import argparse
import re
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NoReturn

from hf_smile.errors import SmileError
from hf_smile.utils.words import did_you_mean

if TYPE_CHECKING:
    from hf_smile.inference.classifier import SmileClassifier


class _JobParser(argparse.ArgumentParser):
    """A parser whose errors are one message: what is wrong, and where the options are explained."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = [str(word).partition("=")[0] for word in takewhile("--".__ne__, args or [])]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        # Perhaps one of them has a typing error. An option before a missing subcommand may belong to that.
        if message.startswith("the following arguments are required") and self._subparsers is None:
            options = re.findall(r"--\w+", self.format_usage())
            wrong = [word for word in self._words if re.fullmatch(r"--\w+", word) and word not in options]
            message = f"unrecognized arguments: {wrong[0]}" if wrong else message
        if unknown := re.search(r"^unrecognized arguments: (--\w+)", message):
            message += did_you_mean(unknown[1], re.findall(r"--\w+", self.format_usage()))
        raise SmileError(f"{message}\nAll options: {self.prog} --help")

    def add_subparsers(self, **options: Any) -> Any:
        return super().add_subparsers(parser_class=_SubcommandParser, **options)


class _SubcommandParser(_JobParser):
    """A parser that refuses unknown options itself; they would go to the job's parser, which knows no similar ones."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        known, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def job_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows the docstring of a job's module as its help, and raises `SmileError` for a wrong option.

    >>> job_parser("hf-smile train", "Fine-tune.").parse_args([])
    Namespace()
    """
    return _JobParser(
        prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def positive(text: str) -> int:
    """A whole number above 0.

    >>> positive("32")
    32
    """
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"it is {text}; it must be a whole number of at least 1")


def add_classifier_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_classifier` needs."""
    from hf_smile.inference.runtimes import RUNTIMES

    parser.add_argument("--model", required=True, metavar="DIR_OR_HUB_ID", help="model of `hf-smile train`")
    parser.add_argument("--runtime", default="auto", choices=RUNTIMES, help="default: onnx if exported, else torch")
    parser.add_argument("--detector", metavar="yunet|haar|FILE.onnx", help="default: yunet; haar without its weights")


def load_classifier(args: argparse.Namespace, with_faces: bool = True) -> SmileClassifier:
    """Load the model, on ONNX Runtime if it is exported, unless `--runtime` says otherwise."""
    from hf_smile.inference.classifier import SmileClassifier

    if not with_faces:
        return SmileClassifier.from_pretrained(args.model, args.runtime)
    from hf_smile.inference.faces import make_detector

    detector = make_detector(args.detector or "auto")  # fail now, not at the first photo
    return SmileClassifier.from_pretrained(args.model, args.runtime, detector=detector)
