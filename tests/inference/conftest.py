"""Models and drawn faces for all inference tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_smile.data.sample import draw_face


@pytest.fixture(scope="session")
def model_dir(demo_model: Path) -> Path:
    """A tiny network whose predictions differ between faces, with `onnx/model.onnx`."""
    return demo_model


@pytest.fixture(scope="session")
def faces() -> list[Image.Image]:
    """Eleven drawn faces, 96 pixels wide."""
    rng = np.random.default_rng(0)
    return [draw_face(i % 3, rng, size=96) for i in range(11)]


@pytest.fixture
def face_files(faces: list[Image.Image], tmp_path: Path) -> list[Path]:
    """The same faces as PNG files."""
    folder = tmp_path / "faces"
    folder.mkdir()
    paths = [folder / f"{i:02}.png" for i in range(len(faces))]
    for face, path in zip(faces, paths, strict=True):
        face.save(path)
    return paths


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
