"""The models that a network's weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm


def base_models(backbone: str, config: dict[str, Any]) -> list[str]:
    """The models that a backbone's weights were trained as, the latest first.

    The result of a run is listed by its folder or id, followed by the models that run started from. For a folder only
    its own name is given, without its path, because these names are published.

    Args:
        backbone: folder, Hub id or timm name.
        config: its parsed `config.json`.

    >>> resnet = {"architecture": "resnet18", "pretrained_cfg": {"tag": "a1_in1k"}}
    >>> base_models("resnet18", resnet)
    ['timm/resnet18.a1_in1k']
    >>> base_models("me/smile", resnet | {"label_names": ["smile", "NOT smile"]})
    ['me/smile', 'timm/resnet18.a1_in1k']
    """
    name = Path(backbone).resolve().name if Path(backbone).is_dir() else backbone
    hub_id = pretrained_hub_id(config)
    if not config.get("label_names"):
        return [name if "/" in name else hub_id or name]
    earlier = config.get("base_models", [hub_id])
    return [name, *filter(_is_name, earlier if isinstance(earlier, list) else [])]


def _is_name(name: object) -> bool:
    """Whether a name is safe in a model card: a foreign config.json may contain anything."""
    return isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable() and "`" not in name


def pretrained_hub_id(config: dict[str, Any]) -> str | None:
    """Hub id of the timm model that a network's weights started from; None for random or other weights.

    Args:
        config: parsed `config.json` of a backbone or saved model.

    >>> pretrained_hub_id({"architecture": "resnet18", "pretrained_cfg": {"tag": "a1_in1k"}})
    'timm/resnet18.a1_in1k'
    """
    tag = config.get("pretrained_cfg", {}).get("tag")
    if not tag:
        return None
    try:
        registered = timm.get_pretrained_cfg(f"{config.get('architecture')}.{tag}", allow_unregistered=False)
    except RuntimeError:  # a name or tag that timm does not know
        return None
    return registered.hf_hub_id if registered else None
