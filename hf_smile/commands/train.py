"""Fine-tune on your data: [RECIPE.yaml] [--any_setting value ...].

`accelerate launch -m hf_smile train ...` does it in several processes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hf_smile.data.arguments import require_data

if TYPE_CHECKING:
    from hf_smile.training.arguments import Arguments, SmileTrainingArguments


def parse_arguments(words: list[str], prog: str) -> Arguments:
    if "--help" in words or "-h" in words or "--help_all" in words:
        print_help(prog, "--help_all" in words)
    from hf_smile.training.parser import check_words

    data, training = check_words(words)
    if not Path(training.output_dir, "recipe.yaml").is_file():  # a finished run needs no data any more
        require_data(data.data_dir)
    from hf_smile.training.arguments import parse_arguments

    return parse_arguments(words)


def print_help(prog: str, everything: bool) -> NoReturn:
    from hf_smile.training.settings import help_text

    further: Sequence[Field] = ()
    if everything:
        from transformers import TrainingArguments

        further = fields(TrainingArguments)
    print(help_text(prog, further))
    sys.exit(0)


def run(arguments: Arguments) -> None:
    import datasets
    from transformers import set_seed
    from transformers.utils import logging

    from hf_smile.data.corrections import digest_of
    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.data.layouts import refuse_data_folder
    from hf_smile.data.record import check_splits, images_of, refuse_trained_on, run_data, write_splits
    from hf_smile.data.rows import labels_of
    from hf_smile.data.splits import describe
    from hf_smile.errors import SmileError
    from hf_smile.hub.card_sections import calibration_sentence, choice_sentence
    from hf_smile.hub.connection import check_login
    from hf_smile.hub.model_card import write_model_card
    from hf_smile.inference.runtimes import ONNX_FILES
    from hf_smile.modeling import build_model
    from hf_smile.modeling.backbone import parameter_table, parameter_totals
    from hf_smile.modeling.calibrate import require_output_layer
    from hf_smile.shards.folder import is_sharded, load_shards, shard_files
    from hf_smile.training.after import fold_after_training
    from hf_smile.training.arguments import to_recipe
    from hf_smile.training.checkpoints import clear_of_disk_errors
    from hf_smile.training.device import (
        device_line,
        keep_freed_memory,
        start_all_processes,
        stop_with_launcher,
        use_all_cores,
    )
    from hf_smile.training.run_folder import finish_run, is_finished, mark_finished, open_run, start_run
    from hf_smile.training.trainer import SmileTrainer

    data, augmentation, backbone, args = arguments
    stop_with_launcher()
    start_all_processes()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    use_all_cores()
    keep_freed_memory()
    is_main = args.process_index == 0
    if not is_main:
        datasets.disable_progress_bars()

    if args.publish_to and is_main:
        check_login(args.publish_to)  # now rather than after hours
    recipe = to_recipe(arguments) | {"processes": args.world_size * max(1, args.n_gpu)}
    if data.corrections:
        recipe["corrections_sha256"] = digest_of(data.corrections)
    refuse_data_folder(args.output_dir, data.data_dir)
    if not args.overwrite and is_finished(args.output_dir, recipe):
        if is_main:
            print(f"{args.output_dir} holds the finished run of these settings; its results are in test_metrics.json.")
            if (earlier := run_data(args.output_dir, {})[0].data_dir) != data.data_dir:
                print(f"It was trained on {earlier}; {data.data_dir} was not read.")
            print("Nothing is trained. For a fresh start, add --overwrite or name another --output_dir.")
            publish(args)
        return
    with args.main_process_first(desc="opening the run"):
        checkpoint = open_run(args.output_dir, recipe, args.overwrite)
        shards = shard_files(data.data_dir, "train") if is_sharded(data.data_dir) else None
        if shards:
            splits = load_shards(data.data_dir, train_images=False)
        else:
            listed = f"{args.output_dir}/bad_images.csv"
            splits = load_smile_dataset(**vars(data), seed=args.seed, bad_image_list=listed)
    begins_with = backbone.backbone if backbone.pretrained else None
    if begins_with:
        refuse_trained_on(begins_with, chain(*(images_of(splits[name]) for name in splits if name != "train")))
    if is_main:
        print(device_line(args))
        print(describe(splits, None if shards else data.group_by), flush=True)
        if shards:
            print(f"The images of train are streamed from {len(shards):,} shards", flush=True)

    set_seed(args.seed)
    model = build_model(**vars(backbone), labels=labels_of(splits["train"]))
    if args.temperature is not None or args.prior_adjustment:
        require_output_layer(model)  # better known now than after the training
    try:
        train = data.data_dir if shards else splits["train"]
        trainer = SmileTrainer(model, args, train, splits.get("validation"), augmentation=augmentation)
    except (ValueError, RuntimeError, ImportError) as error:  # a setting that transformers checks only here
        raise SmileError(str(error)) from None
    if is_main:
        print((parameter_table if args.show_parameters else parameter_totals)(model), flush=True)
        if not args.overwrite:
            check_splits(args.output_dir, splits, begins_with)
        start_run(args.output_dir, recipe, args.overwrite)
        write_splits(args.output_dir, splits, begins_with)
        if checkpoint:
            print(f"Resuming from {checkpoint}", flush=True)

    with clear_of_disk_errors(Path(args.output_dir)):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        folded = fold_after_training(trainer, args.temperature, args.prior_adjustment)
        trainer.save_model()

        logits = trainer.predict(splits["test"]).predictions
        if is_main:
            metrics = finish_run(args.output_dir, splits, logits, folded, trainer.describe_choice())
            write_model_card(
                args.output_dir,
                metrics,
                backbone=backbone.backbone,
                pretrained=backbone.pretrained,
                plain_timm=backbone.head_hidden_size is None,
            )
            mark_finished(args.output_dir, metrics)
            trainer.reporting.finish(metrics, Path(args.output_dir, "confusion_matrix.png"))
    if is_main:
        scores = f"accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['macro_f1']:.4f}"
        print(f"\n{choice_sentence(metrics['choice'])}")
        print(f"Test {scores}, {calibration_sentence(metrics['calibration'])}, {len(logits):,} images")
        if any(Path(args.output_dir, name).is_file() for name in ONNX_FILES.values()):
            print(f"Its ONNX files are of earlier weights; write them again: hf-smile export --model {args.output_dir}")
        print(f"Model, card, metrics and pictures (accuracy.png, loss.png, confusion_matrix.png): {args.output_dir}")
        publish(args)


def publish(args: SmileTrainingArguments) -> None:
    from hf_smile.hub.model import publish_model

    if args.publish_to:
        print(f"Published: {publish_model(args.output_dir, args.publish_to, args.hub_private_repo)}")
