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


def observed_quantizers(net: Any, images: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Activation quantizers (portable) and weight scales of a fused net from the ranges seen.

    For timing only: nothing is tuned.
    """
    from edgevit.ops import SIGMOID_SCALE, SIGMOID_ZERO_POINT, Quantizer
    from edgevit.quantize.net import INPUT, trace
    from edgevit.quantize.place import activation_quantizer, observe, weight_scale

    steps = trace(net)
    ranges = observe(net, steps, images)
    activations = {
        name: activation_quantizer(*ranges[name], "portable")
        for name in [INPUT, *(s.name for s in steps if s.quantized)]
    }
    for step in steps:
        if step.op == "sigmoid":
            activations[step.name] = Quantizer(SIGMOID_SCALE, SIGMOID_ZERO_POINT, how="fixed")
    return activations, {s.name: weight_scale(s.layer.weight) for s in steps if s.layer is not None}


def write_result(name: str, figures: dict[str, Any], before: dict[str, Any]) -> Path:
    """benchmarks/results/NAME.json; `before` is `machine()` as it was when the work began."""
    command = ["python", *(a if not os.path.isabs(a) else Path(a).name for a in sys.argv)]
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
