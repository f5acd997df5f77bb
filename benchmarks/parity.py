"""Every target's artifact against the program on the full EuroSAT val split: size, compile, parity.

    python benchmarks/parity.py --val eurosat-val.tar --program build/accuracy/portable/model.evq

The program is one that benchmarks/accuracy.py made. TFLite runs under LiteRT, Core ML under the
reference interpreter, TensorRT's ONNX under ONNX Runtime, the HTP's under QNN's emulator: no device
is measured here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import machine, write_result

FLOAT32 = {"compute_precision": "float32"}
VARIANTS: tuple[tuple[str, str, dict[str, str], tuple[dict[str, str], ...]], ...] = (
    ("TFLite", "tflite", {}, ({},)),
    (
        "Core ML, float16, image input", "coreml", {},
        ({"rounding": "division"}, {"rounding": "reciprocal"}),
    ),
    (
        "Core ML, float32, tensor input", "coreml", {**FLOAT32, "input_type": "tensor"},
        ({"rounding": "fused"}, {"rounding": "reciprocal"}, {"rounding": "division"}),
    ),
    (
        "Core ML, float32, image input", "coreml", FLOAT32, ({"rounding": "fused"},),
    ),
    ("Core ML, float package", "coreml", {"precision": "float16"}, ({},)),
    ("TensorRT, float32", "tensorrt", {**FLOAT32, "io": "float32"}, ({},)),
    ("TensorRT, float16", "tensorrt", {}, ({},)),
    ("Qualcomm HTP, QNN's emulator", "qnn", {}, ({},)),
)  # fmt: skip
"""Title, target, options of compile, options of each run."""


def one_variant(
    program: Any, given: argparse.Namespace, target: str, options: dict[str, str],
    runs: tuple[dict[str, str], ...], work: Path,
) -> dict[str, Any]:  # fmt: skip
    from edgevit.measure.parity import compare
    from edgevit.schema import to_json
    from edgevit.targets import load_target

    seconds = []
    for _ in range(given.rounds):
        start = time.monotonic()
        manifest = load_target(target).compile(program, work, True, **options)
        seconds.append(time.monotonic() - start)
    figures: dict[str, Any] = {
        "options": dict(manifest.options),
        "size_bytes": manifest.artifact.size_bytes,
        "compile_s_median": statistics.median(seconds),
        "audit": to_json(manifest.audit),
        "drops": len(manifest.drops),
        "runs": [],
    }
    for run in runs:
        found = compare(
            work, given.val, program=given.program, images=given.images, force=True,
            layer_images=given.layer_images, **run,
        )  # fmt: skip
        decibels = [row.sqnr_db for row in found.layers if row.sqnr_db is not None]
        figures["runs"].append(
            {
                "engine": found.engine,
                "images": found.images,
                "agreement_percent": found.agreement_percent,
                "top1_percent": found.top1_percent,
                "program_top1_percent": found.program_top1_percent,
                "first_departure": found.first_departure,
                "layer_images": found.layer_images,
                "layers": len(found.layers),
                "layers_exact": len(found.layers) - len(decibels),
                "sqnr_db_min": min(decibels, default=None),
                "sqnr_db_median": statistics.median(decibels) if decibels else None,
                "max_steps": max((row.max_steps for row in found.layers), default=0.0),
            }
        )
        print(figures["runs"][-1], flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--name", default="portable", help="of the result: parity-NAME.json")
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--layer-images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="of compiling")
    parser.add_argument("--target", action="append", help="default: all that compile here")
    given = parser.parse_args()
    before = machine()
    from edgevit.program import Program

    program = Program.load(given.program)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, target, options, runs in VARIANTS:
            if target not in (given.target or [target]):
                continue
            if target == "tensorrt" and program.info.profile != "portable":
                continue
            if target == "qnn" and find_spec("onnxruntime_qnn") is None:
                print("Qualcomm HTP: onnxruntime-qnn is not installed")
                continue
            print(title, flush=True)
            work = Path(folder) / "artifact"
            figures[title] = one_variant(program, given, target, options, runs, work)
    stages = {m.name: 100 * m.value for m in program.info.metrics}
    write_result(f"parity-{given.name}", {"stages": stages, "variants": figures}, before)


if __name__ == "__main__":
    main()
