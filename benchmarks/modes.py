"""What each mode of the same net is worth: time on a CPU, size, and what an NPU would take.

    python benchmarks/modes.py [--rounds 7] [--image-size 224] [--threads 1] [--peer DIR]

RepViT-M0.9 as in latency.py: float32, int8 (edgevit's program) and int8 weights alone
(`--weights-only`: LiteRT quantizes the rest as it runs), and what ai-edge-quantizer makes of the
float32 file: the same two, int8 weights that are widened to float32, int4 weights, and 16x8
(int16 activations, int8 weights). It is no dependency: DIR is where

    pip install --target DIR --no-deps ai-edge-quantizer immutabledict litert-lm-builder

put it; without it edgevit's own modes are measured.

edgevit's files run in the C++ harness, which refuses the others' (it knows no int16 or int4), so
all of them run in LiteRT's Python interpreter as well, the modes in turn. A round's ratio is the
float32 median of that round over the mode's. How an NPU would take a file is told by LiteRT's
compiler plugin for Qualcomm with the libraries of onnxruntime-qnn, where that is installed: nothing
runs on a phone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_result
from latency import make_program, write_images

SOC = "SM8750"
OWN: dict[str, dict[str, str]] = {
    "float32": {"precision": "float32"},
    "int8": {},
    "dynamic int8": {"weights_only": "on"},
}
"""Mode -> options of the TFLite target."""
PEERS = {
    "int8 (ai-edge-quantizer)": "static_wi8_ai8",
    "dynamic int8 (ai-edge-quantizer)": "dynamic_wi8_afp32",
    "weight-only int8": "weight_only_wi8_afp32",
    "dynamic int4": "dynamic_wi4_afp32",
    "weight-only int4": "weight_only_wi4_afp32",
    "16x8": "static_wi8_ai16",
}
"""Mode -> ai-edge-quantizer's recipe."""
CALIBRATION_IMAGES = 4
LEAST_INVOKES, LEAST_SECONDS, WARM_UP = 5, 0.3, 2
PARTITIONED = re.compile(
    r"selected (\d+) ops, from a total of (\d+) ops\. resulted in (\d+) partitions"
)


def peer_files(work: Path, float_model: bytes, inputs: list[np.ndarray]) -> dict[str, Path]:
    """ai-edge-quantizer's files of the float32 one, by mode; what it refuses is printed."""
    quantizer = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe = importlib.import_module("ai_edge_quantizer.recipe")
    found: dict[str, Path] = {}
    calibration = {"serving_default": [{"input": values} for values in inputs]}
    for mode, name in PEERS.items():
        made = quantizer.Quantizer(float_model, getattr(recipe, name)())
        given = {"calibration_result": made.calibrate(calibration)} if "static" in name else {}
        data = made.quantize(**given, enable_progress_report=False).quantized_model
        found[mode] = work / f"{name}.tflite"
        found[mode].write_bytes(bytes(data))
    return found


def interpreter(model: Path, threads: int, values: np.ndarray) -> Callable[[], float]:
    """A function that gives the median time of an inference, in microseconds, of one round."""
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_path=str(model), num_threads=threads)
    made.allocate_tensors()
    (source,) = made.get_input_details()
    scale, zero_point = source["quantization"]
    if scale:
        limits = np.iinfo(source["dtype"])
        values = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max)
    made.set_tensor(source["index"], values.astype(source["dtype"]))

    def measure() -> float:
        for _ in range(WARM_UP):
            made.invoke()
        times, begun = [], time.perf_counter()
        while len(times) < LEAST_INVOKES or time.perf_counter() - begun < LEAST_SECONDS:
            start = time.perf_counter()
            made.invoke()
            times.append(time.perf_counter() - start)
        return 1e6 * statistics.median(times)

    return measure


