"""Finds out what is installed without importing any of it."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgevit.measure.harness import SOURCES, find_runtime

PACKAGES = {
    "torch": "models, fine-tuning",
    "nncf": "placing and calibrating quantizers",
    "ai-edge-litert": "TFLite: flatbuffer schema, runtime",
    "tensorflow-cpu": "tests: a second TFLite compiler to compare with",
    "timm": "tests: the reference implementation",
    "coremltools": "Core ML target",
    "onnx": "targets that are ONNX files",
    "onnxruntime": "running ONNX artifacts on any host",
    "tensorrt": "TensorRT engines (needs an NVIDIA GPU)",
    "torch-tensorrt": "TensorRT engines from Python (needs an NVIDIA GPU)",
    "onnx2tf": "a peer to measure against, in an environment of its own",
    "tflite-runtime": "the older TFLite runtime; ai-edge-litert is its successor",
}


@dataclass(frozen=True)
class Program:
    """A program looked for in PATH: what for, how to get it, what makes it say its version."""

    purpose: str
    package: str
    version: str = "--version"


PROGRAMS = {
    "cmake": Program("building the harness", "cmake"),
    "c++": Program("building the harness", "g++"),
    "ssh": Program("validate --device ssh://USER@HOST[:PORT]", "openssh-client", "-V"),
    "adb": Program("validate --device adb:SERIAL (Android)", "adb"),
}


def examine() -> dict[str, Any]:
    """{"schema_version", "tools": rows, "targets": rows}; a row has name, state, purpose."""
    tools = [
        {"name": name, "state": _package(name), "purpose": purpose}
        for name, purpose in PACKAGES.items()
    ]
    tools += [
        {"name": name, "state": _program(name, program), "purpose": program.purpose}
        for name, program in PROGRAMS.items()
    ]
    return {"schema_version": 1, "tools": tools, "targets": _targets()}


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _program(name: str, program: Program) -> str:
    path = shutil.which(name)
    if path is None:
        return f"not found: apt-get install -y {program.package}"
    try:
        done = subprocess.run([path, program.version], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} does not run: {error}"
    first = (done.stdout or done.stderr).strip().splitlines()
    return first[0] if first else path


def _targets() -> list[dict[str, str]]:
    rows = []
    for path in sorted((SOURCES / "targets").glob("*/target.toml")):
        target = tomllib.loads(path.read_text(encoding="utf-8"))
        name = path.parent.name
        runtime = find_runtime(name)
        missing = "runtime library not found"
        if "library" not in target.get("runtime", {}):
            missing = f"compiles here; run by {target['runtime']['name']}, which is not"
        rows.append(
            {
                "name": name,
                "state": f"runtime {runtime.name}" if runtime else missing,
                "purpose": str(target["summary"]),
            }
        )
    return rows
