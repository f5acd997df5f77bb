"""An .mlpackage back to a graph, by coremltools' own readers and nothing of `write`.

coremltools numbers many variables anew ("quantize_17", "linear_0"), so what names a tensor here is
its operation's place among the program's (`place`). The operations that read each MIL operation
are in `records`.

coremltools writes a zero-point of -128 on int8 as 0 on uint8: the same steps for the same real
values, so both are read as the former.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import INPUT, Graph
from edgevit.graph.diff import Stored
from edgevit.graph.norm_form import NormForm
from edgevit.ops import INT8_MIN, Clamp, ConvTranspose2d, Node, Quantizer, SameAs, Shape, Weighted
from edgevit.targets.base import Misread, Reading
from edgevit.targets.coreml.package import (
    Feature,
    MilProgram,
    Operation,
    Ref,
    read_package,
    references,
)
from edgevit.targets.coreml.records import RECORDS, weights_of
from edgevit.targets.coreml.records_norm import norms

CONSTANT = "constexpr_"
LABEL, PROBABILITIES = "classLabel", "classLabel_probs"
METADATA = "edgevit."
IMAGE_KINDS = {"RGB": "image RGB", "BGR": "image BGR", "L": "image GRAYSCALE"}
"""Channels of the preprocessing -> how a package describes an image of them."""
LOWEST = {"int8": INT8_MIN, "uint8": 0}
FLOATS = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}


def place(index: int) -> str:
    """What `read` calls the tensor of the program's operation number `index`."""
    return f"operation {index}"


def read(files: Mapping[str, bytes]) -> Reading:
    """What a package's files hold.

    Raises InputError for what is no ML Program that this edgevit knows, Misread at an operation
    that no program has.
    """
    return read_program(read_package(files))


def read_program(package: MilProgram) -> Reading:
    """`read` of a package that is read already."""
    return Reader(package).run()


@dataclass(frozen=True)
class _Value:
    """A variable: whose real values it has, whether as integers (`quantizer`), and whether they
    are what the operation made, not rounded to int8 (`raw`)."""

    name: str
    quantizer: Quantizer | None = None
    raw: bool = False


