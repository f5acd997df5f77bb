"""The TensorRT target: a quantized program as a QDQ ONNX, read back, compared and linted.

`place` decides which pairs TensorRT is better without. `write` writes the graph, `read` reads it,
and `targets.qdq`, which both are made of, runs it under ONNX Runtime: on any host, which says
nothing of TensorRT's own arithmetic. The engine is built on the device, from the ONNX: by the
harness, by trtexec (its command lines are in the manifest), or here by torch-tensorrt where the
machine has the GPU (`engine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edgevit.errors import EdgevitError, InputError
from edgevit.graph import Graph
from edgevit.ops import Add, Conv2d, LayerNorm, Node
from edgevit.options import NoOptions
from edgevit.program import Program
from edgevit.targets.artifact import Artifact, ArtifactData
from edgevit.targets.base import Reading, Target, require_bytes
from edgevit.targets.manifest import InputTensor, OutputTensor
from edgevit.targets.qdq.runner import OnnxRunner
from edgevit.targets.qdq.write import model_metadata, output_names
from edgevit.targets.tensorrt.options import TensorrtOptions
from edgevit.targets.tensorrt.place import dropped
from edgevit.targets.tensorrt.read import read_onnx
from edgevit.targets.tensorrt.write import Form, write_onnx

ENGINE_FILE = "torch-tensorrt.plan"
TRTEXEC = "trtexec --onnx=model.onnx --saveEngine=model.plan --timingCacheFile=timing.cache"
COMMANDS = {
    "trtexec, TensorRT 10": f"{TRTEXEC} --stronglyTyped --skipInference",
    "trtexec, TensorRT 11": f"{TRTEXEC} --skipInference",  # strongly typed is all it has
}


class Tensorrt(Target[TensorrtOptions, NoOptions]):
    """A QDQ ONNX of opset 20; see the module."""

    name = "tensorrt"
    summary = "TensorRT: QDQ ONNX, for Jetson and NVIDIA GPUs"
    file = "model.onnx"
    Options, RunOptions = TensorrtOptions, NoOptions
    packages = ("onnx", "numpy")
    # ONNX Runtime's QLinearConv and QLinearAdd, whose float32 factors are a last bit off: 1 value
    # of 37,000 and 2 of 25,000 on scales with ties, none elsewhere. A layer norm is float32, a last
    # bit off the program's exact one. TensorRT's own are not known here.
    tolerance_steps: ClassVar[Mapping[type[Node], float]] = {Conv2d: 1, Add: 1, LayerNorm: 1}

    def write(self, program: Program, options: TensorrtOptions) -> bytes:
        """Raises InputError for the asymmetric profile, too, with the command that helps."""
        info, graph = program.info, program.graph()
        if info.profile != "portable":
            raise InputError(
                f"TensorRT's INT8 is symmetric, and this program's profile is {info.profile}: "
                "its zero-points cannot be kept. Quantize again with `edgevit quantize CKPT --data "
                "DIR --profile portable -o M.evq`"
            )
        floating = self.is_float(options)
        form = Form(
            inner=np.dtype(options.compute_precision),
            outer=np.dtype(options.io),
            outputs=output_names(graph),
            dropped={} if floating else self.drops(graph),
            quantized=not floating,
        )
        return write_onnx(graph, form, f"edgevit {info.model.variant}", model_metadata(program))

    def read(self, data: ArtifactData) -> Reading:
        return read_onnx(require_bytes(data, "TensorRT"))

    def drops(self, graph: Graph) -> dict[str, str]:
        return dropped(graph)

    def edges(
        self, program: Program, options: TensorrtOptions
    ) -> tuple[InputTensor, tuple[OutputTensor, ...]]:
        graph = program.graph()
        table = program.info.preprocessing.table().astype(options.io)
        source = InputTensor.of(
            graph.input_name, graph.input_shape, "NCHW", options.io, None, table
        )
        return source, tuple(
            OutputTensor.of(own, graph.shape(name), options.io, None)
            for name, own in output_names(graph).items()
        )

    def open(self, artifact: Artifact, options: NoOptions) -> OnnxRunner:
        precision = artifact.manifest.options.get("compute_precision", "")
        return OnnxRunner(artifact, read_onnx, precision)

    def is_float(self, options: TensorrtOptions) -> bool:
        return options.precision == "float16"

    def float_profile(self, options: TensorrtOptions) -> str:
        return options.compute_precision

    def check(self, data: ArtifactData, program: Program, options: TensorrtOptions) -> None:
        """Lint rules: raises EdgevitError with every finding, as a file of ours has none."""
        if self.is_float(options):
            return
        from edgevit.targets.tensorrt.lint import lint

        findings = lint(require_bytes(data, "TensorRT"), strict=True)
        if findings:
            lines = [f"{found.rule} {found.node}: {found.what}. {found.fix}" for found in findings]
            raise EdgevitError("lint: " + "; ".join(lines))

    def commands(self, options: TensorrtOptions) -> dict[str, str]:
        return COMMANDS

    def more_files(self, program: Program, options: TensorrtOptions) -> dict[str, bytes]:
        if options.engine == "off":
            return {}
        from edgevit.targets.tensorrt.engine import engine_bytes

        return {ENGINE_FILE: engine_bytes(program)}


TARGET = Tensorrt()
