"""Which models the weights of a network come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm


def base_models(backbone: str, config: dict[str, Any]) -> list[str]:
    """The models that a backbone's weights went through, the latest first.

    The result of a run is named by its folder or id, and followed by what that run began with. Folders are named
    without the folders above them: names are published.

    Args:
        backbone: folder, id on the Hub or timm name.
        config: its `config.json`, as an object.

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
    """Whether it can stand in a card: another's config.json may hold anything."""
    return isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable() and "`" not in name


def pretrained_hub_id(config: dict[str, Any]) -> str | None:
    """The model of timm's on the Hub whose weights a network began with; None for random weights, and for others'.

    Args:
        config: `config.json` of a backbone or of a saved model, as an object.

    >>> pretrained_hub_id({"architecture": "resnet18", "pretrained_cfg": {"tag": "a1_in1k"}})
    'timm/resnet18.a1_in1k'
    """
    tag = config.get("pretrained_cfg", {}).get("tag")
    if not tag:
        return None
    try:
        registered = timm.get_pretrained_cfg(f"{config.get('architecture')}.{tag}", allow_unregistered=False)
    except RuntimeError:  # a name or a tag that is not timm's
        return None
    return registered.hf_hub_id if registered else None
