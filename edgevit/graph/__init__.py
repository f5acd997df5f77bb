"""The graph that every part of edgevit works on: trace, run, change, quantize.

    graph = trace(net, (3, 224, 224))     # float, batch norms folded, ReLUs fused
    quantized = quantize_graph(graph, activations, weight_scales, "portable")

Running one needs torch: `execute.Executor` exactly, on integers; `float_run.GraphNet` in float32.
"""

from edgevit.graph.graph import INPUT, Graph, float_graph
from edgevit.graph.quantized import check_quantized, quantize_graph
from edgevit.graph.trace import trace

__all__ = [
    "INPUT", "Graph", "check_quantized", "float_graph", "quantize_graph", "trace"
]  # fmt: skip
