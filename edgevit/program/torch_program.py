"""The program in torch's own forms: a module to run, an ExportedProgram, the bytes of program.pt2.

`graph_module` writes the graph out as torch calls, each operation by its own `compute`: weights are
int8 buffers behind dequantize_per_channel, and every tensor passes quantize_per_tensor and
dequantize_per_tensor. `graph.execute` runs the same program exactly.
"""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgevit.errors import EdgevitError
from edgevit.graph import Graph
from edgevit.ops import INT8_MAX, INT8_MIN, WEIGHT_MAX, Int8Weights, Node, Weighted
from edgevit.program.container import write_zip

if TYPE_CHECKING:
    import torch

EXAMPLE_BATCH = 1


def graph_module(graph: Graph) -> torch.fx.GraphModule:
    """A graph as a module: float32 (N, C, H, W) to its float32 output, or a tuple of several.

    No operation knows the batch size, so any N works. A float graph (see `float_graph`) comes out
    without quantize and dequantize.
    """
    from torch import fx

    writer = _Writer(graph)
    return fx.GraphModule(writer.root, writer.write(), class_name="QuantizedProgram")


class _Writer:
    """Writes one fx graph; each fx node's name and module path tell the tensor it belongs to."""

    def __init__(self, graph: Graph) -> None:
        import torch
        from torch import fx

        # Registers the quantized_decomposed operators with torch.
        from torch.ao.quantization.fx import _decomposed  # noqa: F401
        from torch.fx.proxy import GraphAppendingTracer

        self.quantized, self.int8 = torch.ops.quantized_decomposed, torch.int8
        self.graph, self.fx = graph, fx.Graph()
        self.tracer = GraphAppendingTracer(self.fx)
        self.root = torch.nn.Module()
        self.values: dict[str, fx.Node] = {}

    def write(self) -> torch.fx.Graph:
        from torch import fx

        source = self.fx.placeholder("input")
        name = self.graph.input_name
        self.values[name] = self._quantize(source, name)
        real: dict[str, fx.Node] = {}
        for node in self.graph.nodes:
            value = self._operation(node)
            if node.name in self.graph.real_outputs:
                real[node.name] = value
            if node.requantizes and node.name not in self.graph.unquantized:
                value = self._quantize(value, node.name)
            self.values[node.name] = value
        outputs = tuple(real.get(name, self.values[name]) for name in self.graph.outputs)
        self.fx.output(outputs[0] if len(outputs) == 1 else outputs)
        return self.fx

    def _operation(self, node: Node) -> torch.fx.Node:
        """The calls of the operation's own computation, named after what they make."""
        inputs = [self._proxy(self.values[name]) for name in node.inputs]
        weights = self._weights(node)
        before = len(self.fx.nodes)
        # Of proxies, torch's operations make proxies.
        result = cast("torch.fx.Proxy", node.compute(inputs, weights)).node
        calls = list(self.fx.nodes)[before:]
        path = _module_of(node)
        for call in calls[:-1]:  # a convolution in front of its ReLU, a norm's parts
            inner = node.module if isinstance(node, Weighted) else f"{node.name}_{call.name}"
            self._name(call, inner, inner)
        self._name(result, node.name, path)
        return result

    def _weights(self, node: Node) -> list[Any]:
        if not isinstance(node, Weighted):
            parts = zip(("weight", "bias"), node.real_weights(), strict=False)
            return [self._proxy(self._buffer(f"{node.stored_as}.{n}", v)) for n, v in parts]
        path = node.module
        if isinstance(node.weights, Int8Weights):
            zero_points = np.zeros(node.channels, np.int64)
            args = (
                self._buffer(f"{path}.weight", node.weight),
                self._buffer(f"{path}.weight_scale", node.weight_scale),
                self._buffer(f"{path}.weight_zero_point", zero_points),
                node.channel_axis, -WEIGHT_MAX, WEIGHT_MAX, self.int8,
            )  # fmt: skip
            target = self.quantized.dequantize_per_channel.default
            weight = self._call(target, args, f"{path}.weight_dq", path)
        else:
            weight = self._buffer(f"{path}.weight", node.weight)
        return [self._proxy(weight), self._proxy(self._buffer(f"{path}.bias", node.bias))]

    def _proxy(self, node: torch.fx.Node) -> Any:
        from torch import fx

        return fx.Proxy(node, self.tracer)

    def _quantize(self, value: torch.fx.Node, name: str) -> torch.fx.Node:
        if not self.graph.quantized:
            return value
        quantizer = self.graph.quantizer(name)
        args = (quantizer.scale, quantizer.zero_point, INT8_MIN, INT8_MAX, self.int8)
        ops = self.quantized
        value = self._call(ops.quantize_per_tensor.default, (value, *args), f"{name}.q", name)
        return self._call(ops.dequantize_per_tensor.default, (value, *args), f"{name}.dq", name)

    def _call(self, target: Any, args: tuple[Any, ...], name: str, path: str) -> torch.fx.Node:
        node = self.fx.create_node("call_function", target, args, {})
        self._name(node, name, path)
        return node

    def _name(self, node: torch.fx.Node, name: str, path: str) -> None:
        node._rename(name.replace(".", "_"))
        node.meta["module_path"] = path

    def _buffer(self, path: str, values: np.ndarray) -> torch.fx.Node:
        import torch

        *parents, name = path.split(".")
        owner = self.root
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, torch.nn.Module())
            owner = getattr(owner, parent)
        owner.register_buffer(name, torch.from_numpy(np.array(values)))
        return self.fx.get_attr(path)


