"""Train one step on every layout of docs/data.md, and compare the output with the page."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from layouts import LAYOUTS, command, document

ROOT = Path(__file__).parents[2]

# One process for all layouts, because importing torch and transformers takes most of the time.
TRAIN = """
import contextlib, io, json, sys
from hf_smile.commands.main import main
for line in sys.stdin:
    sys.argv[1:] = json.loads(line)
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main("train")
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, printed.getvalue()]), flush=True)
"""
SETTINGS = ["--backbone", "test_resnet", "--no_pretrained", "--image_size", "32", "--max_steps", "1", "--use_cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, tuple[int, str, Path]]:
    """Exit code, output and model folder of each layout, by its title."""
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    lines, outputs = [], []
    for number, layout in enumerate(LAYOUTS):
        folder = tmp_path_factory.mktemp(f"layout{number}")
        layout.build(folder / "DATA")
        words = shlex.split(command(layout, str(folder / "DATA")))
        outputs.append(folder / "model")
        lines.append(json.dumps([*words[words.index("--data_dir") :], *SETTINGS, "--output_dir", str(outputs[-1])]))
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        input="\n".join(lines),
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    answers = map(json.loads, done.stdout.splitlines())
    return {
        layout.title: (code, printed, output)
        for layout, (code, printed), output in zip(LAYOUTS, answers, outputs, strict=True)
    }


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
def test_a_model_is_trained_on_it(trained, layout):
    code, printed, output = trained[layout.title]
    assert code == 0, printed
    assert layout.prints in printed
    assert (output / "model.safetensors").is_file() and (output / "test_metrics.json").is_file()


def test_the_page_shows_each_of_them():
    assert document() in (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
