"""A reference interpreter for saved ML Programs: the package executed op by op with torch.

It proves what is in the package (graph, weights, scales, preprocessing). It does not prove what
Apple's runtime makes of it: the Neural Engine's arithmetic, placement and latency are its own.

Two ways to hold values between operations:

    float32   each operation computed exactly and rounded once to float32. A convolution of
              dequantized int8 values is done on the integers, its bias on their int32 grid
    float16   every value rounded to the element type that the package declares, float16 for most;
              sums in float32

and three to divide by a scale: MIL's specification of `quantize` says x / scale ("division"), torch
multiplies by the reciprocal ("reciprocal"), and integer kernels never make the real value in
between: they round a convolution's sum times s_in * s_w / s_out once ("fused", of float32 only).
The last is how the program is defined, so a package is the program bit for bit there; with the two
others one value of a convolution in some millions differs by a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgevit.errors import InputError
from edgevit.targets.coreml.kernels import KINDS, Grid, Sum
from edgevit.targets.coreml.options import ARITHMETIC, ROUNDING
from edgevit.targets.coreml.package import MilProgram, Operation, Ref, references

_CONSTANT = "constexpr_"


class Interpreter:
    """An ML Program made ready to run on batches; the batch is whatever the input holds.

    Raises InputError naming every operation that it does not know.
    """

    def __init__(self, program: MilProgram, arithmetic: str, rounding: str) -> None:
        for name, value, choices in (
            ("arithmetic", arithmetic, ARITHMETIC), ("rounding", rounding, ROUNDING)
        ):  # fmt: skip
            if value not in choices:
                raise InputError(f"{name} {value!r} is not one of {', '.join(choices)}")
        if (arithmetic, rounding) == ("float16", "fused"):
            raise InputError("rounding 'fused' needs the arithmetic float32: --arithmetic float32")
        self.program, self.rounding = program, rounding
        self.stored_float16 = arithmetic == "float16"
        unknown = sorted({op.kind for op in program.operations} - set(KINDS))
        if unknown:
            raise InputError(
                f"the reference interpreter does not know the operation {', '.join(unknown)}"
            )
        self.grids: dict[str, Grid] = {}
        self.sums: dict[str, Sum] = {}
        self._constants: dict[str, Tensor] = {}
        for op in program.operations:
            if op.kind.startswith(_CONSTANT):
                self._constants[op.name] = self._execute(op, {})
        self._weight_grids = dict(self.grids)
        self._last_use = {
            item.name: index
            for index, op in enumerate(program.operations)
            for item in references(op)
        }

    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        """The package's results by name, of an input batch (N, 3, H, W) float32."""
        found = {}
        for name, value in self.values(inputs):
            if name in self.program.results:
                found[name] = value
        return found

    @torch.inference_mode()
    def values(self, inputs: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every operation's result, in order; an int8 one holds the integers as float32."""
        source = self.program.input.name
        env: dict[str, Tensor] = {source: self.store(inputs, self.program.input_dtype)}
        self.grids, self.sums = dict(self._weight_grids), {}
        for index, op in enumerate(self.program.operations):
            if op.kind.startswith(_CONSTANT):
                continue
            env[op.name] = self._execute(op, env)
            yield op.name, env[op.name]
            for item in references(op):
                if self._last_use[item.name] == index:
                    env.pop(item.name, None)
                    self.sums.pop(item.name, None)
                    if item.name not in self._weight_grids:
                        self.grids.pop(item.name, None)

    def _execute(self, op: Operation, env: Mapping[str, Tensor]) -> Tensor:
        arguments = {name: self._argument(value, env) for name, value in op.inputs.items()}
        return self.store(KINDS[op.kind](self, op, arguments), op.dtype)

    def _argument(self, value: Any, env: Mapping[str, Tensor]) -> Any:
        if isinstance(value, tuple):
            return [self._argument(item, env) for item in value]
        if isinstance(value, Ref):
            return env[value.name] if value.name in env else self._constants[value.name]
        if isinstance(value, np.ndarray | np.floating) and np.asarray(value).dtype.kind == "f":
            return torch.from_numpy(np.array(value, np.float32))
        return value

    def store(self, value: Tensor, dtype: str) -> Tensor:
        """float32, having been rounded to the declared type where this one is held."""
        if dtype == "fp16" and self.stored_float16:
            return value.half().float()
        return value.float()
