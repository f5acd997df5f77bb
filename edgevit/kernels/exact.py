"""What integer steps are built of: sums of int8 products, windows, tables, requantization.

int8 tensors are q, zero-point included: (N, C, H, W), channels last in memory, or (N, C). Sums are
exact integers; every float operation is one float32 operation of one element. So a result is the
same for every batch size, thread count, CPU and GPU, and equal to `Node.exact`.

`TorchKernels` has each by torch operations, for every device; `CompiledKernels` has most of them as
one pass over the data, for the CPU.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgevit.kernels.bounds import EXACT_FLOAT32, EXACT_INT32
from edgevit.kernels.build import library

SOURCE = Path(__file__).with_name("exact.cpp")
INT8_MIN, INT8_MAX = -128, 127
_GPU_SIDES = (8, 32)
"""cuBLAS multiplies int8 matrices of sides that are multiples of 8, and of over 16 rows."""

Step = Callable[..., Tensor]
PairStep = Callable[[Tensor, Tensor], Tensor | None]
"""Of two int8 tensors; None for shapes that it does not know."""


@dataclass(frozen=True)
class Requantizer:
    """float32(sum + bias) * scale, rounded half to even, between the bounds, plus the zero-point.

    bias        int64 [O]
    scale       float32 [O]
    low, high   least and largest result, less the zero-point
    """

    bias: np.ndarray
    scale: np.ndarray
    low: int
    high: int
    zero_point: int


@dataclass(frozen=True)
class Window:
    """A kernel that slides over height and width; each pair is (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result."""
        y, x = (
            (size + 2 * pad - step * (side - 1) - 1) // stride + 1
            for size, pad, step, side, stride in zip(
                (height, width), self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return y, x

    @property
    def is_point(self) -> bool:
        """Whether each output position reads the input at its own position alone."""
        return self.kernel == self.stride == (1, 1) and self.padding == (0, 0)


def rows_of(x: Tensor) -> Tensor:
    """(N, C, H, W) or (N, C) as (N, H, W, C) or (N, C), contiguous; no copy of a channels-last."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).contiguous()


def maps_of(rows: Tensor, images: int, height: int, width: int) -> Tensor:
    """(N·H·W, C) as (N, C, H, W), channels last in memory."""
    return rows.view(images, height, width, -1).permute(0, 3, 1, 2)


class TorchKernels:
    """Integer steps by torch operations, on one device."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._multiple, self._least_rows = _GPU_SIDES if self.device.type == "cuda" else (1, 0)

    def tensor(self, values: np.ndarray) -> Tensor:
        """The values on this device."""
        return torch.from_numpy(np.array(values, order="C")).to(self.device)

    def products(self, weight: np.ndarray) -> Step:
        """int8 (M, K) to the exact sums of its products with int8 `weight` (O, K): int32 (M, O).

        Sums must be below 2**31 in magnitude. They are integer sums where the device has
        instructions for them that do not saturate (`_integers_are_exact` asks, by the layer's own
        extremes); else float32 ones where all partial sums are below 2**24; else float64 ones.
        """
        channels, depth = weight.shape
        more = -depth % self._multiple
        w = F.pad(self.tensor(weight).t(), (0, -channels % self._multiple, 0, more)).contiguous()

        def by_integers(x: Tensor) -> Tensor:
            count = len(x)
            rows = max(0, self._least_rows - count)
            padded = F.pad(x, (0, more, 0, rows)) if more or rows else x
            sums = _int_mm(padded, w)
            return sums if sums.shape == (count, channels) else sums[:count, :channels].contiguous()

        if multiplies_int8(self.device) and _integers_are_exact(by_integers, weight, self.device):
            return by_integers
        bound = int(np.abs(weight.astype(np.int64)).sum(1).max()) * -INT8_MIN
        # On a GPU float32 may be TF32, by a setting that is the user's.
        is_small = bound < EXACT_FLOAT32 and self.device.type == "cpu"
        kind = torch.float32 if is_small else torch.float64
        real = self.tensor(weight).t().to(kind)
        return lambda x: torch.mm(x.to(kind), real).to(torch.int32)

    def requantized(self, to: Requantizer) -> Step:
        """int32 sums (…, O) to int8 of the same shape."""
        bias, scale = self.tensor(to.bias.astype(np.int32)), self.tensor(to.scale)

        def step(sums: Tensor) -> Tensor:
            real = (sums + bias).float().mul_(scale).round_().clamp_(to.low, to.high)
            return real.add_(to.zero_point).to(torch.int8)

        return step

    def depthwise(
        self, weight: np.ndarray, window: Window, zero_point: int, to: Requantizer
    ) -> Step:
        """A depthwise convolution by int8 `weight` (C, height, width), requantized."""
        taps = self.tensor(np.moveaxis(weight, 0, -1).astype(np.int32))
        finish = self.requantized(to)

        def step(x: Tensor) -> Tensor:
            padded = self._padded(rows_of(x).to(torch.int32).sub_(zero_point), window, 0)
            views = _views(padded, window, window.output(*x.shape[2:]))
            sums = sum(view * taps[y, x] for (y, x), view in views)
            return finish(sums).permute(0, 3, 1, 2)

        return step

    def columns(self, window: Window, zero_point: int) -> Step:
        """int8 maps to rows of what the kernel covers: (N·H'·W', height · width · C)."""

        def step(x: Tensor) -> Tensor:
            padded = self._padded(rows_of(x), window, zero_point)
            views = _views(padded, window, window.output(*x.shape[2:]))
            return torch.stack([view for _, view in views], 3).flatten(0, 2).flatten(1)

        return step

    def _padded(self, rows: Tensor, window: Window, value: int) -> Tensor:
        (y, x) = window.padding
        return F.pad(rows, (0, 0, x, x, y, y), value=value) if y or x else rows

    def lookup(self, table: np.ndarray) -> Step:
        """int8 to table[q + 128], int8 [256]."""
        values = self.tensor(table)
        return lambda x: values[x.to(torch.int32) - INT8_MIN]

    def sums(self, x: Tensor) -> Tensor:
        """int8 (N, C, H, W) to the exact sums over height and width, integers (N, C, 1, 1)."""
        return x.sum((2, 3), keepdim=True, dtype=torch.int64)

    def add(self, scales: Sequence[float], zero_points: Sequence[int]) -> PairStep | None:
        """The sum of tensors of one shape; None: the definition is as good.

        scales, zero_points     of the two and of the result
        """
        return None

    def mul(self, scale: float, zero_points: Sequence[int]) -> PairStep | None:
        """The product, the second (N, C, 1, 1) or of the first's shape; None as of `add`.

        scale   steps of the result that one of the integers' product is
        """
        return None


class CompiledKernels(TorchKernels):
    """Integer steps for the CPU, each one pass in C++ (exact.cpp)."""

    def __init__(self, code: ctypes.CDLL) -> None:
        super().__init__("cpu")
        self._code = code

    def requantized(self, to: Requantizer) -> Step:
        bias, scale = self.tensor(to.bias.astype(np.int32)), self.tensor(to.scale)

        def step(sums: Tensor) -> Tensor:
            sums = sums.contiguous()
            out = torch.empty_like(sums, dtype=torch.int8)
            self._code.edgevit_requantize(
                _at(sums), _at(bias), _at(scale), *_bounds(to), _at(out),
                _long(sums.numel() // len(bias)), _long(len(bias)), torch.get_num_threads(),
            )  # fmt: skip
            return out

        return step

    def depthwise(
        self, weight: np.ndarray, window: Window, zero_point: int, to: Requantizer
    ) -> Step:
        taps = self.tensor(np.moveaxis(weight, 0, -1).astype(np.int16))
        bias, scale = self.tensor(to.bias.astype(np.int32)), self.tensor(to.scale)

        def step(x: Tensor) -> Tensor:
            rows = rows_of(x)
            images, _, _, channels = rows.shape
            out = torch.empty((images, *window.output(*x.shape[2:]), channels), dtype=torch.int8)
            self._code.edgevit_depthwise(
                _at(rows), _at(taps), _at(bias), _at(scale), zero_point, *_bounds(to), _at(out),
                _long(images), _sizes(window, rows), torch.get_num_threads(),
            )  # fmt: skip
            return out.permute(0, 3, 1, 2)

        return step

    def columns(self, window: Window, zero_point: int) -> Step:
        def step(x: Tensor) -> Tensor:
            rows = rows_of(x)
            images, height, width, channels = rows.shape
            y, x_ = window.output(height, width)
            depth = window.kernel[0] * window.kernel[1] * channels
            out = torch.empty((images * y * x_, depth), dtype=torch.int8)
            self._code.edgevit_columns(
                _at(rows), zero_point, _at(out), _long(images), _sizes(window, rows),
                torch.get_num_threads(),
            )  # fmt: skip
            return out

        return step

    def lookup(self, table: np.ndarray) -> Step:
        by_byte = self.tensor(np.roll(table, INT8_MIN))  # from 0 to 127, then from -128 to -1

        def step(x: Tensor) -> Tensor:
            x = _dense(x)
            out = torch.empty_like(x)
            self._code.edgevit_lookup(
                _at(x), _at(by_byte), _at(out), _long(x.numel()), torch.get_num_threads()
            )
            return out

        return step

    def sums(self, x: Tensor) -> Tensor:
        rows = rows_of(x)
        images, height, width, channels = rows.shape
        if height * width * -INT8_MIN >= EXACT_INT32:
            return super().sums(x)
        out = torch.empty((images, channels, 1, 1), dtype=torch.int32)
        self._code.edgevit_sums(
            _at(rows), _at(out), _long(images), _long(height * width), _long(channels),
            torch.get_num_threads(),
        )  # fmt: skip
        return out

    def add(self, scales: Sequence[float], zero_points: Sequence[int]) -> PairStep | None:
        factors = (ctypes.c_float * 3)(scales[0], scales[1], 1.0 / scales[2])
        zeros = (ctypes.c_int32 * 3)(*zero_points)

        def step(a: Tensor, b: Tensor) -> Tensor | None:
            if a.shape != b.shape:
                return None
            a, b = rows_of(a), rows_of(b)
            out = torch.empty_like(a)
            self._code.edgevit_add(
                _at(a), _at(b), factors, zeros, _at(out), _long(a.numel()), torch.get_num_threads()
            )
            return out.permute(0, 3, 1, 2) if out.dim() == 4 else out

        return step

    def mul(self, scale: float, zero_points: Sequence[int]) -> PairStep | None:
        factor, zeros = ctypes.c_float(scale), (ctypes.c_int32 * 3)(*zero_points)

        def step(a: Tensor, b: Tensor) -> Tensor | None:
            broadcasts = a.shape != b.shape
            if broadcasts and (a.dim() != 4 or b.shape != (*a.shape[:2], 1, 1)):
                return None
            a, b = rows_of(a), rows_of(b)
            out = torch.empty_like(a)
            images, channels = a.shape[0], a.shape[-1]
            self._code.edgevit_mul(
                _at(a), _at(b), factor, zeros, _at(out), _long(images),
                _long(a.numel() // max(1, images * channels)), _long(channels), int(broadcasts),
                torch.get_num_threads(),
            )  # fmt: skip
            return out.permute(0, 3, 1, 2) if out.dim() == 4 else out

        return step


@functools.cache
def kernels_for(device: torch.device) -> TorchKernels | None:
    """The fastest kernels for a device; None for a CPU where `Node.exact` is faster than all."""
    if device.type != "cpu":
        return TorchKernels(device)
    code = library(SOURCE)
    if code is not None:
        return CompiledKernels(code)
    return TorchKernels(device) if multiplies_int8(device) else None


def multiplies_int8(device: torch.device) -> bool:
    """Whether int8 products are summed in int32; older x86 instructions saturate at int16."""
    if device.type != "cpu":
        return device.type == "cuda"
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_vnni") or known.get("avx_vnni"))


def _integers_are_exact(multiply: Step, weight: np.ndarray, device: torch.device) -> bool:
    """Whether a product of matrices gives every output's largest and least sum.

    Instructions that saturate do so on sums of neighbouring products. Inputs at the extremes, of
    each product's own sign, have the largest of all such sums at once: what does not saturate there
    does not for any input.
    """
    positive = weight > 0
    rows = [np.where(positive, high, low) for high, low in ((127, -128), (-128, 127))]
    x = torch.from_numpy(np.concatenate(rows).astype(np.int8)).to(device)
    wide = weight.astype(np.int64)
    expected = [(row * wide).sum(1) for row in rows]
    try:
        found = multiply(x)
    except RuntimeError:  # no such product on this device
        return False
    halves = [half.diagonal().cpu().numpy() for half in found.split(len(weight))]
    return all(np.array_equal(half, sums) for half, sums in zip(halves, expected, strict=True))


def _views(
    padded: Tensor, window: Window, size: tuple[int, int]
) -> list[tuple[tuple[int, int], Tensor]]:
    """For each position of the kernel, by row, what it covers: (N, H', W', C)."""
    found = []
    for y in range(window.kernel[0]):
        for x in range(window.kernel[1]):
            cuts = [
                slice(at * step, at * step + (count - 1) * stride + 1, stride)
                for at, step, count, stride in zip(
                    (y, x), window.dilation, size, window.stride, strict=True
                )
            ]
            found.append(((y, x), padded[:, cuts[0], cuts[1]]))
    return found


def _int_mm(a: Tensor, b: Tensor) -> Tensor:
    """int32 (M, N) of int8 (M, K) and (K, N); torch has no public name for it."""
    return torch._int_mm(a, b)  # pyright: ignore[reportPrivateImportUsage]


def _dense(x: Tensor) -> Tensor:
    """The tensor, or a copy without gaps in memory."""
    is_dense = x.is_contiguous() or (
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )
    return x if is_dense else x.contiguous()


def _at(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def _long(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def _bounds(to: Requantizer) -> tuple[Any, ...]:
    return ctypes.c_float(to.low), ctypes.c_float(to.high), to.zero_point


def _sizes(window: Window, rows: Tensor) -> Any:
    """The numbers of `Window` in exact.cpp."""
    _, height, width, channels = rows.shape
    numbers = (
        height, width, channels, *window.output(height, width), *window.kernel, *window.stride,
        *window.padding, *window.dilation,
    )  # fmt: skip
    return (ctypes.c_int64 * len(numbers))(*numbers)
