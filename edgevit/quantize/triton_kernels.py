"""Fake quantization on a GPU: one kernel an activation forward and backward, all weights in one.

The arithmetic is that of `fakequant` and of fake_quantize.cpp beside it, with the same byte an
element kept for the backward: -128 clipped below, 127 clipped above, otherwise the rounding
residual times 252. Written in Triton, which comes with torch for CUDA; nothing here is imported
without it.

A net has hundreds of quantizers, so nothing but the kernels themselves is launched for each: the
scales are read from one vector, and every kernel leaves its sums of the scale's gradient in a table
that one reduction sums up when all are there. Always the same programs sum the same elements in the
same order, so that results repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgevit.ops import INT8_MAX, INT8_MIN, WEIGHT_MAX

BLOCK = 2048
ROW_BLOCK = 512
PROGRAMS = 1024
"""The most programs of one launch, which is the width of the table of sums."""


@triton.jit
def _rounded(value):
    """Half to even, for |value| < 2**22."""
    return (value + 12582912.0) - 12582912.0


@triton.jit
def _inverse(scale):
    """As quantized_decomposed.quantize_per_tensor has it: in float64, then narrowed."""
    return (1.0 / scale.to(tl.float64)).to(tl.float32)


@triton.jit
def _code(bounded, rounded, low, high):
    """The byte that the backward needs, as float32."""
    residual = _rounded((rounded - bounded) * 252.0)
    return tl.where(rounded < low, -128.0, tl.where(rounded > high, 127.0, residual))


@triton.jit
def _slope(code, low, high):
    """Of the scale's gradient."""
    return tl.where(code == -128.0, low, tl.where(code == 127.0, high, code * 0.003968253968253968))


