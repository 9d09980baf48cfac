"""The files of a model, in a folder or on the Hub. `config.json` is validated. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from hf_smile.errors import SmileModelError, first_line
from hf_smile.labels import LabelSet
from hf_smile.utils.hub_id import missing_folder

DEFAULT_BACKBONE = "timm/resnet50.a1_in1k"
MAX_CONFIG_BYTES = 1_000_000


class HubOptions(TypedDict, total=False):
    """Keyword arguments of `huggingface_hub.hf_hub_download`."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None


WEIGHTS_FIX = "other formats, such as pickle, are not supported"
"""Hint for a missing `model.safetensors`."""

_OWN_CODE = ("auto_map", "custom_pipelines")
_HIGHEST = {  # limits of integer arguments; some take one integer per stage or side
    64: ("patch_size", "reg_tokens"),
    128: ("depth", "depths", "layers"),
    256: ("cardinality", "num_heads", "window_size"),
    1024: ("base_width", "stem_size", "stem_width"),
    2048: ("img_size",),
    8192: ("dims", "embed_dim", "embed_dims"),
    16384: ("num_features",),
}
_WHOLE_NUMBERS = {name: highest for highest, names in _HIGHEST.items() for name in names}
_NUMBERS = {"init_values", "layer_scale_init_value", "ls_init_value", "mlp_ratio", "norm_eps"}
_SWITCHES = {
    *("avg_down", "class_token", "conv_mlp", "fix_stem", "no_embed_class", "se_from_exp", "use_grn"),
    *("fc_norm", "final_norm", "head_norm", "head_norm_first", "pre_norm", "qk_norm"),
    *("head_bias", "proj_bias", "qkv_bias"),
    *("dynamic_img_pad", "dynamic_img_size", "strict_img_size"),
}
_NAMES = {"aa_layer", "act_layer", "global_pool", "norm_layer", "pad_type", "pos_embed", "stem_type"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")  # a name in one of timm's registries; timm rejects all others


def model_file(
    model: str | Path, name: str, fix: str = "give the output folder of hf-smile train", **hub: Unpack[HubOptions]
) -> Path:
    """The local path of a model's file, which is downloaded if the model is on the Hub.

    Args:
        model: folder or Hub id.
        name: path of the file inside the model.
        fix: hint for the error message if the folder does not have the file.
        hub: options for a model on the Hub.

    Raises:
        SmileModelError: if there is no such folder or file, or the Hub can't be reached.

    >>> model_file("outputs/model", "config.json")  # doctest: +SKIP
    PosixPath('outputs/model/config.json')
    """
    if str(model) and Path(model).is_dir():
        if not Path(model, name).is_file():
            seeds = sorted(path.parent.as_posix() for path in Path(model).glob("[0-9]*/config.json"))
            if name == "config.json" and seeds:
                fix = f"it contains one model per seed; name one of them, for example {seeds[0]}"
            raise SmileModelError(f"{model}: the folder has no {name}; {fix}")
        return Path(model, name)
    if message := missing_folder(str(model)):
        raise SmileModelError(message)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(model), name, **hub))
    except (OSError, ValueError) as error:
        raise SmileModelError(f"{name} of {model} could not be downloaded from the Hub: {first_line(error)}") from None


def file_sizes(model: str, names: Sequence[str]) -> dict[str, int | None]:
    """The sizes in bytes of a model's files, in a folder or on the Hub, by name; None for a missing file.

    Raises:
        SmileModelError: if the Hub can't be reached.
    """
    if Path(model).is_dir():
        files = [Path(model, name) for name in names]
        return {name: file.stat().st_size if file.is_file() else None for name, file in zip(names, files, strict=True)}
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        sizes = {file.path: file.size for file in HfApi().get_paths_info(model, list(names)) if hasattr(file, "size")}
    except (OSError, HTTPError) as error:
        raise SmileModelError(f"the files of {model} could not be listed on the Hub: {first_line(error)}") from None
    return {name: sizes.get(name) for name in names}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal. Reads the file in chunks.

    >>> file_sha256(Path("outputs/model/model.safetensors"))  # doctest: +SKIP
    '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(model: str | Path, **hub: Unpack[HubOptions]) -> dict[str, Any]:
    """Read `config.json` of a model trained by `hf-smile train`: `architecture`, `pretrained_cfg`, `label_names`, ...

    Nothing in it is ever executed: a model with custom code is refused.

    Raises:
        SmileModelError: if the file is missing, is not a JSON object, or describes another kind of model.

    >>> read_config("outputs/model")["label_names"]  # doctest: +SKIP
    ['negative smile', 'positive smile', 'NOT smile']
    """
    config = read_timm_config(model, **hub)
    where = f"{model}: config.json"
    labels = config.get("label_names")
    try:
        LabelSet.of(labels if isinstance(labels, list) else ())
    except (ValueError, TypeError) as error:
        raise SmileModelError(
            f"{where} is not from a model trained by hf-smile train: its label_names are {labels!r:.100}: {error}"
        ) from None
    return config


