"""Fine-tune on your data: [RECIPE.yaml] [--any_setting value ...].

`accelerate launch -m hf_smile train ...` trains in several processes.
"""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hf_smile.data.arguments import DataArguments, require_data
from hf_smile.errors import SmileError, SmileModelError
from hf_smile.utils.files import held_folder, refuse_file
from hf_smile.utils.model_files import read_config

if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_smile.hub.jobs import Job
    from hf_smile.training.arguments import Arguments, SmileTrainingArguments
    from hf_smile.training.several import Seeds
    from hf_smile.training.trainer import SmileTrainer


logger = logging.getLogger(__name__)


def parse_arguments(words: list[str], prog: str) -> Arguments | Seeds | Job:
    if {"--help", "-h", "--help_all"} & {*words}:
        print_help(prog, "--help_all" in words)
    from hf_smile.training.parser import check_words

    data, training = check_words(words)
    if training.job:
        from hf_smile.hub.jobs import Job

        return Job(words)
    refuse_file(training.output_dir)
    if not Path(training.output_dir, "recipe.yaml").is_file():  # a finished run does not need its data
        require_data(data.data_dir)
    for teacher in training.teachers or []:
        try:
            read_config(teacher)
        except SmileModelError as error:
            raise SmileModelError(f"--teachers {error}") from None
    if training.seeds is not None and len({*training.seeds}) < len(training.seeds):
        raise SmileError(f"--seeds {' '.join(map(str, training.seeds))}: a seed is repeated; name each one once")
    if training.seeds is not None:
        from hf_smile.training.several import plan_seeds

        return plan_seeds(words)
    from hf_smile.training.arguments import parse_arguments

    return parse_arguments(words)


def print_help(prog: str, everything: bool) -> NoReturn:
    from hf_smile.training.settings import help_text

    if everything:
        from transformers import TrainingArguments

        print(help_text(prog, fields(TrainingArguments)))
    else:
        print(help_text(prog))
    sys.exit(0)


def run(arguments: Arguments | Seeds | Job) -> None:
    from hf_smile.training.several import Seeds

    if isinstance(arguments, Seeds):
        with held_folder(arguments.output_dir):
            run_seeds(arguments)
    elif isinstance(arguments, tuple):
        args = arguments[-1]
        with held_folder(str(args.output_dir)) if args.process_index == 0 else nullcontext():
            run_once(arguments)
    else:
        for line in arguments.start():
            print(line, flush=True)


def run_seeds(runs: Seeds) -> None:
    from hf_smile.hub.seeds_card import write_seeds_card
    from hf_smile.training.several import SOUP_TABLE

    runs.train(partial(print, flush=True))
    if runs.head:
        run_soup(runs)
    else:
        Path(runs.output_dir, SOUP_TABLE).unlink(missing_ok=True)  # of earlier runs
    print(f"\n{write_seeds_card(runs.output_dir, runs.seeds)}")
    print(f"Card and table of all seeds, the models in folders of their own: {runs.output_dir}")


def run_soup(runs: Seeds) -> None:
    """Average the weights of finished runs; if that is better on validation, evaluate the mean as a run of its own."""
    from hf_smile.hub.finished_run import read_metrics
    from hf_smile.training.arguments import parse_arguments, recipe_of
    from hf_smile.training.run_folder import is_finished
    from hf_smile.training.soup import best_alone, cook, ranking_metric, write_candidates

    folder = runs.output_dir / "soup"
    arguments = parse_arguments([*runs.words, "--seed", str(runs.seeds[0]), "--output_dir", str(folder)])
    data, _, _, args = arguments
    recipe = recipe_of(arguments) | {"soup_of": runs.seeds}
    if not args.overwrite and is_finished(folder, recipe):
        print(f"{folder} is already finished")
        return
    folders, metric = {seed: runs.folder(seed) for seed in runs.seeds}, ranking_metric(args)
    if not args.overwrite and (best := best_alone(folders, metric, runs.output_dir)):
        print_no_soup(best, folder)
        return
    start_process(is_main=True)
    args.overwrite = True
    splits = load_splits(data, args)
    trainer = make_trainer(arguments, splits)
    metrics = {seed: read_metrics(path) for seed, path in folders.items()}
    after = {
        seed: (found["calibration"]["temperature"], found["decision"]["prior_adjustment"])
        for seed, found in metrics.items()
    }
    candidates = cook(trainer, folders, after)
    write_candidates(candidates, metric, runs.output_dir)
    if len(candidates[0].seeds) > 1:
        begin_record(arguments, recipe, splits)
        print_results(args.output_dir, *finish(trainer, arguments, splits, recipe))
    else:
        print_no_soup(candidates[0].name, folder)