class Reader:
    """Walks the operations in order; a node is named by its MIL variable until all are read."""

    def __init__(self, package: MilProgram) -> None:
        self.package = package
        self.quantized = any(op.kind == "quantize" for op in package.operations)
        constants = any(op.kind.startswith(CONSTANT) for op in package.operations)
        self.int8_weights = self.quantized or constants
        self.values: dict[str, _Value] = {}
        self.constants: dict[str, Operation] = {}  # quantized weights that nothing has read yet
        self.halves: dict[str, tuple[str, str]] = {}  # of a hard-swish: (its MIL kind, its source)
        self.nodes: dict[str, Node] = {}
        self.shapes: dict[str, Shape] = {}
        self.quantizers: dict[str, Quantizer] = {}
        self.tensors: dict[str, str] = {}
        self.dtypes: dict[str, str] = {}  # of the quantized variables
        self.stored: set[str] = set()
        self.pixels: np.ndarray | None = None
        self.labels: list[str] | None = None
        self.norms: dict[str, NormForm] = {}
        self.scores: Ref | None = None  # what a classifier's softmax reads
        self.reads = Counter(ref.name for op in package.operations for ref in references(op))

    def run(self) -> Reading:
        shape = self._input()
        self.norms = norms(self)
        inside = {name for norm in self.norms.values() for name in norm.inside}
        for op in self.package.operations:
            if op.name in inside:
                continue
            try:
                self._operation(op)
            except InputError as error:  # of the node's own checks
                raise self.misread(op.name, str(error)) from error
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                what = f"{op.kind} has arguments that no program has ({error})"
                raise self.misread(op.name, what) from error
        if self.constants:
            raise self.misread(next(iter(self.constants)), "no convolution reads this weight")
        outputs, names = self._outputs()
        places = {name: place(index) for index, name in enumerate(self.nodes)} | {INPUT: INPUT}
        try:
            graph = Graph(
                shape,
                tuple(_renamed(node, places) for node in self.nodes.values()),
                tuple(places[name] for name in outputs),
                real_outputs=frozenset(places[name] for name in self._real_outputs(outputs)),
            )
        except InputError as error:
            raise self.misread(outputs[0], str(error)) from error
        self._check_moved(graph)
        return Reading(
            graph=graph,
            quantizers={places[name]: found for name, found in self.quantizers.items()},
            operators=Counter(op.kind for op in self.package.operations),
            tensors={places[name]: own for name, own in self.tensors.items()},
            stored=self._stored(),
            outputs=names,
            input_values=self.pixels,
            program_sha256=self._metadata("program_sha256"),
            labels=self._labels(),
            preprocessing=_json(self._metadata("preprocessing")) or {},
            profile=self._metadata("profile"),
        )

    def misread(self, name: str, what: str, weight: bool = False) -> Misread:
        """The error at a tensor, or at the operation that would be the next one."""
        if name == INPUT:
            return Misread(INPUT, what)
        index = list(self.nodes).index(name) if name in self.nodes else len(self.nodes)
        return Misread(place(index), what, weight)

    # -- edges ----------------------------------------------------------------------------------

    def _input(self) -> Shape:
        feature = self.package.input
        shape = feature.shape
        rules = _json(self._metadata("preprocessing"))
        channels = rules.get("channels", "RGB") if isinstance(rules, dict) else "RGB"
        if feature.kind == IMAGE_KINDS.get(channels) and len(shape) == 2:
            planes = 1 if channels == "L" else 3
            shape = (1, planes, *shape)
            self.pixels = np.tile(np.arange(256, dtype=np.float32), (planes, 1))
        elif feature.kind != "multiArray float32" or len(shape) != 4:
            raise self.misread(INPUT, f"the package's input is {feature}")
        if self.package.input_shape != shape:
            made = self.package.input_shape
            raise self.misread(INPUT, f"described as {feature}, while the program takes {made}")
        self.values[feature.name] = _Value(INPUT)
        self.shapes[INPUT], self.tensors[INPUT] = shape, feature.name
        return shape

    def normalise(self, op: Operation) -> None:
        """A factor or an offset on the pixels, one a channel."""
        (value, constant), source = self.operands(op), self.package.input.name
        first = op.kind == "mul"
        expected = source if first else self.tensors[INPUT]
        if self.pixels is None or value.name != expected or (first is not (source in self.values)):
            raise self.misread(INPUT, f"{op.kind} by a constant, where a program has none")
        planes = len(self.pixels)
        if constant.shape != (1, planes, 1, 1) or constant.dtype != np.float32:
            raise self.misread(INPUT, "its normalisation is not one float32 value a channel")
        column = constant.reshape(planes, 1)
        self.pixels = self.pixels * column if first else self.pixels + column
        self._hand_on(value, op)

    def _hand_on(self, value: Ref, op: Operation) -> None:
        """The operation's result stands for the input, which nothing else may read."""
        if self.reads[value.name] != 1:
            raise self.misread(INPUT, f"more than one operation reads {value.name}")
        del self.values[value.name]
        self.values[op.name], self.tensors[INPUT] = _Value(INPUT), op.name

    def _outputs(self) -> tuple[list[str], tuple[str, ...]]:
        """The graph's outputs, and the package's names of them."""
        found = [(feature.name, feature.kind) for feature in self.package.outputs]
        results = self.package.results
        if self.labels is not None and self.scores is not None:
            expected = [(LABEL, "string"), (PROBABILITIES, "dictionary")]
            if found != expected or results != (LABEL, PROBABILITIES):
                raise self.misread("", f"the package's outputs are {found}")
            return [self.real(self.scores)], (PROBABILITIES,)
        names = [self.real(Ref(result)) for result in results]
        for feature, result, name in zip(self.package.outputs, results, names, strict=False):
            if feature != Feature(result, "multiArray float32", self.shapes[name]):
                raise self.misread(name, f"the output {result} is described as {feature}")
        if len(found) != len(results) or not results:
            raise self.misread(INPUT, f"the package returns {results} as {found}")
        return names, results

    def _real_outputs(self, outputs: list[str]) -> list[str]:
        """The outputs whose values are not rounded to int8, in a package whose others are."""
        given = [self.scores.name] if self.scores is not None else self.package.results
        return [
            name
            for name, result in zip(outputs, given, strict=True)
            if self.quantized and self.values[result].raw
        ]

    def is_classifiers(self, op: Operation) -> bool:
        """Whether a softmax is the one that the classifier has behind the scores."""
        names = {op.name}
        for other in self.package.operations:
            if other.kind == "cast" and any(ref.name in names for ref in references(other)):
                names.add(other.name)
            if other.kind == "classify" and any(ref.name in names for ref in references(other)):
                self.scores = self.operands(op)[0]
                self.values[op.name] = _Value(PROBABILITIES)
                return True
        return False

    def classify(self, op: Operation) -> None:
        """The label of the highest score, behind the classifier's own softmax."""
        (value,) = self.operands(op, "probabilities")
        if self.values.get(value.name) != _Value(PROBABILITIES):
            raise self.misread(op.name, "the classifier reads no softmax of the scores")
        self.labels = [str(label) for label in op.inputs["classes"]]

    def _metadata(self, key: str) -> str:
        return self.package.metadata.get(METADATA + key, "")

    def _labels(self) -> tuple[str, ...]:
        found = _json(self._metadata("labels"))
        labels = tuple(found) if isinstance(found, list) else ()
        if self.labels is not None and tuple(self.labels) != labels:
            raise self.misread("", "the classifier's labels are others")
        return labels

    # -- one operation of the package -----------------------------------------------------------

    def _operation(self, op: Operation) -> None:
        if op.kind.startswith(CONSTANT):
            self.constants[op.name] = op
        elif op.kind == "quantize":
            self._quantize(op)
        elif op.kind == "dequantize":
            self._dequantize(op)
        elif op.kind == "cast":
            self._cast(op)
        elif (norm := self.norms.get(op.name)) is not None:
            self.stored.add(op.dtype)
            self._add(op, norm.node(op.name, self.real(Ref(norm.source))))
        else:
            record = RECORDS.get(op.kind)
            if record is None:
                raise self.misread(op.name, f"{op.kind} is not part of a program")
            for node in record(self, op):
                self._add(op, node)

    def _add(self, op: Operation, node: Node) -> None:
        shape = node.output_shape([self.shapes[name] for name in node.inputs])
        if node.name == op.name and shape != op.shape:
            raise self.misread(op.name, f"{op.kind} makes {op.shape}, program {shape}")
        self.nodes[node.name], self.shapes[node.name] = node, shape
        self.tensors[node.name] = op.name
        read_raw = any(
            self.values[ref.name].raw for ref in references(op) if ref.name in self.values
        )
        self.values[op.name] = _Value(node.name, raw=node.requantizes or read_raw)

    def _cast(self, op: Operation) -> None:
        (value,) = self.operands(op)
        found = self.values.get(value.name)
        if found is None or found.quantizer is not None or op.dtype not in FLOATS:
            raise self.misread(found.name if found else "", f"it is cast to {op.dtype}")
        if found.name == INPUT and INPUT not in self.quantizers:
            self._hand_on(value, op)
        else:
            self.values[op.name] = found

    def _quantize(self, op: Operation) -> None:
        (value,) = self.operands(op, "input")
        name = self.real(value)
        if name in self.quantizers:
            raise self.misread(name, "it is quantized twice")
        if not self._is_given_out(value.name):
            if self.reads[value.name] != 1:
                raise self.misread(name, "it is read before it is quantized")
            del self.values[value.name]
        quantizer = self._quantizer(op, op.dtype, name)
        self.quantizers[name], self.tensors[name] = quantizer, op.name
        self.values[op.name] = _Value(name, quantizer)
        self.dtypes[op.name] = op.dtype

    def _is_given_out(self, variable: str) -> bool:
        """Whether an output has these values, at once or behind a cast; nothing else may read them.

        A cast's own readers are seen by `_outputs`: it is read by nothing.
        """
        casts = {
            op.name
            for op in self.package.operations
            if op.kind == "cast" and any(ref.name == variable for ref in references(op))
        }
        readers = self.reads[variable] - len(casts)
        given = {variable, *casts} & {*self.package.results}
        return bool(given) and readers == 1 and not any(self.reads[cast] for cast in casts)

    def _dequantize(self, op: Operation) -> None:
        (source,) = self.operands(op, "input")
        value = self.values.get(source.name)
        if value is None or value.quantizer is None:
            raise self.misread(op.name, f"it dequantizes {source.name}, which is not quantized")
        if self._quantizer(op, self.dtypes[source.name], value.name) != value.quantizer:
            raise self.misread(value.name, "dequantize has another scale or zero-point")
        self.values[op.name] = _Value(value.name)

    def _quantizer(self, op: Operation, dtype: str, name: str) -> Quantizer:
        scale, zero_point = np.asarray(op.inputs["scale"]), op.inputs.get("zero_point")
        found = np.asarray(0 if zero_point is None else zero_point)
        if scale.size != 1 or found.size != 1 or dtype not in LOWEST:
            raise self.misread(name, f"{op.kind} has scale {scale}, zero-point {found} on {dtype}")
        try:
            return Quantizer(float(scale), int(found) - LOWEST[dtype] + INT8_MIN)
        except InputError as error:
            raise self.misread(name, f"{op.kind}: {error}") from error

    def _check_moved(self, graph: Graph) -> None:
        """A value that is rounded to its input's grid has a pair of its own."""
        for node, placed in zip(self.nodes.values(), graph.nodes, strict=True):
            rounds = isinstance(node.rule, SameAs) and node.requantizes
            is_real = placed.name in graph.unquantized
            if self.quantized and rounds and not is_real and node.name not in self.quantizers:
                raise self.misread(node.name, f"the {node.kind} is not rounded to its input's grid")

    def _stored(self) -> Stored:
        if len(self.stored) > 1:
            raise self.misread(INPUT, f"biases of several types: {sorted(self.stored)}")
        kind = FLOATS.get(next(iter(self.stored), "fp32"))
        if kind is None:
            raise self.misread(INPUT, f"biases of type {sorted(self.stored)}")
        return Stored(real_type=kind, integer_biases=False)

    # -- what the records use -------------------------------------------------------------------

    def operands(self, op: Operation, *names: str) -> list[Any]:
        """An operation's arguments by name, or x and y: Refs, or constants as arrays."""
        given = names or tuple(name for name in ("x", "y") if name in op.inputs)
        if not given or any(op.inputs.get(name) is None for name in given):
            raise self.misread(op.name, f"{op.kind} lacks an operand")
        found = [op.inputs[name] for name in given]
        return [value if isinstance(value, Ref) else np.asarray(value) for value in found]

    def real(self, value: Any) -> str:
        """Whose real values a variable has."""
        found = self.values.get(value.name) if isinstance(value, Ref) else None
        if found is None or found.name not in self.shapes:
            raise self.misread("", f"{value} is read, which is no tensor of a program")
        if found.quantizer is not None:
            raise self.misread(found.name, "it is read as int8")
        return found.name

    def inputs(self, op: Operation) -> tuple[str, ...]:
        """The tensors that an operation of x, or of x and y, reads."""
        return tuple(self.real(value) for value in self.operands(op))

    def weighted(self, op: Operation, kind: type[Weighted], **attributes: Any) -> Weighted:
        """A convolution or linear of the operation's weight and bias."""
        weight = op.inputs.get("weight")
        constant = self.constants.pop(weight.name, None) if isinstance(weight, Ref) else None
        if (constant is None) is self.int8_weights:
            raise self.misread(op.name, "is not int8 behind a constexpr dequantize", True)
        self.stored.add(op.dtype)
        (source,) = self.inputs(replace(op, inputs={"x": op.inputs["x"]}))
        weights = weights_of(self, op, kind, constant)
        name = op.name
        return kind(name=name, inputs=(source,), module=name, weights=weights, **attributes)

    def alone(self, variable: str) -> Weighted | None:
        """The convolution whose raw values one operation alone reads, if the variable is that."""
        value = self.values.get(variable)
        maker = self.nodes.get(value.name) if value else None
        read_elsewhere = self.reads[variable] != 1 or variable in self.package.results
        if not isinstance(maker, Weighted) or read_elsewhere or maker.name in self.quantizers:
            return None
        return maker if maker.activation is None else None

    def clamp(self, op: Operation, kind: type[Clamp]) -> Node:
        """An activation: fused where it alone reads a convolution's raw values."""
        (value,) = self.operands(op)
        maker = self.alone(value.name)
        if maker is None:
            return kind(name=op.name, inputs=(self.real(value),))
        self.forget(maker.name)
        return replace(maker, name=op.name, activation=kind)

    def cropped(self, op: Operation, sides: tuple[int, ...]) -> Node:
        """A transposed convolution that keeps less at the end than it cuts off at the start."""
        (value,) = self.operands(op)
        maker = self.alone(value.name)
        if not isinstance(maker, ConvTranspose2d) or any(maker.padding):
            raise self.misread(op.name, "crop is not part of a program")
        top, bottom, left, right = sides
        rest = top - bottom, left - right
        self.forget(maker.name)
        return replace(maker, name=op.name, padding=(top, left), output_padding=rest)

    def forget(self, name: str) -> None:
        """Takes back a node that is part of the next one."""
        del self.nodes[name], self.shapes[name], self.tensors[name]


def _renamed(node: Node, places: Mapping[str, str]) -> Node:
    name = places[node.name]
    named = replace(node.renamed(places), name=name)
    return replace(named, module=name) if isinstance(named, Weighted) else named


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
