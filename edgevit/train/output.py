"""What a training leaves: a folder that timm and edgevit read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from edgevit.data.images import Preprocessing
from edgevit.files import atomic_path, write_tree
from edgevit.models.repvit import RepViTConfig
from edgevit.runs.folder import CURVES

WEIGHTS, CONFIG, REPORT = "model.safetensors", "config.json", "training.json"
FILES = (WEIGHTS, CONFIG, REPORT, CURVES)


def write_output(
    folder: str | os.PathLike[str],
    net: nn.Module,
    config: RepViTConfig,
    rules: Preprocessing,
    labels: list[str],
    report: dict[str, Any],
    curves: bytes,
    force: bool,
) -> None:
    """Write the weights, timm's config.json of them, and the training's report and curves.

    The folder appears whole or not at all. Raises InputError when it may not be written.
    """
    state = {n: t.detach().cpu().contiguous() for n, t in net.state_dict().items()}
    files = {
        WEIGHTS: save(state),
        CONFIG: _text(_timm_config(config, rules, labels)),
        REPORT: _text(report),
        CURVES: curves,
    }
    with atomic_path(Path(folder), force, listing=lambda _: FILES) as temporary:
        write_tree(temporary, files)


def _crop_share(rules: Preprocessing) -> float:
    """timm's crop_pct: the crop's side as a share of the resized picture's shorter one."""
    resized = rules.resize_size
    return min(rules.height, rules.width) / resized if isinstance(resized, int) else 1.0


def _timm_config(config: RepViTConfig, rules: Preprocessing, labels: list[str]) -> dict[str, Any]:
    return {
        "architecture": config.variant,
        "num_classes": len(labels),
        "pretrained_cfg": {
            "input_size": [len(rules.mean), rules.height, rules.width],
            "interpolation": rules.interpolation,
            "crop_pct": _crop_share(rules),
            "crop_mode": "center",
            "mean": list(rules.mean),
            "std": list(rules.std),
            "num_classes": len(labels),
            "label_names": labels,
        },
    }


def _text(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
