"""Command-line options that several jobs share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_smile.inference.classifier import SmileClassifier


def job_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows the docstring of a job's module as its help.

    >>> job_parser("hf-smile train", "Fine-tune.").parse_args([])
    Namespace()
    """
    return argparse.ArgumentParser(
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
    parser.add_argument("--detector", metavar="yunet|haar|FILE.onnx", help="face detector (default: yunet)")


def load_classifier(args: argparse.Namespace, with_faces: bool = True) -> SmileClassifier:
    """Load the model, on ONNX Runtime if it is exported, unless `--runtime` says otherwise."""
    from hf_smile.inference.classifier import SmileClassifier

    detector = None
    if with_faces:
        from hf_smile.inference.faces import make_detector

        detector = make_detector(args.detector or "auto")
    return SmileClassifier.from_pretrained(args.model, args.runtime, detector=detector)
