"""Finds out what is installed without importing any of it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgevit.measure.harness import description_of, find_runtime
from edgevit.project import SOURCES
from edgevit.targets import load_target, target_names
from edgevit.targets.npu import SAMSUNG, Vendor

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
    "onnxruntime-qnn": "Snapdragon NPU: its compiler, and its arithmetic on this machine",
    "openvino": "Intel NPU: which operators it takes",
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
    """{"schema_version", "tools", "targets", "npus": rows}; a row has name, state, purpose."""
    tools = [
        {"name": name, "state": _package(name), "purpose": purpose}
        for name, purpose in PACKAGES.items()
    ]
    tools += [
        {"name": name, "state": _program(name, program), "purpose": program.purpose}
        for name, program in PROGRAMS.items()
    ]
    return {"schema_version": 1, "tools": tools, "targets": _targets(), "npus": _npus()}


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
        name = path.parent.name
        target = description_of(name)
        table = target.get("runtime", {})
        # A library that hands on to a device's own computes nothing on this machine.
        elsewhere = "library" not in table or "dispatch_variable" in table
        runtime = None if elsewhere else find_runtime(name)
        missing = "runtime library not found"
        if elsewhere:
            vendor = _vendor(name)
            compiles = vendor is None or vendor.is_here()
            missing = (
                f"{'compiles here' if compiles else 'its compiler is missing'}; run by "
                f"{table['name']}, which is not here"
            )
        rows.append(
            {
                "name": name,
                "state": f"runtime {runtime.name}" if runtime else missing,
                "purpose": str(target["summary"]),
            }
        )
    return rows


def _npus() -> list[dict[str, str]]:
    """Each vendor of NPUs: its target, and whether its compiler is here."""
    vendors: dict[str, Vendor] = {}
    for name in target_names():
        if vendor := _vendor(name):
            vendors[f"--target {name}"] = vendor
    vendors["no target yet"] = SAMSUNG
    return [
        {"name": vendor.title, "state": vendor.state(), "purpose": f"{target}: {vendor.for_people}"}
        for target, vendor in vendors.items()
    ]


def _vendor(name: str) -> Vendor | None:
    """Of a target for a phone's NPU."""
    found = getattr(load_target(name), "vendor", None) if name in target_names() else None
    return found if isinstance(found, Vendor) else None
