"""What all tests share. No test needs a network: the Hub client is told so, and caches go to a temporary folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf_smile_tests_")

import pytest

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data" / "happy_images"
REAL_BACKBONE = ROOT.parent / "shared" / "backbones" / "tf_efficientnet_lite0.in1k"


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set in the form users have theirs: 96 faces in train, 32 in test, 64 pixels wide."""
    from hf_smile.data.sample import draw_sample_dataset

    return draw_sample_dataset(tmp_path_factory.mktemp("sample"), train_size=96, test_size=32, size=64)


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real data set is not at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def real_backbone() -> Path:
    if not REAL_BACKBONE.is_dir():
        pytest.skip(f"no pretrained backbone at {REAL_BACKBONE}")
    return REAL_BACKBONE
