"""A run, the machine it is on, and the launcher that started it."""

import os
import subprocess
import sys
import time

import pytest
import torch

from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.device import device_line

LAUNCHER = """
import subprocess, sys
run = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdout=subprocess.PIPE)
assert run.stdout.readline() == b"ready\\n"
"""
RUN = """
import signal, sys, time
from pathlib import Path
from hf_smile.training.device import stop_with_launcher
def told(*_):
    Path(sys.argv[1]).write_text("told")
    sys.exit()
signal.signal(signal.SIGTERM, told)
stop_with_launcher()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl(2) is Linux's")
def test_a_run_is_told_to_stop_when_its_launcher_is_gone(tmp_path):
    environment = os.environ | {"ACCELERATE_MIXED_PRECISION": "no"}
    subprocess.run([sys.executable, "-c", LAUNCHER, RUN, str(tmp_path / "told")], env=environment, check=True)
    for _ in range(200):
        if (tmp_path / "told").exists():
            return
        time.sleep(0.1)
    pytest.fail("the run went on without its launcher")


def test_the_run_says_what_it_computes_on(tmp_path):
    args = SmileTrainingArguments(str(tmp_path), use_cpu=True, bf16=True, dataloader_num_workers=3)
    threads = torch.get_num_threads()
    assert device_line(args) == f"Device: cpu, {threads} threads, bfloat16, channels_last, 3 workers"
