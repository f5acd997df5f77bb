"""The road from MobileNetV3-L to RepViT-M0.9, step by step: what each change costs here.

    python benchmarks/road.py [--rounds 5] [--images 20] [--image-size 224] [--threads 1]
        [--steps 0 1 2a ...] [--soc SM8750]
    python benchmarks/road.py --only-trained     the last figures, with today's trained top-1

The nets of road_nets.py with random weights and 1000 classes, for timing alone: parameters and
multiply-accumulates, latency of the float32 and the int8 TFLite file in the C++ harness under
LiteRT, and what Qualcomm's compiler (where onnxruntime-qnn is installed) and TensorRT's rules say
of them. Nothing runs on a phone or a GPU.

Each round runs every file once, so that a load of the machine meets all of them, and a ratio is of
two figures of the same round. Two clocks are read: the harness's, of the inference, and the CPU
time that an inference takes in LiteRT's Python interpreter, which other work on the machine
disturbs far less. Beside the figures stand the paper's (arXiv 2307.09283: ImageNet-1k, iPhone 12),
and top-1 of short trainings where road_training.py has left results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, machine, timing_program, write_result
from latency import write_images
from road_nets import (
    DISTILLED,
    ROAD,
    STEPS,
    RoadConfig,
    seeded_net,
    with_random_norms,
)

PRECISIONS = ("float32", "int8")
CPU_INFERENCES = 10
Times = dict[tuple[str, str], list[float]]
"""By precision and step: microseconds of each round."""
STATISTICS_IMAGES = 16
TRAINED = RESULTS / "road-training.json"


def make_graph(config: RoadConfig, size: int) -> Any:
    """The fused float graph of a step's net with random weights (seed 0)."""
    from edgevit.data.images import ImageSet, Preprocessing
    from edgevit.graph import trace
    from edgevit.project import EMBEDDED

    source = ImageSet.open(EMBEDDED / "train.tar")
    rules = Preprocessing(size, size)
    indices = range(0, 100 * STATISTICS_IMAGES, 100)
    images = next(x for x, _ in source.batches(rules, STATISTICS_IMAGES, indices))
    net = with_random_norms(seeded_net(config, 0), images, 0).fuse()
    return trace(net, (3, size, size))


def npu(model: bytes, soc: str) -> dict[str, Any]:
    """How Qualcomm's compiler takes an int8 TFLite file, or why it does not say."""
    from edgevit.errors import ToolMissing
    from edgevit.targets import load_target
    from edgevit.targets.npu.compiler import compile_model

    try:
        made = compile_model(model, load_target("qnn").vendor, soc)  # pyright: ignore[reportAttributeAccessIssue]
    except ToolMissing as error:
        return {"skipped": str(error)}
    return {
        "soc": soc, "operators": made.operators, "npu_operators": made.npu_operators,
        "partitions": made.partitions, "on_cpu": made.reasons, "compile_s": made.compile_s,
        "context_bytes": len(made.data), "versions": made.versions,
    }  # fmt: skip


def linted(program: Any, folder: Path) -> dict[str, int]:
    """Findings of TensorRT's rules in the step's QDQ graph."""
    from edgevit.targets import load_target
    from edgevit.targets.tensorrt.lint import lint

    target = load_target("tensorrt")
    target.compile(program, folder)
    findings = lint(folder / target.file)
    errors = sum(finding.level == "error" for finding in findings)
    return {"errors": errors, "warnings": len(findings) - errors}


def made_step(config: RoadConfig, work: Path, size: int, soc: str) -> dict[str, Any]:
    """Writes the step's two TFLite artifacts; all of its figures but the times."""
    from edgevit.graph.count import count
    from edgevit.targets import load_target
    from edgevit.targets.tflite.options import TfliteOptions
    from edgevit.targets.tflite.write import tflite_bytes

    graph, target = make_graph(config, size), load_target("tflite")
    program = timing_program(graph, f"road_step_{config.step}")
    sizes = {}
    for precision in PRECISIONS:
        folder = artifact(work, config.step, precision)
        target.compile(program, folder, precision=precision)
        target.check_artifact(folder, program)
        sizes[precision] = (folder / target.file).stat().st_size
    for_npu = tflite_bytes(program, TfliteOptions(activations="operator"))
    counted = count(graph)
    return {
        "change": config.change,
        "parameters": counted.parameters,
        "macs": counted.macs,
        "operations": len(graph.nodes),
        "size_bytes": sizes,
        "npu": npu(for_npu, soc),
        "tensorrt_lint": linted(program, work / f"{config.step}-tensorrt"),
        "paper": {"top1_percent": config.top1, "iphone12_ms": config.ms},
    }


