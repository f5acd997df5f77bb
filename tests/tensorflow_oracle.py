"""The same program through TensorFlow's converter: an oracle for the direct flatbuffer writer.

    python -m tests.tensorflow_oracle MODEL.evq OUT.tflite [MODEL.evq OUT.tflite …]

The graph becomes a TensorFlow function whose every tensor passes a fake_quant op with the
program's range, and the converter makes an int8 model of it. Two compilers that share no code and
agree on every output bit leave little room for an error in either. Run as its own process:
TensorFlow takes a gigabyte, and its protobuf and flatbuffers are best kept apart.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np

from edgevit.graph import Graph
from edgevit.ops import (
    INT8_MAX,
    INT8_MIN,
    WEIGHT_MAX,
    Add,
    Conv2d,
    Flatten,
    Gelu,
    HardSwish,
    Linear,
    Mean,
    Mul,
    Node,
    Quantizer,
    Relu,
    Sigmoid,
)
from edgevit.program import Program


def convert(program: Program) -> bytes:
    """The int8 .tflite bytes that TensorFlow's converter makes of a program."""
    import tensorflow as tf

    graph = program.graph()
    shape = graph.input_shape
    specification = tf.TensorSpec([1, shape[2], shape[3], shape[1]], tf.float32)
    function = tf.function(lambda x: _build(tf, graph, x), input_signature=[specification])
    concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _build(tf: Any, graph: Graph, x: Any) -> Any:
    values = {graph.input_name: _fake_quantize(tf, x, graph.quantizer(graph.input_name))}
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        if isinstance(node, Flatten):
            values[node.name] = inputs[0]
            continue
        value = _operation(tf, node, inputs)
        values[node.name] = _fake_quantize(tf, value, graph.quantizer(node.name))
    return tf.reshape(values[graph.output_name], [1, -1])


def _fake_quantize(tf: Any, value: Any, quantizer: Quantizer) -> Any:
    low, high = (
        float(np.float32((q - quantizer.zero_point) * quantizer.scale))
        for q in (INT8_MIN, INT8_MAX)
    )
    return tf.quantization.fake_quant_with_min_max_args(value, low, high, num_bits=8)


def _operation(tf: Any, node: Node, inputs: list[Any]) -> Any:
    if isinstance(node, Linear):
        return _convolution(tf, node.as_convolution(), inputs[0])
    if isinstance(node, Conv2d):
        return _convolution(tf, node, inputs[0])
    operations: dict[type[Node], Callable[..., Any]] = {
        Add: lambda a, b: a + b,
        Mul: lambda a, b: a * b,
        Gelu: lambda a: tf.nn.gelu(a, approximate=False),
        HardSwish: lambda a: a * tf.nn.relu6(a + 3) * (1 / 6),
        Relu: tf.nn.relu,
        Sigmoid: tf.sigmoid,
        Mean: lambda a: tf.reduce_mean(a, [1, 2], keepdims=True),
    }
    return operations[type(node)](*inputs)


def _convolution(tf: Any, node: Conv2d, x: Any) -> Any:
    values = node.weight.astype(np.float32) * node.weight_scale[:, None, None, None]
    limit = WEIGHT_MAX * node.weight_scale
    weight = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.constant(values.transpose(2, 3, 1, 0)), -limit, limit, num_bits=8, narrow_range=True
    )
    (top, left), (step_y, step_x) = node.padding, node.stride
    padding = "VALID"
    if (top or left) and node.stride == (1, 1):
        padding = "SAME"
    elif top or left:
        x = tf.pad(x, [[0, 0], [top, top], [left, left], [0, 0]])
    steps = [1, step_y, step_x, 1]
    if node.depthwise:
        height, width, _, channels = weight.shape
        weight = tf.reshape(weight, [height, width, channels, 1])
        value = tf.nn.depthwise_conv2d(x, weight, steps, padding)
    else:
        value = tf.nn.conv2d(x, weight, steps, padding)
    value = tf.nn.bias_add(value, node.bias)
    return tf.nn.relu(value) if node.activation is Relu else value


if __name__ == "__main__":
    for source, target in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        Path(target).write_bytes(convert(Program.load(source)))
