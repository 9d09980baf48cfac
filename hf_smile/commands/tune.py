"""Search for better hyperparameters on the validation split: [RECIPE.yaml] --trials 20 [--any_setting value ...].

hf-smile tune recipes/resnet50.yaml --data_dir data/happy_images --trials 20 --max_hours 2
hf-smile train outputs/tune/best.yaml

Trials are runs with the recipe's settings, except the learning rate and related settings. The same command, run again,
resumes the search. The test split is not looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.commands.options import job_parser, positive
from hf_smile.data.arguments import require_data
from hf_smile.errors import SmileError
from hf_smile.utils.extras import require

if TYPE_CHECKING:
    import optuna


def parse_arguments(words: list[str], prog: str) -> argparse.Namespace:
    parser = job_parser(prog, __doc__)
    parser.add_argument(
        "--trials", type=positive, default=20, help="number of trials, including earlier ones (default: %(default)s)"
    )
    parser.add_argument("--max_hours", type=float, help="hours after which no trial starts")
    parser.add_argument("--output_dir", default="outputs/tune", help="folder for all results (default: %(default)s)")
    args, rest = parser.parse_known_args(words)
    args.words = rest
    require("transformers", "optuna")
    from hf_smile.training.parser import check_words

    data, training = check_words(args.words)
    require_data(data.data_dir)
    if training.select_best == "last" or not data.validation_size:
        raise SmileError(
            "a search chooses by the validation split, but this recipe does not choose by one; "
            "add --select_best accuracy --validation_size 0.2"
        )
    return args


def run(args: argparse.Namespace) -> None:
    import shutil
    from functools import partial

    from hf_smile.commands.train import load_splits, make_trainer, start_process
    from hf_smile.data.layouts import refuse_data_folder
    from hf_smile.modeling.backbone import build_model, find_backbone
    from hf_smile.training.arguments import parse_arguments, to_recipe
    from hf_smile.training.search import plot_search, search, searched
    from hf_smile.utils.files import make_folder

    folder = Path(args.output_dir)
    arguments = parse_arguments([*args.words, "--output_dir", str(folder / "best"), "--report_to", "none"])
    data, _, backbone, training = arguments
    recipe, start = to_recipe(arguments), searched(arguments)
    training.output_dir = str(folder / "trial")  # of the current trial
    training.checkpoint_to = training.save_every = training.max_hours = None
    if training.world_size > 1:
        raise SmileError("a search runs in one process; start it without a launcher")
    refuse_data_folder(folder, data.data_dir, replaces="study.db")
    start_process(is_main=True)
    make_folder(training.output_dir)
    find_backbone(backbone.backbone, backbone.pretrained)  # fail now, not after reading the data
    splits = load_splits(data, training)
    splits.pop("test", None)  # a search must not look at it
    trainer = make_trainer(arguments, splits)
    build = partial(build_model, **vars(backbone), labels=trainer.labels)
    study = search(trainer, build, start, recipe, folder, args.trials, args.max_hours)
    shutil.rmtree(training.output_dir)
    plot_search(study, training.select_best, folder / "search.png")
    write_best(study, training.select_best, folder)


def write_best(study: optuna.Study, metric: str, folder: Path) -> None:
    """Write the best trial as a recipe, and all trials as a table."""
    import yaml

    from hf_smile.utils.files import write_text

    columns = ("number", "state", "value", "params", "duration")
    study.trials_dataframe(columns).to_csv(folder / "trials.csv", index=False)
    found = f"validation {metric} {study.best_value:.4f} in trial {study.best_trial.number} of {len(study.trials)}"
    recipe = yaml.safe_dump(study.user_attrs["recipe"] | study.best_params, sort_keys=False)
    write_text(
        folder / "best.yaml", f"# Found by hf-smile tune: {found}. The test split was not looked at.\n\n{recipe}"
    )
    print(f"Best: {found}; the recipe's own settings: {study.trials[0].value}")
    print(f"All trials: {folder}/trials.csv; importance of the settings: {folder}/search.png")
    print(f"Train it: hf-smile train {folder}/best.yaml")
