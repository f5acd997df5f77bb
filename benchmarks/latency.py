"""Latency of the INT8 artifact against the float32 TFLite of the same net, and compile time.

    python benchmarks/latency.py [--rounds 7] [--image-size 224] [--threads 1]

RepViT-M0.9 with the embedded checkpoint's backbone (real weights give real scales, and those decide
which operators XNNPACK takes) and a seeded head of 1000 classes. Both files run in the C++ harness
under the same LiteRT, in turn; a round's ratio compares its two medians. Then LiteRT's profiler is
read once for each, operator by operator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, timing_program, write_result

IMAGES = 40


def make_program(size: int, activation: str = "gelu") -> Any:
    """The net's program, with the activation in place of every GELU."""
    import torch

    from edgevit.graph import trace
    from edgevit.graph.passes import swap_gelus
    from edgevit.models.checkpoint import load
    from edgevit.project import EMBEDDED

    torch.manual_seed(0)
    net = load(EMBEDDED / "repvit_m0_9_eurosat64.safetensors").model.fuse()
    net.head = torch.nn.Linear(net.head.in_features, 1000)
    graph = swap_gelus(trace(net, (3, size, size)), activation)
    return timing_program(graph, "repvit_m0_9")


def make_artifacts(work: Path, size: int) -> dict[str, Any]:
    """Folders of the INT8 and the float32 artifact of one net, and the median compile time."""
    from edgevit.program import Program
    from edgevit.targets import load_target

    target = load_target("tflite")
    program = make_program(size)
    program.save(work / "m.evq")
    times_s = []
    for i in range(5):
        loaded = Program.load(work / "m.evq")
        start = time.perf_counter()
        target.compile(loaded, work / f"int8-{i}")
        times_s.append(time.perf_counter() - start)
    target.compile(program, work / "float32", precision="float32")
    return {
        "int8": work / "int8-0",
        "float32": work / "float32",
        "compile_s": statistics.median(times_s),
    }


def write_images(folder: Path, size: int) -> Path:
    from PIL import Image

    target = folder / "images" / "class_0000"
    target.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(IMAGES):
        pixels = random.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(target / f"{i:03d}.png")
    return target.parent


def by_operator(profile: Path) -> list[dict[str, Any]]:
    """The profiler's table summed by operator type, largest first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for entry in json.loads(profile.read_text())["op_times"]:
        row = sums[entry["name"]]
        row[0] += 1
        row[1] += entry["mean_us"]
    ordered = sorted(sums.items(), key=lambda item: -item[1][1])
    return [{"operator": n, "count": c, "us": round(us, 1)} for n, (c, us) in ordered]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    from edgevit.measure.harness import run_harness
    from edgevit.measure.request import HarnessRequest

    before = machine()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        made = make_artifacts(work, given.image_size)
        images = write_images(work, given.image_size)
        options: dict[str, Any] = {"threads": given.threads, "warmup": 10}
        p50: dict[str, list[float]] = {"int8": [], "float32": []}
        facts: dict[str, Any] = {}
        for _ in range(given.rounds):
            for kind in p50:
                facts[kind] = run_harness(HarnessRequest(made[kind], images, **options))
                p50[kind].append(facts[kind]["latency_us"]["invoke"]["p50"])
        operators = {}
        for kind in p50:
            profile = work / f"{kind}.json"
            run_harness(HarnessRequest(made[kind], images, profile=profile, **options))
            operators[kind] = by_operator(profile)
        sizes = {k: (made[k] / "model.tflite").stat().st_size for k in p50}
    ratios = [f / i for f, i in zip(p50["float32"], p50["int8"], strict=True)]
    figures = {
        "image_size": given.image_size,
        "threads": given.threads,
        "rounds": given.rounds,
        "compile_s": round(made["compile_s"], 3),
        "size_bytes": sizes,
        "invoke_p50_us": {k: round(statistics.median(v), 1) for k, v in p50.items()},
        "speed_up": {
            "median": round(statistics.median(ratios), 3),
            "min": round(min(ratios), 3),
            "max": round(max(ratios), 3),
        },
        "ops": {k: facts[k]["ops"] for k in p50},
        "runtime": facts["int8"]["runtime"],
        "operators": operators,
    }
    print(json.dumps({k: figures[k] for k in ("compile_s", "invoke_p50_us", "speed_up")}))
    write_result(f"latency-{given.image_size}px-{given.threads}t", figures, before)


if __name__ == "__main__":
    main()
