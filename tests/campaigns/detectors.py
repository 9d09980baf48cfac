"""Compare the face detectors: on two public-domain photos, turned, darkened and seen from afar, and on your own crops.

    python tests/campaigns/detectors.py --yunet face_detection_yunet_2023mar.onnx --crops data/happy_images

The photos are the portraits inside matplotlib (Grace Hopper) and scikit-image (Eileen Collins). Faces are at least 40
pixels wide, the smallest that are reported. One is found if a box contains its middle; any other box is false. Crops
are pictures of one face; one is found if there is any box. Each detector takes its turn on each picture; the
milliseconds are medians, with one thread.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from itertools import product
from statistics import median
from typing import NamedTuple

import cv2
import matplotlib.cbook
import skimage.data
from PIL import Image, ImageEnhance
from tqdm.auto import tqdm

from hf_smile.data.images import decode_image
from hf_smile.evaluation.numbers import markdown_table
from hf_smile.inference.faces import SMALLEST_FACE, make_detector
from hf_smile.inference.files import find_images
from hf_smile.utils.console import run_script

SIDES = (320, 640, 1280, 2560)
TURNS = (0, -15, 15, -30, 30)
BRIGHTNESS = (0.4, 1.0, 1.6)
DISTANCES = (1, 2, 3)


class Photo(NamedTuple):
    picture: Image.Image
    middle: tuple[float, float]
    width: float
    """Of the face, in pixels, as the middle is."""


def portraits() -> list[Photo]:
    hopper = Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")
    return [Photo(hopper, (266, 218), 180), Photo(Image.fromarray(skimage.data.astronaut()), (224, 114), 95)]


def variants(photo: Photo) -> Iterator[Photo]:
    """The photo on a grey ground that makes it smaller, turned about its face, darker or brighter, in several sizes."""
    for distance, turn, brightness, side in product(DISTANCES, TURNS, BRIGHTNESS, SIDES):
        picture = ImageEnhance.Brightness(photo.picture).enhance(brightness)
        picture = picture.rotate(turn, Image.Resampling.BICUBIC, center=photo.middle, fillcolor=(110, 110, 110))
        ground = Image.new("RGB", (picture.width * distance, picture.height * distance), (110, 110, 110))
        left, top = picture.width * (distance - 1) // 2, picture.height * (distance - 1) // 2
        ground.paste(picture, (left, top))
        scale = side / max(ground.size)
        if photo.width * scale < SMALLEST_FACE:
            continue
        size = round(ground.width * scale), round(ground.height * scale)
        middle = (photo.middle[0] + left) * scale, (photo.middle[1] + top) * scale
        yield Photo(ground.resize(size, Image.Resampling.LANCZOS), middle, photo.width * scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yunet", required=True, metavar="FILE.onnx", help="YuNet's weights")
    parser.add_argument("--crops", metavar="DIR", help="folder or zip of pictures of one face each")
    parser.add_argument("--n_crops", type=int, default=500, metavar="N", help="as many of them (default: %(default)s)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    detectors = {"Haar": make_detector("haar"), "YuNet": make_detector(args.yunet)}
    photos = [variant for photo in portraits() for variant in variants(photo)]
    found, false, times = ({name: [] for name in detectors} for _ in range(3))
    for picture, (x, y), _ in tqdm(photos, desc="Photos"):
        for name, detector in detectors.items():
            begin = time.perf_counter()
            boxes = [face.box for face in detector.detect(picture)]
            times[name].append(1000 * (time.perf_counter() - begin))
            hits = [left <= x < right and top <= y < bottom for left, top, right, bottom in boxes]
            found[name].append(any(hits))
            false[name].append(hits.count(False))
    rows = [
        [name, f"{sum(found[name])} of {len(photos)}", str(sum(false[name])), f"{median(times[name]):.0f}"]
        for name in detectors
    ]
    print(markdown_table(["photos", "found", "false boxes", "ms"], rows))
    if args.crops:
        print(f"\n{crops_table(detectors, args.crops, args.n_crops)}")


def crops_table(detectors: dict, folder: str, n: int) -> str:
    _, images = find_images([folder])
    chosen = random.Random(0).sample(sorted(images, key=lambda image: image.source), n)
    found, times = dict.fromkeys(detectors, 0), {name: [] for name in detectors}
    for image in tqdm(chosen, desc="Crops"):
        picture = decode_image(image.read()).convert("RGB")
        for name, detector in detectors.items():
            begin = time.perf_counter()
            found[name] += bool(detector.detect(picture))
            times[name].append(1000 * (time.perf_counter() - begin))
    rows = [[name, f"{found[name]} of {n}", f"{median(times[name]):.1f}"] for name in detectors]
    return markdown_table(["crops", "found", "ms"], rows)


if __name__ == "__main__":
    run_script(main)