def _module_of(node: Node) -> str:
    """Module path that the operation is written in: a leaf's own, else that of its owner."""
    owner, _, last = node.name.rpartition(".")
    return owner if last == node.kind else node.name


def exported_program(graph: Graph) -> torch.export.ExportedProgram:
    """The graph through torch.export (training dialect, batch 1).

    Nodes are named after the canonical tensor names with "_" for ".", the quantize node with "_q"
    and the dequantize node with "_dq" behind it; nn_module_stack ends in the module path.
    """
    import torch

    module = graph_module(graph)
    with torch.no_grad():
        example = torch.zeros(EXAMPLE_BATCH, *graph.input_shape[1:])
        exported = torch.export.export(module, (example,))
    written = _calls(module.graph)
    traced = _calls(exported.graph)
    if len(written) != len(traced):
        raise EdgevitError("torch.export changed the operations of the program")
    for before, after in zip(written, traced, strict=True):
        after._rename(before.name)
        path = before.meta["module_path"]
        stack: OrderedDict[str, tuple[str, str]] = OrderedDict()
        stack["L__self__"] = ("", "torch.nn.Module")
        if path:
            stack[f"L__self___{path}"] = (path, "torch.nn.Module")
        # Everything else that torch noted (stack traces with file paths) is dropped.
        after.meta = {"val": after.meta["val"], "nn_module_stack": stack}
    for spec, made in zip(exported.graph_signature.output_specs, _results(exported.graph)):
        spec.arg.name = made.name
    exported.example_inputs = None  # they would be stored as a pickle
    # Which submodules exist is no use to anybody here; the first entry is the program's own.
    del exported.module_call_graph[1:]
    return exported


def _calls(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    return [node for node in graph.nodes if node.op in ("call_function", "call_method")]


def _results(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    (results,) = graph.output_node().args
    # Every output of the program is a tensor, so each is a node and no constant.
    nodes = list(results) if isinstance(results, tuple | list) else [results]
    return cast("list[torch.fx.Node]", nodes)


def pt2_bytes(exported: torch.export.ExportedProgram) -> bytes:
    """The torch.export archive of a program, the same bytes for the same program."""
    import torch

    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    packed = io.BytesIO()
    with zipfile.ZipFile(buffer) as source:
        write_zip(packed, {name: source.read(name) for name in sorted(source.namelist())})
    return packed.getvalue()
