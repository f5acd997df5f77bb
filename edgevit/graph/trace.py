"""The tracer: an `nn.Module` in eval mode to a float `Graph`, through torch.export alone.

    Given   conv2d -> batch_norm -> relu_, as torch.export writes them
    Result  Conv2d with the norm folded in and the ReLU fused behind it

A net may hold what the classes in `edgevit.ops` know; anything else is refused, by operation and
layer. Names are module paths: a leaf module that makes one tensor gives it its path, everything
else the path of the module it is written in, and the operation's kind.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph.graph import INPUT, Graph, live
from edgevit.graph.naming import own_names, with_names
from edgevit.graph.passes import TRACE_PASSES
from edgevit.graph.refused import what_to_do
from edgevit.ops import BY_OVERLOAD, ELIDED, OPERATIONS, Node, Ref, Shape, UnsupportedError
from edgevit.ops.base import REQUIRED, Signature
from edgevit.ops.shape import Slice

if TYPE_CHECKING:
    import torch


def trace(
    net: torch.nn.Module, input_shape: Sequence[int], output_names: Sequence[str] | None = None
) -> Graph:
    """The float graph of a net, batch norms folded and ReLUs fused.

    net          any module of known operations; it is run in eval mode and left as it was
    input_shape  (C, H, W) of its one input
    output_names what its outputs are called, in order; default: what the net itself calls them
                 (see `edgevit.graph.naming`)
    Raises InputError naming the operation and the layer that no program may hold, or what
    torch.export says of a net it cannot trace, and for names that are not one an output.
    """
    return traced(net, input_shape, TRACE_PASSES, output_names)


def traced(
    net: torch.nn.Module,
    input_shape: Sequence[int],
    passes: Sequence[Any],
    output_names: Sequence[str] | None = None,
) -> Graph:
    """`trace` with other passes, each a function from graph to graph."""
    shape = (1, *input_shape)
    exported = _export(net, shape)
    signature = exported.graph_signature
    tensors: dict[str, np.ndarray] = {}
    constants = {**exported.state_dict, **exported.constants}
    for name, path in {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }.items():
        tensors[name] = _array(constants[path])
    if len(signature.user_inputs) != 1:
        raise InputError(f"the net takes {len(signature.user_inputs)} inputs; edgevit needs one")
    (source,) = signature.user_inputs
    leaves = {path for path, module in net.named_modules() if not list(module.children())}
    tracer = _Tracer(tensors, leaves, shape, str(source))
    calls = [node for node in exported.graph.nodes if node.op == "call_function"]
    tracer.count(calls)
    for call in calls:
        tracer.read(call)
    outputs = [tracer.resolve(str(name)) for name in signature.user_outputs]
    graph = Graph(shape, tuple(live(tracer.nodes, outputs)), tuple(outputs))
    for graph_pass in passes:
        graph = graph_pass(graph)
    own = own_names(net, exported.call_spec.out_spec.unflatten(range(len(outputs))))
    return with_names(graph, own if output_names is None else tuple(output_names))


def _export(net: torch.nn.Module, shape: Shape) -> Any:
    import torch

    # It prints a traceback of its own for what is said below.
    noise = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, noise.disabled = noise.disabled, True
    was_training = {module: module.training for module in net.modules()}
    net.eval()
    parameter = next(net.parameters(), None)
    example = torch.zeros(shape, device=parameter.device if parameter is not None else "cpu")
    try:
        with torch.no_grad():
            return torch.export.export(net, (example,))
    except Exception as error:  # torch.export raises what the net's own code raises, and more
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        needed = _needed(net)
        if len(needed) != 1:
            first = f"it needs {len(needed)} inputs ({', '.join(needed)}), and images are one"
        raise InputError(
            f"torch.export cannot trace this net for an input of {shape}: {first}"
        ) from error
    finally:
        noise.disabled = was_disabled
        for module, training in was_training.items():
            module.training = training


def _needed(net: torch.nn.Module) -> list[str]:
    """The arguments of a net's forward that have no default."""
    try:
        parameters = inspect.signature(net.forward).parameters.values()
    except (TypeError, ValueError):  # not written in Python
        return ["images"]
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in named and p.default is p.empty] or ["images"]


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().contiguous().numpy()


