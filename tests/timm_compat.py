"""Imports timm beside a CPU build of torch.

timm imports torchvision, whose only published build is CUDA's: under CPU torch it dies at import
with "operator torchvision::nms does not exist". Defining the operators that it names at import is
enough, since nothing here calls them.
"""

from __future__ import annotations

import pytest
import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def import_timm():
    """The timm module; skips the test when it is not installed."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("timm", reason="timm, the reference, is not installed")
