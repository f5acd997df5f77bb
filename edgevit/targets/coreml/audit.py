"""The scale audit: every scale, zero-point, weight and bias read back out of the saved package.

It walks the package's operations beside the program's nodes and demands exact equality, of the
graph as well as of the numbers. A difference fails the build, naming the tensor.

coremltools writes a zero-point of -128 on int8 as 0 on uint8: the same steps for the same real
values, so both are accepted.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgevit.errors import EdgevitError
from edgevit.graph import Graph
from edgevit.ops import INT8_MIN, Conv2d, Node, Quantizer, Weighted
from edgevit.program import Program
from edgevit.targets.coreml.lower import (
    INPUT_NAME,
    LABEL_NAME,
    LOGITS_NAME,
    PROBABILITIES_NAME,
)
from edgevit.targets.coreml.package import METADATA_PREFIX, Feature, MilProgram, Operation, Ref
from edgevit.targets.pixels import quantized, quantized_pixels

WEIGHT_KINDS = ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")
_SIMPLE = {"gelu": "gelu", "relu": "relu", "sigmoid": "sigmoid", "add": "add", "mul": "mul"}
_STORAGE = {"fp16": np.float16, "fp32": np.float32}


@dataclass(frozen=True)
class AuditResult:
    """What was compared, all of it equal.

    activations, weight_channels   how many; 0 and 0 for a float package
    operators   how many of each kind
    tensors     canonical name -> the variable that holds it: int8 values, real ones in a float
                package
    """

    activations: int
    weight_channels: int
    operators: dict[str, int]
    tensors: dict[str, str] = field(repr=False)


def audit(package: MilProgram, program: Program) -> AuditResult:
    """Compares a package with the program it was made from.

    Raises EdgevitError naming the tensor or operation that differs, is missing or is extra.
    """
    return _Audit(package, program).run()


class _Audit:
    def __init__(self, package: MilProgram, program: Program) -> None:
        self.package, self.program = package, program
        self.graph: Graph = program.graph()
        self.weights = {op.name: op for op in package.operations if op.kind in WEIGHT_KINDS}
        self.steps = [op for op in package.operations if op.kind not in WEIGHT_KINDS]
        self.quantized = any(op.kind == "quantize" for op in self.steps)
        self.position = 0
        self.values: dict[str, str] = {}  # canonical name -> variable to read it from
        self.tensors: dict[str, str] = {}
        self.read: set[str] = set()

    def run(self) -> AuditResult:
        self._input()
        for node in self.graph.nodes:
            self._node(node)
        self._output()
        if self.position < len(self.steps):
            extra = self.steps[self.position]
            raise _differs(extra.name, f"{extra.kind} is not part of the program")
        if unread := sorted(set(self.weights) - self.read):
            raise _differs(unread[0], "no convolution of the program reads it")
        self._metadata()
        weighted = self.graph.weighted() if self.quantized else ()
        return AuditResult(
            activations=len(self.graph.activations()) if self.quantized else 0,
            weight_channels=sum(len(node.weight_scale) for node in weighted),
            operators=dict(Counter(op.kind for op in self.package.operations)),
            tensors=self.tensors,
        )

    def _take(self, kind: str, where: str) -> Operation:
        if self.position == len(self.steps):
            raise _differs(where, f"the package ends where {kind} is expected")
        found = self.steps[self.position]
        if found.kind != kind:
            raise _differs(where, f"{found.kind} ({found.name}) stands where {kind} is expected")
        self.position += 1
        return found

    def _next_is(self, kind: str) -> bool:
        return self.position < len(self.steps) and self.steps[self.position].kind == kind

    # -- edges ----------------------------------------------------------------------------------

    def _input(self) -> None:
        name, shape = self.graph.input_name, self.graph.input_shape
        value, feature = INPUT_NAME, self.package.input
        image = Feature(INPUT_NAME, "image RGB", shape[2:])
        if feature not in (image, Feature(INPUT_NAME, "multiArray float32", shape)):
            raise _differs(name, f"the package's input is {feature}")
        if feature == image:
            value = self._normalise(value, name)
        self._quantize(name, self._cast(value, name))

    def _normalise(self, value: str, name: str) -> str:
        quantizer = self.graph.quantizer(name)
        pixels = np.arange(256, dtype=np.float32)[None]
        for kind in ("mul", "add"):
            op = self._one(self._take(kind, name), "x", value, name)
            constant = np.asarray(op.inputs["y"])
            if constant.shape != (1, 3, 1, 1) or constant.dtype != np.float32:
                raise _differs(name, "its normalisation is not one float32 value a channel")
            constant = constant.reshape(3, 1)
            pixels = pixels * constant if kind == "mul" else pixels + constant
            value = op.name
        wanted = quantized_pixels(self.program.info.preprocessing, quantizer)
        if not np.array_equal(quantized(pixels, quantizer), wanted):
            raise _differs(name, "its normalisation gives other values than the program's")
        return value

    def _cast(self, value: str, where: str) -> str:
        """The variable itself, or what a cast between float types makes of it."""
        if not self._next_is("cast"):
            return value
        return self._one(self._take("cast", where), "x", value, where).name

    def _output(self) -> None:
        name = self.graph.output_name
        value, labels = self.values[name], list(self.program.info.labels)
        classifier = self.package.outputs[0].name == LABEL_NAME
        if classifier:
            op = self._one(self._take("softmax", name), "x", value, name)
            if int(op.inputs["axis"]) not in (1, -1):
                raise _differs(name, f"softmax over axis {op.inputs['axis']}")
            value = op.name
        value = self._cast(value, name)
        if classifier:
            op = self._one(self._take("classify", name), "probabilities", value, name)
            if [str(label) for label in op.inputs["classes"]] != labels:
                raise _differs(name, "the classifier's labels are others")
            expected = [(LABEL_NAME, "string"), (PROBABILITIES_NAME, "dictionary")]
            results = (LABEL_NAME, PROBABILITIES_NAME)
        else:
            expected, results = [(LOGITS_NAME, "multiArray float32")], (value,)
        if [(feature.name, feature.kind) for feature in self.package.outputs] != expected:
            raise _differs(name, f"the package's outputs are {self.package.outputs}")
        if self.package.results != results:
            raise _differs(name, f"the package returns {self.package.results}")

    def _metadata(self) -> None:
        info = self.program.info
        for key, expected in (
            ("program_sha256", self.program.sha256),
            ("profile", info.profile),
            ("labels", list(info.labels)),
            ("preprocessing", info.preprocessing.to_json()),
        ):
            text = self.package.metadata.get(METADATA_PREFIX + key, "")
            found = text if isinstance(expected, str) else _json(text)
            if found != expected:
                raise _differs(f"metadata {METADATA_PREFIX}{key}", f"is {text[:80]!r}")

    # -- operations -----------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        if isinstance(node, Weighted):
            value = self._weighted(node)
        elif node.kind in _SIMPLE:
            value = self._simple(node)
        elif node.kind == "hard_swish":
            value = self._hard_swish(node)
        elif node.kind == "mean":
            op = self._one(self._take("reduce_mean", node.name), "x", self._read(node), node.name)
            axes = sorted(int(axis) % 4 for axis in op.inputs["axes"])
            if axes != [2, 3] or not op.inputs["keep_dims"]:
                raise _differs(node.name, f"the mean is over axes {axes}")
            value = op.name
        else:
            op = self._one(self._take("reshape", node.name), "x", self._read(node), node.name)
            if op.shape != self.graph.shape(node.name):
                raise _differs(
                    node.name, f"reshaped to {op.shape}, not {self.graph.shape(node.name)}"
                )
            self.values[node.name] = op.name
            return
        self._quantize(node.name, value)

    def _simple(self, node: Node) -> str:
        op = self._take(_SIMPLE[node.kind], node.name)
        for argument, source in zip(("x", "y"), node.inputs):
            self._one(op, argument, self.values[source], node.name)
        if node.kind == "gelu" and op.inputs.get("mode") != "EXACT":
            raise _differs(node.name, f"GELU in mode {op.inputs.get('mode')}")
        return op.name

    def _hard_swish(self, node: Node) -> str:
        """MIL has no hard-swish: with w = x where x >= -3, else 0, it is w * clip(w / 6 + 1/2)."""
        positive = self._take("thresholded_relu", node.name)
        self._one(positive, "x", self._read(node), node.name)
        gate = self._one(self._take("sigmoid_hard", node.name), "x", positive.name, node.name)
        for op, argument, expected in (
            (positive, "alpha", -3), (gate, "alpha", 1 / 6), (gate, "beta", 1 / 2)
        ):  # fmt: skip
            found = np.asarray(op.inputs[argument])
            # Before iOS17 a constant has the element type of x, since then one of its own.
            if found.dtype not in _STORAGE.values() or found != found.dtype.type(expected):
                raise _differs(node.name, f"{op.kind} has {argument} {found}, not {expected:.4g}")
        product = self._one(self._take("mul", node.name), "x", positive.name, node.name)
        return self._one(product, "y", gate.name, node.name).name

    def _weighted(self, node: Node) -> str:
        kind = "conv" if isinstance(node, Conv2d) else "linear"
        op = self._one(self._take(kind, node.name), "x", self._read(node), node.name)
        self._weight(node, op)
        bias = np.zeros_like(node.bias) if op.inputs.get("bias") is None else None
        self._same(op, "bias", node.bias, f"{node.module}: its bias", bias)
        if kind == "conv":
            _same_geometry(node, op)
        if node.activation:
            return self._one(self._take("relu", node.name), "x", op.name, node.name).name
        return op.name

    def _weight(self, node: Node, op: Operation) -> None:
        where = f"{node.module}: its weight"
        found = op.inputs.get("weight")
        if not self.quantized:
            self._same(op, "weight", node.real_weight(), where)
            return
        made = self.weights.get(found.name) if isinstance(found, Ref) else None
        if made is None:
            raise _differs(where, "is not int8 behind a constexpr dequantize")
        self.read.add(made.name)
        data, scale, zero_point = _constexpr(made)
        if data.dtype != np.int8 or not np.array_equal(data, node.weight):
            raise _differs(where, "differs in its int8 values")
        if not np.array_equal(scale, node.weight_scale):
            raise _differs(where, "differs in a scale")
        if np.any(zero_point):
            raise _differs(where, "has a zero-point that is not 0")

    def _quantize(self, name: str, value: str) -> None:
        if not self.quantized:
            self.values[name] = self.tensors[name] = value
            return
        quantizer = self.graph.quantizer(name)
        op = self._one(self._take("quantize", name), "input", value, name)
        self._same_quantizer(op, quantizer, op.dtype, name)
        back = self._one(self._take("dequantize", name), "input", op.name, name)
        self._same_quantizer(back, quantizer, op.dtype, name)
        self.tensors[name], self.values[name] = op.name, back.name

    def _same_quantizer(self, op: Operation, expected: Quantizer, dtype: str, name: str) -> None:
        scale = np.asarray(op.inputs["scale"])
        if scale.size != 1 or float(scale) != expected.scale:
            raise _differs(name, f"{op.kind} has scale {scale}, expected {expected.scale!r}")
        zero_point = op.inputs.get("zero_point")
        found = 0 if zero_point is None else int(np.asarray(zero_point))
        lowest = {"int8": INT8_MIN, "uint8": 0}.get(dtype)
        if lowest is None or found - lowest != expected.zero_point - INT8_MIN:
            raise _differs(
                name, f"{op.kind} has zero-point {found} on {dtype}, expected "
                f"{expected.zero_point} on int8"
            )  # fmt: skip

    # -- comparing ------------------------------------------------------------------------------

    def _read(self, node: Node) -> str:
        return self.values[node.inputs[0]]

    def _one(self, op: Operation, argument: str, value: str, where: str) -> Operation:
        if op.inputs.get(argument) != Ref(value):
            raise _differs(where, f"{op.kind} reads {op.inputs.get(argument)}, not {value}")
        return op

    def _same(
        self, op: Operation, argument: str, expected: np.ndarray, where: str, found: Any = None
    ) -> None:
        """Equal after rounding to the element type that the operation is stored in."""
        found = np.asarray(op.inputs[argument] if found is None else found)
        if not np.array_equal(found, expected.astype(_STORAGE[op.dtype])):
            raise _differs(where, "differs")


def _constexpr(op: Operation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 values, scales per output channel, zero-points of a constant dequantize."""
    if op.kind == "constexpr_affine_dequantize":
        data, scale = op.inputs["quantized_data"], np.asarray(op.inputs["scale"], np.float32)
        if int(op.inputs["axis"]) != 0:
            raise _differs(op.name, f"weights are quantized along axis {op.inputs['axis']}")
        return np.asarray(data), scale, np.asarray(op.inputs.get("zero_point", 0))
    data, scale = np.asarray(op.inputs["data"]), np.asarray(op.inputs["scale"], np.float32)
    if scale.shape != (data.shape[0],) + (1,) * (data.ndim - 1):
        raise _differs(op.name, f"scales of shape {scale.shape} are not per output channel")
    offset = op.inputs.get("offset")
    return data, scale.reshape(-1), np.asarray(0 if offset is None else offset)


def _same_geometry(node: Node, op: Operation) -> None:
    """Stride, padding, dilation and groups."""
    arguments = op.inputs
    (top, left), pad_type = node.padding, arguments.get("pad_type", "valid")
    pad = [0, 0, 0, 0] if pad_type == "valid" else [int(n) for n in arguments.get("pad", ())]
    found = (
        [int(n) for n in arguments.get("strides", (1, 1))],
        pad if pad_type in ("valid", "custom") else pad_type,
        [int(n) for n in arguments.get("dilations", (1, 1))],
        int(arguments.get("groups", 1)),
    )
    expected = (list(node.stride), [top, top, left, left], [1, 1], node.groups)
    if found != expected:
        raise _differs(node.name, f"the convolution's geometry is {found}, expected {expected}")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _differs(name: str, how: str) -> EdgevitError:
    return EdgevitError(f"scale audit: {name}: {how}")