def print_no_soup(best: str, folder: Path) -> None:
    """Report that a single seed is better than each soup, and remove an earlier soup of other runs."""
    from hf_smile.training.run_folder import clear_run

    clear_run(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    print(f"\nNo soup is better on validation than {best} alone, so none is kept")


def finish(
    trainer: SmileTrainer, arguments: Arguments, splits: DatasetDict, recipe: dict[str, Any]
) -> tuple[dict[str, Any], int]:
    """Fold the temperature and the prior adjustment into the model, save it, and evaluate it on the test split.

    Returns:
        The metrics, which only the main process writes, and the number of test images.
    """
    from hf_smile.training.after import fold_after_training

    args = arguments[-1]
    folded = fold_after_training(trainer, args.temperature, args.prior_adjustment)
    trainer.save_model()
    logits = trainer.predict(splits["test"]).predictions
    metrics: dict[str, Any] = {}
    if args.process_index == 0:
        metrics = trainer.write_results(splits, logits, folded, recipe)
        trainer.reporting.finish(metrics, Path(args.output_dir, "confusion_matrix.png"))
    return metrics, len(logits)


def run_once(arguments: Arguments) -> None:
    from hf_smile.data.layouts import refuse_data_folder
    from hf_smile.data.record import read_splits
    from hf_smile.hub.checkpoints import fetch_run
    from hf_smile.hub.connection import check_login
    from hf_smile.modeling.backbone import find_backbone
    from hf_smile.training.arguments import recipe_of
    from hf_smile.training.budget import process_start
    from hf_smile.training.checkpoints import clear_of_disk_errors
    from hf_smile.training.run_folder import is_finished, open_run

    data, _, backbone, args = arguments
    is_main = args.process_index == 0
    start_process(is_main)
    if args.publish_to and is_main:
        check_login(args.publish_to)  # fail now, not after hours
    recipe = recipe_of(arguments)
    refuse_data_folder(args.output_dir, data.data_dir)
    if not args.overwrite and is_finished(args.output_dir, recipe):
        if is_main:
            print_finished(args.output_dir, data.data_dir)
            publish(args)
        return
    with args.main_process_first(desc="opening the run"):
        if args.checkpoint_to and not args.overwrite:
            fetch_run(args.checkpoint_to, args.output_dir)
        checkpoint = open_run(args.output_dir, recipe, args.overwrite)
        find_backbone(backbone.backbone, backbone.pretrained)  # fail now, not after reading the data
        for teacher in args.teachers or []:
            if not read_splits(teacher) and is_main:
                logger.warning(
                    "The teacher %s has no record of its training images. Make sure that it was not trained on "
                    "validation or test images.",
                    teacher,
                )
        splits = load_splits(data, args)
    trainer = make_trainer(arguments, splits)
    if is_main:
        begin_record(arguments, recipe, splits)
        if checkpoint:
            print(f"Resuming from {checkpoint}", flush=True)
    if trainer.budget is not None:
        trainer.budget.started = process_start()
        trainer.budget.images_after = len(splits["test"]) + len(splits.get("validation", ()))
    with clear_of_disk_errors(Path(args.output_dir)):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        metrics, n_images = finish(trainer, arguments, splits, recipe)
    if is_main:
        print_results(args.output_dir, metrics, n_images)
        publish(args)


def start_process(is_main: bool) -> None:
    """Set up this process: its launcher, its share of the cores, and no output from transformers."""
    import datasets
    from transformers.utils import logging

    from hf_smile.training.device import join_launcher, keep_freed_memory

    join_launcher()
    keep_freed_memory()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not is_main:
        datasets.disable_progress_bars()


def print_finished(output_dir: str, data_dir: str) -> None:
    """Report that there is nothing to train."""
    from hf_smile.data.record import run_data

    print(f"{output_dir} holds the finished run of these settings; its results are in test_metrics.json.")
    if (earlier := run_data(output_dir, {})[0].data_dir) != data_dir:
        print(f"It was trained on {earlier}; {data_dir} was not read.")
    print("Nothing is trained. For a fresh start, add --overwrite or name another --output_dir.")


def load_splits(data: DataArguments, args: SmileTrainingArguments) -> DatasetDict:
    """Load the splits; if images are streamed, train has only ids and labels."""
    from hf_smile.data.dataset import load_smile_dataset
    from hf_smile.shards.folder import is_sharded, load_shards

    seed = args.seed if args.split_seed is None else args.split_seed
    if is_sharded(data.data_dir):
        few = data.max_train_samples
        return load_shards(data.data_dir, train_images=few is not None, max_train_samples=few, seed=seed)
    return load_smile_dataset(**vars(data), seed=seed, bad_image_list=f"{args.output_dir}/bad_images.csv")


def learned_from(arguments: Arguments) -> dict[str, str]:
    """The models that a run learns from, each with its role."""
    _, _, backbone, args = arguments
    begins_with = {backbone.backbone: "backbone"} if backbone.pretrained else {}
    return dict.fromkeys(args.teachers or [], "teacher") | begins_with


def make_trainer(arguments: Arguments, splits: DatasetDict) -> SmileTrainer:
    """Build the model and its trainer, and print a line each about the device, the data and the network."""
    from transformers import set_seed

    from hf_smile.data.record import images_of, refuse_trained_on
    from hf_smile.data.rows import labels_of
    from hf_smile.data.splits import describe
    from hf_smile.hub.checkpoints import CheckpointUploads
    from hf_smile.modeling import build_model
    from hf_smile.modeling.backbone import parameter_table, parameter_totals
    from hf_smile.modeling.calibrate import require_output_layer
    from hf_smile.shards.folder import is_sharded, shard_files
    from hf_smile.training.device import device_line
    from hf_smile.training.trainer import SmileTrainer

    data, augmentation, backbone, args = arguments
    streamed = is_sharded(data.data_dir) and data.max_train_samples is None
    if models := learned_from(arguments):
        held_out = {name: [*images_of(split)] for name, split in splits.items() if name != "train"}
        for model_name, role in models.items():
            for name, images in held_out.items():
                refuse_trained_on(model_name, images, role, for_test=name == "test")
    if args.process_index == 0:
        print(device_line(args))
        print(describe(splits, None if streamed else data.group_by), flush=True)
        if streamed:
            n_shards = len(shard_files(data.data_dir, "train"))
            print(f"The images of train are streamed from {n_shards:,} shards", flush=True)
    set_seed(args.seed)
    model = build_model(**vars(backbone), labels=labels_of(splits["train"]))
    if args.temperature not in (None, 1) or args.prior_adjustment:
        require_output_layer(model)  # fail now, not after training
    try:
        train = data.data_dir if streamed else splits["train"]
        trainer = SmileTrainer(model, args, train, splits.get("validation"), augmentation=augmentation)
        if args.checkpoint_to:
            trainer.add_callback(CheckpointUploads(args.checkpoint_to, args.output_dir))
    except (ValueError, RuntimeError, ImportError) as error:  # a setting that transformers checks only here
        raise SmileError(str(error)) from None
    if args.process_index == 0:
        print((parameter_table if args.show_parameters else parameter_totals)(model), flush=True)
    return trainer


def begin_record(arguments: Arguments, recipe: dict[str, Any], splits: DatasetDict) -> None:
    """Write settings, versions and splits to the folder of the run, after checking that its data are the same."""
    from hf_smile.data.record import check_splits, write_splits
    from hf_smile.training.run_folder import start_run

    args = arguments[-1]
    if not args.overwrite:
        check_splits(args.output_dir, splits, *learned_from(arguments))
    start_run(args.output_dir, recipe, args.overwrite)
    write_splits(args.output_dir, splits, *learned_from(arguments))


def print_results(output_dir: str, metrics: dict[str, Any], n_images: int) -> None:
    """Print the choice of the checkpoint, the test results, and where the other results are."""
    from hf_smile.hub.card_sections import calibration_sentence, choice_sentence
    from hf_smile.inference.runtimes import ONNX_FILES

    scores = f"accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['macro_f1']:.4f}"
    print(f"\n{choice_sentence(metrics['choice'])}")
    print(f"Test {scores}, {calibration_sentence(metrics['calibration'])}, {n_images:,} images")
    if any(Path(output_dir, name).is_file() for name in ONNX_FILES.values()):
        print(f"The ONNX files are from earlier weights; export again: hf-smile export --model {output_dir}")
    plots = [name for name in ("accuracy.png", "loss.png", "confusion_matrix.png") if Path(output_dir, name).is_file()]
    print(f"Model, card, metrics and plots ({', '.join(plots)}): {output_dir}")


def publish(args: SmileTrainingArguments) -> None:
    from hf_smile.hub.model import publish_model

    if args.publish_to:
        print(f"Published: {publish_model(args.output_dir, args.publish_to, args.hub_private_repo)}")
