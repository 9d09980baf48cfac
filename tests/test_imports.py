"""Importing the library changes nothing outside it, and prints nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

CHECK = """
import atexit, contextlib, importlib, json, logging, os, pkgutil, signal, sys, threading, warnings

def ours():
    import hf_smile
    for module in pkgutil.walk_packages(hf_smile.__path__, "hf_smile."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            yield module.name

def outside():
    import cv2, torch
    return {
        "environment": dict(os.environ),
        "warning filters": [str(entry) for entry in warnings.filters],
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "threads of OpenCV": cv2.getNumThreads(),
        "threads": threading.active_count(),
        "what runs at the exit": atexit._ncallbacks(),
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "handlers of messages": [len(logging.getLogger(name).handlers) for name in (None, "hf_smile")],
        "import path": sys.path,
    }

# Imports of third-party packages may change something: a child process lists them, so that they are imported first.
reading, writing = os.pipe()
if os.fork() == 0:
    list(ours())
    with os.fdopen(writing, "w") as pipe:
        json.dump([name for name in sys.modules if not name.startswith("hf_smile")], pipe)
    os._exit(0)
os.close(writing)
with os.fdopen(reading) as pipe:
    for name in json.load(pipe):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
before = outside()
for name in ours():
    for what, value in outside().items():
        assert value == before[what], f"{name} changes {what}: {before[what]} -> {value}"
"""


def test_importing_any_module_changes_nothing_outside():
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stderr=-1)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_only_commands_print():
    allowed = {"commands", "benchmarks"}
    printing = []
    for path in (ROOT / "hf_smile").rglob("*.py"):
        place = path.relative_to(ROOT / "hf_smile")
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        if place.parts[0] not in allowed and place.name != "console.py":
            printing += [str(place) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not printing
