"""The scale audit: every scale, zero-point, weight and bias read back out of the written ONNX.

It walks the file's nodes beside the program's and demands exact equality, of the graph as well as
of the numbers. A pair is missing only where `place.dropped` says so. A difference fails the build,
naming the tensor.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.data.images import Preprocessing
from edgevit.errors import EdgevitError
from edgevit.ops import Conv2d, Node, Weighted
from edgevit.program import Program
from edgevit.targets.tensorrt.lower import METADATA_PREFIX, OUTPUT_NAME, onnx
from edgevit.targets.tensorrt.place import dropped

_SIMPLE = {
    "gelu": "Gelu", "hard_swish": "HardSwish", "relu": "Relu", "sigmoid": "Sigmoid", "add": "Add",
    "mul": "Mul",
}  # fmt: skip


@dataclass(frozen=True)
class AuditResult:
    """How many tensors and channels were compared, all of them equal; operators by name.

    activations, weight_channels   0 and 0 of a float model, whose weights are compared all the same
    tensors     canonical name -> the int8 tensor that holds it, of those that are quantized
    drops       canonical names of those that are not
    """

    activations: int
    weight_channels: int
    operators: dict[str, int]
    tensors: dict[str, str]
    drops: tuple[str, ...]


def audit(data: bytes, program: Program) -> AuditResult:
    """Compares the bytes of an ONNX file with the program they were made from.

    Raises EdgevitError naming the tensor or node that differs, is missing or is extra.
    """
    package = onnx()
    from google.protobuf.message import DecodeError

    try:
        model = package.load_model_from_string(data)
        package.checker.check_model(model)
        return _Audit(model, program).run()
    except (DecodeError, package.checker.ValidationError, ValueError, TypeError) as error:
        raise EdgevitError(f"scale audit: the file is not a readable model: {error}") from error


class _Audit:
    def __init__(self, model: Any, program: Program) -> None:
        self.package = onnx()
        self.model, self.program, self.graph = model, program, program.graph()
        self.constants = {
            tensor.name: self.package.numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
        }
        self.makers = {output: node for node in model.graph.node for output in node.output}
        self.quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        self.dropped = dropped(self.graph) if self.quantized else self.graph.activations()
        self.values: dict[str, str] = {}
        self.tensors: dict[str, str] = {}
        self.seen: set[str] = set()

    def run(self) -> AuditResult:
        source = self._edge(self.model.graph.input, self.graph.input_name, self.graph.input_shape)
        self._quantizer(self.graph.input_name, source)
        for node in self.graph.nodes:
            self._node(node)
        shape = self.graph.shape(self.graph.output_name)
        self._edge(self.model.graph.output, OUTPUT_NAME, shape)
        if self.values[self.graph.output_name] != OUTPUT_NAME:
            raise _differs(self.graph.output_name, "is not what the model gives out")
        extra = [node.name for output, node in self.makers.items() if output not in self.seen]
        if extra:
            raise _differs(extra[0], "is not part of the program")
        self._metadata()
        return AuditResult(
            activations=len(self.tensors),
            weight_channels=sum(len(n.weight_scale) for n in self.graph.weighted())
            if self.quantized
            else 0,
            operators=dict(Counter(node.op_type for node in self.model.graph.node)),
            tensors=self.tensors,
            drops=tuple(self.dropped),
        )

    # -- the graph ------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        inputs = [self.values[name] for name in node.inputs]
        if isinstance(node, Weighted):
            value = self._weighted(node, inputs[0])
        elif node.kind in _SIMPLE:
            found = self._made(node.name, _SIMPLE[node.kind], inputs)
            value = found.output[0]
            if (
                node.kind == "gelu"
                and self._attributes(found).get("approximate", b"none") != b"none"
            ):
                raise _differs(node.name, "GELU is the approximate one")
        elif node.kind == "mean":
            found = self._made(node.name, "ReduceMean", inputs)
            axes = self._constant(found.input[1], node.name).tolist()
            if axes != [2, 3] or self._attributes(found).get("keepdims", 1) != 1:
                raise _differs(node.name, f"the mean is over axes {axes}")
            value = node.name
        else:
            self._made(node.name, "Flatten", inputs)
            self.values[node.name] = node.name
            return
        self._quantizer(node.name, value)

    def _weighted(self, node: Node, source: str) -> str:
        kind = "Conv" if isinstance(node, Conv2d) else "Gemm"
        found = self._made(node.module, kind, [source])
        self._weight(node, found.input[1])
        bias = self._constant(found.input[2], f"{node.module}.bias")
        if not np.array_equal(bias, node.bias.astype(bias.dtype)):
            raise _differs(f"{node.module}.bias", "differs")
        attributes = self._attributes(found)
        if kind == "Conv":
            expected = {
                "kernel_shape": list(node.weight.shape[2:]), "strides": list(node.stride),
                "pads": [*node.padding, *node.padding], "group": node.groups,
            }  # fmt: skip
        else:
            expected = {"transB": 1}
        if attributes != expected:
            raise _differs(node.name, f"has the attributes {attributes}, expected {expected}")
        if not node.activation:
            return found.output[0]
        return self._made(node.name, "Relu", [found.output[0]]).output[0]

    def _weight(self, node: Node, tensor: str) -> None:
        name = f"{node.module}.weight"
        if not self.quantized:
            values = self._constant(tensor, name)
            expected = node.real_weight()
            if not np.array_equal(values, expected.astype(values.dtype)):
                raise _differs(name, "differs")
            return
        found = self._made(tensor, "DequantizeLinear", [], where=name)
        data, scale, zero_point = (self._constant(each, name) for each in found.input)
        if data.dtype != np.int8 or not np.array_equal(data, node.weight):
            raise _differs(name, "differs in its int8 values")
        if not np.array_equal(scale.astype(np.float32), node.weight_scale):
            raise _differs(name, "differs in a scale")
        if zero_point.dtype != np.int8 or zero_point.any():
            raise _differs(name, "has a zero-point that is not 0 or not int8")
        if self._attributes(found) != {"axis": 0}:
            raise _differs(name, "is not quantized per output channel")

    def _quantizer(self, name: str, value: str) -> None:
        self.values[name] = value
        edge = OUTPUT_NAME if name == self.graph.output_name else f"{name}.cast"
        if not self.quantized and edge in self.makers:
            self.values[name] = self._made(edge, "Cast", [value], where=name).output[0]
        if name in self.dropped:
            return
        pair = self._made(f"{name}.q", "QuantizeLinear", [value])
        last = OUTPUT_NAME if name == self.graph.output_name else f"{name}.dq"
        back = self._made(last, "DequantizeLinear", [pair.output[0]], where=name)
        for found in (pair, back):
            scale, zero_point = (self._constant(each, name) for each in found.input[1:])
            if scale.shape != () or float(scale) != self.graph.quantizer(name).scale:
                raise _differs(name, f"{found.op_type} has scale {scale}")
            expected = self.graph.quantizer(name).zero_point
            if zero_point.dtype != np.int8 or zero_point.any() or expected:
                raise _differs(
                    name, f"{found.op_type} has zero-point {zero_point}, the program {expected}"
                )
        self.tensors[name], self.values[name] = pair.output[0], back.output[0]

    # -- the edges ------------------------------------------------------------------------------

    def _edge(self, found: Any, name: str, shape: tuple[int, ...]) -> str:
        names = [value.name for value in found]
        if names != [name]:
            raise _differs(name, f"the model's tensors at that end are {names}")
        size = tuple(side.dim_value for side in found[0].type.tensor_type.shape.dim)
        if size != shape:
            raise _differs(name, f"has shape {size}, expected {shape}")
        return name

    def _metadata(self) -> None:
        found = {row.key: row.value for row in self.model.metadata_props}
        info = self.program.info
        if found.get(METADATA_PREFIX + "program_sha256") != self.program.sha256:
            raise _differs(f"metadata {METADATA_PREFIX}program_sha256", "is another program's")
        if json.loads(found.get(METADATA_PREFIX + "labels", "null")) != list(info.labels):
            raise _differs(f"metadata {METADATA_PREFIX}labels", "differ")
        rules = json.loads(found.get(METADATA_PREFIX + "preprocessing", "{}"))
        if not rules or Preprocessing.from_json(rules) != info.preprocessing:
            raise _differs(f"metadata {METADATA_PREFIX}preprocessing", "differs")

    # -- reading --------------------------------------------------------------------------------

    def _made(self, tensor: str, kind: str, inputs: list[str], where: str | None = None) -> Any:
        where = tensor if where is None else where
        found = self.makers.get(tensor)
        if found is None or found.op_type != kind:
            by = found.op_type if found is not None else "nothing"
            raise _differs(where, f"made by {by}, not by {kind}")
        if list(found.input[: len(inputs)]) != inputs:
            raise _differs(where, f"{kind} reads {list(found.input)}, not {inputs}")
        self.seen.add(tensor)
        return found

    def _constant(self, name: str, where: str) -> np.ndarray:
        if name not in self.constants:
            raise _differs(where, f"{name} is not a constant of the file")
        return self.constants[name]

    def _attributes(self, node: Any) -> dict[str, Any]:
        read = self.package.helper.get_attribute_value
        return {a.name: list(v) if isinstance(v := read(a), list) else v for a in node.attribute}


def _differs(name: str, how: str) -> EdgevitError:
    return EdgevitError(f"scale audit: {name}: {how}")
