"""The files of a model, in a folder or on the Hub, and `config.json`, read with suspicion. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hf_smile.errors import SmileModelError, first_line
from hf_smile.hub_id import missing_folder
from hf_smile.labels import LABEL_NAMES

MAX_CONFIG_BYTES = 1_000_000
WEIGHTS_MEND = "other formats, pickle among them, are never read"
"""What to say where there is no `model.safetensors`."""

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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read piece by piece.

    >>> file_sha256(Path("outputs/model/model.safetensors"))  # doctest: +SKIP
    '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_config(model: str | Path) -> dict[str, Any]:
    """`config.json` of a model that `scripts/train.py` made: `architecture`, `pretrained_cfg`, `label_names` and more.

    Nothing in it is ever run: a model that brings code of its own, or arguments for timm, is refused.

    Raises:
        SmileModelError: there is none, it is no JSON object, or it describes another kind of model.

    >>> read_config("outputs/model")["label_names"]  # doctest: +SKIP
    ['negative smile', 'positive smile', 'NOT smile']
    """
    config = read_timm_config(model)
    where = f"{model}: config.json"
    if config.get("model_args"):
        raise SmileModelError(f"{where} has model_args, which no model of scripts/train.py has; empty them")
    labels = config.get("label_names")
    if labels != list(LABEL_NAMES):
        raise SmileModelError(
            f"{where} is of no model of scripts/train.py: its label_names are {_short(labels)} "
            f"instead of {', '.join(LABEL_NAMES)}, in this order"
        )
    return config


def read_timm_config(model: str | Path) -> dict[str, Any]:
    """`config.json` of any timm model in the Hub's layout: `architecture` and `pretrained_cfg`, unchecked, and more.

    Raises:
        SmileModelError: there is none, it is no JSON object, it brings code of its own, or is of no timm model.
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
        raise SmileModelError(f"{where} does not describe a timm model: no architecture, or no pretrained_cfg")
    return config


def _short(value: object, length: int = 100) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