def artifact(work: Path, step: str, precision: str) -> Path:
    return work / f"{step}-{precision}"


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def cpu_clock(model: Path, threads: int, size: int) -> Callable[[], float]:
    """A function that gives the CPU time of an inference, in microseconds: the median of a few."""
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_path=str(model), num_threads=threads)
    made.allocate_tensors()
    (source,) = made.get_input_details()
    noise = np.random.default_rng(0).normal(0, 1, (1, size, size, 3))
    if source["dtype"] == np.int8:
        noise = np.clip(np.rint(32 * noise), -128, 127)
    made.set_tensor(source["index"], noise.astype(source["dtype"]))

    def measure() -> float:
        times = []
        for _ in range(CPU_INFERENCES + 1):
            start = time.process_time()
            made.invoke()
            times.append(time.process_time() - start)
        return 1e6 * statistics.median(times[1:])

    return measure


def timed(work: Path, steps: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """By clock and step: microseconds of an inference, and ratios to steps 0 and 8."""
    from edgevit.measure.harness import run_harness
    from edgevit.measure.request import HarnessRequest
    from edgevit.targets import load_target

    images, file = write_images(work, given.image_size), load_target("tflite").file
    folders = {(p, step): artifact(work, step, p) for step in steps for p in PRECISIONS}
    clocks = {
        key: cpu_clock(folder / file, given.threads, given.image_size)
        for key, folder in folders.items()
    }
    options: dict[str, Any] = {"threads": given.threads, "warmup": 5, "limit": given.images}
    by_harness: Times = {key: [] for key in folders}
    by_cpu: Times = {key: [] for key in folders}
    runtime = None
    for done in range(given.rounds):
        for key, folder in folders.items():
            result = run_harness(HarnessRequest(folder, images, **options))
            runtime = result["runtime"]
            by_harness[key].append(result["latency_us"]["invoke"]["p50"])
            by_cpu[key].append(clocks[key]())
        print(f"round {done + 1} of {given.rounds}", file=sys.stderr)
    found = {
        step: {"harness": compared(by_harness, step), "cpu_time": compared(by_cpu, step)}
        for step in steps
    }
    return {"runtime": runtime, "steps": found}


def compared(times: Times, step: str) -> dict[str, Any]:
    """One step's figures of one clock: the median of the rounds, and ratios within a round."""

    def against(own: list[float], other: list[float]) -> dict[str, float]:
        return spread([a / b for a, b in zip(own, other, strict=True)])

    row: dict[str, Any] = {
        "int8_speed_up": against(times["float32", step], times["int8", step]),
    }
    for precision in PRECISIONS:
        own = times[precision, step]
        row[precision] = {"us": round(statistics.median(own), 1)}
        for to in ("0", "8"):
            if (precision, to) in times:
                row[precision][f"to_step_{to}"] = against(own, times[precision, to])
    return row


def trained() -> dict[str, Any]:
    """What road_training.py has written, by step; empty where it has written nothing."""
    return json.loads(TRAINED.read_text())["steps"] if TRAINED.exists() else {}


def bring_up_to_date(path: Path) -> None:
    """Puts what is trained by now into a result, and prints its table."""
    figures, accuracy = json.loads(path.read_text()), trained()
    for step, row in figures["steps"].items():
        row["trained"] = accuracy.get(step)
    path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    print(table(figures["steps"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=20, help="timed in each run")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", choices=STEPS, nargs="+", default=list(STEPS))
    parser.add_argument("--soc", default="SM8750")
    parser.add_argument("--only-trained", action="store_true", help="measure no times again")
    given = parser.parse_args()
    if given.only_trained:
        bring_up_to_date(RESULTS / "road.json")
        return
    before, steps = machine(), [s for s in STEPS if s in given.steps]
    with tempfile.TemporaryDirectory() as name:
        work, rows = Path(name), {}
        for step in steps:
            rows[step] = made_step(STEPS[step], work, given.image_size, given.soc)
            print(f"step {step} compiled", file=sys.stderr)
        times = timed(work, steps, given)
    accuracy = trained()
    for step, row in rows.items():
        row["latency"] = times["steps"][step]
        row["trained"] = accuracy.get(step)
    figures = {
        "image_size": given.image_size,
        "threads": given.threads,
        "rounds": given.rounds,
        "images_a_run": given.images,
        "runtime": times["runtime"],
        "run_on_a_device": False,
        "steps": rows,
        "distilled": {"change": DISTILLED.change, "top1_percent": DISTILLED.top1, "trained": None},
        "load_average_1min_after": machine()["load_average_1min"],
    }
    print(table(rows))
    print(said(rows))
    write_result(
        "road" if given.image_size == 224 else f"road-{given.image_size}px", figures, before
    )


HEADER = (
    "step", "change", "M params", "MMACs", "float ms", "int8 ms", "float ×0", "int8 ×0", "f/i",
    "harness ×0", "NPU ops", "lint", "iPhone ms", "×0", "paper top-1", "trained top-1",
)  # fmt: skip


def table(rows: dict[str, Any]) -> str:
    """As Markdown, which is what docs/road.md shows."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(_cells(step, row)) + " |" for step, row in rows.items()]
    return "\n".join(lines)


def _cells(step: str, row: dict[str, Any]) -> list[str]:
    times, npu_row, lint_row = row["latency"]["cpu_time"], row["npu"], row["tensorrt_lint"]
    taken = "skipped"
    if "skipped" not in npu_row:
        taken = "{npu_operators} of {operators}".format(**npu_row)
    ms, top1 = row["paper"]["iphone12_ms"], row["paper"]["top1_percent"]

    def to_first(clock: str, precision: str) -> str:
        found = row["latency"][clock][precision].get("to_step_0")
        return "-" if found is None else f"{found['median']:.2f}"

    return [
        step, row["change"], f"{row['parameters'] / 1e6:.2f}", f"{row['macs'] / 1e6:.0f}",
        *(f"{times[p]['us'] / 1000:.2f}" for p in PRECISIONS),
        *(to_first("cpu_time", p) for p in PRECISIONS),
        f"{times['int8_speed_up']['median']:.2f}",
        ", ".join(to_first("harness", p) for p in PRECISIONS),
        taken, f"{lint_row['errors']} + {lint_row['warnings']}",
        f"{ms:.2f}", f"{ms / ROAD[0].ms:.2f}", "-" if top1 is None else f"{top1:.1f}",
        _top1(row["trained"]),
    ]  # fmt: skip


def _top1(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not trained"
    half, seeds = found["half_width"], len(found["seeds"])
    around = "" if half is None else f" ± {half:.2f}"
    return f"{found['mean']:.2f}{around} ({seeds} seed{'s' * (seeds > 1)})"


def said(rows: dict[str, Any]) -> str:
    """What the road costs from end to end, in one line."""
    if not {"0", "8"} <= rows.keys():
        return "steps 0 and 8 were not both measured"
    last = rows["8"]
    macs = last["macs"] / rows["0"]["macs"]
    times = last["latency"]["cpu_time"]
    own = {p: times[p]["to_step_0"]["median"] for p in PRECISIONS}
    phone = STEPS["8"].ms / STEPS["0"].ms
    return (
        f"From step 0 to step 8: MACs ×{macs:.2f}, CPU time ×{own['float32']:.2f} in float32 "
        f"and ×{own['int8']:.2f} in int8, the paper's iPhone ×{phone:.2f}."
    )


if __name__ == "__main__":
    main()
