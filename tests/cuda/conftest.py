"""Tests that need a GPU: each is skipped, with the reason, where torch sees none."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def card() -> str:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here; with one, these run by `make test-cuda`")
    return torch.cuda.get_device_name()
