"""The console script `hf-smile`: verdicts on photos, folders and clips. Results go to stdout, all else to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile import __version__
from hf_smile.errors import SmileDataError, SmileModelError, first_line
from hf_smile.inference.runtimes import RUNTIMES
from hf_smile.utils.console import run_script, visible
from hf_smile.utils.model_files import read_config
from hf_smile.utils.words import counted

if TYPE_CHECKING:
    from hf_smile.inference.classifier import SmileClassifier

# Nothing heavy is imported before the arguments are parsed, and torch only where it runs the network.

_EXAMPLES = """\
examples:
  hf-smile predict holiday/*.jpg --model outputs/model
  hf-smile predict faces.zip --model outputs/model --faces none --format csv --output verdicts.csv
  hf-smile video holiday.mp4 --model outputs/model --output_dir outputs/holiday
  hf-smile info outputs/model
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hf-smile",
        description="Not smiling, smiling for real, or smiling for show?",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hf-smile {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="classify photos or face crops")
    predict.add_argument(
        "paths", nargs="+", metavar="PATH", help="files, folders, zips, or patterns such as '**/*.jpg'"
    )
    predict.add_argument("--model", required=True, metavar="DIR_OR_HUB_ID", help="what scripts/train.py made")
    predict.add_argument("--format", choices=("table", "csv", "jsonl"), help="default: as --output ends, else table")
    predict.add_argument("--output", metavar="FILE", help="write to this .csv, .jsonl or .txt instead of to stdout")
    predict.add_argument(
        "--runtime",
        default="auto",
        choices=RUNTIMES,
        help="auto: onnx where it is exported (%(default)s)",
    )
    predict.add_argument(
        "--faces",
        default="auto",
        choices=("none", "largest", "all", "auto"),
        help="none: every image is a face crop. auto: all faces, and images that are face crops already (%(default)s)",
    )
    predict.add_argument("--detector", metavar="haar|yunet|FILE.onnx", help="what finds the faces (default: haar)")
    predict.add_argument("--annotate", metavar="DIR", help="write pictures with boxes and verdicts into this folder")
    predict.add_argument("--batch_size", type=int, metavar="N", help="crops at a time, with --faces none (default: 32)")

    video = commands.add_parser("video", help="follow the faces of a clip: a table, a timeline, a still of each smile")
    video.add_argument("clip", metavar="CLIP")
    video.add_argument("--model", required=True, metavar="DIR_OR_HUB_ID", help="what scripts/train.py made")
    video.add_argument("--output_dir", required=True, metavar="DIR", help="gets timeline.csv, timeline.png and peaks/")
    video.add_argument("--fps", type=float, default=5.0, help="frames to look at, a second (default: %(default)s)")
    video.add_argument(
        "--runtime",
        default="auto",
        choices=RUNTIMES,
        help="auto: onnx where it is exported (%(default)s)",
    )
    video.add_argument("--detector", metavar="haar|yunet|FILE.onnx", help="what finds the faces (default: haar)")

    info = commands.add_parser("info", help="what a model is, and what it takes")
    info.add_argument("model", metavar="DIR_OR_HUB_ID", help="what scripts/train.py made")
    args, unknown = parser.parse_known_args()
    if unknown:  # told with the usage of the command instead of that of all commands
        commands.choices[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.command == "predict":
        _refuse_what_has_no_effect(predict, args)
    return args


def _refuse_what_has_no_effect(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.batch_size is not None and args.batch_size < 1:
        parser.error(f"--batch_size is {args.batch_size}; it must be at least 1")
    if args.batch_size and args.faces != "none":
        parser.error("--batch_size has no effect without --faces none: the faces of one photo at a time are classified")
    if args.detector and args.faces == "none":
        parser.error("--detector has no effect with --faces none, which looks for no faces")


def predict(args: argparse.Namespace) -> int:
    """Exit code 0, or 1 where an image failed."""
    from tqdm import tqdm

    from hf_smile.inference.classifier import NO_FACE
    from hf_smile.inference.files import FORMATS, Annotator, find_images, make_writer, predict_files, text_output

    output = Path(args.output) if args.output else None
    by_suffix = FORMATS.get(output.suffix.lower()) if output else None
    if args.format and by_suffix not in (None, args.format):
        raise SmileDataError(f"--format {args.format} and --output {args.output} disagree; leave --format out")
    form = args.format or by_suffix or "table"
    total, images = find_images(args.paths)
    classifier = load_classifier(args, with_faces=args.faces != "none")
    annotator = Annotator(args.annotate) if args.annotate else None

    failed = without_face = 0
    with ExitStack() as stack:
        file = stack.enter_context(text_output(output)) if output else sys.stdout
        write = make_writer(form, file, classifier.labels)
        progress = stack.enter_context(tqdm(total=total, unit=" images", file=sys.stderr, disable=None))
        for image, predictions in predict_files(classifier, images, args.faces, args.batch_size or 32):
            for prediction in predictions:
                write(prediction)
            failed += any(prediction.error for prediction in predictions)
            without_face += any(prediction.note == NO_FACE for prediction in predictions)
            if annotator:
                annotator.write(image, predictions)
            progress.update()
        file.flush()
    if without_face:
        hint = "; if these are face crops, classify them whole with --faces none" if args.faces == "auto" else ""
        print(f"no face found in {without_face:,} of {counted(total, 'image')}{hint}", file=sys.stderr)
    if failed:
        print(f"{failed:,} of {counted(total, 'image')} could not be classified", file=sys.stderr)
    return 1 if failed else 0


def load_classifier(args: argparse.Namespace, with_faces: bool) -> SmileClassifier:
    """On ONNX Runtime where the model is exported, unless `--runtime` says otherwise."""
    from hf_smile.inference.classifier import SmileClassifier

    detector = None
    if with_faces:
        from hf_smile.inference.faces import make_detector

        detector = make_detector(args.detector or "haar")
    return SmileClassifier.from_pretrained(args.model, args.runtime, detector=detector)


def video(args: argparse.Namespace) -> int:
    """Exit code 0; a clip that can't be read is a user's mistake."""
    from tqdm import tqdm

    from hf_smile.inference.video import analyse_video, write_analysis

    classifier = load_classifier(args, with_faces=True)
    frames = analyse_video(classifier, args.clip, args.fps)
    shown = tqdm(frames, desc="Following faces", unit=" frames", file=sys.stderr, disable=None)
    seen = write_analysis(shown, args.output_dir, args.fps, classifier.labels)
    print(f"{counted(seen, 'frame')}: {args.output_dir}/timeline.csv, timeline.png and peaks/")
    return 0


def info(args: argparse.Namespace) -> int:
    """Print what `config.json` and the weights say, without loading the network."""
    from hf_smile.data.preprocessing import Preprocessor
    from hf_smile.inference.runtimes import ONNX_FILES

    config = read_config(args.model)
    settings = config["pretrained_cfg"]
    preprocess = Preprocessor(settings)
    rows = {
        "architecture": visible(config["architecture"]),
        "input": f"3 x {preprocess.height} x {preprocess.width}",
        "labels": ", ".join(config["label_names"]),
        "mean, std": f"{settings.get('mean')}, {settings.get('std')}",
    }
    for name, size in file_sizes(args.model, ("model.safetensors", *ONNX_FILES.values())).items():
        rows[name] = "not there" if size is None else f"{size / 1e6:.1f} MB"
    for name, value in rows.items():
        print(f"{name:<25}  {value}")
    return 0


def file_sizes(model: str, names: Sequence[str]) -> dict[str, int | None]:
    """The bytes of some files of a model, from its folder or the Hub, by name; None for a missing file.

    Raises:
        SmileModelError: the Hub can't be asked.
    """
    if Path(model).is_dir():
        files = [Path(model, name) for name in names]
        return {name: file.stat().st_size if file.is_file() else None for name, file in zip(names, files, strict=True)}
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        sizes = {file.path: file.size for file in HfApi().get_paths_info(model, list(names)) if hasattr(file, "size")}
    except (OSError, HTTPError) as error:
        raise SmileModelError(f"the Hub could not be asked for the files of {model}: {first_line(error)}") from None
    return {name: sizes.get(name) for name in names}


def run() -> None:
    for name in ("stdout", "stderr"):  # closed by the caller, or of an encoding that lacks a letter of a file name
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    args = parse_arguments()
    try:
        code = {"predict": predict, "video": video, "info": info}[args.command](args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def main() -> None:
    """The console script."""
    run_script(run)


if __name__ == "__main__":
    main()
