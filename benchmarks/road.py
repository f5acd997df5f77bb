"""The road from MobileNetV3-L to RepViT-M0.9, step by step: what each change costs here.

    python benchmarks/road.py [--rounds 5] [--images 20] [--image-size 224] [--threads 1]
        [--steps 0 1 2a ...] [--soc SM8750]

The nets of road_nets.py with random weights and 1000 classes, for timing alone: parameters and
multiply-accumulates, latency of the float32 and the int8 TFLite file in the C++ harness under
LiteRT, and what Qualcomm's compiler (where onnxruntime-qnn is installed) and TensorRT's rules say
of them. Nothing runs on a phone or a GPU.

Each round runs every file once, so that a load of the machine meets all of them. The table shows
the least time of an inference over all rounds, which other work on the machine disturbs least; the
JSON holds medians as well, and ratios of two medians of the same round. Beside the figures stand
the paper's (arXiv 2307.09283: ImageNet-1k, iPhone 12), and top-1 of short trainings where
road_training.py has left results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import RESULTS, machine, timing_program, write_result
from latency import write_images
from road_nets import (
    DISTILLED,
    ROAD,
    STEPS,
    RoadConfig,
    graph_macs,
    graph_parameters,
    seeded_net,
    with_random_norms,
)

PRECISIONS = ("float32", "int8")
STATISTICS_IMAGES = 16
TRAINED = RESULTS / "road-training.json"


def make_graph(config: RoadConfig, size: int) -> Any:
    """The fused float graph of a step's net with random weights (seed 0)."""
    from edgevit.data.images import ImageSet, Preprocessing
    from edgevit.demo import EMBEDDED
    from edgevit.graph import trace

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
    from edgevit.targets import load_target

    graph, target = make_graph(config, size), load_target("tflite")
    program = timing_program(graph, f"road_step_{config.step}")
    sizes = {}
    for precision in PRECISIONS:
        folder = artifact(work, config.step, precision)
        target.compile(program, folder, precision=precision)
        target.check_artifact(folder, program)
        sizes[precision] = (folder / target.file).stat().st_size
    int8 = artifact(work, config.step, "int8") / target.file
    return {
        "change": config.change,
        "parameters": graph_parameters(graph),
        "macs": graph_macs(graph),
        "operations": len(graph.nodes),
        "size_bytes": sizes,
        "npu": npu(int8.read_bytes(), soc),
        "tensorrt_lint": linted(program, work / f"{config.step}-tensorrt"),
        "paper": {"top1_percent": config.top1, "iphone12_ms": config.ms},
    }


def artifact(work: Path, step: str, precision: str) -> Path:
    return work / f"{step}-{precision}"


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def timed(work: Path, steps: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """By step and precision: microseconds of an inference, and ratios to steps 0 and 8."""
    from edgevit.measure.harness import run_harness
    from edgevit.measure.request import HarnessRequest

    images = write_images(work, given.image_size)
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        p: {step: [] for step in steps} for p in PRECISIONS
    }
    options: dict[str, Any] = {"threads": given.threads, "warmup": 5, "limit": given.images}
    runtime = None
    for done in range(given.rounds):
        for step in steps:
            for precision in PRECISIONS:
                request = HarnessRequest(artifact(work, step, precision), images, **options)
                result = run_harness(request)
                runtime = result["runtime"]
                found[precision][step].append(result["latency_us"]["invoke"])
        print(f"round {done + 1} of {given.rounds}", file=sys.stderr)
    return {"runtime": runtime, "steps": {step: compared(found, step) for step in steps}}


def compared(found: dict[str, Any], step: str) -> dict[str, Any]:
    """One step's figures, of the rounds' summaries by precision and step."""

    def least(precision: str, of: str) -> float:
        return min(each["min"] for each in found[precision][of])

    def against(own: list[dict[str, float]], other: list[dict[str, float]]) -> dict[str, float]:
        return spread([a["p50"] / b["p50"] for a, b in zip(own, other, strict=True)])

    row: dict[str, Any] = {
        "int8_speed_up": {
            "of_least": round(least("float32", step) / least("int8", step), 3),
            "of_p50": against(found["float32"][step], found["int8"][step]),
        }
    }
    for precision in PRECISIONS:
        own = found[precision][step]
        row[precision] = {
            "least_us": round(least(precision, step), 1),
            "p50_us": round(statistics.median(each["p50"] for each in own), 1),
        }
        for to in ("0", "8"):
            if to in found[precision]:
                row[precision][f"to_step_{to}"] = {
                    "of_least": round(least(precision, step) / least(precision, to), 3),
                    "of_p50": against(own, found[precision][to]),
                }
    return row


def trained() -> dict[str, Any]:
    """What road_training.py has written, by step; empty where it has written nothing."""
    return json.loads(TRAINED.read_text())["steps"] if TRAINED.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=20, help="timed in each run")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", choices=STEPS, nargs="+", default=list(STEPS))
    parser.add_argument("--soc", default="SM8750")
    given = parser.parse_args()
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
    "NPU ops", "lint", "iPhone ms", "×0", "paper top-1", "trained top-1",
)  # fmt: skip


def table(rows: dict[str, Any]) -> str:
    """As Markdown, which is what docs/road.md shows."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(_cells(step, row)) + " |" for step, row in rows.items()]
    return "\n".join(lines)


def _cells(step: str, row: dict[str, Any]) -> list[str]:
    times, npu_row, lint_row = row["latency"], row["npu"], row["tensorrt_lint"]
    taken = "skipped"
    if "skipped" not in npu_row:
        taken = "{npu_operators} of {operators}".format(**npu_row)
    ms, top1 = row["paper"]["iphone12_ms"], row["paper"]["top1_percent"]

    def to_first(precision: str) -> str:
        found = times[precision].get("to_step_0")
        return "-" if found is None else f"{found['of_least']:.2f}"

    return [
        step, row["change"], f"{row['parameters'] / 1e6:.2f}", f"{row['macs'] / 1e6:.0f}",
        *(f"{times[p]['least_us'] / 1000:.2f}" for p in PRECISIONS),
        *(to_first(p) for p in PRECISIONS), f"{times['int8_speed_up']['of_least']:.2f}",
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
    own = {p: last["latency"][p]["to_step_0"]["of_least"] for p in PRECISIONS}
    phone = STEPS["8"].ms / STEPS["0"].ms
    return (
        f"From step 0 to step 8: MACs ×{macs:.2f}, this CPU ×{own['float32']:.2f} in float32 "
        f"and ×{own['int8']:.2f} in int8, the paper's iPhone ×{phone:.2f}."
    )


if __name__ == "__main__":
    main()
