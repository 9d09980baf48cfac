"""Track the faces in a clip, and write a table, a timeline and a still of each smile.

hf-smile video holiday.mp4 --model outputs/model --output_dir outputs/holiday
"""

from __future__ import annotations

import argparse
import os
import sys

from hf_smile.commands.options import add_classifier_arguments, job_parser, load_classifier
from hf_smile.utils.words import counted


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    parser.add_argument("clip", metavar="CLIP", help="video file")
    add_classifier_arguments(parser)
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="folder for timeline.csv, timeline.png and peaks/"
    )
    parser.add_argument("--fps", type=float, default=5.0, help="frames to analyse per second (default: %(default)s)")
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from hf_smile.inference.video import analyse_video, write_analysis

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # no log: one message says that the clip can't be read
    classifier = load_classifier(args)
    frames = analyse_video(classifier, args.clip, args.fps)
    shown = tqdm(frames, desc="Tracking faces", unit=" frames", file=sys.stderr, disable=None)
    seen = write_analysis(shown, args.output_dir, args.fps, classifier.labels)
    print(f"{counted(seen, 'frame')}: {args.output_dir}/timeline.csv, timeline.png and peaks/")
