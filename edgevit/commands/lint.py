"""`edgevit lint`: patterns in a QDQ ONNX graph that TensorRT refuses or runs badly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgevit.commands.generate import PATH
from edgevit.commands.options import json_option
from edgevit.console import print_table, say
from edgevit.errors import GateFailed, InputError

if TYPE_CHECKING:
    from edgevit.targets.tensorrt.lint import Finding


@click.command("lint")
@click.argument("path", metavar="DIR|MODEL.onnx", type=PATH)
@click.option(
    "--strict", is_flag=True, help="Treat a convolution that is not quantized as an error."
)
@json_option
def lint_command(path: Path, strict: bool, as_json: bool) -> None:
    """Check a QDQ ONNX graph against the rules of TensorRT's explicit INT8 quantization.

    The graph is an artifact folder or any QDQ ONNX file. An error marks a pattern that TensorRT
    refuses or computes differently; the exit code is then 3. A warning marks a pattern that it
    runs slower or less accurately. TensorRT itself does not run: it may refuse a graph without
    findings.

    \b
    Example:
      edgevit lint build/tensorrt
      edgevit lint --strict model.onnx
    """
    from edgevit.targets.tensorrt.lint import lint

    findings = lint(_artifact_bytes(path) if path.is_dir() else path, strict=strict)
    errors = sum(finding.level == "error" for finding in findings)
    counts = {"errors": errors, "warnings": len(findings) - errors}
    if as_json:
        rows = [asdict(finding) for finding in findings]
        click.echo(json.dumps({"path": str(path), **counts, "findings": rows}, indent=2))
    else:
        _print(path, findings)
    if errors:
        raise GateFailed(
            f"{path}: {errors} error(s), {counts['warnings']} warning(s) for TensorRT INT8"
        )


def _artifact_bytes(folder: Path) -> bytes:
    """The ONNX file of an artifact folder, whose checksum is the manifest's."""
    from edgevit.targets.artifact import load_artifact

    artifact = load_artifact(folder)
    if artifact.path.suffix != ".onnx" or not isinstance(artifact.data, bytes):
        raise InputError(
            f"{folder} holds {artifact.path.name}, of target {artifact.manifest.target}; "
            "lint needs an ONNX graph, as --target tensorrt writes it"
        )
    return artifact.data


def _print(path: Path, findings: Sequence[Finding]) -> None:
    from edgevit.targets.tensorrt.lint import RULES

    if not findings:
        say(f"{path}: none of {len(RULES)} rules is broken")
        return
    by_rule: dict[str, list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    rows = [(r, f[0].level, RULES[r].title, str(len(f))) for r, f in by_rule.items()]
    print_table(str(path), rows, ("rule", "level", "title", "findings"))
    for rule, found in by_rule.items():
        say(f"\n{rule} {found[0].level}: {RULES[rule].title}")
        say(f"  why  {found[0].why}\n  fix  {found[0].fix}")
        for finding in found:
            say(f"  at   {finding.node}: {finding.what}")
