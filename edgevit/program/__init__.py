"""The quantized program: one set of INT8 scales that every artifact is compiled from.

    program = build_program(graph, activations, weight_scales, info)
    program.save("model.evq")
    program = Program.load("model.evq")     # runs nothing from the file, needs no torch
    logits = program.run(images)            # float32 (N, 3, H, W) -> float32 (N, classes)
    graph = program.graph()                 # what a lowering walks

The modules behind it: `graph_file` is the graph on disk, `evq` and `container` the file, `info`
what it says about itself, `torch_program` its export to torch, `v1` the reader of older files.
`weights` is the form whose weights alone are int8.
"""

from edgevit.program.info import Metric, ModelInfo, ProgramInfo, Reference
from edgevit.program.program import Program, build_program
from edgevit.program.weights import WeightsProgram

__all__ = [
    "Metric", "ModelInfo", "Program", "ProgramInfo", "Reference", "WeightsProgram", "build_program",
]  # fmt: skip
