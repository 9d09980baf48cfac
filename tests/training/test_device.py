"""What a run says of the machine it is on."""

import torch

from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.device import device_line


def test_the_run_says_what_it_computes_on(tmp_path):
    args = SmileTrainingArguments(str(tmp_path), use_cpu=True, bf16=True, dataloader_num_workers=3)
    threads = torch.get_num_threads()
    assert device_line(args) == f"Device: cpu, {threads} threads, bfloat16, channels_last, 3 workers"
