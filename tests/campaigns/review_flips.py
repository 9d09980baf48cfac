"""Review of labels changed on purpose, by a client that knows the truth, and its effect on training.

python tests/campaigns/review_flips.py --backbone timm/tf_efficientnet_lite0.in1k
python tests/campaigns/review_flips.py --folds 5

Draw faces, change a tenth of the labels of train, audit them, and answer the first 15 % of the pictures that
`hf-smile review` shows, over HTTP as the page does. Then train three times with the recipe of the quick start: on the
true labels, on the changed ones, and on the changed ones with the corrections.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np

from hf_smile.data.sample import draw_sample_dataset
from hf_smile.labels import LABEL_NAMES
from hf_smile.review.session import LABEL_KEYS

ROOT = Path(__file__).parents[2]
RECIPE = "recipes/quickstart.yaml"
FLIPPED, LOOKED_AT = 0.10, 0.15


def hf_smile(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "hf_smile", *map(str, words)], cwd=ROOT, check=True)


def change_labels(clean: Path, noisy: Path) -> tuple[dict[str, str], set[str]]:
    """Write the same data with wrong labels in train; returns the true labels, and the ids of the changed ones."""
    shutil.copytree(clean, noisy)
    rows = {name: list(csv.reader((clean / name).open())) for name in ("train.csv", "test.csv")}
    truth = {image_id: label for part in rows.values() for image_id, label in part}
    draw, train = np.random.default_rng(0), rows["train.csv"]
    flipped = set()
    for number in draw.choice(len(train), round(FLIPPED * len(train)), replace=False):
        image_id, label = train[number]
        train[number][1] = LABEL_NAMES[(LABEL_NAMES.index(label) + draw.integers(1, 3)) % 3]
        flipped.add(image_id)
    with (noisy / "train.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(train)
    return truth, flipped


def review(url: str, truth: dict[str, str], count: int) -> list[str]:
    """Answer the first pictures, and return their ids."""
    config = json.load(urllib.request.urlopen(f"{url}config"))
    (page,) = (part["id"] for part in config["components"] if part["type"] == "html")

    def press(key: str, at: int = -1, image_id: str = "") -> dict:
        data = {"key": key, "at": at, "image_id": image_id}
        call = {"component_id": page, "fn_name": "press", "session_hash": "client", "data": data}
        address, headers = f"{url}gradio_api/component_server", {"Content-Type": "application/json"}
        return json.load(urllib.request.urlopen(urllib.request.Request(address, json.dumps(call).encode(), headers)))

    shown, seen = press(""), []
    while len(seen) < count:
        seen.append(shown["image_id"])
        key = LABEL_KEYS[LABEL_NAMES.index(truth[seen[-1]])]
        shown = press(key, shown["at"], shown["image_id"])
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0.in1k", help="default: %(default)s")
    parser.add_argument("--folds", help="number of models of the recipe for the audit, instead of the backbone")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/review_flips"), help="default: %(default)s")
    args = parser.parse_args()
    clean, noisy, corrections = (args.output_dir.resolve() / name for name in ("clean", "noisy", "corrections.csv"))
    shutil.rmtree(args.output_dir, ignore_errors=True)
    draw_sample_dataset(clean, seed=1)
    truth, flipped = change_labels(clean, noisy)
    audit = args.output_dir.resolve() / "audit"
    by = ["--folds", args.folds, "--recipe", RECIPE] if args.folds else ["--backbone", args.backbone]
    hf_smile("audit", "--data_dir", noisy, "--output_dir", audit, *by)
    command = ["review", "--data_dir", noisy, "--audit", audit, "--output", corrections, "--reviewer", "truth"]
    server = subprocess.Popen([sys.executable, "-m", "hf_smile", *map(str, command)], cwd=ROOT, stdout=-1, text=True)
    try:
        url = next(found[0] for line in server.stdout if (found := re.search(r"http://[^ ]+", line)))
        seen = review(url, truth, round(LOOKED_AT * len(truth)))
    finally:
        server.kill()
    found = len(flipped.intersection(seen)) / len(flipped)
    print(f"{found:.1%} of the {len(flipped)} changed labels are in the first {len(seen)} of {len(truth)} pictures")

    accuracy = {}
    for name, data in {
        "true labels": [clean],
        "changed labels": [noisy],
        "corrected labels": [noisy, "--corrections", corrections],
    }.items():
        folder = args.output_dir.resolve() / name.replace(" ", "_")
        hf_smile("train", RECIPE, "--output_dir", folder, "--data_dir", *data)
        accuracy[name] = json.loads((folder / "test_metrics.json").read_text())["accuracy"]
    print("\n".join(f"{name}: test accuracy {value:.4f}" for name, value in accuracy.items()))
    assert found >= 0.8 and accuracy["corrected labels"] >= accuracy["true labels"] - 0.01


if __name__ == "__main__":
    main()
