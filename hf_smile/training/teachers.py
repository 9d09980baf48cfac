"""Knowledge distillation: trained models whose predictions are part of the training target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hf_smile.data.preprocessing import data_config
from hf_smile.errors import SmileModelError
from hf_smile.labels import LabelSet
from hf_smile.modeling.checkpoint import load_model

_SEEN_ALIKE = ("input_size", "mean", "std")


class Teachers:
    """Models that take turns, one per step, in predicting the target of a student.

    The teacher gets the batch of the student, with the same augmentation and mixup. Over the epochs, the student
    learns the mean of all teachers, but a step takes no longer with ten of them than with one.

    Sources: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (https://arxiv.org/abs/1503.02531);
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022
    (https://arxiv.org/abs/2106.05237).

    Args:
        names: folders or Hub ids of models trained by `hf-smile train`.
        config: configuration of the student.
        device: where the teachers compute.
        weight: share of the teacher's prediction in the target; the label has the rest.

    Raises:
        SmileModelError: a teacher can't be loaded, or has other labels or another preprocessing than the student.

    >>> teachers = Teachers(["runs/1", "runs/2"], student.config, "cpu", weight=0.8)  # doctest: +SKIP
    >>> teachers.targets(pixel_values, targets=torch.eye(3), step=0).sum(dim=1)  # doctest: +SKIP
    tensor([1., 1., 1.])
    """

    def __init__(self, names: Sequence[str], config: Any, device: torch.device | str, weight: float) -> None:
        self.weight = weight
        self.models = []
        for name in names:
            teacher = load_model(name)
            if (theirs := LabelSet.of(teacher.config.id2label)) != (ours := LabelSet.of(config.id2label)):
                raise SmileModelError(
                    f"the teacher {name} has the labels {', '.join(theirs)}; expected: {', '.join(ours)}, in this order"
                )
            their_data, our_data = (data_config(c.pretrained_cfg) for c in (teacher.config, config))
            for key in _SEEN_ALIKE:
                if (found := list(their_data[key])) != (needed := list(our_data[key])):
                    raise SmileModelError(
                        f"the teacher {name} has the {key} {found}, and the student {needed}; both get the same "
                        "pictures, so use a teacher with the student's --image_size and the same kind of backbone"
                    )
            self.models.append(teacher.requires_grad_(False).to(device))

    @torch.no_grad()
    def targets(self, pixel_values: torch.Tensor, targets: torch.Tensor, step: int) -> torch.Tensor:
        """Mix the prediction of the teacher whose turn it is into the targets.

        Args:
            pixel_values: (N, 3, H, W), as the student gets them.
            targets: (N, C) share of each class, from the labels.
            step: number of the step, which chooses the teacher.

        Returns:
            (N, C).
        """
        logits = self.models[step % len(self.models)](pixel_values=pixel_values).logits
        return torch.lerp(targets, logits.float().softmax(dim=1), self.weight)
