"""What an operation is: the base class of every class in this package.

An operation's class holds all that edgevit knows of it: which ATen calls mean it, how many inputs
it takes, the shape it makes, its torch computation (training, calibration, float runs), its exact
integer computation, its quantization rule, and whether a requantized value can be a tie. An object
of the class is one node of a graph: a name, the tensors it reads, and the attributes that the
class declares as dataclass fields. Targets add one pair of functions a class: emit and read.

Nothing at module level imports torch: a program is read and compiled without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from edgevit.errors import InputError
from edgevit.ops.quantizer import INT8_MAX, INT8_MIN, Learned, QuantizationRule, Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.kernels.exact import TorchKernels

Shape = tuple[int, ...]
Step = Callable[..., "Tensor"]
"""One operation on centred integers (q - zero_point as float32), giving the same."""

REQUIRED = object()


@dataclass(frozen=True)
class Ref:
    """An argument of an ATen call that is another call's result or the input, by name."""

    name: str


Signature = Mapping[str, tuple[Any, Any]]
"""Argument name -> (type or types, default); `REQUIRED` where there is no default."""

TENSOR = (Ref, REQUIRED)
TENSORS = (list, REQUIRED)
UNARY: Signature = {"self": TENSOR}
BINARY: Signature = {"self": TENSOR, "other": TENSOR}


