"""The program in torch's own forms: a module to run, an ExportedProgram, the bytes of program.pt2.

`graph_module` writes the graph out as the ATen calls it stands for, which is what is exported and
stored: weights are int8 buffers behind dequantize_per_channel, and every tensor passes
quantize_per_tensor and dequantize_per_tensor. `executor` runs the same program exactly.
"""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.errors import EdgevitError
from edgevit.graph.graph import INT8_MAX, INT8_MIN, WEIGHT_MAX, Graph, Node
from edgevit.program.container import write_zip

if TYPE_CHECKING:
    import torch

EXAMPLE_BATCH = 1


def graph_module(graph: Graph) -> torch.fx.GraphModule:
    """A graph as a module: float32 (N, 3, H, W) to float32 logits (N, classes).

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

        self.aten, self.quantized = torch.ops.aten, torch.ops.quantized_decomposed
        self.int8 = torch.int8
        self.graph, self.fx = graph, fx.Graph()
        self.root = torch.nn.Module()
        self.values: dict[str, fx.Node] = {}

    def write(self) -> torch.fx.Graph:
        source = self.fx.placeholder("input")
        name = self.graph.input_name
        self.values[name] = self._quantize(source, name)
        for node in self.graph.nodes:
            value = self._operation(node)
            if node.op != "flatten":
                value = self._quantize(value, node.name)
            self.values[node.name] = value
        self.fx.output(self.values[self.graph.output_name])
        return self.fx

    def _operation(self, node: Node) -> torch.fx.Node:
        inputs = tuple(self.values[name] for name in node.inputs)
        if node.op in ("conv2d", "linear"):
            return self._weighted(node, inputs[0])
        target, extra = {
            "add": (self.aten.add.Tensor, ()),
            "mul": (self.aten.mul.Tensor, ()),
            "gelu": (self.aten.gelu.default, ()),
            "hard_swish": (self.aten.hardswish.default, ()),
            "relu": (self.aten.relu.default, ()),
            "sigmoid": (self.aten.sigmoid.default, ()),
            "mean": (self.aten.mean.dim, ([2, 3], True)),
            "flatten": (self.aten.flatten.using_ints, (1,)),
        }[node.op]
        return self._call(target, (*inputs, *extra), node.name, _module_of(node))

    def _weighted(self, node: Node, source: torch.fx.Node) -> torch.fx.Node:
        path = node.module
        bias = self._buffer(f"{path}.bias", node.bias)
        args: tuple[Any, ...] = (source, self._weight(node), bias)
        target = self.aten.linear.default
        if node.op == "conv2d":
            args += (list(node.stride), list(node.padding), [1, 1], node.groups)
            target = self.aten.conv2d.default
        value = self._call(target, args, path, path)
        if node.relu:
            value = self._call(self.aten.relu.default, (value,), node.name, node.name)
        return value

    def _weight(self, node: Node) -> torch.fx.Node:
        path = node.module
        if not self.graph.quantized:
            return self._buffer(f"{path}.weight", node.weight)
        zero_points = np.zeros(len(node.weight_scale), np.int64)
        args = (
            self._buffer(f"{path}.weight", node.weight),
            self._buffer(f"{path}.weight_scale", node.weight_scale),
            self._buffer(f"{path}.weight_zero_point", zero_points),
            0, -WEIGHT_MAX, WEIGHT_MAX, self.int8,
        )  # fmt: skip
        target = self.quantized.dequantize_per_channel.default
        return self._call(target, args, f"{path}.weight_dq", path)

    def _quantize(self, value: torch.fx.Node, name: str) -> torch.fx.Node:
        if not self.graph.quantized:
            return value
        quantizer = self.graph.quantizer(name)
        args = (quantizer.scale, quantizer.zero_point, INT8_MIN, INT8_MAX, self.int8)
        ops = self.quantized
        value = self._call(ops.quantize_per_tensor.default, (value, *args), f"{name}.q", name)
        return self._call(ops.dequantize_per_tensor.default, (value, *args), f"{name}.dq", name)

    def _call(self, target: Any, args: tuple[Any, ...], name: str, path: str) -> torch.fx.Node:
        node = self.fx.create_node("call_function", target, args, {}, name.replace(".", "_"))
        node.meta["module_path"] = path
        return node

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
    """Module path a functional operation is written in; a leaf's own path otherwise."""
    if node.op in ("add", "mul", "mean", "flatten"):
        return node.name.rpartition(".")[0]
    return node.name


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
    written = [node for node in module.graph.nodes if node.op == "call_function"]
    traced = [node for node in exported.graph.nodes if node.op == "call_function"]
    if [n.target for n in written] != [n.target for n in traced]:
        raise EdgevitError("torch.export changed the operations of the program")
    for before, after in zip(written, traced, strict=True):
        after._rename(before.name)
        path = before.meta["module_path"]
        stack = OrderedDict([("L__self__", ("", "torch.nn.Module"))])
        if path:
            stack[f"L__self___{path}"] = (path, "torch.nn.Module")
        # Everything else that torch noted (stack traces with file paths) is dropped.
        after.meta = {"val": after.meta["val"], "nn_module_stack": stack}
    exported.graph_signature.output_specs[0].arg.name = traced[-1].name
    exported.example_inputs = None  # they would be stored as a pickle
    # Which submodules exist is no use to anybody here; the first entry is the program's own.
    del exported.module_call_graph[1:]
    return exported


def pt2_bytes(exported: torch.export.ExportedProgram) -> bytes:
    """The torch.export archive of a program, the same bytes for the same program."""
    import torch

    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    packed = io.BytesIO()
    with zipfile.ZipFile(buffer) as source:
        write_zip(packed, {name: source.read(name) for name in sorted(source.namelist())})
    return packed.getvalue()
