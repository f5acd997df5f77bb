"""Real outputs of an int8 file: their operation once more, on what it reads dequantized.

    Given   Conv2d "head" with a real output, which reads "x"
    Result  DEQUANTIZE "x.dequantized", CONV_2D "head.real" with float32 weights "head.real.weight"

TFLite's int8 operators give int8 only. Where an operation reads the output as well, the int8
operator stands beside the real one, so that nothing behind it computes otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from edgevit.graph import Graph, float_graph
from edgevit.ops import Flatten, Node, Weighted
from edgevit.targets.tflite.emit import EMITTERS
from edgevit.targets.tflite.emitter import Emitter, nhwc
from edgevit.targets.tflite.schema import REAL


class RealOutputs:
    """The real operators of a file, behind its int8 ones.

    emitter  of the real tensors, each of its name with `REAL` behind it
    """

    def __init__(self, inner: Emitter) -> None:
        self._inner = inner
        self.emitter = Emitter(_named_real(float_graph(inner.graph)), inner.writer)
        self._dequantized: dict[str, int] = {}
        self._made: set[str] = set()

    def emit(self, output: str) -> str:
        """Appends what makes a real output; the name of its tensor in `emitter`."""
        e, name = self.emitter, output + REAL
        if output in self._made:
            return name
        self._made.add(output)
        node = e.graph.node(name)
        # The same tensor may have been made real by its own operation, as another output.
        e.tensors |= {source: self._read(source.removesuffix(REAL)) for source in node.inputs}
        EMITTERS[type(node)](e, node)
        return name

    def _read(self, name: str) -> int:
        """What a real operator reads: a tensor that is real itself, or an int8 one dequantized."""
        if name in self._inner.graph.unquantized:
            return self.emitter.tensors[self.emit(name)]
        node = self._inner.graph.makes(name)
        if isinstance(node, Flatten) and name in self._inner.elided:
            return self._read(node.inputs[0])
        if name not in self._dequantized:
            e, inner = self.emitter, self._inner
            shape = nhwc(inner.graph.shape(name))
            result = e.writer.activation(f"{name}.dequantized", shape, "float32", None)
            options = e.schema.DequantizeOptionsT()
            inner.operator("DEQUANTIZE", [inner.tensors[name]], result, options)
            self._dequantized[name] = result
        return self._dequantized[name]


def _named_real(graph: Graph) -> Graph:
    """The graph with `REAL` behind every name."""
    names = {name: name + REAL for name in graph.tensors()}

    def renamed(node: Node) -> Node:
        made = replace(node.renamed(names), name=names[node.name])
        return replace(made, module=made.module + REAL) if isinstance(made, Weighted) else made

    return replace(
        graph,
        nodes=tuple(renamed(node) for node in graph.nodes),
        outputs=tuple(names[name] for name in graph.outputs),
        input_name=names[graph.input_name],
    )