class UnsupportedError(ValueError):
    """An ATen call's arguments describe something that the operation's class does not cover."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One operation of a graph and the tensor it makes.

    name    canonical name of the output tensor: the module path of a leaf ("head"), or module path
            and operation ("stages.0.blocks.0.add", "mean")
    inputs  canonical names of the activations it reads
    """

    name: str
    inputs: tuple[str, ...]

    kind: ClassVar[str]
    """The operation's name in program files, manifests and messages."""
    aten: ClassVar[Mapping[str, Signature]] = {}
    """ATen overload -> its arguments, of every call that means this operation."""
    arity: ClassVar[int | None] = 1
    """How many inputs it takes; None for any number from one up."""
    rule: ClassVar[QuantizationRule] = Learned()
    backward_reads_output: ClassVar[bool] = False
    """Whether torch's backward needs the output, so that it cannot be quantized in place."""
    requantizes: ClassVar[bool] = True
    """Whether results need a rounding to the grid. False: they are values of the inputs."""
    scales_on_one_grid: ClassVar[bool] = False
    """Whether ties are avoided by putting all of its scales on one grid (see `graph.ties`)."""
    runs_in_float: ClassVar[bool] = False
    """Whether an int8 artifact computes it on real numbers, between a DEQUANTIZE and a QUANTIZE."""
    traced_only: ClassVar[bool] = False
    """Whether it exists between tracing and the passes only, so that no program holds one."""

    def __post_init__(self) -> None:
        count = len(self.inputs)
        if (count != self.arity) if self.arity is not None else not count:
            expected = self.arity if self.arity is not None else "1 or more"
            raise InputError(f"{self.name}: {self.kind} takes {expected} inputs, not {count}")

    @classmethod
    def from_call(cls, name: str, args: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Node]:
        """The nodes that an ATen call stands for, the one that makes its result last.

        name    canonical name of the call's result
        args    by schema name, defaults filled in: `Ref` for activations (canonical names),
                arrays for stored tensors, plain values
        shapes  of the activations among the arguments, in order
        Raises UnsupportedError for argument values that the operation does not cover.
        """
        return [cls(name=name, inputs=activations(args), **cls.attributes(args, shapes))]

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        """The class's own fields from an ATen call's arguments; see `from_call`."""
        return {}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """The shape that the node makes of its inputs' (batch first); InputError if they misfit."""
        return inputs[0]

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        """The float result by torch operations, differentiable, for any batch size."""
        raise NotImplementedError

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """The integer result, the same for every batch size, thread count and CPU.

        The default computes on the real values in float32 and rounds once to the output's grid.
        """

        def step(*values: Tensor) -> Tensor:
            real = [value * q.scale for value, q in zip(values, inputs, strict=True)]
            return quantize(self.compute(real), output)

        return step

    def integer(
        self, inputs: Sequence[Quantizer], output: Quantizer, kernels: TorchKernels
    ) -> Step:
        """`exact` on int8 values, zero-point included, giving int8: the same values, faster.

        The default converts, and runs `exact`.
        """
        return self.by_definition(inputs, output)

    def by_definition(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """`exact` on int8 values, zero-point included, giving int8."""
        import torch

        exact = self.exact(inputs, output)

        def step(*values: Tensor) -> Tensor:
            real = [value.float() - q.zero_point for value, q in zip(values, inputs, strict=True)]
            return (exact(*real) + output.zero_point).to(torch.int8)

        return step

    def real(self, inputs: Sequence[Quantizer]) -> Step:
        """The real float32 result of int8 values, zero-point included, not rounded to a grid.

        Computed in float64 and rounded once, so that it is the same on every machine.
        """

        def step(*values: Tensor) -> Tensor:
            given = [
                (value.double() - q.zero_point) * q.scale
                for value, q in zip(values, inputs, strict=True)
            ]
            return self.compute(given).float()

        return step

    def ties(self, inputs: Sequence[Fraction], output: Fraction) -> tuple[int, int]:
        """How many values fall between two steps of the output: exactly, and within float32's
        rounding. A measure to compare scales by; without them, no runtime's rounding matters.
        """
        return 0, 0

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        """How a positive factor on each channel passes from the inputs to the output.

        For every input an int array, a value an output channel: the channel of that input whose
        factor the output channel has, -1 where that input gives it none. An input that gives
        factors to no output channel must come without any (a gate). None, the default, where no
        factor passes: f(k x) is not k f(x), so that inputs and output must do without.
        """
        return None

    @property
    def stored_as(self) -> str | None:
        """The name under which a program holds its weights; None where it has none."""
        return None

    def real_weights(self) -> tuple[np.ndarray, ...]:
        """The float32 values that `compute` takes besides the inputs, as training begins them."""
        return ()

    def with_real_weights(self, values: Sequence[np.ndarray]) -> Self:
        """The float node with other values for `real_weights`."""
        return self

    def to_json(self) -> dict[str, Any]:
        """The node as it stands in graph.json: op, name, inputs and the attributes."""
        own = {f.name: getattr(self, f.name) for f in self.attribute_fields()}
        return {
            "op": self.kind,
            "name": self.name,
            "inputs": list(self.inputs),
            **{name: list(v) if isinstance(v, tuple) else v for name, v in own.items()},
        }

    @classmethod
    def attribute_fields(cls) -> list[Any]:
        """The dataclass fields that are attributes of the operation, in order."""
        known = {f.name for f in fields(Node)}
        return [f for f in fields(cls) if f.name not in known and f.metadata.get("stored", True)]

    def same_operation(self, other: Node) -> bool:
        """Equality of everything but numbers: class, name, inputs and attributes."""
        return type(self) is type(other) and self.to_json() == other.to_json()

    def renamed(self, inputs: Mapping[str, str]) -> Self:
        """The node with other input names where the mapping has one."""
        from dataclasses import replace

        return replace(self, inputs=tuple(inputs.get(name, name) for name in self.inputs))


def every_channel(shape: Shape) -> np.ndarray:
    """Each output channel has the factor of the same channel of the input; see `Node.carried`."""
    return np.arange(shape[1])


def activations(args: Mapping[str, Any]) -> tuple[str, ...]:
    """The canonical names of the activations among a call's arguments, in order."""
    names: list[str] = []
    for value in args.values():
        items = value if isinstance(value, list) else [value]
        names += [item.name for item in items if isinstance(item, Ref)]
    return tuple(names)


def quantize(values: Tensor, quantizer: Quantizer) -> Tensor:
    """q - zero_point as float32; `values` (float32) is overwritten.

    clamp(round(x * float32(1 / scale)) + zero_point), ties to even: torch's quantize_per_tensor.
    """
    zero_point = quantizer.zero_point
    values.mul_(1.0 / quantizer.scale).round_()
    return values.clamp_(INT8_MIN - zero_point, INT8_MAX - zero_point)


def requantize(integers: Tensor, scale: float, quantizer: Quantizer) -> Tensor:
    """q - zero_point as float32, of integers that float32 holds; they are overwritten.

    clamp(round(integer * float32(scale))), half to even, as integer kernels compute it: `scale`
    is how many steps of the quantizer an integer's unit is.
    """
    integers.mul_(float(np.float32(scale))).round_()
    return integers.clamp_(INT8_MIN - quantizer.zero_point, INT8_MAX - quantizer.zero_point)


def divided(x: Tensor, divisor: int) -> Tensor:
    """x / divisor, in place. By a plain number CUDA multiplies with its reciprocal instead."""
    return x.div_(x.new_tensor(divisor))


class Unary(Node):
    """An operation on one value alone: on int8 it is a table of 256, as runtimes have it too."""

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        import torch

        (source,) = inputs
        table = self._table(source, output)
        offset = source.zero_point - INT8_MIN

        def step(values: Tensor) -> Tensor:
            index = values.add(offset).to(torch.int32).flatten()
            return table.to(values.device).index_select(0, index).view(values.shape)

        return step

    def integer(
        self, inputs: Sequence[Quantizer], output: Quantizer, kernels: TorchKernels
    ) -> Step:
        table = self._table(inputs[0], output).numpy() + output.zero_point
        return kernels.lookup(table.astype(np.int8))

    def _table(self, source: Quantizer, output: Quantizer) -> Tensor:
        """The result, less its zero-point, for each int8 from the least: float32 [256]."""
        import torch

        q = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.float64) - source.zero_point
        x = torch.from_numpy((q * source.scale).astype(np.float32)).double()
        return quantize(self.compute([x]).float(), output)


class Unchanged(Node):
    """An operation that moves or selects values: exact on integers by computing on them."""

    requantizes = False

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        return lambda *values: self.compute(values)


def pair(value: Sequence[int], what: str = "size") -> tuple[int, int]:
    """ATen lets one number stand for both axes. Raises UnsupportedError for another count."""
    if len(value) not in (1, 2):
        raise UnsupportedError(f"{what} {tuple(value)} is not one number an axis")
    return int(value[0]), int(value[-1])


def require_maps(node: Node, shape: Shape) -> None:
    """Raises InputError unless the shape is (N, C, H, W)."""
    if len(shape) != 4:
        raise InputError(f"{node.name}: {node.kind} needs (N, C, H, W), not {shape}")
