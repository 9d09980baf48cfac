"""How a run adapts to its machine and its launcher."""

import os
import subprocess
import sys
import time

import pytest
import torch
from transformers import TrainingArguments

from hf_smile.errors import SmileError
from hf_smile.training.arguments import SmileTrainingArguments, parse_arguments, to_recipe
from hf_smile.training.device import device_line
from hf_smile.utils.cores import own_cores
from hf_smile.utils.words import counted

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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl(2) is specific to Linux")
def test_a_run_is_told_to_stop_when_its_launcher_is_gone(tmp_path):
    environment = os.environ | {"ACCELERATE_MIXED_PRECISION": "no"}
    subprocess.run([sys.executable, "-c", LAUNCHER, RUN, str(tmp_path / "told")], env=environment, check=True)
    for _ in range(200):
        if (tmp_path / "told").exists():
            return
        time.sleep(0.1)
    pytest.fail("the run continued without its launcher")


def test_the_run_says_what_it_computes_on(tmp_path):
    args = SmileTrainingArguments(str(tmp_path), use_cpu=True, bf16=True, dataloader_num_workers=3)
    threads = torch.get_num_threads()
    assert device_line(args) == f"Device: cpu, {counted(threads, 'thread')}, bfloat16, channels_last, 3 workers"
    args.dataloader_num_workers = 1
    assert device_line(args).endswith(", 1 worker")


def test_the_precision_that_the_launcher_asks_for_is_said_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    arguments = parse_arguments(["--output_dir", str(tmp_path), "--use_cpu"])
    assert ", bfloat16, " in device_line(arguments[3]) and to_recipe(arguments)["bf16"] is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_bfloat16_without_a_gpu_has_to_be_meant(tmp_path, monkeypatch):
    assert not SmileTrainingArguments(str(tmp_path)).bf16
    with pytest.raises(SmileError, match="there is no GPU"):
        SmileTrainingArguments(str(tmp_path), bf16=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(SmileError, match="there is no GPU"):
        SmileTrainingArguments(str(tmp_path))


@pytest.mark.parametrize(
    ("use_cpu", "fp16", "bfloat16", "workers"), [(0, 0, True, 8), (0, 1, False, 8), (1, 0, False, 0)]
)
def test_a_gpu_gets_its_batches_made_beside_it_and_bfloat16(monkeypatch, use_cpu, fp16, bfloat16, workers):
    class Resolved(Exception):
        pass

    def stop(args):
        raise Resolved(args.bf16, args.dataloader_num_workers, args.dataloader_pin_memory)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr("hf_smile.training.arguments.own_cores", lambda: 12)
    monkeypatch.setattr(TrainingArguments, "__post_init__", stop)  # the rest would look for a real GPU
    with pytest.raises(Resolved) as resolved:
        SmileTrainingArguments("unused", use_cpu=bool(use_cpu), fp16=bool(fp16))
    assert resolved.value.args == (bfloat16, workers, not use_cpu)


def test_processes_of_one_machine_share_its_cores(monkeypatch):
    alone = own_cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(alone))
    assert own_cores() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10 * alone))
    assert own_cores() == 1
