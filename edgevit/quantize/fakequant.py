"""Fake quantization with learned scales, as a differentiable torch function.

Forward: y = (clamp(round(x / s) + z, quant_min, quant_max) - z) * s, with x / s computed as
x * float32(1 / s), so that it equals torch's quantize_per_tensor bit for bit. Backward:
straight-through inside the range, none outside; the scale's gradient is LSQ's (arXiv 1902.08153),
the zero-point's LSQ+'s (arXiv 2004.09576).

On the CPU a compiled kernel runs it (fake_quantize.cpp beside this file, built once by torch's
extension loader), on CUDA Triton's (triton_kernels.py); without a compiler, without Triton, and on
other devices, the torch version below does the same.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgevit.kernels.native import load_library
from edgevit.ops import INT8_MAX, INT8_MIN

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("fake_quantize.cpp")
FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    in_place: bool = False,
) -> Tensor:
    """Quantize and dequantize `x`.

    `scale` is float32 (1,) for a tensor or (C,) for the leading axis of `x`; `zero_point` is
    float32 (1,), rounded to an integer in the forward. `in_place` allows the result to take the
    place of `x`, for a tensor that nothing else needs, the backward of what made it included.
    """
    if x.device.type == "cpu" and compiled_kernel():
        ops = torch.ops.edgevit
        kernel = ops.fake_quantize_ if in_place else ops.fake_quantize
        return kernel(x, scale, zero_point, quant_min, quant_max)
    return _TorchFakeQuantize.apply(x, scale, zero_point, quant_min, quant_max)


def fake_quantize_gelu(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    out_scale: Tensor,
    out_zero_point: Tensor,
    quant_min: int,
    quant_max: int,
) -> Tensor:
    """GELU between two quantizers of one scale each, x's and the result's.

    The result may take the place of `x`.
    """
    if x.device.type == "cpu" and compiled_kernel():
        kernel = torch.ops.edgevit.fake_quantize_gelu_
        return kernel(x, scale, zero_point, out_scale, out_zero_point, quant_min, quant_max)
    inner = F.gelu(fake_quantize(x, scale, zero_point, quant_min, quant_max))
    return fake_quantize(inner, out_scale, out_zero_point, quant_min, quant_max, in_place=True)


class Activations:
    """The activation quantizers of one forward pass, by their places in the vectors of scales."""

    def __init__(self, scale: Tensor, zero_point: Tensor) -> None:
        """float32 (A,) each; the gradients of these are all that a training needs."""
        self.scales, self.zero_points = scale.split(1), zero_point.split(1)

    def quantize(self, x: Tensor, index: int, in_place: bool = False) -> Tensor:
        """See `fake_quantize`; int8's whole range."""
        grid = self.scales[index], self.zero_points[index]
        return fake_quantize(x, *grid, INT8_MIN, INT8_MAX, in_place)

    def quantize_gelu(self, x: Tensor, before: int, after: int) -> Tensor:
        """See `fake_quantize_gelu`; int8's whole range."""
        grids = self.scales[before], self.zero_points[before]
        grids += self.scales[after], self.zero_points[after]
        return fake_quantize_gelu(x, *grids, INT8_MIN, INT8_MAX)


def triton_kernels(device: torch.device) -> ModuleType | None:
    """The kernels for a device; None where another version runs."""
    return _triton_kernels() if device.type == "cuda" else None


@functools.cache
def _triton_kernels() -> ModuleType | None:
    """None, with a warning, without Triton; EDGEVIT_NO_KERNEL=1 forces the torch version."""
    if os.environ.get("EDGEVIT_NO_KERNEL") == "1":
        return None
    try:
        return importlib.import_module("edgevit.quantize.triton_kernels")
    except ImportError as error:
        log.warning(
            "Triton, which comes with torch for CUDA, is not here (%s): training goes on several "
            "times slower with torch operations",
            error,
        )
        return None


@functools.cache
def compiled_kernel() -> bool:
    """Build (once a machine) and load the CPU kernel; False, with a warning, when that fails.

    EDGEVIT_NO_KERNEL=1 forces the torch version.
    """
    if os.environ.get("EDGEVIT_NO_KERNEL") == "1":
        return False
    try:
        load_library("fake_quantize", SOURCE, FLAGS)
    except (OSError, RuntimeError) as error:
        log.warning(
            "the fast fake-quantize kernel could not be built, training goes on several times "
            "slower with torch operations; a C++20 compiler is needed (apt-get install g++): %s",
            str(error).strip().splitlines()[0],
        )
        return False
    return True


class _TorchFakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, quant_min: int, quant_max: int
    ) -> Tensor:
        shape = (-1,) + (1,) * (x.dim() - 1) if scale.numel() > 1 else (1,)
        step = scale.view(shape)
        low = quant_min - torch.round(zero_point)
        high = quant_max - torch.round(zero_point)
        inverse = (1.0 / step.double()).to(torch.float32)
        position = x * inverse
        rounded = torch.round(position)
        code = torch.clamp(rounded, low, high)
        # Inside the range the scale's gradient is the rounding residual, outside the clipped code.
        inside = rounded == code
        ctx.save_for_backward(inside, torch.where(inside, rounded - position, code), scale)
        return code * step

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        inside, slope, scale = ctx.saved_tensors
        per_tensor = scale.numel() == 1
        axes = tuple(range(0 if per_tensor else 1, grad.dim()))
        grad_scale = (grad * slope).sum(axes).view_as(scale)
        clipped = (grad * ~inside).sum(axes).view_as(scale)
        return grad * inside, grad_scale, -(clipped * scale).sum().view(1), None, None
