"""Experiment trackers (`--report_to`): one tracked run from the first step to the test results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback, get_reporting_integration_callbacks

if TYPE_CHECKING:
    from hf_smile.training.trainer import SmileTrainer

RUNS = "runs"
"""Folder of TensorBoard runs in the output folder."""


class Reporting:
    """The experiment trackers of a trainer, through the integrations of transformers.

    Those integrations close their run when training ends, and report every prediction as test results: later results
    would go to a second run, and validation results would get the wrong name. Here a run stays open until `finish`, and
    predictions are not reported. TensorBoard writes to `runs/<run_name>` in the output folder; a resumed run continues
    there.

    Args:
        trainer: a trainer with `args.report_to` and `args.run_name`.

    >>> Reporting(trainer).finish({"accuracy": 0.8}, Path("outputs/model/confusion_matrix.png"))  # doctest: +SKIP
    """

    def __init__(self, trainer: SmileTrainer) -> None:
        self.trainer = trainer
        kinds = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
        self._trackers = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, kinds)]
        self._ends = [tracker.on_train_end for tracker in self._trackers]
        for tracker in self._trackers:
            vars(tracker).update(on_train_end=_nothing, on_predict=_nothing)
            if isinstance(tracker, TensorBoardCallback) and tracker.logging_dir is None:
                tracker.logging_dir = str(Path(str(trainer.args.output_dir), RUNS, str(trainer.args.run_name)))

    def finish(self, metrics: dict[str, Any], confusion_matrix: Path) -> None:
        """Report the test results, and close the tracked runs.

        Args:
            metrics: metrics of the test split; only finite floats are reported.
            confusion_matrix: path of its picture.
        """
        if not self._trackers:
            return
        trainer = self.trainer
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float) and math.isfinite(value)}
        trainer.log({f"test_{name}": value for name, value in numbers.items()})
        for tracker, end in zip(self._trackers, self._ends, strict=True):
            _report_picture(tracker, "test/confusion_matrix", confusion_matrix, trainer.state.global_step)
            end(trainer.args, trainer.state, trainer.control, model=trainer.model)


def _report_picture(tracker: TrainerCallback, name: str, path: Path, step: int) -> None:
    if isinstance(tracker, TensorBoardCallback):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        tracker.tb_writer.add_image(name, pixels, step, dataformats="HWC")
    else:
        library = tracker._wandb if isinstance(tracker, WandbCallback) else tracker._trackio
        library.log({name: library.Image(str(path))})


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass
