"""The TensorRT target: a quantized program as a QDQ ONNX, linted and audited.

`place` decides which pairs TensorRT is better without, `lower` writes the graph, `audit` proves the
written bytes, and `runner` runs them under ONNX Runtime. The engine is built on the device, from
the ONNX: by the harness, by trtexec (its command lines are in the manifest), or here by
torch-tensorrt where the machine has the GPU (`engine`).
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from edgevit.errors import EdgevitError, InputError
from edgevit.options import NoOptions
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
from edgevit.targets.manifest import Audit, InputTensor, Manifest, OutputTensor
from edgevit.targets.tensorrt.audit import AuditResult, audit
from edgevit.targets.tensorrt.lower import OUTPUT_NAME, lower
from edgevit.targets.tensorrt.options import TensorrtOptions
from edgevit.targets.tensorrt.runner import OnnxRunner

NAME = "tensorrt"
SUMMARY = "TensorRT: QDQ ONNX, for Jetson and NVIDIA GPUs"
Options, RunOptions = TensorrtOptions, NoOptions

MODEL_FILE, ENGINE_FILE = "model.onnx", "torch-tensorrt.plan"
TRTEXEC = "trtexec --onnx=model.onnx --saveEngine=model.plan --timingCacheFile=timing.cache"
COMMANDS = {
    "trtexec, TensorRT 10": f"{TRTEXEC} --stronglyTyped --skipInference",
    "trtexec, TensorRT 11": f"{TRTEXEC} --skipInference",  # strongly typed is all it has
}

__all__ = ["Options", "RunOptions", "audit_bytes", "compile_tensorrt"]


def onnx_bytes(program: Program, options: TensorrtOptions) -> bytes:
    """The ONNX file of a program, not yet audited or linted. Raises what `lower` does."""
    return lower(program, options).SerializeToString(deterministic=True)


def audit_bytes(data: ArtifactData, program: Program) -> AuditResult:
    """The scale audit of an ONNX file against its program; EdgevitError where they differ."""
    if not isinstance(data, bytes):
        raise InputError("a TensorRT artifact is a file, not a folder")
    return audit(data, program)


def check_lint(data: bytes) -> None:
    """Raises EdgevitError with every finding, warnings too: a file of ours has none."""
    from edgevit.targets.tensorrt.lint import lint

    findings = lint(data, strict=True)
    if findings:
        lines = [f"{found.rule} {found.node}: {found.what}. {found.fix}" for found in findings]
        raise EdgevitError("lint: " + "; ".join(lines))


def compile_tensorrt(
    program: Program, out_dir: str | os.PathLike[str], force: bool = False, **options: str
) -> Manifest:
    """Writes the artifact folder `out_dir` (model.onnx, manifest.json) and returns the manifest.

    options  as in `TensorrtOptions`
    force    replaces an artifact folder that is there
    Raises InputError (a bad option, the asymmetric profile, an existing folder, a program the
    target cannot express), ToolMissing without onnx or, for an engine, torch-tensorrt or the GPU,
    and EdgevitError when audit or lint find something; nothing is left behind then.
    """
    chosen = make_options(NAME, Options, options)
    data = onnx_bytes(program, chosen)
    result = audit_bytes(data, program)
    floating = chosen.precision == "float16"
    if not floating:
        check_lint(data)
    more: dict[str, bytes] = {}
    if chosen.engine == "on":
        from edgevit.targets.tensorrt.engine import engine_bytes

        more[ENGINE_FILE] = engine_bytes(program)
    source, output = _edges(program, chosen)
    compiled = Compiled(
        target=NAME,
        file=MODEL_FILE,
        data=data,
        tools=tool_versions("onnx", "numpy"),
        options=asdict(chosen),
        input=source,
        outputs=(output,),
        ops=result.operators,
        audit=None if floating else Audit(result.activations, result.weight_channels),
        profile=chosen.compute_precision if floating else None,
        drops=tuple(result.drops),
        commands=COMMANDS,
        files=more,
    )
    return write_artifact(Path(out_dir), program, compiled, force)


def _edges(program: Program, options: TensorrtOptions) -> tuple[InputTensor, OutputTensor]:
    """The artifact's input with its pixel table, and its output."""
    graph, rules = program.graph(), program.info.preprocessing
    table = rules.table().astype(options.io)
    return (
        InputTensor.of(graph.input_name, graph.input_shape, "NCHW", options.io, None, table),
        OutputTensor.of(OUTPUT_NAME, graph.shape(graph.output_name), options.io, None),
    )


def compile_program(program: Program, out_dir: Path, force: bool, **options: str) -> Manifest:
    """What every target offers the `compile` command; see edgevit.targets."""
    return compile_tensorrt(program, out_dir, force=force, **options)


def check_artifact(folder: str | os.PathLike[str], program: Program) -> AuditResult:
    """The scale audit of a written artifact folder. Raises EdgevitError naming what differs."""
    return audit_bytes(load_artifact(folder).data, program)


def open_runner(artifact: Artifact, **options: str) -> OnnxRunner:
    """The artifact under ONNX Runtime; see edgevit.targets."""
    return OnnxRunner(artifact, **options)
