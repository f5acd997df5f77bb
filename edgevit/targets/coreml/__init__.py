"""The Core ML target: a quantized program as an .mlpackage, with its scale audit.

`lower` converts through torch.export and coremltools, `package` writes and reads the folder,
`audit` proves what was written, and `interpreter` is the reference that runs it anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgevit.errors import InputError
from edgevit.program import Program
from edgevit.targets import make_options
from edgevit.targets.artifact import (
    Artifact,
    ArtifactData,
    ArtifactTensor,
    load_artifact,
    manifest_of,
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
) -> dict[str, Any]:
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
    manifest = manifest_of(
        program,
        target=NAME,
        file=PACKAGE_FILE,
        data=data,
        tools=tool_versions("coremltools", "torch", "numpy"),
        options=asdict(chosen),
        source=source,
        output=output,
        ops=result.operators,
        audited=(result.activations, result.weight_channels),
        drops=sorted(program.graph().activations()) if floating else [],
    )
    if floating:
        manifest |= {"profile": FLOAT_PROFILE, "audit": None}
    write_artifact(Path(out_dir), data, manifest, program.reference, force)
    return manifest


def _edges(program: Program, options: CoremlOptions) -> tuple[ArtifactTensor, ArtifactTensor]:
    """The artifact's input with its pixel table, and its output."""
    graph, rules = program.graph(), program.info.preprocessing
    _, channels, height, width = graph.input_shape
    if options.input_type == "image":
        table = [list(range(256)) for _ in range(channels)]
        source = ArtifactTensor(
            INPUT_NAME, (1, height, width, channels), "uint8", None, "NHWC", table
        )
    else:
        table = [[float(value) for value in row] for row in rules.table()]
        source = ArtifactTensor(INPUT_NAME, graph.input_shape, "float32", None, "NCHW", table)
    name = LOGITS_NAME if options.output_type == "logits" else PROBABILITIES_NAME
    return source, ArtifactTensor(name, graph.shape(graph.output_name), "float32", None)


def compile_program(program: Program, out_dir: Path, force: bool, **options: str) -> dict[str, Any]:
    """What every target offers the `compile` command; see edgevit.targets."""
    return compile_coreml(program, out_dir, force=force, **options)


def check_artifact(folder: str | os.PathLike[str], program: Program) -> AuditResult:
    """The scale audit of a written artifact folder. Raises EdgevitError naming what differs."""
    return audit_bytes(load_artifact(folder).data, program)


def open_runner(artifact: Artifact, **options: str) -> CoremlRunner:
    """The artifact under the reference interpreter; see edgevit.targets."""
    return CoremlRunner(artifact, **options)
