"""What every benchmark writes: figures as JSON, with the command and the machine beside them."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """CPU model, cores, load and the versions that the figures depend on."""
    from importlib.metadata import version

    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    packages = (
        "torch", "nncf", "ai-edge-litert", "coremltools", "onnx", "onnxruntime", "numpy",
    )  # fmt: skip
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "os": platform.platform(),
        "versions": {name: version(name) for name in packages},
    }


def observed_quantizers(graph: Any, images: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Activation quantizers (portable) and weight scales of a float graph from the ranges seen.

    For timing only: nothing is tuned.
    """
    from edgevit.quantize.place import observe, quantizers_from_ranges, weight_scale

    activations = quantizers_from_ranges(graph, observe(graph, images), "portable")
    return activations, {node.module: weight_scale(node) for node in graph.weighted()}


def timing_program(graph: Any, name: str) -> Any:
    """`edgevit.measure.timing_program`: a program from a float graph, for timing only."""
    from edgevit.measure.timing_program import timing_program as made

    return made(graph, name)


def _without_folder(argument: str) -> str:
    """A path of this machine, or one behind NAME=, as its last part."""
    name, sign, value = argument.rpartition("=")
    return f"{name}{sign}{Path(value).name}" if os.path.isabs(value) else argument


def write_result(name: str, figures: dict[str, Any], before: dict[str, Any]) -> Path:
    """benchmarks/results/NAME.json; `before` is `machine()` as it was when the work began."""
    command = ["python", *map(_without_folder, sys.argv)]
    command[1] = f"benchmarks/{Path(sys.argv[0]).name}"
    result = {
        "schema_version": 1,
        "benchmark": name,
        "command": " ".join(command),
        "machine": before,
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")
    return path
