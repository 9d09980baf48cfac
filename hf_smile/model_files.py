"""The files of a model, in a folder or on the Hub, and `config.json`, read with suspicion. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hf_smile.errors import SmileModelError, first_line
from hf_smile.hub_id import missing_folder
from hf_smile.labels import LABEL_NAMES

MAX_CONFIG_BYTES = 1_000_000

_OWN_CODE = ("auto_map", "custom_pipelines")


def model_file(model: str | Path, name: str, mend: str = "give the output folder of scripts/train.py") -> Path:
    """A file of a model's folder, or of a model on the Hub, fetched.

    Args:
        model: folder or id on the Hub.
        name: path of the file in there.
        mend: what to do where a folder does not hold it.

    Raises:
        SmileModelError: there is no such folder or file, or the Hub can't be reached.

    >>> model_file("outputs/model", "config.json")  # doctest: +SKIP
    PosixPath('outputs/model/config.json')
    """
    if str(model) and Path(model).is_dir():
        if not Path(model, name).is_file():
            raise SmileModelError(f"{model}: the folder holds no {name}; {mend}")
        return Path(model, name)
    if message := missing_folder(str(model)):
        raise SmileModelError(message)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(model), name))
    except (OSError, ValueError) as error:
        raise SmileModelError(f"{name} of {model} could not be fetched from the Hub: {first_line(error)}") from None


def read_config(model: str | Path) -> dict[str, Any]:
    """`config.json` of a model that `scripts/train.py` made: `architecture`, `pretrained_cfg`, `label_names` and more.

    Nothing in it is ever run: a model that brings code of its own, or arguments for timm, is refused.

    Raises:
        SmileModelError: there is none, it is no JSON object, or it describes another kind of model.

    >>> read_config("outputs/model")["label_names"]  # doctest: +SKIP
    ['negative smile', 'positive smile', 'NOT smile']
    """
    path = model_file(model, "config.json")
    where = f"{model}: config.json"
    if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
        raise SmileModelError(f"{where} has {size:,} bytes, more than the limit of {MAX_CONFIG_BYTES:,}; take another")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SmileModelError(f"{where} is not JSON in UTF-8 ({first_line(error)}); take it anew") from None
    if not isinstance(config, dict):
        raise SmileModelError(f"{where} must hold an object, not a {type(config).__name__}; take it anew")
    if brought := [name for name in _OWN_CODE if config.get(name)]:
        raise SmileModelError(f"{where} asks to run Python code of its own ({brought[0]}), which is never done")
    if not isinstance(config.get("architecture"), str) or not isinstance(config.get("pretrained_cfg"), dict):
        raise SmileModelError(
            f"{where} does not describe a model of scripts/train.py: no architecture or pretrained_cfg of timm's"
        )
    if config.get("model_args"):
        raise SmileModelError(f"{where} has model_args, which no model of scripts/train.py has; empty them")
    labels = config.get("label_names")
    if labels != list(LABEL_NAMES):
        raise SmileModelError(
            f"{where} is of no model of scripts/train.py: its label_names are {_short(labels)} "
            f"instead of {', '.join(LABEL_NAMES)}, in this order"
        )
    return config


def _short(value: object, length: int = 100) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