def npu(model: Path, work: Path) -> dict[str, int] | str:
    """How LiteRT's Qualcomm plugin divides and compiles a file, or why it does not say."""
    try:
        import onnxruntime_qnn
    except ImportError:
        return "onnxruntime-qnn is not installed"
    import ai_edge_litert

    libraries = Path(onnxruntime_qnn.get_library_path()).parent
    package = Path(ai_edge_litert.__file__).parent
    stub = work / "stub"
    if not stub.exists():
        stub.mkdir()
        # The plugin links it and uses nothing of it.
        library = ["-o", str(stub / "libQnnLpai.so")]
        command = ["cc", "-shared", "-fPIC", "-x", "c", os.devnull, *library]
        subprocess.run(command, check=True)
    done = subprocess.run(
        [
            str(package / "tools" / "apply_plugin_main"), "--cmd=apply", f"--model={model}",
            f"--o={work / 'compiled.tflite'}", "--soc_manufacturer=Qualcomm",
            f"--soc_model={SOC}", f"--libs={package / 'vendors' / 'qualcomm' / 'compiler'}",
        ],
        env={**os.environ, "LD_LIBRARY_PATH": f"{libraries}:{stub}"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )  # fmt: skip
    found = PARTITIONED.search(done.stdout + done.stderr)
    if found is None:
        return f"the plugin failed, exit code {done.returncode}"
    selected, total, parts = map(int, found.groups())
    counted = {"on_npu": selected, "operators": total, "partitions": parts}
    return counted | {"compiled": done.returncode == 0}


def ratios(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Speed against float32 by mode: of the rounds' ratios the median, the least and the most."""
    found = {}
    for mode, own in times.items():
        each = [f / t for f, t in zip(times["float32"], own, strict=True)]
        values = {"median": statistics.median(each), "min": min(each), "max": max(each)}
        found[mode] = {name: round(value, 3) for name, value in values.items()}
    return found


def _times(times: dict[str, list[float]]) -> dict[str, Any]:
    medians = {mode: round(statistics.median(own), 1) for mode, own in times.items()}
    return {"invoke_p50_us": medians, "speed_against_float32": ratios(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", type=Path, help="where ai-edge-quantizer was installed")
    given = parser.parse_args()
    if given.peer is not None:
        sys.path.append(str(given.peer))
    from edgevit.measure.harness import run_harness
    from edgevit.measure.request import HarnessRequest
    from edgevit.targets import load_target

    before, size = machine(), given.image_size
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        program, target = make_program(size), load_target("tflite")
        for mode, options in OWN.items():
            target.compile(program, work / mode, False, **options)
        files = {mode: work / mode / target.file for mode in OWN}
        pixels = np.random.default_rng(0).integers(0, 256, (CALIBRATION_IMAGES, size, size, 3))
        normalised = program.info.preprocessing.normalise(pixels.astype(np.uint8)).numpy()
        inputs = [image.transpose(1, 2, 0)[None] for image in normalised]
        if given.peer is not None:
            files |= peer_files(work, files["float32"].read_bytes(), inputs)
        runs = {mode: interpreter(file, given.threads, inputs[0]) for mode, file in files.items()}
        images = write_images(work, size)
        in_harness: dict[str, list[float]] = {mode: [] for mode in OWN}
        in_python: dict[str, list[float]] = {mode: [] for mode in files}
        facts: dict[str, Any] = {}
        for done in range(given.rounds):
            for mode in OWN:
                request = HarnessRequest(work / mode, images, threads=given.threads, warmup=10)
                facts[mode] = run_harness(request)
                in_harness[mode].append(facts[mode]["latency_us"]["invoke"]["p50"])
            for mode, measure in runs.items():
                in_python[mode].append(measure())
            print(f"round {done + 1} of {given.rounds}", file=sys.stderr)
        sizes = {mode: file.stat().st_size for mode, file in files.items()}
        # An NPU takes an int8 activation as one operator, a CPU is faster with a table.
        target.compile(program, work / "int8-npu", False, activations="operator")
        for_npu = files | {"int8": work / "int8-npu" / target.file}
        divided = {mode: npu(file, work) for mode, file in for_npu.items()}
    figures = {
        "image_size": size,
        "threads": given.threads,
        "rounds": given.rounds,
        "runtime": facts["int8"]["runtime"],
        "peer": _peer_version(given.peer),
        "size_bytes": sizes,
        "harness": _times(in_harness),
        "interpreter": _times(in_python),
        "ops": {mode: facts[mode]["ops"] for mode in OWN},
        "npu": {"soc": SOC, "run_on_a_device": False, "modes": divided},
    }
    _print(figures)
    write_result("modes" if size == 224 else f"modes-{size}px", figures, before)


def _peer_version(peer: Path | None) -> str | None:
    if peer is None:
        return None
    from importlib.metadata import distributions

    (found,) = [
        each.version
        for each in distributions(path=[str(peer)])
        if each.metadata["Name"] == "ai-edge-quantizer"
    ]
    return f"ai-edge-quantizer {found}"


def _print(figures: dict[str, Any]) -> None:
    for mode, speed in figures["interpreter"]["speed_against_float32"].items():
        own = figures["harness"]["speed_against_float32"].get(mode)
        npu_text = figures["npu"]["modes"][mode]
        if isinstance(npu_text, dict):
            failed = "" if npu_text["compiled"] else ", which the compiler fails at"
            npu_text = "{on_npu} of {operators} in {partitions}".format(**npu_text) + failed
        print(
            f"{mode:34} {speed['median']:6.3f} ({speed['min']:.3f} to {speed['max']:.3f})  harness "
            f"{own['median'] if own else '-':>6}  {figures['size_bytes'][mode] / 1e6:5.2f} MB  NPU "
            f"{npu_text}"
        )


if __name__ == "__main__":
    main()
