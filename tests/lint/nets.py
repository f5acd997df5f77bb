"""Graphs to lint: a builder, and a RepViT in small that breaks no rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from edgevit.targets.tensorrt.lint import lint

CHANNELS = 4
SHAPE = [1, CHANNELS, 8, 8]
FLOAT, FLOAT16, INT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8


class Net:
    """Builds a graph node by node; every method returns the name of the tensor it makes."""

    def __init__(self, opset: int = 20) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("x", FLOAT, SHAPE)]

    def const(self, value: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def qdq(
        self, x: str, scale: object = 0.1, zero_point: object = 0, kind: type = np.int8, **more: int
    ) -> str:
        scales = np.asarray(scale, np.float32) if not isinstance(scale, np.ndarray) else scale
        names = self.const(scales), self.const(np.full(scales.shape, zero_point, kind))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *names, **more), *names,
                        **more)  # fmt: skip

    def weight(
        self, shape: Sequence[int], axis: int = 0, scales: int | None = None, kind: type = np.int8
    ) -> str:
        """An int8 constant and its DequantizeLinear; `scales` 1 is per tensor."""
        count = shape[axis] if scales is None else scales
        scale = np.full(() if count == 1 else count, 0.02, np.float32)
        names = self.const(np.ones(shape, kind)), self.const(scale), self.const(scale.astype(kind))
        return self.add("DequantizeLinear", *names, axis=axis)

    def conv(self, x: str, w: str | None = None, channels: int = CHANNELS, size: int = 1) -> str:
        """A quantized convolution that keeps the image's size, with a float bias."""
        w = w or self.weight([channels, CHANNELS, size, size])
        bias = self.const(np.zeros(channels, np.float32))
        return self.add("Conv", x, w, bias, pads=[size // 2] * 4)

    def model(self, output: str, kind: int = FLOAT) -> ModelProto:
        graph = helper.make_graph(
            self.nodes, "net", self.inputs, [helper.make_tensor_value_info(output, kind, None)],
            self.initializers,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        # onnx.checker wants an output to have a shape, whichever it is.
        model = shape_inference.infer_shapes(model)
        model.graph.output[0].type.tensor_type.shape.SetInParent()
        return model


def repvit() -> tuple[Net, str]:
    """A RepViT in small: stem, GELU, token mixer with squeeze-excite, residual, classifier.

    Every habit of edgevit's artifacts is in it: GELU and the sigmoid gate in float, a shortcut that
    shares its Q/DQ with the next convolution, no Q/DQ on the convolution's branch.
    """
    net = Net()
    x = net.conv(net.qdq("x"), size=3)
    x = net.qdq(net.add("Gelu", x))
    x = net.qdq(net.conv(x))
    mean = net.qdq(net.add("ReduceMean", x, net.const(np.array([2, 3])), keepdims=1))
    gate = net.conv(net.qdq(net.add("Relu", net.conv(mean))))
    x = net.qdq(net.add("Mul", x, net.add("Sigmoid", gate)))
    hidden = net.qdq(net.add("Gelu", net.conv(x)))
    x = net.qdq(net.add("Add", x, net.conv(hidden)))
    x = net.qdq(net.add("Add", net.conv(x, size=3), x))
    x = net.add("GlobalAveragePool", x)
    x = net.qdq(net.add("Flatten", x))
    logits = net.add("Gemm", x, net.weight([10, CHANNELS]), net.const(np.zeros(10, np.float32)),
                     transB=1)  # fmt: skip
    return net, net.qdq(logits)


def broken(model: ModelProto, **options: bool) -> list[str]:
    return [finding.rule for finding in lint(model, **options)]
