"""Fake quantization with learned scales, as a differentiable torch function.

Forward: y = (clamp(round(x / s) + z, quant_min, quant_max) - z) * s, with x / s computed as
x * float32(1 / s), so that it equals torch's quantize_per_tensor bit for bit. Backward:
straight-through inside the range, none outside; the scale's gradient is LSQ's (arXiv 1902.08153),
the zero-point's LSQ+'s (arXiv 2004.09576).

On the CPU a compiled kernel runs it (fake_quantize.cpp beside this file, built once by torch's
extension loader); without a compiler, and on other devices, the torch version below does the same.
"""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgevit.quantize.native import load_library

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
