"""One of the two processes that test_streaming.py starts: trains two epochs, and writes which images it saw."""

import json
import sys
from collections import defaultdict
from pathlib import Path

import torch

from hf_smile.data.shards import load_shards, shard_files
from hf_smile.modeling import build_model
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.trainer import SmileTrainer

if __name__ == "__main__":
    shards, output_dir = sys.argv[1:]
    args = SmileTrainingArguments(
        output_dir, num_train_epochs=2, per_device_train_batch_size=8, use_cpu=True, disable_tqdm=True, ema_decay=0
    )
    assert args.world_size == 2 and torch.distributed.get_backend() == "gloo"
    with args.main_process_first():
        splits = load_shards(shards, train_images=False)
    model = build_model("test_resnet", pretrained=False, image_size=32)
    trainer = SmileTrainer(model, args, splits, shards=shard_files(shards, "train"))
    seen = defaultdict(list)
    transform = trainer.augment._transform_one

    def remember(image, image_id, repeat):
        seen[int(trainer.augment._epoch)].append(image_id)
        return transform(image, image_id, repeat)

    trainer.augment._transform_one = remember
    trainer.train()
    assert trainer.state.global_step == 12 and trainer.state.epoch == 2
    Path(output_dir, f"seen_{args.process_index}.json").write_text(json.dumps(seen))
