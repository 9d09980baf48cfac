"""What a trainer leaves of a run for others: settings, predictions, metrics, the model card, a model on the Hub."""

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
    """Remembers what it has evaluated, and writes and publishes the model card from that.

    Attributes:
        class_counts: (K,) training images of each class.
        budget: of a run with `max_hours`.
        evaluated: what was last evaluated with the weights as they are, and the answers, by `metric_key_prefix`.
        folded: what `fold_after_training` has put into the model.
        choice: how the weights were chosen, where that was not among the epochs of this training.
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
        """The weights have changed."""
        self.evaluated, self.folded = {}, None

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        if description == "Evaluation":  # `predict` comes here too, whatever for
            self.evaluated[kwargs.get("metric_key_prefix", "eval")] = dataloader.dataset, output
        return output

    def describe_choice(self) -> dict[str, Any]:
        """Which epoch the weights are of, after `train`; see `hf_smile.training.history.describe_choice`."""
        if self.choice is not None:
            return self.choice
        n_images = len(self.eval_dataset) if self.eval_dataset is not None else 0
        return describe_choice(history_table(self.state.log_history), self.args, n_images)

    def describe_settings(self) -> dict[str, Any]:
        """The settings as in `recipe.yaml`, those of the model as far as it knows them."""
        config, source = self.model.config, self.model.name_or_path
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
        """Write the model card `README.md`, and beside it settings, versions, predictions, metrics and their pictures.

        Raises:
            SmileModelError: the test data were not evaluated with the weights as they are:
                `evaluate(test_dataset, metric_key_prefix="test")`.
        """
        if "test" not in self.evaluated:
            raise SmileModelError(
                "a model card tells the results on test data; evaluate first: "
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
        """Write predictions, metrics, their pictures and the model card, by which a run is finished.

        Args:
            splits: with `test`, and `validation` where there is one.
            logits: (N, K) of the saved model on the test split.
            folded: what `fold_after_training` put into it.
            settings: as in `recipe.yaml`.

        Returns:
            The metrics of `finish_run`.
        """
        from hf_smile import write_model_card  # by its public name, because hub stands above this room

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
        """Save the model, write its card and publish both; neither predictions nor checkpoints, nor the data.

        Args:
            repo_id: `owner/name`; `args.hub_model_id` if None.
            private: nobody else sees it; `args.hub_private_repo` if None.
            token: of the Hub; the one of HF_TOKEN or `hf auth login` if None.
            revision: branch; the main one if None.

        Returns:
            The address of the model; None in all processes but the first.

        Raises:
            SmileError: the Hub can't be reached or refuses, or the test data were not evaluated.
        """
        from hf_smile import publish_model  # by its public name, because hub stands above this room

        if (repo_id := repo_id or self.args.hub_model_id) is None:
            raise ValueError("push_to_hub needs a repo_id: owner/name")
        self.save_model()
        self.create_model_card()
        if not self.is_world_process_zero():
            return None
        private = self.args.hub_private_repo if private is None else private
        return publish_model(str(self.args.output_dir), repo_id, private=private, token=token, revision=revision)
