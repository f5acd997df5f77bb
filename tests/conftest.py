"""Settings for every test, and the embedded images and checkpoint as fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = ROOT / "calibration" / "eurosat"


def pytest_configure(config: pytest.Config) -> None:
    # What the ordinary tests prove, they prove of the CPU, on a machine with a GPU as well.
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    import torch

    # Threads of several test processes on two cores only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def embedded_val() -> Path:
    """1,000 labelled EuroSAT images, 100 a class."""
    return EMBEDDED / "val.tar"


@pytest.fixture(scope="session")
def embedded_train() -> Path:
    """1,600 labelled EuroSAT images, 160 a class."""
    return EMBEDDED / "train.tar"


@pytest.fixture(scope="session")
def embedded_checkpoint() -> Path:
    """A RepViT-M0.9 trained on EuroSAT at 64 px, fp16 safetensors, two heads."""
    return EMBEDDED / "repvit_m0_9_eurosat64.safetensors"
