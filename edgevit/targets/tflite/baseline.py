"""The float32 artifact of the same net: what size and latency of the INT8 one compare with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.program import Program
from edgevit.targets.artifact import Compiled, tool_versions, write_artifact
from edgevit.targets.manifest import InputTensor, Manifest, OutputTensor
from edgevit.targets.tflite.lower import OUTPUT_NAME, lower, min_runtime_version, nhwc
from edgevit.targets.tflite.metadata import RUNTIME_NAME, runtime_version

if TYPE_CHECKING:
    import torch

PROFILE = "float32"
MODEL_FILE = "model.tflite"


def float_tflite(net: torch.nn.Module, image_size: int) -> tuple[bytes, dict[str, int]]:
    """A fused net as a float32 .tflite file for square images of this size, and its operators."""
    from edgevit.graph import trace

    graph = trace(net, (3, image_size, image_size))
    lowered = lower(graph, "float32")
    entries = {RUNTIME_NAME: runtime_version(min_runtime_version(graph))}
    data = lowered.writer.finish(lowered.input, lowered.output, entries)
    return data, lowered.writer.operator_counts()


def write_float_artifact(
    net: torch.nn.Module, program: Program, folder: str | os.PathLike[str], force: bool = False
) -> Manifest:
    """Writes an artifact folder that the harness runs like any other, and returns its manifest.

    net      the fused float net that `program` was made from; its operators come out as the INT8
             artifact's do, with float32 weights
    program  gives preprocessing, labels and recorded logits
    Its manifest has the profile "float32" and no audit, since there is no scale to audit.
    Raises InputError for an existing folder (unless `force`).
    """
    graph, info = program.graph(), program.info
    data, ops = float_tflite(net, info.model.image_size)
    compiled = Compiled(
        target="tflite",
        file=MODEL_FILE,
        data=data,
        tools=tool_versions("ai-edge-litert", "flatbuffers", "numpy"),
        options={"io": "float32"},
        input=InputTensor.of(
            graph.input_name,
            nhwc(graph.input_shape),
            "NHWC",
            "float32",
            None,
            info.preprocessing.table(),
        ),
        outputs=(OutputTensor.of(OUTPUT_NAME, graph.shape(graph.output_name), "float32", None),),
        ops=ops,
        audit=None,
        profile=PROFILE,
    )
    return write_artifact(Path(folder), program, compiled, force)
