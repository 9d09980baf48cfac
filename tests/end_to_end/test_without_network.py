"""The complete quick start with blocked sockets: only the Hub client may use the network."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

DRIVER = """
import runpy, sys
from functools import partial
from pathlib import Path

NAMES = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}
LOOPBACK = ("localhost", "127.0.0.1", "::1", None)
tried = []

def block(event, arguments):
    if event in NAMES:
        where = arguments[NAMES[event]]
        host = where[0] if isinstance(where, tuple) else where  # a Unix socket has a path
        if host not in LOOPBACK and not str(host).startswith("/"):
            tried.append(f"{event} {where}")
            raise OSError("the network is blocked")

sys.addaudithook(block)

import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError as error:
    assert "blocked" in str(error)
assert tried.pop() and not tried

from hf_smile.data import sample
sample.draw_sample_dataset = partial(sample.draw_sample_dataset, train_size=60, test_size=30, size=48)

root = Path(sys.argv[1])
train = "recipes/quickstart.yaml --num_train_epochs 1 --image_size 32 --data_dir data --output_dir model --use_cpu"
for script, words in (
    ("scripts/prepare_data.py", "--draw_sample --data_dir data"),
    ("scripts/train.py", train.replace("recipes", str(root / "recipes"))),
    ("scripts/evaluate.py", "--model model --data_dir data --output_dir report"),
    ("hf_smile/__main__.py", "predict data/happy_images.zip --model model --faces whole --output verdicts.csv"),
):
    sys.argv = [str(root / script), *words.split()]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as exit:
        assert not exit.code, (script, exit.code)
assert not tried, tried
"""


def test_the_quick_start_needs_no_network(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB")}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(ROOT)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Test accuracy" in done.stdout
    assert (tmp_path / "report" / "report.md").is_file()
    assert len((tmp_path / "verdicts.csv").read_text().splitlines()) == 91
