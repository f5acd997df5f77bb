"""Graph to a QDQ ONNX (opset 20), as TensorRT's explicit INT8 quantization wants it.

    Given   conv2d "stem.conv1" -> gelu "stem.act1", both quantized
    Result  DequantizeLinear "stem.conv1.weight.dq" (int8 weights, axis 0), Conv "stem.conv1",
            Gelu "stem.act1", QuantizeLinear "stem.act1.q", DequantizeLinear "stem.act1.dq"

A float tensor has its canonical name, its int8 form ".q" behind it and the dequantized one ".dq".
TensorRT 11 is strongly typed: what is float here is float there, so all of it is float16 unless
asked otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from edgevit.errors import InputError, ToolMissing
from edgevit.graph import float_graph
from edgevit.ops import Linear, Node
from edgevit.program import Program
from edgevit.targets.tensorrt.options import TensorrtOptions
from edgevit.targets.tensorrt.place import dropped

OPSET, IR_VERSION = 20, 10
OUTPUT_NAME = "logits"
METADATA_PREFIX = "edgevit."
_SIMPLE = {
    "gelu": "Gelu", "hard_swish": "HardSwish", "relu": "Relu", "sigmoid": "Sigmoid", "add": "Add",
    "mul": "Mul",
}  # fmt: skip


def onnx() -> ModuleType:
    """The onnx package, with its helper. Raises ToolMissing where it is not installed."""
    try:
        import onnx.helper
    except ImportError as error:
        raise ToolMissing(
            f"the TensorRT target needs onnx ({error}): pip install onnx==1.23.2"
        ) from error
    return onnx


def lower(program: Program, options: TensorrtOptions) -> Any:
    """The ONNX model of a program, not yet audited.

    Raises InputError naming an operation it does not know, a tensor without a quantizer or, for
    the asymmetric profile, the reason and the command that helps; ToolMissing without onnx.
    """
    if program.info.profile != "portable":
        raise InputError(
            f"TensorRT's INT8 is symmetric, and this program's profile is {program.info.profile}: "
            "its zero-points cannot be kept. Quantize again with `edgevit quantize CKPT --data "
            "DIR --profile portable -o M.evq`"
        )
    return _Lowering(program, options).run()


class _Lowering:
    def __init__(self, program: Program, options: TensorrtOptions) -> None:
        self.onnx = onnx()
        self.program, self.options, self.graph = program, options, program.graph()
        self.graph.activations()  # names a tensor without a quantizer
        if options.precision == "float16":
            self.graph = float_graph(self.graph)
        self.inner = np.dtype(options.compute_precision)
        self.outer = np.dtype(options.io)
        self.dropped = dropped(program.graph())
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.known: set[str] = set()
        self.values: dict[str, str] = {}  # canonical name -> tensor that its readers read
        self.emitters: dict[str, Callable[[Node], str]] = {
            "conv2d": self._weighted, "linear": self._weighted, "mean": self._mean,
            "flatten": self._flatten, **dict.fromkeys(_SIMPLE, self._simple),
        }  # fmt: skip

    def run(self) -> Any:
        helper, graph = self.onnx.helper, self.graph
        self._quantize(graph.input_name, graph.input_name, self.outer, self.inner)
        for node in graph.nodes:
            emit = self.emitters.get(node.kind)
            if emit is None:
                raise InputError(f"{node.name}: the TensorRT target does not know {node.kind!r}")
            value = emit(node)
            last = node.name == graph.output_name
            if not node.requantizes:
                self.values[node.name] = value
            else:
                self._quantize(node.name, value, self.inner, self.outer if last else self.inner)
        made = helper.make_graph(
            self.nodes,
            f"edgevit {self.program.info.model.variant}",
            [self._edge(graph.input_name, graph.input_shape)],
            [self._edge(OUTPUT_NAME, graph.shape(graph.output_name))],
            self.initializers,
        )
        model = helper.make_model(
            made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="edgevit"
        )
        model.ir_version = IR_VERSION
        helper.set_model_props(model, self._metadata())
        return model

    def _edge(self, name: str, shape: tuple[int, ...]) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(self.outer)
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def _metadata(self) -> dict[str, str]:
        import json

        info = self.program.info
        rows = {
            "program_sha256": self.program.sha256,
            "labels": json.dumps(list(info.labels), ensure_ascii=False),
            "preprocessing": json.dumps(info.preprocessing.to_json()),
        }
        return {METADATA_PREFIX + name: value for name, value in rows.items()}

    # -- operations -----------------------------------------------------------------------------

    def _weighted(self, node: Node) -> str:
        path = node.module
        weight = self._dequantized_weight(node)
        bias = self._constant(f"{path}.bias", node.bias.astype(self.inner))
        inputs = [self._read(node), weight, bias]
        if isinstance(node, Linear):
            value = self._node("Gemm", inputs, path, transB=1)
        else:
            value = self._node(
                "Conv", inputs, path,
                kernel_shape=node.weight.shape[2:], strides=node.stride,
                pads=(*node.padding, *node.padding), group=node.groups,
            )  # fmt: skip
        return self._node("Relu", [value], node.name) if node.activation else value

    def _dequantized_weight(self, node: Node) -> str:
        name = f"{node.module}.weight"
        if not self.graph.quantized:
            return self._constant(name, node.weight.astype(self.inner))
        inputs = [
            self._constant(f"{name}.q", node.weight),
            self._constant(f"{name}.scale", node.weight_scale.astype(self.inner)),
            self._constant(f"{name}.zero_point", np.zeros(len(node.weight_scale), np.int8)),
        ]
        return self._node("DequantizeLinear", inputs, f"{name}.dq", axis=0)

    def _simple(self, node: Node) -> str:
        inputs = [self.values[name] for name in node.inputs]
        return self._node(_SIMPLE[node.kind], inputs, node.name)

    def _mean(self, node: Node) -> str:
        axes = self._constant("mean.axes", np.array([2, 3], np.int64))
        return self._node("ReduceMean", [self._read(node), axes], node.name, keepdims=1)

    def _flatten(self, node: Node) -> str:
        return self._node("Flatten", [self._read(node)], node.name, axis=1)

    # -- quantizers -----------------------------------------------------------------------------

    def _quantize(self, name: str, value: str, before: np.dtype, after: np.dtype) -> None:
        """Q and DQ, unless this target does without; `before` and `after` are their float types."""
        if not self.graph.quantized:
            self.values[name] = self._cast(name, value, before, after)
            return
        if name in self.dropped:
            self.values[name] = value
            return
        quantizer = self.graph.quantizer(name)
        if quantizer.zero_point:
            raise InputError(
                f"{name}: zero-point {quantizer.zero_point}; TensorRT's INT8 is symmetric, and a "
                "sigmoid's pair can be left out only where nothing but a product reads it"
            )
        zero_point = self._constant("zero", np.zeros((), np.int8))
        scale = self._scale(name, quantizer.scale, before)
        inner = self._node("QuantizeLinear", [value, scale, zero_point], f"{name}.q")
        last = OUTPUT_NAME if name == self.graph.output_name else f"{name}.dq"
        scale = self._scale(name, quantizer.scale, after)
        inputs = [inner, scale, zero_point]
        self.values[name] = self._node("DequantizeLinear", inputs, f"{name}.dq", output=last)

    def _cast(self, name: str, value: str, before: np.dtype, after: np.dtype) -> str:
        """In a float model: the edges' casts, and the output's name."""
        last = name == self.graph.output_name
        if before == after and not last:
            return value
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(after)
        output = OUTPUT_NAME if last else None
        return self._node("Cast", [value], f"{name}.cast", output=output, to=kind)

    def _scale(self, name: str, scale: float, kind: np.dtype) -> str:
        return self._constant(f"{name}.scale.{kind.name}", np.array(scale, kind))

    # -- writing --------------------------------------------------------------------------------

    def _read(self, node: Node) -> str:
        return self.values[node.inputs[0]]

    def _constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.known:
            self.known.add(name)
            self.initializers.append(self.onnx.numpy_helper.from_array(values, name))
        return name

    def _node(
        self, kind: str, inputs: list[str], name: str, output: str | None = None, **attributes: Any
    ) -> str:
        output = name if output is None else output
        self.nodes.append(
            self.onnx.helper.make_node(kind, inputs, [output], name=name, **attributes)
        )
        return output
