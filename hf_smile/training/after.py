"""Fit the temperature and the prior adjustment after training, and describe their effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from datasets import DatasetDict
from scipy.special import softmax

from hf_smile.data.rows import labels_of
from hf_smile.evaluation.calibration import fit_temperature
from hf_smile.evaluation.decision import STRENGTHS, ece_where_it_is_meant, prior_shift, trade_off
from hf_smile.evaluation.metrics import FloatArray, compute_metrics
from hf_smile.modeling.calibrate import fold_into_output_layer, output_layer
from hf_smile.training.settings import MOVES_THE_PRIOR

if TYPE_CHECKING:
    from hf_smile.training.trainer import SmileTrainer


class Folded(NamedTuple):
    """What was folded into the last layer, and the validation logits before that.

    Attributes:
        temperature: divides the logits.
        temperature_is: where the temperature comes from, for example "fitted on the validation split".
        prior_adjustment: strength of the shift that is added to the logits.
        shares: (K,) class shares in train.
        validation_logits: (N, K) before folding; None without a validation split.
    """

    temperature: float
    temperature_is: str
    prior_adjustment: float
    shares: FloatArray
    validation_logits: FloatArray | None

    def undo(self, logits: FloatArray) -> FloatArray:
        """Convert logits (N, K) of the saved model to those of the trained model."""
        return (logits - prior_shift(self.shares, self.prior_adjustment)) * self.temperature

    def stages(self, trained: FloatArray) -> dict[str, FloatArray]:
        """Probabilities (N, K) `as_trained`, `with_temperature` and `saved`, from logits of the trained model."""
        scaled = trained / self.temperature
        saved = scaled + prior_shift(self.shares, self.prior_adjustment)
        logits = {"as_trained": trained, "with_temperature": scaled, "saved": saved}
        return {stage: softmax(values, axis=1) for stage, values in logits.items()}


def fold_after_training(
    trainer: SmileTrainer, temperature: float | None = None, prior_adjustment: float = 0.0
) -> Folded:
    """Fit the temperature on the validation split, and fold it and the prior adjustment into the model in memory.

    The temperature is fitted to the logits of one plain forward pass, which is what users of the model get. If
    `imbalance` changes the prior of the model (`MOVES_THE_PRIOR`), no temperature is fitted: it can't distinguish an
    overconfident model from one that expects other class shares, so its value would be wrong for both populations.

    Checkpoints are not changed: a run that is killed after this and started again resumes from one, and folds once.

    Args:
        trainer: a trainer after training.
        temperature: a known temperature, for example from cross-validation; None to fit it.
        prior_adjustment: the strength of `hf_smile.evaluation.decision`.

    Raises:
        SmileModelError: a temperature or adjustment is given, and the model has no layer to fold it into.
        SmileDataError: the logits are not finite.
    """
    shares = trainer.class_counts / trainer.class_counts.sum()
    output = None if trainer.eval_dataset is None else trainer.predict(trainer.eval_dataset)
    logits: Any = None if output is None else output.predictions.astype(np.float64)
    imbalance = trainer.args.imbalance
    if temperature is not None:
        source = "given as a setting"
    elif output is None:
        source = "not fitted, because there is no validation split"
    elif imbalance in MOVES_THE_PRIOR:
        source = f"not fitted, because imbalance '{imbalance}' changes the class shares that the probabilities are for"
    elif output_layer(trainer.model) is None:
        source = "not fitted, because no single linear layer outputs this backbone's logits"
    else:
        temperature = fit_temperature(logits, output.label_ids, len(trainer.labels))
        source = "fitted on the validation split"
    temperature = 1.0 if temperature is None else temperature
    if temperature != 1 or prior_adjustment:
        fold_into_output_layer(trainer.model, temperature, prior_shift(shares, prior_adjustment))
    trainer.forget_evaluations()
    trainer.folded = Folded(temperature, source, prior_adjustment, shares, logits)
    return trainer.folded


def describe(folded: Folded, splits: DatasetDict, logits: FloatArray) -> dict[str, Any]:
    """The effect of folding, for `test_metrics.json` and the model card.

    Args:
        folded: as returned by `fold_after_training`.
        splits: as returned by `load_smile_dataset`.
        logits: (N, K) logits of the saved model on the test split.

    Returns:
        `calibration`: the temperature, and `ece` and `nll` by split and stage. `decision`: the strength of the prior
        adjustment, the class shares, and the `trade_off` on the validation split, a list that is empty without one.
    """
    labels = labels_of(splits["test"])
    trained = {"test": folded.undo(logits)}
    if folded.validation_logits is not None:
        trained = {"validation": folded.validation_logits} | trained
    calibration: dict[str, Any] = {"temperature": folded.temperature, "temperature_is": folded.temperature_is}
    table: list[dict[str, float]] = []
    for split, scores in trained.items():
        stages, label_ids = folded.stages(scores), splits[split]["label"]
        metrics = {stage: compute_metrics(probabilities, label_ids, labels) for stage, probabilities in stages.items()}
        ece = ece_where_it_is_meant(stages["saved"], label_ids, folded.shares, folded.prior_adjustment, labels)
        calibration[split] = {stage: {"ece": found["ece"], "nll": found["nll"]} for stage, found in metrics.items()}
        calibration[split]["ece_where_it_is_meant"] = ece
        if split == "validation":
            strengths = sorted({*STRENGTHS, folded.prior_adjustment})
            probabilities = stages["with_temperature"]
            table = trade_off(probabilities, label_ids, folded.shares, strengths, labels).to_dict("records")
    decision = {"prior_adjustment": folded.prior_adjustment, "class_shares": folded.shares.tolist()}
    return {"calibration": calibration, "decision": decision | {"trade_off": table}}
