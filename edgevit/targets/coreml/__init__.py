"""The Core ML target: a quantized program as an .mlpackage, read back and compared.

`write` converts through torch.export and coremltools, `save` makes the folder of it; `package` and
`read` read it with coremltools' own readers, `records` operation by operation. `interpreter` is the
reference that runs it anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from edgevit.graph import INPUT, Graph
from edgevit.ops import OPERATIONS, Weighted
from edgevit.program import Program
from edgevit.targets.artifact import Artifact, ArtifactData
from edgevit.targets.base import Reading, Target, require_folder
from edgevit.targets.coreml.options import CoremlOptions, CoremlRunOptions
from edgevit.targets.coreml.read import place, read
from edgevit.targets.coreml.runner import CoremlRunner
from edgevit.targets.coreml.write import (
    INPUT_NAME,
    PROBABILITIES_NAME,
    output_names,
    write_package,
)
from edgevit.targets.manifest import InputTensor, OutputTensor


class Coreml(Target[CoremlOptions, CoremlRunOptions]):
    """An ML Program; see the module."""

    name = "coreml"
    summary = "Core ML: W8A8 ML Program, for iPhone and Mac"
    file = "model.mlpackage"
    Options, RunOptions = CoremlOptions, CoremlRunOptions
    packages = ("coremltools", "torch", "numpy")
    # Values between operations are float16, of 11 bits; see tests/targets/test_coreml_operations.
    tolerance_steps: ClassVar = {kind: 1 for kind in OPERATIONS if kind.requantizes}

    def write(self, program: Program, options: CoremlOptions) -> dict[str, bytes]:
        return write_package(program, options)

    def read(self, data: ArtifactData) -> Reading:
        return read(require_folder(data, "Core ML"))

    def edges(
        self, program: Program, options: CoremlOptions
    ) -> tuple[InputTensor, tuple[OutputTensor, ...]]:
        """The input with its pixel table, and the outputs, whose maps are (1, C, H, W)."""
        graph, rules = program.graph(), program.info.preprocessing
        _, channels, height, width = graph.input_shape
        if options.input_type == "image":
            shape = (1, height, width, channels)
            table = [range(256)] * channels
            source = InputTensor.of(INPUT_NAME, shape, "NHWC", "uint8", None, table)
        else:
            source = InputTensor.of(
                INPUT_NAME, graph.input_shape, "NCHW", "float32", None, rules.table()
            )
        names = output_names(graph)
        if options.output_type == "classifier":
            names = dict.fromkeys(names, PROBABILITIES_NAME)
        return source, tuple(
            OutputTensor.of(own, graph.shape(name), "float32", None) for name, own in names.items()
        )

    def open(self, artifact: Artifact, options: CoremlRunOptions) -> CoremlRunner:
        return CoremlRunner(artifact, options, self)

    def spelling(self, graph: Graph) -> Callable[[str], str]:
        """An operation's place stands for its tensor, and for the module of its weights."""
        names = {graph.input_name: INPUT}
        for index, node in enumerate(graph.nodes):
            names[node.name] = place(index)
            if isinstance(node, Weighted):
                names[node.module] = place(index)
        return lambda name: names[name]

    def is_float(self, options: CoremlOptions) -> bool:
        return options.precision == "float16"

    def weights_only(self, options: CoremlOptions) -> bool:
        return options.weights_only == "on"

    def float_profile(self, options: CoremlOptions) -> str:
        return options.compute_precision


TARGET = Coreml()
