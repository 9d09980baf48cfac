"""Build a transformers image classifier from a timm backbone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg
from torch import nn
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification
from transformers.utils import logging as transformers_logging

from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileModelError, first_line
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.modeling.head import classes_of
from hf_smile.modeling.layers import freeze_stages as freeze
from hf_smile.modeling.layers import head_parameters
from hf_smile.modeling.origin import base_models
from hf_smile.utils.hub_id import missing_folder
from hf_smile.utils.model_files import DEFAULT_BACKBONE, read_timm_config

_TAKEN = (
    *("architecture", "num_features", "pretrained_cfg", "model_args"),
    *("label_names", "head_hidden_size", "base_models"),  # if the backbone is the result of an earlier run
)
_OF_THE_WEIGHTS = ("tag", "license", "origin_url", "paper_ids", "paper_name", "notes")
"""Fields of `pretrained_cfg` that describe the pretrained weights; left out with random weights."""


def build_model(
    backbone: str = DEFAULT_BACKBONE,
    *,
    pretrained: bool = True,
    image_size: int | None = None,
    crop_pct: float = 1.0,
    head_hidden_size: int | None = None,
    freeze_backbone: bool = False,
    freeze_stages: int | None = None,
    drop_path: float = 0.0,
    labels: LabelSet | Iterable[str] = SMILE_LABELS,
) -> TimmWrapperForImageClassification:
    """Build an image classifier on a timm backbone.

    Args:
        backbone: id of a timm model on the Hub, a local folder in the same layout (`config.json`,
            `model.safetensors`), or a timm name. `model_args` in its `config.json`, which describe how this network
            differs from others of its architecture (padding, heads, size), are kept in the saved model. The backbone
            can also be the result of an earlier run: its head is kept if it has the same `labels` in the same order.
        pretrained: load the weights as float32, whatever their saved precision; otherwise draw random weights from
            torch's generator.
        image_size: side of the input in pixels; the backbone's own if None.
        crop_pct: side of the centre crop for evaluation and prediction, as a share of the image's shorter side.
            Random crops make faces larger in training; a value slightly below 1 compensates for that (Touvron et al.,
            "Fixing the train-test resolution discrepancy", NeurIPS 2019, https://arxiv.org/abs/1906.06423).
        head_hidden_size: units of a hidden dense layer in the head; None for a linear head.
        freeze_backbone: train only the head.
        freeze_stages: freeze the stem and this many stages of the backbone; None freezes nothing.
        drop_path: probability that a training step skips the last residual branch; it grows linearly from the first
            branch (stochastic depth; Huang et al., ECCV 2016, https://arxiv.org/abs/1603.09382). It is not stored in
            the saved model.
        labels: the K classes, in the order of their ids.

    Returns:
        A model that maps `pixel_values (N, 3, H, W)` to `logits (N, K)`. With a linear head it is a plain
        `timm_wrapper` model, which transformers and timm load without this package.

    Raises:
        SmileModelError: there is no such backbone, the Hub can't be reached, weights are missing or do not fit, or
            `model_args` contain an argument that is not known to be harmless.

    >>> model = build_model("resnet18", pretrained=False, image_size=96)
    >>> model.config.pretrained_cfg["input_size"]
    [3, 96, 96]
    >>> build_model("resnet18", pretrained=False, labels=["smile", "NOT smile"]).config.id2label
    {0: 'smile', 1: 'NOT smile'}
    """
    labels = LabelSet.of(labels)
    backbone, config = find_backbone(backbone, pretrained)
    config["base_models"] = base_models(backbone, config) if pretrained else []
    earlier_head = config.pop("label_names", None), config.pop("head_hidden_size", None)
    keep_head = earlier_head == ([*labels], head_hidden_size)
    model_args = config["model_args"]
    pretrained_cfg = _data_settings(backbone, config, image_size, crop_pct)
    if not pretrained:
        pretrained_cfg = {name: value for name, value in pretrained_cfg.items() if name not in _OF_THE_WEIGHTS}
    names = label_settings(labels)
    if not 0 <= drop_path < 1:
        raise SmileModelError(f"drop_path is {drop_path}; it must be at least 0 and below 1")
    build_args = model_args | ({"drop_path_rate": drop_path} if drop_path else {})
    _check_build_args(backbone, config["architecture"], build_args)
    settings = config | {"pretrained_cfg": pretrained_cfg, "model_args": build_args} | names
    if head_hidden_size is not None:
        if head_hidden_size < 1:
            raise SmileModelError(f"head_hidden_size is {head_hidden_size}; it must be at least 1")
        settings["head_hidden_size"] = head_hidden_size
    config_class, model_class = classes_of(head_hidden_size)
    model_config = config_class.from_dict(settings, **names)

    model = _load_weights(model_class, model_config, backbone if pretrained else None, keep_head)
    model.config.model_args = model_args
    if freeze_stages is not None:
        freeze(model, freeze_stages)
    if freeze_backbone:
        model.requires_grad_(False)
        for parameter in head_parameters(model):
            parameter.requires_grad_(True)
    return model


def label_settings(labels: LabelSet) -> dict[str, Any]:
    """The labels as fields of a transformers configuration."""
    label2id = {name: label_id for label_id, name in enumerate(labels)}
    return {"num_labels": len(labels), "id2label": labels.id2label, "label2id": label2id}


def _data_settings(backbone: str, config: dict[str, Any], image_size: int | None, crop_pct: float) -> dict[str, Any]:
    """The backbone's `pretrained_cfg` with the requested size and crop, checked."""
    pretrained_cfg, model_args = dict(config["pretrained_cfg"]), config["model_args"]
    is_flexible = model_args.get("dynamic_img_size") or model_args.get("strict_img_size") is False
    if "img_size" in model_args and not is_flexible:  # as in timm: the size of these weights, not of the original ones
        size = model_args["img_size"]
        sides = size if isinstance(size, list) else [size, size]
        pretrained_cfg |= {"input_size": [3, *sides], "fixed_input_size": True}
    if image_size is not None:
        fixed = pretrained_cfg["input_size"][-1]
        if pretrained_cfg.get("fixed_input_size") and not is_flexible and image_size != fixed:
            raise SmileModelError(f"{backbone} only takes images of {fixed} pixels; set --image_size {fixed}")
        if image_size < 32:
            raise SmileModelError(f"image_size is {image_size}; it must be at least 32 pixels")
        pretrained_cfg["input_size"] = [3, image_size, image_size]
    if not 0.1 <= crop_pct <= 1:
        raise SmileModelError(f"crop_pct is {crop_pct}; it must lie between 0.1 and 1")
    pretrained_cfg |= {"crop_pct": crop_pct, "crop_mode": "center"}
    check_preprocessing(backbone, pretrained_cfg)
    return pretrained_cfg


def check_preprocessing(model: str, pretrained_cfg: dict[str, Any]) -> None:
    """Check that the preprocessing in a model's `config.json` is supported.

    Raises:
        SmileModelError: it is not.
    """
    try:
        Preprocessor(pretrained_cfg)
    except SmileModelError as error:
        raise SmileModelError(f"{model}: config.json: {error}") from None


def _check_build_args(backbone: str, architecture: str, build_args: dict[str, Any]) -> None:
    """Check the network's arguments by building it without weights, before the slow download of the weights."""
    if not build_args:
        return
    try:
        with torch.device("meta"):
            timm.create_model(architecture, **build_args)
    except Exception as error:  # each network raises its own type
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            raise SmileModelError(f"{architecture} has no drop path; leave --drop_path out") from None
        names = ", ".join(build_args)
        raise SmileModelError(f"{backbone}: {architecture} does not take {names}: {first_line(error)}") from None


def parameter_table(model: nn.Module) -> str:
    """Table of each parameter's name, shape, size and whether it is trainable, with totals.

    >>> print(parameter_table(nn.Linear(2, 3)))
    parameter  shape  count  trainable
    weight     3 x 2      6  yes
    bias       3          3  yes
    9 parameters, 9 trainable
    """
    rows = [("parameter", "shape", "count", "trainable")]
    for name, parameter in model.named_parameters():
        shape, trainable = " x ".join(map(str, parameter.shape)), "yes" if parameter.requires_grad else "no"
        rows.append((name, shape, f"{parameter.numel():,}", trainable))
    names, shapes, counts, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{name:<{names}}  {shape:<{shapes}}  {count:>{counts}}  {yes}" for name, shape, count, yes in rows]
    return "\n".join([*lines, parameter_totals(model)])


def parameter_totals(model: nn.Module) -> str:
    """Number of parameters, and of trainable parameters.

    >>> parameter_totals(nn.Linear(2, 3))
    '9 parameters, 9 trainable'
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{total:,} parameters, {trainable:,} trainable"


def find_backbone(backbone: str, pretrained: bool) -> tuple[str, dict[str, Any]]:
    """Find a backbone, without its weights.

    Args:
        backbone: as for `build_model`.
        pretrained: whether its weights will be loaded.

    Returns:
        Its folder or Hub id, or its timm name if `pretrained` is false, and timm's description of it: architecture,
        number of features, `pretrained_cfg`.

    Raises:
        SmileModelError: there is no such backbone, or the Hub can't be reached.

    >>> find_backbone("resnet18", pretrained=False)[1]["num_features"]
    512
    """
    if pretrained and "/" not in backbone and not Path(backbone).is_dir():
        backbone = _hub_id(backbone)
    return backbone, _load_config(backbone, pretrained)


def _load_config(backbone: str, pretrained: bool) -> dict[str, Any]:
    if Path(backbone).is_dir():
        if not (Path(backbone) / "config.json").is_file():
            raise SmileModelError(f"{backbone}: the folder has no config.json; it is not a timm model in Hub layout")
    elif not pretrained:
        return _config_without_weights(backbone.removeprefix("timm/"))
    # A folder timm/ in the working directory, such as a clone of timm, does not turn timm's ids into paths.
    elif not backbone.startswith("timm/") and (message := missing_folder(backbone)):
        raise SmileModelError(message)
    try:
        config = read_timm_config(backbone)
    except SmileModelError as error:
        raise _not_loaded(backbone, error) from None
    check_architecture(backbone, config)
    return {name: config[name] for name in _TAKEN if name in config}


def check_architecture(model: str, config: dict[str, Any]) -> None:
    """Check that timm knows the architecture in a model's `config.json`.

    Raises:
        SmileModelError: it does not.
    """
    if not timm.is_model(config["architecture"]):
        raise SmileModelError(
            f"{model}: config.json names the architecture {config['architecture']!r}, which timm "
            f"{timm.__version__} does not know"
        )


def _config_without_weights(name: str) -> dict[str, Any]:
    pretrained_cfg = _timm_settings(name).to_dict()
    settings = {key: value for key, value in pretrained_cfg.items() if key not in ("hf_hub_id", "url")}
    features = timm.create_model(name, pretrained=False, num_classes=0).num_features
    return {"architecture": name.split(".")[0], "num_features": features, "pretrained_cfg": settings, "model_args": {}}


def _hub_id(name: str) -> str:
    """Hub id of the pretrained weights of a timm name."""
    if not (hub_id := _timm_settings(name).hf_hub_id):
        raise SmileModelError(f"timm has no pretrained weights for {name!r}; add --no_pretrained for random weights")
    return hub_id


def _timm_settings(name: str) -> PretrainedCfg:
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name.split('.')[0][:8]}*")[:3]
        hint = f"; similar: {', '.join(similar)}" if similar else ""
        raise SmileModelError(f"timm has no model {name!r}{hint}")
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def _load_weights(
    model_class: type[TimmWrapperForImageClassification],
    config: TimmWrapperConfig,
    backbone: str | None,
    keep_head: bool,
) -> TimmWrapperForImageClassification:
    """The model with the backbone's weights, or with random weights if `backbone` is None.

    Random weights go through `from_pretrained` too: only then is the model saved with timm's parameter names.
    """
    if backbone is None:
        random = model_class(config).timm_model.state_dict()
        with quiet_transformers():
            return model_class.from_pretrained(None, config=config, state_dict=random, dtype=torch.float32)
    classifiers = getattr(timm.get_pretrained_cfg(config.architecture), "classifier", None) or ()
    heads = [classifiers] if isinstance(classifiers, str) else classifiers
    of_a_head = rf"^(?:timm_model\.)?(?:{'|'.join(map(re.escape, heads))})\."
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                backbone,
                config=config,
                dtype=torch.float32,  # "auto" would train in the precision of the file
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                # A head for the same number of other labels would fit; hide it, so that a new head is drawn.
                key_mapping=None if keep_head else {of_a_head: "other_labels."},
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded(backbone, error) from None
    except Exception as error:  # safetensors raises its own type for broken files
        raise SmileModelError(f"{backbone}: the weights can't be read: {error}") from None
    replaced = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    if wrong := sorted(name for name in replaced if not re.match(of_a_head, name)):
        raise SmileModelError(
            f"{backbone}: {len(wrong)} weights are missing or do not fit the architecture {config.architecture}; "
            f"the first is {wrong[0].removeprefix('timm_model.')}"
        )
    if broken := [name for name, value in model.named_parameters() if not value.isfinite().all()]:
        raise SmileModelError(f"{backbone}: {broken[0].removeprefix('timm_model.')} contains NaN or infinity")
    return model


def _not_loaded(backbone: str, error: Exception) -> SmileModelError:
    reason = first_line(error)
    if Path(backbone).is_dir():
        return SmileModelError(reason if reason.startswith(backbone) else f"{backbone}: {reason}")
    return SmileModelError(
        f"the backbone {backbone} could not be fetched from the Hugging Face Hub: {reason}\n"
        "Use a local copy (--backbone FOLDER with config.json and model.safetensors), "
        "or random weights (--no_pretrained)."
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the warning about a new head, and the progress bar of a load that takes milliseconds."""
    verbosity = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
