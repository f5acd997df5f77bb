"""The TFLite target: a quantized program as a full-INT8 .tflite file, with its scale audit.

`lower` turns nodes into operators, `flatbuffer` writes the file, `pixels` is the uint8 input,
`metadata` what Android reads, `audit` proves the written bytes, and `runner` runs them.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from edgevit.errors import EdgevitError
from edgevit.options import NoOptions
from edgevit.program import Program
from edgevit.targets import make_options
from edgevit.targets.artifact import Artifact, Compiled, tool_versions, write_artifact
from edgevit.targets.manifest import Audit, InputTensor, Manifest, OutputTensor
from edgevit.targets.pixels import quantized_pixels
from edgevit.targets.tflite.audit import AuditResult, audit
from edgevit.targets.tflite.lower import (
    OUTPUT_NAME,
    as_uint8,
    lower,
    min_runtime_version,
    nhwc,
)
from edgevit.targets.tflite.metadata import (
    METADATA_NAME,
    RUNTIME_NAME,
    append_labels,
    metadata,
    runtime_version,
)
from edgevit.targets.tflite.options import IoType, TfliteOptions
from edgevit.targets.tflite.pixels import PixelInput, pixel_input
from edgevit.targets.tflite.runner import TfliteRunner

NAME = "tflite"
SUMMARY = "TFLite / LiteRT: full INT8, for Android and Linux"
Options, RunOptions = TfliteOptions, NoOptions

MODEL_FILE = "model.tflite"

__all__ = ["audit_bytes", "compile_tflite", "tflite_bytes"]


def tflite_bytes(program: Program, io: str = TfliteOptions.io) -> bytes:
    """The .tflite file of a program, not yet audited. Raises InputError as `lower` does."""
    graph, info = program.graph(), program.info
    pixels = None
    if io == "uint8":
        pixels = pixel_input(info.preprocessing, graph.quantizer(graph.input_name))
    lowered = lower(graph, io, pixels)
    entries = {
        RUNTIME_NAME: runtime_version(min_runtime_version(graph)),
        METADATA_NAME: metadata(info, graph, io),
    }
    model = lowered.writer.finish(lowered.input, lowered.output, entries)
    return append_labels(model, info.labels)


def audit_bytes(data: bytes, program: Program) -> AuditResult:
    """The scale audit of a .tflite file against its program; EdgevitError where they differ."""
    return audit(data, program.graph(), program.info.preprocessing)


def compile_tflite(
    program: Program,
    out_dir: str | os.PathLike[str],
    io: IoType = TfliteOptions.io,
    force: bool = False,
) -> Manifest:
    """Writes the artifact folder `out_dir` (model.tflite, manifest.json) and returns the manifest.

    io      as in `TfliteOptions`
    force   replaces an artifact folder that is there
    Raises InputError (a bad `io`, an existing folder, a program TFLite cannot express) and
    EdgevitError when the scale audit finds a difference; nothing is left behind then.
    """
    chosen = TfliteOptions(io)
    data = tflite_bytes(program, io)
    result = audit_bytes(data, program)
    source, output = _edges(program, io)
    compiled = Compiled(
        target=NAME,
        file=MODEL_FILE,
        data=data,
        tools=tool_versions("ai-edge-litert", "flatbuffers", "numpy"),
        options=asdict(chosen),
        input=source,
        outputs=(output,),
        ops=result.operators,
        audit=Audit(result.activations, result.weight_channels),
    )
    return write_artifact(Path(out_dir), program, compiled, force)


def _edges(program: Program, io: str) -> tuple[InputTensor, OutputTensor]:
    """The artifact's input with its pixel table, and its output."""
    graph, rules = program.graph(), program.info.preprocessing
    quantizer, head = graph.quantizer(graph.input_name), graph.quantizer(graph.output_name)
    shape, classes = nhwc(graph.input_shape), graph.shape(graph.output_name)
    tables = {
        "int8": lambda: quantized_pixels(rules, quantizer),
        "uint8": lambda: [range(256)] * 3,
        "float32": rules.table,
    }
    edges = {
        "int8": (quantizer, head), "uint8": (PixelInput.UINT8, as_uint8(head)),
        "float32": (None, None),
    }  # fmt: skip
    before, after = edges[io]
    return (
        InputTensor.of(graph.input_name, shape, "NHWC", io, before, tables[io]()),
        OutputTensor.of(OUTPUT_NAME, classes, io, after),
    )


def compile_program(program: Program, out_dir: Path, force: bool, **options: str) -> Manifest:
    """What every target offers the `compile` command; see edgevit.targets."""
    chosen = make_options(NAME, Options, options)
    return compile_tflite(program, out_dir, chosen.io, force)


def check_artifact(folder: str | os.PathLike[str], program: Program) -> AuditResult:
    """The scale audit of a written artifact folder. Raises EdgevitError naming what differs."""
    try:
        data = (Path(folder) / MODEL_FILE).read_bytes()
    except OSError as error:
        raise EdgevitError(f"{folder}: {MODEL_FILE} cannot be read: {error.strerror}") from error
    return audit_bytes(data, program)


def open_runner(artifact: Artifact, **options: str) -> TfliteRunner:
    """The artifact under LiteRT; see edgevit.targets."""
    return TfliteRunner(artifact, **options)
