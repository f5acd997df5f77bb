"""A .tflite file as a graph of operations, by its bytes alone.

It shares nothing with the writer but the names of tensors. `operators` reads each operator; here
they are put together, and the file's input and outputs are followed to the graph's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from edgevit.errors import EdgevitError, InputError
from edgevit.graph import INPUT, Graph
from edgevit.graph.diff import Stored, differs
from edgevit.ops import Flatten, Node, Quantizer, Shape, Weighted
from edgevit.targets.base import Reading
from edgevit.targets.tflite.file import File, Operator, Tensor, open_file
from edgevit.targets.tflite.operators import READERS, TAKES
from edgevit.targets.tflite.operators_norm import Norm, norm_behind
from edgevit.targets.tflite.operators_table import Table, table_behind
from edgevit.targets.tflite.operators_weighted import line_values
from edgevit.targets.tflite.reader import Reader, check_shape, nhwc, numbers, per_tensor
from edgevit.targets.tflite.schema import REAL

FLATTENED = "flatten of {}"
"""What a flatten is called that moves nothing and so is no operator."""

_UNREADABLE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
"""What reading an operator raises that has not the inputs or options that it should have."""


def read(data: bytes) -> Reading:
    """What a .tflite file holds.

    Raises EdgevitError naming the tensor or operator that is no known operation of a program.
    """
    try:
        return _Graph(open_file(data)).run()
    except _UNREADABLE as error:  # of an operator without the inputs that every one has
        raise EdgevitError(f"scale audit: the file is not a readable model: {error!r}") from error


class _Graph(Reader):
    """The graph that is read so far: its nodes, and the shapes that their tensors have in it."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.makers: dict[str, Operator] = {}
        self.readers: Counter[str] = Counter(tensor.name for tensor in file.outputs)
        for operator in file.operators:
            name = operator.output.name
            if name in self.makers:
                raise differs(name, "two operators make it")
            self.makers[name] = operator
            self.readers.update(tensor.name for tensor in operator.inputs)
        self.edges: dict[str, Operator] = {}
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.quantizers: dict[str, Quantizer] = {}
        self.tensors: dict[str, str] = {}
        self.dequantized: dict[str, str] = {}  # real tensor in an int8 file -> the int8 one
        self.real: set[str] = set()  # made by real operators of an int8 file
        self.islands: dict[str, Norm | Table] = {}
        self.inside_islands: set[str] = set()

    def run(self) -> Reading:
        file = self.file
        source, values = self._input()
        self.quantized = self.is_int8 = source.dtype == "INT8"
        self._add(source, (1, source.shape[3], *source.shape[1:3]))
        outputs = [self._output(tensor) for tensor in file.outputs]
        self._find_islands()
        taken = {op.output.name for each in file.operators for op in self.taken(each)}
        for operator in file.operators:
            with _readable(operator):
                check_shape(operator)
            name = operator.output.name
            if name in taken:
                if self.readers[name] != 1:
                    raise differs(name, f"{self.readers[name]} operators read it, not one")
            elif name not in self.edges and name not in self.inside_islands:
                self._node(operator)
        names = [self._canonical(tensor) for tensor in outputs]
        for name, shape in zip(names, (tensor.shape for tensor in file.outputs), strict=True):
            if len(shape) != len(self.shapes.get(name, ())):
                raise differs(name, f"the output of it has the shape {shape}")
        return Reading(
            graph=self._graph(tuple(names)),
            quantizers=self.quantizers,
            operators=Counter(operator.name for operator in file.operators),
            tensors=self.tensors,
            stored=Stored(integer_biases=self.is_int8),
            outputs=file.output_names,
            input_values=values,
            labels=file.labels,
        )

    def _graph(self, outputs: tuple[str, ...]) -> Graph:
        """A tensor that nothing reads is given out too: the comparison then says what is wrong."""
        read = {name for node in self.nodes for name in node.inputs} | {*self.dequantized}
        unread = [name for name in self.shapes if name not in read and name not in outputs]
        real = frozenset(self.real.intersection(outputs))
        try:
            return Graph(
                self.shapes[INPUT], tuple(self.nodes), (*outputs, *unread), real_outputs=real
            )
        except InputError as error:
            raise EdgevitError(f"scale audit: {error}") from error

    def _find_islands(self) -> None:
        """Layer norms and tables: real operators of a quantized file; a norm's of a float one."""
        for operator in self.file.operators:
            if operator.output.name in self.edges:
                continue
            with _readable(operator):
                is_int8 = operator.output.dtype == "INT8"
                found = norm_behind(operator, self.makers, self.readers, is_int8)
                if found is None and is_int8:
                    found = table_behind(operator, self.makers, self.readers)
            if found is not None:
                self.islands[operator.output.name] = found
                self.inside_islands.update(found.operators)

    def taken(self, operator: Operator) -> list[Operator]:
        if {operator.output.name} & (self.inside_islands | self.islands.keys()):
            return []
        take = TAKES.get(operator.name)
        with _readable(operator):
            found = take(self, operator) if take is not None else None
        return [] if found is None else [found, *self.taken(found)]

    def maker(self, tensor: Tensor, *kinds: str) -> Operator | None:
        found = self.makers.get(tensor.name)
        return found if found is not None and found.name in kinds else None

    def flattened(self, name: str) -> str:
        name = self.dequantized.get(name, name)
        flat = FLATTENED.format(name)
        if flat not in self.shapes:
            node = Flatten(name=flat, inputs=(name,))
            self.nodes.append(node)
            self.shapes[flat] = node.output_shape([self.shapes[name]])
            self.tensors[flat] = name
        return flat

    def _node(self, operator: Operator) -> None:
        if self.is_int8 and operator.output.dtype == "FLOAT32":
            self._real_node(operator)
            return
        node, shape = self._operation(operator)
        self.nodes.append(node)
        self._add(operator.output, shape)

    def _operation(self, operator: Operator) -> tuple[Node, Shape]:
        """What an operator means, of the tensors that it reads, and the shape that it makes."""
        reader, island = READERS.get(operator.name), self.islands.get(operator.output.name)
        node: Node
        with _readable(operator):
            if island is not None:
                node = island.node(operator.output.name)
            elif reader is not None:
                node = reader(self, operator)
            else:
                name = operator.output.name
                raise differs(name, f"{operator.name} is no operation of a program")
            return node, node.output_shape([self.shapes[each] for each in node.inputs])

    def _real_node(self, operator: Operator) -> None:
        """In an int8 file: a tensor dequantized, or an operation of such ones, as an output."""
        name = operator.output.name
        with _readable(operator), self._real():
            if operator.name == "DEQUANTIZE":
                (source,) = operator.inputs
                self.dequantized[name] = source.name
                self.shapes[name] = self.shapes[source.name]
                self.quantizer(operator.output)
                return
            node, shape = self._operation(operator)
            if operator.output.shape != nhwc(shape):
                raise differs(name, f"shape {operator.output.shape}, its operator makes {shape}")
            self.quantizer(operator.output)
        own = self._canonical(operator.output)
        self.shapes[name] = shape
        self.dequantized[name] = own
        names = {tensor.name: self._canonical(tensor) for tensor in operator.inputs}
        node = replace(node.renamed(names | self.dequantized), name=own)
        if isinstance(node, Weighted):
            node = replace(node, module=node.module.removesuffix(REAL))
        beside = next((other for other in self.nodes if other.name == own), None)
        if beside is None:
            self.nodes.append(node)
            self.shapes[own], self.tensors[own] = shape, name
        elif not _same(node, beside):
            raise differs(own, "the int8 operator and the real one beside it are not the same")
        self.real.add(own)

    def _canonical(self, tensor: Tensor) -> str:
        """What the graph calls a tensor that an output is made of."""
        is_real = self.is_int8 and tensor.dtype == "FLOAT32"
        return tensor.name.removesuffix(REAL) if is_real else tensor.name

    @contextmanager
    def _real(self, is_real: bool = True) -> Iterator[None]:
        """Inside, tensors are read as those of a float file."""
        self.quantized = self.is_int8 and not is_real
        try:
            yield
        finally:
            self.quantized = self.is_int8

    def _add(self, tensor: Tensor, shape: Shape) -> None:
        """A tensor of the graph's own: its shape there, its quantizer."""
        if tensor.shape != nhwc(shape):
            raise differs(tensor.name, f"shape {tensor.shape}, its operator makes {nhwc(shape)}")
        self.shapes[tensor.name], self.tensors[tensor.name] = shape, tensor.name
        quantizer = self.quantizer(tensor)
        if quantizer is not None:
            self.quantizers[tensor.name] = quantizer

    def quantizer(self, tensor: Tensor) -> Quantizer | None:
        """An activation's; None in a float file. All of a file's activations are of one type."""
        kind = "INT8" if self.quantized else "FLOAT32"
        if tensor.dtype != kind or tensor.values is not None:
            raise differs(tensor.name, f"it is {tensor.dtype}, or constant, where {kind} is made")
        if not self.quantized:
            if tensor.scale.size:
                raise differs(tensor.name, "a float tensor has a scale")
            return None
        return per_tensor(tensor)

    def same_quantizer(self, tensor: Tensor, source: Tensor) -> None:
        if self.quantizer(tensor) != self.quantizer(source):
            raise differs(tensor.name, f"its quantizer is not that of {source.name}")

    # -- edges --------------------------------------------------------------------------------

    def _input(self) -> tuple[Tensor, np.ndarray | None]:
        """The graph's input, and what it becomes for every pixel where the file takes pixels."""
        if len(self.file.inputs) != 1:
            raise differs(INPUT, f"the model has {len(self.file.inputs)} inputs")
        (first,) = self.file.inputs
        tensor, values = first, None
        edge = self._only_reader(first, "QUANTIZE")
        if edge is not None and first.dtype in ("FLOAT32", "UINT8"):
            self.edges[edge.output.name] = edge
            tensor = edge.output
            if first.dtype == "UINT8":
                line = self._only_reader(tensor, "DEPTHWISE_CONV_2D")
                if line is None:
                    raise differs(tensor.name, "no convolution makes the program's input of pixels")
                self.edges[line.output.name] = line
                with _readable(line):
                    values = _pixel_values(first, line)
                tensor = line.output
        if tensor.name != INPUT or len(tensor.shape) != 4 or tensor.shape != first.shape:
            raise differs(tensor.name, f"it stands where the program's {INPUT} is expected")
        return tensor, values

    def _only_reader(self, tensor: Tensor, kind: str) -> Operator | None:
        """The operator of this name that reads a tensor, where nothing else does."""
        found = [o for o in self.file.operators if tensor in o.inputs]
        return found[0] if len(found) == 1 and found[0].name == kind else None

    def _output(self, tensor: Tensor) -> Tensor:
        """The tensor of the graph that an output holds: in another type, a vector as (1, C)."""
        operator = self.makers.get(tensor.name)
        if operator is not None and (
            operator.name == "DEQUANTIZE"
            or (operator.name == "QUANTIZE" and operator.inputs[0].dtype == "INT8")
        ):
            self.edges[operator.output.name] = operator
            self._same_values(tensor, operator)
            tensor = operator.inputs[0]
            operator = self.makers.get(tensor.name)
        if operator is not None and operator.name == "RESHAPE" and len(tensor.shape) == 2:
            self.edges[operator.output.name] = operator
            source = operator.inputs[0]
            with _readable(operator):
                target = tuple(numbers(operator.inputs[1]))
            if source.shape != nhwc(tensor.shape) or target != tensor.shape:
                raise differs(source.name, f"{tensor.name} {tensor.shape} is made of it")
            with self._real(tensor.dtype == "FLOAT32"):
                self.same_quantizer(tensor, source)
            tensor = source
        return tensor

    def _same_values(self, result: Tensor, operator: Operator) -> None:
        """The output holds the graph's values: as real numbers, or as uint8, 128 higher."""
        if operator.name == "DEQUANTIZE":
            same = result.dtype == "FLOAT32" and not result.scale.size
        else:
            source, found = per_tensor(operator.inputs[0]), result.zero_point.tolist()
            same = result.dtype == "UINT8" and result.scale.tolist() == [source.scale]
            same = same and found == [source.zero_point + 128]
        if not same:
            raise differs(result.name, "the output does not hold the program's values")

    def is_head(self, operator: Operator) -> bool:
        # Beside a real head stands the int8 one that others read, and no output is made of it.
        heads = [e.inputs[0].name for e in self.edges.values() if e.name == "RESHAPE"]
        name = operator.output.name.removesuffix(REAL)
        return any(head.removesuffix(REAL) == name for head in heads)