@dataclass
class _Tracer:
    """State while walking the calls of an exported program."""

    stored: dict[str, np.ndarray]
    leaves: set[str]
    input_shape: Shape
    source: str
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)  # name in the calls -> canonical name
    parts: dict[str, list[str]] = field(default_factory=dict)  # of a split, canonical names
    calls: Sequence[Any] = ()
    calls_in: Counter[str] = field(default_factory=Counter)
    memory: dict[str, str] = field(default_factory=dict)  # name in the calls -> whose memory it has
    overwritten: dict[str, str] = field(default_factory=dict)  # name in the calls -> layer

    def __post_init__(self) -> None:
        self.values[self.source] = INPUT
        self.shapes[INPUT] = self.input_shape

    def count(self, calls: Sequence[Any]) -> None:
        """How many operations each module path makes: a leaf with one names its tensor."""
        self.calls = calls
        for call in calls:
            if _overload(call) not in ELIDED:
                self.calls_in[_path(call)] += 1

    def read(self, call: Any) -> None:
        overload = _overload(call)
        written = str(call.target)
        if _shares_memory(call, overload):
            self.memory[call.name] = self._owner(call.args[0].name)
        if overload in ELIDED:
            self.values[call.name] = self.resolve(call.args[0].name)
            return
        if "getitem" in written:
            self._check_not_overwritten(call.args[0].name)
            self.values[call.name] = self.parts[call.args[0].name][call.args[1]]
            return
        if overload in _SPLITS:
            self._split(call, overload)
            return
        if overload in _RESHAPES and call.args[0].name in self.stored:
            self.stored[call.name] = _reshaped(call, self.stored[call.args[0].name])
            return
        operation = BY_OVERLOAD.get(overload)
        if operation is None:
            known = ", ".join(each.kind for each in OPERATIONS)
            raise InputError(
                f"{_path(call) or 'the net'}: operation {written} is not one that edgevit can "
                f"quantize ({known}){self._what_to_do(call)}"
            )
        args = self._arguments(call, overload, operation.aten[overload])
        name = self._name(call, getattr(operation, "kind", "silu"))
        shapes = [self.shapes[n] for n in _activation_names(args)]
        if not shapes:
            raise InputError(
                f"{_path(call) or 'the net'}: {overload} reads stored tensors alone; store its "
                "result instead"
            )
        try:
            made = operation.from_call(name, args, shapes)
        except UnsupportedError as error:
            raise InputError(
                f"{_path(call) or name}: {overload}: {error} is not supported"
                f"{self._what_to_do(call)}"
            ) from error
        try:
            self.values[call.name] = self._append(made)
        except InputError as error:  # of a shape that the operation cannot make
            raise InputError(f"{error}{self._what_to_do(call)}") from error
        if written != overload:
            self._overwrite(call)

    def _what_to_do(self, call: Any) -> str:
        return what_to_do(call, self.calls, self.leaves, self.source)

    def resolve(self, name: str) -> str:
        """The canonical name of a value of the exported program."""
        self._check_not_overwritten(name)
        if name not in self.values:
            raise InputError(f"the net gives out or reads {name}, which is no tensor of its input")
        return self.values[name]

    def _owner(self, name: str) -> str:
        return self.memory.get(name, name)

    def _overwrite(self, call: Any) -> None:
        """After an operation in place: who else has the operand's memory sees the result.

        Given   y = dropout(x), relu_(y): the same values; z = x[:, 1:], relu_(z): others
        Result  x is the ReLU's result; x must not be read again
        """
        written = call.args[0].name
        before, after = self.values[written], self.values[call.name]
        for name in (*self.values, *self.parts):
            if self._owner(name) != self._owner(written) or name == call.name:
                continue
            if self.values.get(name) == before:
                self.values[name] = after
            else:
                self.overwritten[name] = _path(call) or "the net"

    def _check_not_overwritten(self, name: str) -> None:
        if name in self.overwritten:
            raise InputError(
                f"{self.overwritten[name]}: an operation in place changes another view of its "
                "tensor, which is read afterwards; write it without in-place (relu, not relu_)"
            )

    def _append(self, made: list[Node]) -> str:
        for node in made:
            if node.name in self.shapes:
                raise InputError(f"{node.name}: two tensors have this name")
            self.shapes[node.name] = node.output_shape([self.shapes[n] for n in node.inputs])
            self.nodes.append(node)
        return made[-1].name

    def _split(self, call: Any, overload: str) -> None:
        """chunk and split, as slices along the axis."""
        source = self.resolve(call.args[0].name)
        args = {**dict(zip(("self", "by", "dim"), call.args)), **call.kwargs}
        shape = self.shapes[source]
        axis = args.get("dim", 0) % len(shape)
        sizes = _split_sizes(overload, next(v for k, v in args.items() if k not in ("self", "dim")),
                             shape[axis])  # fmt: skip
        name = self._name(call, "split")
        starts = np.cumsum([0, *sizes]).tolist()
        self.parts[call.name] = [
            self._append([
                Slice(name=f"{name}.{i}", inputs=(source,), axis=axis, start=start, stop=stop)
            ])
            for i, (start, stop) in enumerate(pairwise(starts))
        ]  # fmt: skip

    def _name(self, call: Any, kind: str) -> str:
        path = _path(call)
        alone = path in self.leaves and self.calls_in[path] == 1 and path
        wanted = path if alone else f"{path}.{kind}".lstrip(".")
        taken, name, count = self.shapes, wanted, 0
        # A module that is called twice, or two sums in one module.
        while name in taken or f"{name}.mul" in taken or f"{name}.0" in taken:
            count += 1
            name = f"{wanted}_{count}"
        return name

    def _arguments(self, call: Any, overload: str, signature: Signature) -> dict[str, Any]:
        schema = call.target._schema
        given = {a.name: v for a, v in zip(schema.arguments, call.args, strict=False)}
        given.update(call.kwargs)
        where = f"{_path(call) or call.name}: {overload}"
        return {"overload": overload} | bind(
            {name: self._value(value) for name, value in given.items()}, signature, where
        )

    def _value(self, value: Any) -> Any:
        if hasattr(value, "op") and hasattr(value, "name"):  # a torch.fx.Node
            if value.name in self.stored:
                return self.stored[value.name]
            return Ref(self.resolve(value.name))
        if isinstance(value, list | tuple):
            items = [self._value(item) for item in value]
            return items if any(isinstance(i, Ref) for i in items) else tuple(items)
        return value


