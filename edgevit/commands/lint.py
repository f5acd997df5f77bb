"""`edgevit lint`: what TensorRT will refuse or run badly in a QDQ ONNX graph."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgevit.errors import GateFailed, InputError

if TYPE_CHECKING:
    from edgevit.targets.tensorrt.lint import Finding


@click.command("lint")
@click.argument("path", metavar="DIR|MODEL.onnx", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="A convolution that is not quantized is an error.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
def lint_command(path: Path, strict: bool, as_json: bool) -> None:
    """Check a QDQ ONNX graph against the rules of TensorRT's explicit INT8 quantization.

    Takes an artifact folder, or any QDQ ONNX file. Errors are what TensorRT refuses or computes
    differently, and end with exit code 3; warnings are what it runs slower or less accurately.
    Nothing is built or measured: a graph without findings may still be refused.

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
            "what is linted is an ONNX graph, as --target tensorrt writes it"
        )
    return artifact.data


def _print(path: Path, findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    from edgevit.targets.tensorrt.lint import RULES

    if not findings:
        click.echo(f"{path}: none of {len(RULES)} rules is broken")
        return
    by_rule: dict[str, list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    table = Table("rule", "level", "what it is", "findings")
    for rule, found in by_rule.items():
        table.add_row(rule, found[0].level, RULES[rule].title, str(len(found)))
    Console().print(table)
    for rule, found in by_rule.items():
        click.echo(f"\n{rule} {found[0].level}: {RULES[rule].title}")
        click.echo(f"  why  {found[0].why}\n  fix  {found[0].fix}")
        for finding in found:
            click.echo(f"  at   {finding.node}: {finding.what}")
