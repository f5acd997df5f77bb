"""The quantized program: one set of INT8 scales that every artifact is compiled from.

    program = build_program(net, activations, weight_scales, image_size=64, info=info)
    program.save("model.evq")
    program = Program.load("model.evq")     # runs nothing from the file, needs no torch
    logits = program.run(images)            # float32 (N, 3, H, W) -> float32 (N, classes)
    graph = program.graph()                 # what a lowering walks

The modules behind it: `build` traces and quantizes, `reading` and `aten` say what a program may
hold, `executor` runs it, `torch_program` and `pt2_reader` write and read program.pt2, `evq` and
`container` the file, `info` what it says about itself.
"""

from edgevit.program.info import Metric, ModelInfo, ProgramInfo, Reference
from edgevit.program.program import Program, build_program

__all__ = ["Metric", "ModelInfo", "Program", "ProgramInfo", "Reference", "build_program"]
