"""Training on shards that is interrupted in the middle of an epoch."""

import json
import multiprocessing
import subprocess
import time

import datasets
import pytest
import torch
from transformers import TrainerCallback

from hf_smile.errors import SmileError
from hf_smile.modeling import build_model
from hf_smile.shards.folder import load_shards
from hf_smile.shards.write import Sharding, write_shards
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.trainer import SmileTrainer


@pytest.fixture(scope="module")
def shards(sample_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(sample_dir, folder, Sharding(images_per_shard=20, divisible_by=2))
    return folder


def make_trainer(shards, output_dir, **options) -> SmileTrainer:
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "use_cpu": True, "disable_tqdm": True}
    settings |= {"ema_decay": 0.9, "mixup": 0.2, "shuffle_buffer_size": 20, "select_best": "last"}
    args = SmileTrainingArguments(output_dir=str(output_dir), **(settings | options))
    torch.manual_seed(0)
    model = build_model("test_resnet", pretrained=False, image_size=32)
    return SmileTrainer(model, args, shards, load_shards(shards, train_images=False)["validation"])


def equal(one, other):
    one, other = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


class _StopAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def test_resumed_in_the_middle_of_an_epoch_it_ends_as_one_left_alone(shards, tmp_path):
    alone = make_trainer(shards, tmp_path / "alone")
    alone.train()
    assert alone.state.global_step == 12 and alone.state.epoch == 2  # 86 images, 16 per step
    stopped = make_trainer(shards, tmp_path / "stopped")
    stopped.add_callback(_StopAfter(9))
    stopped.train()
    checkpoint = tmp_path / "stopped" / "checkpoint-9"
    position = json.loads((checkpoint / "stream_0.json").read_text())
    assert position["epoch"] == 1 and position["block"] == 2  # rows 43 to 85 are left, 20 per block
    again = make_trainer(shards, tmp_path / "stopped")
    again.train(resume_from_checkpoint=str(checkpoint))
    assert equal(again, alone)
    (checkpoint / "stream_0.json").unlink()  # then the earlier rows are read again
    without = make_trainer(shards, tmp_path / "stopped")
    without.train(resume_from_checkpoint=str(checkpoint))
    assert equal(without, alone)


class _StopTheJob(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            job = (*multiprocessing.active_children(), multiprocessing.current_process())
            # Sent by another process, because a data loader worker exits normally on a signal from its parent.
            subprocess.run(["kill", "-TERM", *(str(process.pid) for process in job)], check=True)
            time.sleep(0.5)  # enough time for the worker to exit


def test_told_to_stop_it_saves_although_loading_processes_were_told_too(shards, tmp_path):
    trainer = make_trainer(shards, tmp_path, dataloader_num_workers=1, dataloader_prefetch_factor=1)
    trainer.add_callback(_StopTheJob())
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == 143 and (tmp_path / "checkpoint-2" / "stream_0.json").is_file()


def test_oversampling_needs_all_images_at_hand(shards, tmp_path):
    with pytest.raises(SmileError, match="choose class_weights"):
        make_trainer(shards, tmp_path, imbalance="oversample")


def test_a_few_images_come_from_the_first_shards_alone(shards, monkeypatch):
    whole = load_shards(shards)["train"]
    read, load = [], datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **o: read.append(o["data_files"]) or load(*a, **o))
    few = load_shards(shards, max_train_samples=18)["train"]
    assert len(read[0]["train"]) < len(list((shards / "train").glob("*.parquet")))
    assert len(few) == 18 and set(few["image_id"]) < set(whole["image_id"]) and set(few["label"]) == {0, 1, 2}