def bind(given: Mapping[str, Any], signature: Signature, where: str) -> dict[str, Any]:
    """A call's arguments in the signature's order, defaults filled in.

    Raises InputError for an argument that the signature lacks, a required one that is missing, or
    a value of another type.
    """
    for name in given:
        if name not in signature:
            raise InputError(f"{where} with the argument {name!r} is not supported")
    arguments: dict[str, Any] = {}
    for name, (kinds, default) in signature.items():
        value = given.get(name, default)
        if value is REQUIRED:
            raise InputError(f"{where} lacks the argument {name!r}")
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        fits = isinstance(value, kinds) or (isinstance(value, np.ndarray) and Ref in kinds)
        # bool is a subclass of int, and a flag is never a size.
        if not fits or (isinstance(value, bool) and bool not in kinds):
            raise InputError(f"{where}: {name} cannot be {value!r}")
        arguments[name] = value
    return arguments


def _activation_names(args: Mapping[str, Any]) -> list[str]:
    from edgevit.ops.base import activations

    return list(activations(args))


_RESHAPES = (
    "aten.unsqueeze.default", "aten.view.default", "aten.reshape.default", "aten.expand.default",
    "aten.slice.Tensor", "aten.squeeze.dims",
)  # fmt: skip
"""Calls that give a stored tensor another shape, as in `weight[:, None, None] * x`."""


def _reshaped(call: Any, stored: np.ndarray) -> np.ndarray:
    import torch

    return call.target(torch.from_numpy(stored), *call.args[1:], **call.kwargs).contiguous().numpy()


_SPLITS = ("aten.split_with_sizes.default", "aten.split.Tensor", "aten.chunk.default")


def _split_sizes(overload: str, by: Any, size: int) -> list[int]:
    if overload == "aten.split_with_sizes.default":
        return list(by)
    each = by if overload == "aten.split.Tensor" else -(-size // by)
    return [min(each, size - start) for start in range(0, size, each)]


def _shares_memory(call: Any, overload: str) -> bool:
    """Whether the result may lie in the memory of the first operand: a view, or in place."""
    if "getitem" in overload or overload in _DROPOUTS:
        return True
    schema = getattr(call.target, "_schema", None)
    return schema is not None and any(each.alias_info is not None for each in schema.returns)


_DROPOUTS = ("aten.dropout.default", "aten.feature_dropout.default")
"""Their schema says nothing of it, but in eval mode they give out their operand itself."""


def _overload(call: Any) -> str:
    """The ATen overload without the mark of its in-place form."""
    namespace, _, rest = str(call.target).partition(".")
    name, _, overload = rest.partition(".")
    return f"{namespace}.{name.rstrip('_')}.{overload}" if overload else str(call.target)


def _path(call: Any) -> str:
    """The module path that a call is written in."""
    stack = list((call.meta.get("nn_module_stack") or {"": ("", None)}).values())
    return stack[-1][0]
