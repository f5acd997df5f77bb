"""The device "standin": the CPU under another name, for tests of code that runs on a GPU.

It stands in for CUDA where devices meet: a tensor of it is no numpy array, and no operation takes
it together with a tensor of the CPU. It says nothing of CUDA's kernels, speed or memory.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from edgevit.kernels.native import load_library

SOURCE = Path(__file__).with_name("device.cpp")
NAME = "standin"


@cache
def standin() -> torch.device:
    """The device, set up in this process; the first time on a machine it is compiled."""
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    vars(module).update(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,
    )
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    load_library(NAME, SOURCE, ["-std=c++20", "-O1"])
    return torch.device(NAME, 0)


class StandInGraph:
    """What `edgevit.quantize.step.CudaGraph` is for CUDA."""

    def record(self, function: Callable[[], Any]) -> Any:
        torch.ops.standin.begin_recording()
        try:
            result = function()
        except BaseException:
            torch.ops.standin.abandon_recording()
            raise
        self._tape = torch.ops.standin.end_recording()
        return result

    def replay(self) -> None:
        torch.ops.standin.replay(self._tape)


def copies(direction: str) -> int:
    """How often the "host" or the "device" was copied to from the other one so far."""
    return torch.ops.standin.copies(direction)
