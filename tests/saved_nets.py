"""A small trained-looking net, saved in any way, and what loading a bad file says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgevit.errors import InputError
from edgevit.models.checkpoint import load
from edgevit.models.repvit import RepViT
from tests.random_nets import random_images, random_net

NET = random_net(num_classes=7)
STATE = NET.state_dict()
A_TENSOR = "stages.2.blocks.3.token_mixer.conv.c.weight"


def saved(folder: Path, value: object, name: str = "net.pth") -> Path:
    path = folder / name
    if name.endswith(".safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in value.items()}, path)
    else:
        torch.save(value, path)
    return path


@torch.no_grad()
def same_logits(model: RepViT, bound: float = 1e-6) -> bool:
    images = random_images()
    return (model(images) - NET(images)).abs().max() <= bound


def refusal(path: Path, **options) -> str:
    """The message of the InputError that loading ends with; nothing may have been written."""
    before = sorted(os.listdir(path.parent))
    with pytest.raises(InputError) as caught:
        load(path, **options)
    assert sorted(os.listdir(path.parent)) == before
    message = str(caught.value)
    assert str(path) in message or options
    return message
