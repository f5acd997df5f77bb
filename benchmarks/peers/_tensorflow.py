"""A net's operations as a TensorFlow function: what the peers that use its converter share."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

Quantizers = dict[str, dict[str, float]]


class Net:
    """The function of a net of `peer_inputs.py`, NHWC, batch 1.

    Where the net has quantizers, each tensor and each weight passes a fake_quant operation.
    """

    def __init__(self, net: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self._net, self._arrays = net, arrays
        self._quantizers: Quantizers = net.get("quantizers", {})

    def concrete(self) -> Any:
        channels, height, width = self._net["input_shape"][1:]
        taken = tf.TensorSpec([1, height, width, channels], tf.float32, name="input")
        return tf.function(self._run, input_signature=[taken]).get_concrete_function()

    def _run(self, x: Any) -> Any:
        values = {self._net["input"]: self._quantized(x, self._net["input"])}
        for node in self._net["nodes"]:
            sources = [values[name] for name in node["inputs"]]
            if node["kind"] == "flatten":
                values[node["name"]] = sources[0]
                continue
            value = self._operation(node, sources)
            values[node["name"]] = self._quantized(value, node["name"])
        return tf.reshape(values[self._net["output"]], [1, -1])

    def _quantized(self, value: Any, name: str) -> Any:
        quantizer = self._quantizers.get(name)
        if quantizer is None:
            return value
        scale, zero_point = quantizer["scale"], quantizer["zero_point"]
        low, high = (float(np.float32((q - zero_point) * scale)) for q in (-128, 127))
        return tf.quantization.fake_quant_with_min_max_args(value, low, high, num_bits=8)

    def _operation(self, node: dict[str, Any], sources: list[Any]) -> Any:
        kind = node["kind"]
        if kind in ("conv2d", "linear"):
            return self._convolution(node, sources[0])
        operations = {
            "add": lambda a, b: a + b,
            "mul": lambda a, b: a * b,
            "gelu": lambda a: tf.nn.gelu(a, approximate=False),
            "relu": tf.nn.relu,
            "sigmoid": tf.sigmoid,
            "mean": lambda a: tf.reduce_mean(a, [1, 2], keepdims=True),
        }
        return operations[kind](*sources)

    def _convolution(self, node: dict[str, Any], x: Any) -> Any:
        module = node["module"]
        weight = self._arrays[f"{module}.weight"]
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        kernel = tf.constant(weight.transpose(2, 3, 1, 0))
        scale = self._arrays.get(f"{module}.scale")
        if scale is not None:
            kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                kernel, -127 * scale, 127 * scale, num_bits=8, narrow_range=True
            )
        (top, left), (down, right) = node["padding"], node["stride"]
        padding = "VALID"
        if (top or left) and (down, right) == (1, 1):
            padding = "SAME"
        elif top or left:
            x = tf.pad(x, [[0, 0], [top, top], [left, left], [0, 0]])
        steps = [1, down, right, 1]
        if node["groups"] > 1:
            height, width, _, channels = kernel.shape
            kernel = tf.reshape(kernel, [height, width, channels, 1])
            value = tf.nn.depthwise_conv2d(x, kernel, steps, padding)
        else:
            value = tf.nn.conv2d(x, kernel, steps, padding)
        bias: Any = self._arrays[f"{module}.bias"]
        value = tf.nn.bias_add(value, bias)
        return tf.nn.relu(value) if node["activation"] == "relu" else value


def converter(concrete: Any) -> Any:
    """TensorFlow's converter of a function, int8 inside and out."""
    made = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    made.inference_input_type = made.inference_output_type = tf.int8
    return made
