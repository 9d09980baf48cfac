"""A trainer that records its run: settings, predictions, metrics, the model card, the model on the Hub."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput

from hf_smile.data.arguments import AugmentationArguments
from hf_smile.errors import SmileModelError
from hf_smile.labels import LabelSet
from hf_smile.training.after import Folded
from hf_smile.training.arguments import SmileTrainingArguments, to_recipe
from hf_smile.training.budget import Budget
from hf_smile.training.history import describe_choice, history_table
from hf_smile.training.resumable import ResumableTrainer
from hf_smile.training.run_folder import finish_run, mark_finished, start_run
from hf_smile.training.settings import ModelArguments


class RecordedTrainer(ResumableTrainer):
    """A trainer that keeps its evaluation results, and writes and publishes the model card from them.

    Attributes:
        class_counts: (K,) training images of each class.
        budget: the budget of a run with `max_hours`.
        evaluated: the last data set evaluated with the current weights, and its output, by `metric_key_prefix`.
        folded: what `fold_after_training` folded into the model.
        choice: how the weights were chosen, if not among the epochs of this run.
    """

    args: SmileTrainingArguments
    model: PreTrainedModel
    labels: LabelSet
    augmentation: AugmentationArguments
    class_counts: np.ndarray
    budget: Budget | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.evaluated: dict[str, tuple[Dataset, EvalLoopOutput]] = {}
        self.folded: Folded | None = None
        self.choice: dict[str, Any] | None = None

    def forget_evaluations(self) -> None:
        """Clear the evaluations; called when the weights have changed."""
        self.evaluated, self.folded = {}, None

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        if description == "Evaluation":  # `predict` calls this too
            self.evaluated[kwargs.get("metric_key_prefix", "eval")] = dataloader.dataset, output
        return output

    def describe_choice(self) -> dict[str, Any]:
        """The epoch that `train` chose; see `hf_smile.training.history.describe_choice`."""
        if self.choice is not None:
            return self.choice
        n_images = len(self.eval_dataset) if self.eval_dataset is not None else 0
        return describe_choice(history_table(self.state.log_history), self.args, n_images)

    def describe_settings(self) -> dict[str, Any]:
        """The settings as in `recipe.yaml`, without model settings that the model does not store."""
        config, source = self.model.config, self.model.name_or_path
        if source == "None":  # transformers' text for a model that was not loaded from anywhere
            source = ""
        model = ModelArguments(
            backbone=source or config.architecture,
            pretrained=bool(source),
            image_size=config.pretrained_cfg["input_size"][-1],
            crop_pct=config.pretrained_cfg["crop_pct"],
            head_hidden_size=getattr(config, "head_hidden_size", None),
        )
        unknown = ("drop_path", "freeze_backbone", "freeze_stages")
        settings = to_recipe((model, self.augmentation, self.args))
        return {name: value for name, value in settings.items() if name not in unknown}

    def create_model_card(self) -> None:
        """Write the model card `README.md`, settings, versions, predictions, metrics and plots to the output folder.

        Raises:
            SmileModelError: the test data were not evaluated with the current weights. Call
                `evaluate(test_dataset, metric_key_prefix="test")` first.
        """
        if "test" not in self.evaluated:
            raise SmileModelError(
                "a model card needs results on test data; evaluate first: "
                "trainer.evaluate(test_dataset, metric_key_prefix='test')"
            )
        images, output = self.evaluated["test"]
        splits, logits = DatasetDict(test=images.with_format(None)), None
        if isinstance(self.train_dataset, Dataset):
            splits["train"] = self.train_dataset.with_format(None)
        if self.eval_dataset is not None:
            splits["validation"] = self.eval_dataset.with_format(None)
            if self.folded is None:
                logits = self.predict(self.eval_dataset).predictions.astype(np.float64)
        shares = self.class_counts / self.class_counts.sum()
        folded = self.folded or Folded(1.0, "not fitted; `fold_after_training` fits one", 0.0, shares, logits)
        if self.is_world_process_zero():
            settings = self.describe_settings()
            start_run(str(self.args.output_dir), settings)
            self.write_results(splits, output.predictions, folded, settings)

    def write_results(
        self, splits: DatasetDict, logits: np.ndarray, folded: Folded, settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Write predictions, metrics, plots and the model card, and mark the run as finished.

        Args:
            splits: the data with the split `test`, and `validation` if there is one.
            logits: (N, K) logits of the saved model on the test split.
            folded: as returned by `fold_after_training`.
            settings: settings as in `recipe.yaml`.

        Returns:
            The metrics of `finish_run`.
        """
        from hf_smile import write_model_card  # imported lazily, because hub is above training

        folder = str(self.args.output_dir)
        metrics = finish_run(folder, splits, logits, folded, self.describe_choice())
        if self.budget is not None:
            metrics["budget"] = self.budget.reached()
        about = {name: settings[name] for name in ("backbone", "pretrained")}
        write_model_card(folder, metrics, plain_timm="head_hidden_size" not in settings, **about)
        mark_finished(folder, metrics)
        return metrics

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str | None = None,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
    ) -> str | None:
        """Save the model, write its card and publish both, without predictions, checkpoints or data.

        Args:
            repo_id: `owner/name`; `args.hub_model_id` if None.
            private: whether to make the repository private; `args.hub_private_repo` if None.
            token: Hub token; that of HF_TOKEN or `hf auth login` if None.
            revision: branch; the main branch if None.

        Returns:
            The address of the model; None except in the first process.

        Raises:
            SmileError: the Hub can't be reached or refuses, or the test data were not evaluated.
        """
        from hf_smile import publish_model  # imported lazily, because hub is above training

        if (repo_id := repo_id or self.args.hub_model_id) is None:
            raise ValueError("push_to_hub needs a repo_id: owner/name")
        self.save_model()
        self.create_model_card()
        if not self.is_world_process_zero():
            return None
        private = self.args.hub_private_repo if private is None else private
        return publish_model(str(self.args.output_dir), repo_id, private=private, token=token, revision=revision)