def read_timm_config(model: str | Path, **hub: Unpack[HubOptions]) -> dict[str, Any]:
    """Read `config.json` of any timm model in Hub layout: `architecture`, `pretrained_cfg` (not validated), ...

    Returns:
        The JSON object. Its `model_args`, from which timm builds the network, are validated and only describe the
        network's shape. `num_classes` and `in_chans` are left out, as they follow from the labels and the images.
        `img_size` is included if the network accepts one image size only.

    Raises:
        SmileModelError: if the file is missing, is not a JSON object, contains custom code, does not describe a timm
            model, or has `model_args` that could do more than describe a network.
    """
    path = model_file(model, "config.json", **hub)
    where = f"{model}: config.json"
    if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
        raise SmileModelError(f"{where} has {size:,} bytes, over the limit of {MAX_CONFIG_BYTES:,}; use another model")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SmileModelError(f"{where} is not JSON in UTF-8 ({first_line(error)}); download it again") from None
    if not isinstance(config, dict):
        raise SmileModelError(f"{where} must be a JSON object, not a {type(config).__name__}; download it again")
    if brought := [name for name in _OWN_CODE if config.get(name)]:
        raise SmileModelError(f"{where} asks to run custom Python code ({brought[0]}), which is not allowed")
    if not isinstance(config.get("architecture"), str) or not isinstance(config.get("pretrained_cfg"), dict):
        raise SmileModelError(f"{where} does not describe a timm model: it has no architecture or no pretrained_cfg")
    return config | {"model_args": _checked_model_args(_sized(config), where)}


def _sized(config: dict[str, Any]) -> Any:
    """`model_args`, with `img_size` for a fixed-size network: timm reads it from `input_size`, transformers doesn't."""
    model_args, size = config.get("model_args") or {}, config["pretrained_cfg"].get("input_size")
    if config["pretrained_cfg"].get("fixed_input_size") and isinstance(model_args, dict) and isinstance(size, list):
        return {"img_size": size[1:]} | model_args
    return model_args


def _checked_model_args(model_args: object, where: str) -> dict[str, Any]:
    if not isinstance(model_args, dict):
        raise SmileModelError(f"{where}: model_args must be an object, not a {type(model_args).__name__}")
    kept = {name: value for name, value in model_args.items() if value is not None and name != "num_classes"}
    if (channels := kept.pop("in_chans", 3)) != 3:
        raise SmileModelError(f"{where}: model_args has in_chans {channels!r:.100}; images have 3 channels")
    for name, value in kept.items():
        if needed := _wrong_model_arg(name, value):
            raise SmileModelError(f"{where}: model_args has {name} = {value!r:.100}; {needed}")
    return kept


def _wrong_model_arg(name: str, value: object) -> str | None:
    """What a timm argument must be; None if the value is valid. Paths, imports and training settings are refused."""
    values = value if isinstance(value, list) and 0 < len(value) <= 8 else [value]
    if name in _WHOLE_NUMBERS:
        if all(type(item) is int and 0 <= item <= _WHOLE_NUMBERS[name] for item in values):
            return None
        return f"it must be a whole number from 0 to {_WHOLE_NUMBERS[name]}, or a list of up to 8"
    if name in _NUMBERS:
        return None if type(value) in (int, float) and math.isfinite(value) else "it must be a number"  # type: ignore
    if name in _SWITCHES:
        return None if type(value) is bool else "it must be true or false"
    if name in _NAMES:
        return None if isinstance(value, str) and _NAME.fullmatch(value) else "it must be a plain name"
    return f"{name} is not among the arguments that only describe a network; choose another model"
