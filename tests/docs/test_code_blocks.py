"""Run every code block of README and docs as it stands, each in a folder that contains what it names.

The folder has drawn faces, tiny networks, and the recipes with one epoch at 32 pixels. The Hub is a loopback server.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_server import TOKEN, Entry, LoopbackHub, Repo, running_hub
from pages import PAGES, ROOT, Block, blocks

from hf_smile.data.corrections import COLUMNS
from hf_smile.data.sample import draw_face
from hf_smile.training.arguments import parse_arguments

SEEN = (11, 14, 16)  # seeds of faces that the detector finds
FACE_BACKBONE = "backbones/mobilenetv1_100.faceres"
ON_THE_HUB = (
    "timm/resnet50.a1_in1k",
    "timm/tf_efficientnet_lite0.in1k",
    "gaunernst/convnext_nano.cosface_ms1mv3",
    "gaunernst/convnext_atto.cosface_ms1mv3",
)
RUN_ELSEWHERE = {
    ("start.md", ""): "tests/docs/test_docs.py runs the tutorial as a whole",
    ("data.md", "hf-smile train --data_dir DATA"): "tests/end_to_end/test_every_layout.py trains on every layout",
}
"""Reason by page and beginning of the block."""


def cases(*languages: str) -> list:
    """The blocks of all pages, those that the tests don't run marked with the reason."""
    found = []
    for page in PAGES:
        for block in (block for language in languages for block in blocks(page, language)):
            elsewhere = [
                reason
                for (name, begin), reason in RUN_ELSEWHERE.items()
                if page.name == name and block.code.startswith(begin)
            ]
            marks = [pytest.mark.skip(reason=reason) for reason in [*elsewhere, block.reason][:1] if reason]
            found.append(pytest.param(block, marks=marks, id=f"{page.relative_to(ROOT)}:{block.line}"))
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A tiny network with random weights."""
    import torch

    from hf_smile.modeling import build_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny") / "network"
    build_model("test_resnet", pretrained=False, image_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(sample_dir: Path, tiny: Path, tmp_path_factory) -> Path:
    """The folder of the reader before a block runs."""
    room = tmp_path_factory.mktemp("prepared") / "room"
    for name in ("scripts", "space"):
        shutil.copytree(ROOT / name, room / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data/happy_images", "data/others", "DATA"):
        shutil.copytree(sample_dir, room / name)
    shutil.copytree(tiny, room / FACE_BACKBONE)
    draw_photos(room)
    for number in range(36):
        face = room / "data" / "public_smiles" / ("NOT smile" if number % 2 else "smile") / f"{number}.png"
        face.parent.mkdir(parents=True, exist_ok=True)
        draw_face(2 * (number % 2), np.random.default_rng(number), size=48).save(face)
    shutil.copytree(ROOT / "recipes", room / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    for path in room.glob("recipes/*.yaml"):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) | {"num_train_epochs": 1, "image_size": 32}
        if "warmup_frozen_epochs" in recipe:
            recipe["warmup_frozen_epochs"] = 0
        path.write_text(yaml.safe_dump(recipe))
    shutil.copy(room / "recipes" / "quickstart.yaml", room / "RECIPE.yaml")
    first = (sample_dir / "train.csv").read_text().splitlines()[0]
    row = f"{first},,keep,ann,2026-11-25T23:47:13+00:00\n"
    for name in ("corrections.csv", "ann.csv", "ben.csv"):
        (room / name).write_text(",".join(COLUMNS) + f"\n{row}")
    words = ["train", "recipes/quickstart.yaml", "--data_dir", "data/happy_images", "--output_dir", "outputs/model"]
    subprocess.run([sys.executable, "-m", "hf_smile", *words], cwd=room, check=True, timeout=300)
    shutil.copytree(room / "outputs" / "model", room / "outputs" / "face_mobilenet")
    return room


def draw_photos(room: Path) -> None:
    """Draw the photos, the zip of face crops and the clip that the pages name."""
    import cv2
    from PIL import Image

    faces = [draw_face(label, np.random.default_rng(seed)) for label, seed in enumerate(SEEN)]
    (room / "holiday").mkdir()
    for number, name in enumerate(("photo.jpg", "face.jpg", "one.jpg", "holiday/a.jpg", "holiday/b.jpg")):
        faces[number % 3].save(room / name)
    side = faces[0].width
    group = Image.new("RGB", (2 * side, side))
    for number in (0, 1):
        group.paste(faces[number], (number * side, 0))
    group.save(room / "group.jpg")
    for name in ("faces.zip", "more.zip"):
        with zipfile.ZipFile(room / name, "w") as archive:
            archive.write(room / "face.jpg", "face.jpg")
    writer = cv2.VideoWriter(str(room / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 4, (side, side))
    for _ in range(12):
        writer.write(np.asarray(faces[1])[:, :, ::-1])
    writer.release()


@pytest.fixture
def run(prepared: Path, tiny: Path, tmp_path: Path, request) -> Callable[[Block], str]:
    """Run a block in a copy of that folder, with a Hub of its own, and return what it prints."""
    room = tmp_path / "room"
    shutil.copytree(prepared, room)

    def run(block: Block) -> str:
        if re.search(r"hf-smile train|trainer\.train", block.code):
            shutil.rmtree(room / "outputs" / "model")  # the block makes it
        code = block.code
        if "http://127.0.0.1:7860" in code:
            code = code.replace("http://127.0.0.1:7860", request.getfixturevalue("demo_url"))
        programs = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
        with running_hub() as hub:
            for repo_id in ON_THE_HUB:
                publish(hub, repo_id, tiny)
            publish(hub, "me/smile", prepared / "outputs" / "model")
            environment = os.environ | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": TOKEN,
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1",
                "HF_HOME": str(tmp_path / "cache"),
                "PYTHONPATH": str(ROOT),
            }
            words = [*programs[block.language], code]
            done = subprocess.run(words, cwd=room, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        assert "Traceback" not in done.stderr
        return done.stdout

    return run


def publish(hub: LoopbackHub, repo_id: str, folder: Path) -> None:
    """Put the files of a folder on the Hub as a model."""
    files = {path.name: Entry(path.read_bytes(), lfs=False) for path in folder.iterdir() if path.is_file()}
    repo = hub.repos["models", repo_id] = Repo(repo_id, "models", private=False)
    repo.commit("main", "the first", files)


@pytest.mark.parametrize("block", cases("bash", "python"))
def test_a_block_runs_as_it_stands(run, block):
    run(block)


@pytest.mark.parametrize("block", cases("yaml"))
def test_lines_of_a_recipe_are_understood(block, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(block.code)
    parse_arguments([str(recipe), "--data_dir", "data"])


def test_the_reasons_name_files_that_exist():
    for page in PAGES:
        for block in (block for language in ("bash", "python") for block in blocks(page, language)):
            for name in re.findall(r"tests/[\w/.]*\w", block.reason):
                assert (ROOT / name).exists(), f"{page.name}:{block.line}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_is_overlooked(page):
    languages = re.findall(r"^[ >]*```(\S.*)$", page.read_text(encoding="utf-8"), re.M)
    assert len(languages) == sum(len(blocks(page, language)) for language in ("bash", "python", "yaml"))