def _pixel_values(first: Tensor, line: Operator) -> np.ndarray:
    """int8 (C, 256): what a 1x1 depthwise convolution makes of the pixels 0 to 255."""
    shifted, weight, _ = line.inputs
    for tensor, dtype, zero_point in ((first, "UINT8", 0), (shifted, "INT8", -128)):
        found = (tensor.dtype, tensor.scale.tolist(), tensor.zero_point.tolist())
        if found != (dtype, [1.0], [zero_point]):
            raise differs(tensor.name, f"{found} does not hold raw pixels")
    if weight.shape != (1, 1, 1, first.shape[-1]):
        raise differs(line.output.name, f"a convolution of {weight.shape} makes it of pixels")
    return line_values(line, np.arange(256, dtype=np.int64))


def _same(real: Node, int8: Node) -> bool:
    """Whether a real operation is that of an int8 one, its weights those that the int8 mean."""
    activations = {getattr(node, "activation", None) for node in (real, int8)}
    pairs = zip(real.real_weights(), int8.real_weights(), strict=True)
    return (
        real.same_operation(int8)
        and len(activations) == 1
        and all(np.array_equal(found, wanted) for found, wanted in pairs)
    )


@contextmanager
def _readable(operator: Operator) -> Iterator[None]:
    """Errors of reading an operator, by the name of what it makes."""
    name = operator.output.name
    try:
        yield
    except InputError as error:
        raise differs(name, str(error)) from error
    except _UNREADABLE as error:
        raise differs(name, f"a {operator.name} that cannot be read: {error!r}") from error
