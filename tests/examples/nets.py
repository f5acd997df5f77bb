"""A RepViT that trains and quantizes in seconds, as a checkpoint; options that make a run tiny."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgevit.repvit import RepViT, RepViTConfig

TINY = [
    "--size", "64", "--frozen-steps", "2", "--steps", "2", "--scenes", "40", "--epochs", "0.5",
    "--eval-scenes", "10", "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = RepViT(RepViTConfig("repvit", (8, 16, 24, 32), (1, 1, 1, 1), num_classes=4))
    path = tmp_path_factory.mktemp("body") / "tiny.pth"
    torch.save(net.state_dict(), path)
    return path
