"""The Core ML target: a quantized program as an .mlpackage, with its scale audit.

`lower` converts through torch.export and coremltools, `package` writes and reads the folder,
`audit` proves what was written, and `interpreter` is the reference that runs it anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from edgevit.errors import InputError
from edgevit.program import Program
from edgevit.targets import make_options
from edgevit.targets.artifact import (
    Artifact,
    ArtifactData,
    Compiled,
    load_artifact,
    tool_versions,
    write_artifact,
)
from edgevit.targets.coreml.audit import AuditResult, audit
from edgevit.targets.coreml.lower import (
    INPUT_NAME,
    LOGITS_NAME,
    PROBABILITIES_NAME,
    convert,
)
from edgevit.targets.coreml.options import CoremlOptions, CoremlRunOptions
from edgevit.targets.coreml.package import PACKAGE_FILE, package_files, read_package
from edgevit.targets.coreml.runner import CoremlRunner
from edgevit.targets.manifest import Audit, InputTensor, Manifest, OutputTensor

NAME = "coreml"
SUMMARY = "Core ML: W8A8 ML Program, for iPhone and Mac"
Options, RunOptions = CoremlOptions, CoremlRunOptions
FLOAT_PROFILE = "float16"

__all__ = ["Options", "RunOptions", "audit_bytes", "compile_coreml"]


def coreml_files(program: Program, options: CoremlOptions) -> dict[str, bytes]:
    """The files of a program's .mlpackage, not yet audited. Raises what `convert` does."""
    return package_files(convert(program, options), program.sha256, program.info)


def audit_bytes(data: ArtifactData, program: Program) -> AuditResult:
    """The scale audit of a package's files against its program; EdgevitError where they differ."""
    if not isinstance(data, Mapping):
        raise InputError("a Core ML package is a folder, not a file")
    return audit(read_package(data), program)


def compile_coreml(
    program: Program, out_dir: str | os.PathLike[str], force: bool = False, **options: str
) -> Manifest:
    """Writes the artifact folder `out_dir` (model.mlpackage, manifest.json); returns the manifest.

    options  as in `CoremlOptions`. precision "float16" gives a float package to compare with: the
             program's weights without any activation quantizer
    force    replaces an artifact folder that is there
    Raises InputError (a bad option, a deployment target without the operations, an existing
    folder, a program Core ML cannot express), ToolMissing without coremltools, and EdgevitError
    when the scale audit finds a difference; nothing is left behind then.
    """
    chosen = make_options(NAME, Options, options)
    data = coreml_files(program, chosen)
    result = audit_bytes(data, program)
    source, output = _edges(program, chosen)
    floating = chosen.precision == "float16"
    compiled = Compiled(
        target=NAME,
        file=PACKAGE_FILE,
        data=data,
        tools=tool_versions("coremltools", "torch", "numpy"),
        options=asdict(chosen),
        input=source,
        outputs=(output,),
        ops=result.operators,
        audit=None if floating else Audit(result.activations, result.weight_channels),
        profile=FLOAT_PROFILE if floating else None,
        drops=tuple(sorted(program.graph().activations())) if floating else (),
    )
    return write_artifact(Path(out_dir), program, compiled, force)


def _edges(program: Program, options: CoremlOptions) -> tuple[InputTensor, OutputTensor]:
    """The artifact's input with its pixel table, and its output."""
    graph, rules = program.graph(), program.info.preprocessing
    _, channels, height, width = graph.input_shape
    if options.input_type == "image":
        shape = (1, height, width, channels)
        source = InputTensor.of(INPUT_NAME, shape, "NHWC", "uint8", None, [range(256)] * channels)
    else:
        source = InputTensor.of(
            INPUT_NAME, graph.input_shape, "NCHW", "float32", None, rules.table()
        )
    name = LOGITS_NAME if options.output_type == "logits" else PROBABILITIES_NAME
    return source, OutputTensor.of(name, graph.shape(graph.output_name), "float32", None)


def compile_program(program: Program, out_dir: Path, force: bool, **options: str) -> Manifest:
    """What every target offers the `compile` command; see edgevit.targets."""
    return compile_coreml(program, out_dir, force=force, **options)


def check_artifact(folder: str | os.PathLike[str], program: Program) -> AuditResult:
    """The scale audit of a written artifact folder. Raises EdgevitError naming what differs."""
    return audit_bytes(load_artifact(folder).data, program)


def open_runner(artifact: Artifact, **options: str) -> CoremlRunner:
    """The artifact under the reference interpreter; see edgevit.targets."""
    return CoremlRunner(artifact, **options)
