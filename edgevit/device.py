"""The device that nets run on: what was asked for, what is here, and how it is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from edgevit.choices import Precision
from edgevit.errors import InputError


def chosen_device(asked: str) -> torch.device:
    """The device of an option: "auto" is CUDA where torch sees it, else the CPU.

    With torchrun each process takes the GPU of its LOCAL_RANK. Raises InputError for a device
    that is not here.
    """
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(asked)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise InputError("--device cuda: torch sees no CUDA device here; use --device cpu")
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if index >= count:
        raise InputError(
            f"--device cuda: GPU {index} is asked for and torch sees {count} here; start as many "
            f"processes as there are GPUs (torchrun --nproc-per-node {count})"
        )
    # cuBLAS repeats its sums in one order only with a workspace of fixed size, and reads this once.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", index)


def device_text(device: torch.device) -> str:
    """A device for people: "cuda:0 (NVIDIA H100 80GB HBM3)", "cpu"."""
    if device.type != "cuda":
        return device.type
    return f"{device} ({torch.cuda.get_device_name(device)})"


@contextmanager
def at_precision(asked: Precision, device: torch.device) -> Iterator[None]:
    """Matrix products and convolutions on CUDA at this precision, for the length of a block.

    torch's own default is float32 for the one and TF32 for the other. Afterwards it is set as it
    was before.
    """
    if device.type != "cuda":
        yield
        return
    convolution = getattr(torch.backends.cudnn, "conv")  # noqa: B009  (torch's stubs lack it)
    before = torch.get_float32_matmul_precision(), convolution.fp32_precision
    torch.set_float32_matmul_precision("high" if asked == "tf32" else "highest")
    convolution.fp32_precision = "tf32" if asked == "tf32" else "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        convolution.fp32_precision = before[1]
