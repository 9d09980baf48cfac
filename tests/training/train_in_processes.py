"""One of the processes of test_many_processes.py: trains, is stopped in the middle, and resumes."""

import json
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path

import torch
from transformers import TrainerCallback

from hf_smile.data.dataset import load_smile_dataset
from hf_smile.modeling import build_model
from hf_smile.shards.folder import load_shards
from hf_smile.training import callbacks
from hf_smile.training.arguments import SmileTrainingArguments
from hf_smile.training.checkpoints import CHECKSUMS, last_whole_checkpoint
from hf_smile.training.trainer import SmileTrainer


class TellOne(TrainerCallback):
    """Send SIGTERM to the second process after the third step of the second epoch."""

    def on_step_end(self, args, state, control, **kwargs):
        if args.process_index == 1 and state.global_step == 9:
            os.kill(os.getpid(), signal.SIGTERM)


def train(shards, output_dir, streamed, stop=False, checkpoint=None):
    """Losses, metrics, weights and, by epoch, the ids that this process trained on; None if it was stopped."""
    args = SmileTrainingArguments(
        str(output_dir),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        shuffle_buffer_size=10,
        ema_decay=0.9,
        mixup=0.2,
        use_cpu=True,
        disable_tqdm=True,
        save_every="0.001s" if stop else None,  # at every step, because the processes agree on the time
    )
    assert args.world_size == 2 and torch.distributed.get_backend() == "gloo"
    with args.main_process_first():
        splits = load_shards(shards, train_images=False) if streamed else load_smile_dataset(shards)
    torch.manual_seed(args.seed)
    model = build_model("test_resnet", pretrained=False, image_size=32)
    trainer = SmileTrainer(model, args, shards if streamed else splits["train"], splits["validation"])
    seen, step = defaultdict(list), trainer.training_step

    def noted(model, inputs, *rest):
        seen[int(trainer.state.epoch or 0)] += inputs["image_ids"]
        return step(model, inputs, *rest)

    trainer.training_step = noted
    if stop:
        trainer.add_callback(TellOne())
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except SystemExit as stopped:
        assert stopped.code == 143
        return None, seen
    figures = [[line.get(name) for name in ("loss", "accuracy", "eval_nll")] for line in trainer.state.log_history]
    return (figures, {name: value.tolist() for name, value in model.state_dict().items()}), seen


if __name__ == "__main__":
    shards, output_dir = Path(sys.argv[1]), Path(sys.argv[2])
    callbacks.write_history = lambda table, folder: None  # drawing curves takes longer than these runs
    report = {}
    for streamed in (False, True):
        folder = output_dir / ("streamed" if streamed else "cached")
        alone, seen_alone = train(shards, folder / "alone", streamed)
        stopped, seen_stopped = train(shards, folder / "stopped", streamed, stop=True)
        checkpoint = last_whole_checkpoint(folder / "stopped")
        sealed = json.loads((checkpoint / CHECKSUMS).read_text())  # the resumed run deletes it
        again, seen_again = train(shards, folder / "stopped", streamed, checkpoint=str(checkpoint))
        report[folder.name] = {
            "checkpoint": checkpoint.name,
            "sealed": [*sealed],
            "stopped": stopped is None,
            "equal": again == alone,
            "seen": [seen_alone, seen_stopped, seen_again],
        }
    (output_dir / f"report_{os.environ['RANK']}.json").write_text(json.dumps(report))