@triton.jit
def _cdf(x):
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit(do_not_specialize=["index"])
def _forward(x, y, codes, scales, zeros, index, count, quant_min, quant_max,
             KEEP: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    scale = tl.load(scales + index)
    zero = _rounded(tl.load(zeros + index))
    low, high, inverse = quant_min - zero, quant_max - zero, _inverse(scale)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    position = tl.load(x + at, mask=mask, other=0.0) * inverse
    bounded = tl.minimum(tl.maximum(position, low - 1.0), high + 1.0)
    rounded = _rounded(bounded)
    kept = tl.minimum(tl.maximum(rounded, low), high)
    # What is no number stays none, for minima and maxima may drop it.
    tl.store(y + at, tl.where(position == position, kept * scale, position), mask=mask)
    if KEEP:
        tl.store(codes + at, _code(bounded, rounded, low, high).to(tl.int8), mask=mask)


@triton.jit(do_not_specialize=["index"])
def _backward(grad, codes, grad_x, sums, zeros, index, count, quant_min, quant_max,
              PROGRAMS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    zero = _rounded(tl.load(zeros + index))
    low, high = quant_min - zero, quant_max - zero
    program = tl.program_id(0)
    scale_sum = tl.zeros((BLOCK,), tl.float32)
    clipped_sum = tl.zeros((BLOCK,), tl.float32)
    for start in range(program * BLOCK, count, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < count
        given = tl.load(grad + at, mask=mask, other=0.0)
        code = tl.load(codes + at, mask=mask, other=0).to(tl.float32)
        clips = (code == -128.0) | (code == 127.0)
        tl.store(grad_x + at, tl.where(clips, 0.0, given), mask=mask)
        scale_sum += given * _slope(code, low, high)
        clipped_sum += tl.where(clips, given, 0.0)
    place = (index * PROGRAMS + program) * 2
    tl.store(sums + place, tl.sum(scale_sum, 0))
    tl.store(sums + place + 1, tl.sum(clipped_sum, 0))


@triton.jit(do_not_specialize=["before", "after"])
def _forward_gelu(x, y, codes, values, scales, zeros, before, after, count, quant_min, quant_max,
                  KEEP: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    scale, scale_out = tl.load(scales + before), tl.load(scales + after)
    zero = _rounded(tl.load(zeros + before))
    zero_out = _rounded(tl.load(zeros + after))
    low, high = quant_min - zero, quant_max - zero
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    position = tl.load(x + at, mask=mask, other=0.0) * _inverse(scale)
    bounded = tl.minimum(tl.maximum(position, low - 1.0), high + 1.0)
    rounded = _rounded(bounded)
    kept = tl.minimum(tl.maximum(rounded, low), high)
    real = kept * scale
    inner = (real * _cdf(real)) * _inverse(scale_out)
    out = _rounded(tl.minimum(tl.maximum(inner, quant_min - zero_out), quant_max - zero_out))
    tl.store(y + at, tl.where(position == position, out * scale_out, position), mask=mask)
    if KEEP:
        tl.store(codes + at, _code(bounded, rounded, low, high).to(tl.int8), mask=mask)
        tl.store(values + at, (kept + zero).to(tl.int8), mask=mask)


@triton.jit(do_not_specialize=["before", "after"])
def _backward_gelu(grad, codes, values, grad_x, sums, scales, zeros, before, after, count,
                   quant_min, quant_max, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    scale, scale_out = tl.load(scales + before), tl.load(scales + after)
    zero = _rounded(tl.load(zeros + before))
    zero_out = _rounded(tl.load(zeros + after))
    low, high = quant_min - zero, quant_max - zero
    low_out, high_out, inverse_out = quant_min - zero_out, quant_max - zero_out, _inverse(scale_out)
    program = tl.program_id(0)
    scale_sum = tl.zeros((BLOCK,), tl.float32)
    clipped_sum = tl.zeros((BLOCK,), tl.float32)
    scale_out_sum = tl.zeros((BLOCK,), tl.float32)
    clipped_out_sum = tl.zeros((BLOCK,), tl.float32)
    for start in range(program * BLOCK, count, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < count
        given = tl.load(grad + at, mask=mask, other=0.0)
        code = tl.load(codes + at, mask=mask, other=0).to(tl.float32)
        real = (tl.load(values + at, mask=mask, other=0).to(tl.float32) - zero) * scale
        cdf = _cdf(real)
        inner = (real * cdf) * inverse_out
        bounded = tl.minimum(tl.maximum(inner, low_out - 1.0), high_out + 1.0)
        out = _code(bounded, _rounded(bounded), low_out, high_out)
        clips_out = (out == -128.0) | (out == 127.0)
        scale_out_sum += given * _slope(out, low_out, high_out)
        clipped_out_sum += tl.where(clips_out, given, 0.0)
        passed = tl.where(clips_out, 0.0, given)
        passed = passed * (cdf + real * (tl.exp(-0.5 * real * real) * 0.3989422804014327))
        clips = (code == -128.0) | (code == 127.0)
        tl.store(grad_x + at, tl.where(clips, 0.0, passed), mask=mask)
        scale_sum += passed * _slope(code, low, high)
        clipped_sum += tl.where(clips, passed, 0.0)
    place = (before * PROGRAMS + program) * 2
    tl.store(sums + place, tl.sum(scale_sum, 0))
    tl.store(sums + place + 1, tl.sum(clipped_sum, 0))
    place = (after * PROGRAMS + program) * 2
    tl.store(sums + place, tl.sum(scale_out_sum, 0))
    tl.store(sums + place + 1, tl.sum(clipped_out_sum, 0))


@triton.jit
def _forward_rows(x, y, codes, scales, starts, limit, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    scale = tl.load(scales + row)
    inverse = _inverse(scale)
    begin, end = tl.load(starts + row), tl.load(starts + row + 1)
    for start in range(begin, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < end
        position = tl.load(x + at, mask=mask, other=0.0) * inverse
        bounded = tl.minimum(tl.maximum(position, -limit - 1.0), limit + 1.0)
        rounded = _rounded(bounded)
        kept = tl.minimum(tl.maximum(rounded, -limit), limit)
        tl.store(y + at, tl.where(position == position, kept * scale, position), mask=mask)
        tl.store(codes + at, _code(bounded, rounded, -limit, limit).to(tl.int8), mask=mask)


@triton.jit
def _backward_rows(grad, codes, grad_x, grad_scale, starts, limit, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    begin, end = tl.load(starts + row), tl.load(starts + row + 1)
    scale_sum = tl.zeros((BLOCK,), tl.float32)
    for start in range(begin, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < end
        given = tl.load(grad + at, mask=mask, other=0.0)
        code = tl.load(codes + at, mask=mask, other=0).to(tl.float32)
        clips = (code == -128.0) | (code == 127.0)
        tl.store(grad_x + at, tl.where(clips, 0.0, given), mask=mask)
        scale_sum += given * _slope(code, -limit, limit)
    tl.store(grad_scale + row, tl.sum(scale_sum, 0))


class Activations:
    """The activation quantizers of one forward pass; see `fakequant.Activations`."""

    def __init__(self, scale: Tensor, zero_point: Tensor) -> None:
        """float32 (A,) each, on the GPU."""
        self.scale, self.zero_point = scale.detach(), zero_point.detach()
        self.token = scale
        self.sums: Tensor | None = None
        if torch.is_grad_enabled():
            # The kernels write it for frozen scales as well: nothing reads it then.
            self.sums = torch.zeros(len(scale), PROGRAMS, 2, device=scale.device)
            self.token = _Sums.apply(scale, zero_point, self.sums)

    def quantize(self, x: Tensor, index: int, in_place: bool = False) -> Tensor:
        return _Quantize.apply(x, self.token, self, index, in_place)

    def quantize_gelu(self, x: Tensor, before: int, after: int) -> Tensor:
        return _QuantizeGelu.apply(x, self.token, self, before, after)


class _Sums(torch.autograd.Function):
    """Its result is a token that every quantizer takes; its backward runs after all of theirs."""

    @staticmethod
    def forward(ctx: Any, scale: Tensor, zero_point: Tensor, sums: Tensor) -> Tensor:
        ctx.save_for_backward(scale, sums)
        ctx.set_materialize_grads(False)
        return scale.new_empty(())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale, sums = ctx.saved_tensors
        of_scale, clipped = sums.sum(1).unbind(1)
        return of_scale, -clipped * scale, None


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, grids: Activations, index: int, in_place: bool
    ) -> Tensor:
        dense = _dense(x)
        in_place = in_place and dense is x
        y = dense if in_place else torch.empty_like(dense)
        keep = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        code = torch.empty_like(dense, dtype=torch.int8) if keep else dense
        count = dense.numel()
        _launch(
            _forward, triton.cdiv(count, BLOCK),
            dense, y, code, grids.scale, grids.zero_point, index, count, INT8_MIN, INT8_MAX,
            KEEP=keep, BLOCK=BLOCK,
        )  # fmt: skip
        if in_place:
            ctx.mark_dirty(x)
        if keep:
            ctx.save_for_backward(code)
        ctx.grids, ctx.index = grids, index
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (code,) = ctx.saved_tensors
        grad = _laid_out(grad_outputs[0], code)
        grad_x, count = torch.empty_like(grad), grad.numel()
        _launch(
            _backward, _programs(count),
            grad, code, grad_x, ctx.grids.sums, ctx.grids.zero_point, ctx.index, count,
            INT8_MIN, INT8_MAX, PROGRAMS=PROGRAMS, BLOCK=BLOCK,
        )  # fmt: skip
        return grad_x, None, None, None, None


class _QuantizeGelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, grids: Activations, before: int, after: int
    ) -> Tensor:
        dense = _dense(x)
        keep = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        code, values = (
            torch.empty_like(dense, dtype=torch.int8) if keep else dense for _ in range(2)
        )
        count = dense.numel()
        _launch(
            _forward_gelu, triton.cdiv(count, BLOCK),
            dense, dense, code, values, grids.scale, grids.zero_point, before, after, count,
            INT8_MIN, INT8_MAX, KEEP=keep, BLOCK=BLOCK,
        )  # fmt: skip
        if dense is x:
            ctx.mark_dirty(x)
        if keep:
            ctx.save_for_backward(code, values)
        ctx.grids, ctx.before, ctx.after = grids, before, after
        return dense

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        code, values = ctx.saved_tensors
        grids = ctx.grids
        grad = _laid_out(grad_outputs[0], code)
        grad_x, count = torch.empty_like(grad), grad.numel()
        _launch(
            _backward_gelu, _programs(count),
            grad, code, values, grad_x, grids.sums, grids.scale, grids.zero_point, ctx.before,
            ctx.after, count, INT8_MIN, INT8_MAX, PROGRAMS=PROGRAMS, BLOCK=BLOCK,
        )  # fmt: skip
        return grad_x, None, None, None, None


def quantize_weights(
    scale: Tensor, starts: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """All weights fake-quantized in one launch: symmetric, one scale an output channel.

    scale    float32 (W,): of the weights' rows, one after the other
    starts   int32 (W + 1,): where each row begins, see `row_starts`
    weights  each with its output channels first, in memory too
    """
    return _QuantizeWeights.apply(scale, starts, *weights)


def row_starts(weights: Sequence[Tensor]) -> Tensor:
    """int32 (W + 1,) for `quantize_weights`, on the weights' device."""
    lengths = [w[0].numel() for w in weights for _ in range(len(w))]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    return starts.to(torch.int32).to(weights[0].device)


class _QuantizeWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scale: Tensor, starts: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        flat = torch.cat([_flat(w) for w in weights])
        y, code = torch.empty_like(flat), torch.empty_like(flat, dtype=torch.int8)
        _launch(
            _forward_rows,
            len(scale),
            flat,
            y,
            code,
            scale,
            starts,
            float(WEIGHT_MAX),
            BLOCK=ROW_BLOCK,
        )
        ctx.save_for_backward(scale, starts, code)
        ctx.like = [(w.shape, w.stride()) for w in weights]
        return _shaped(y, ctx.like)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale, starts, code = ctx.saved_tensors
        flat = torch.cat(
            [_flat(_strided(g, *like)) for g, like in zip(grad_outputs, ctx.like, strict=True)]
        )
        grad_x, grad_scale = torch.empty_like(flat), torch.empty_like(scale)
        _launch(
            _backward_rows,
            len(scale),
            flat,
            code,
            grad_x,
            grad_scale,
            starts,
            float(WEIGHT_MAX),
            BLOCK=ROW_BLOCK,
        )
        return grad_scale, None, *_shaped(grad_x, ctx.like)


def _launch(kernel: Any, programs: int, *given: Any, **constants: Any) -> None:
    # A product and a sum contracted to one rounding would be another result than torch's.
    kernel[(programs,)](*given, enable_fp_fusion=False, **constants)


def _programs(count: int) -> int:
    return min(PROGRAMS, triton.cdiv(count, BLOCK))


def _dense(x: Tensor) -> Tensor:
    """The tensor itself where its elements lie side by side, in whatever order."""
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x if x.is_contiguous() or channels_last else x.contiguous()


def _laid_out(grad: Tensor, code: Tensor) -> Tensor:
    return _strided(grad, code.shape, code.stride())


def _strided(tensor: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    if tensor.stride() == stride:
        return tensor
    return torch.empty_strided(shape, stride, device=tensor.device).copy_(tensor)


def _flat(tensor: Tensor) -> Tensor:
    """The elements of a dense tensor in the order of memory."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _shaped(flat: Tensor, like: Sequence[tuple[torch.Size, tuple[int, ...]]]) -> tuple[Tensor, ...]:
    found, at = [], 0
    for shape, stride in like:
        found.append(flat.as_strided(shape, stride, at))
        at += shape.numel()
    return tuple(found)
