"""What GELU's place-takers cost and bring: accuracy, NNAPI partitions, XNNPACK's share, latency.

    python benchmarks/activations.py --train eurosat-train.tar --val eurosat-val.tar \\
        --checkpoint repvit_m0_9_eurosat64.pth [--work build/activations]
    python benchmarks/activations.py --only-latency

For each activation the commands of benchmarks/accuracy.py, with its recipe and `--activation`; the
gate of `quantize` is opened, so that each has its figures, and `validate` says what it would say.
Then RepViT-M0.9 at 224 px with 1000 classes as in benchmarks/latency.py, the activations in turn in
each round; a round's ratio compares its medians with GELU's. Half an hour an activation on one
core; goes on from where it was when interrupted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import nnapi
from accuracy import one_run
from common import machine, write_result
from latency import by_operator, make_program, write_images

OPEN_GATE = "100"


def accuracy(activation: str, given: argparse.Namespace, by_api: dict[str, Any]) -> dict[str, Any]:
    """Quantize, compile, validate, and NNAPI's partitions of that artifact."""
    work = given.work / activation
    options = ["--activation", activation, "--max-drop", OPEN_GATE, *given.quantize]
    figures = one_run(work, options, given)
    return figures | {"nnapi": nnapi.partitions(work / "tflite" / "model.tflite", by_api)}


def latency(activations: tuple[str, ...], given: argparse.Namespace) -> dict[str, Any]:
    """At --image-size, one thread: p50 by activation, ratios to GELU, operators by their time."""
    from edgevit.measure.harness import run_harness
    from edgevit.measure.request import HarnessRequest
    from edgevit.targets import load_target

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for activation in activations:
            program = make_program(given.image_size, activation)
            load_target("tflite").compile(program, work / activation)
        images = write_images(work, given.image_size)
        options: dict[str, Any] = {"threads": 1, "warmup": 10}
        p50: dict[str, list[float]] = {activation: [] for activation in activations}
        for _ in range(given.rounds):
            for activation in activations:
                facts = run_harness(HarnessRequest(work / activation, images, **options))
                p50[activation].append(facts["latency_us"]["invoke"]["p50"])
        figures = {}
        for activation in activations:
            profile = work / f"{activation}.json"
            facts = run_harness(
                HarnessRequest(work / activation, images, profile=profile, **options)
            )
            ratios = [a / b for a, b in zip(p50[activation], p50["gelu"], strict=True)]
            figures[activation] = {
                "invoke_p50_us": round(statistics.median(p50[activation]), 1),
                "to_gelu": {
                    "median": round(statistics.median(ratios), 3),
                    "min": round(min(ratios), 3),
                    "max": round(max(ratios), 3),
                },
                "ops": facts["ops"],
                "operators": by_operator(profile),
            }
            print(activation, {k: figures[activation][k] for k in ("invoke_p50_us", "to_gelu")})
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "val", "checkpoint"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/activations"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--image-size", type=int, default=224, help="Of the latency only.")
    parser.add_argument("--only-latency", action="store_true")
    parser.add_argument("--only-accuracy", action="store_true")
    parser.add_argument("--name", default="activations", help="Of the result file.")
    parser.add_argument("quantize", nargs="*", help="After --: more options of `edgevit quantize`.")
    given = parser.parse_args()
    if not given.only_latency and None in (given.train, given.val, given.checkpoint):
        parser.error("give --train, --val and --checkpoint, or --only-latency")
    from edgevit.choices import ACTIVATIONS

    before = machine()
    figures: dict[str, Any] = {}
    if not given.only_latency:
        with tempfile.TemporaryDirectory() as folder:
            by_api = nnapi.checks(Path(folder))
            figures["accuracy"] = {name: accuracy(name, given, by_api) for name in ACTIVATIONS}
    if not given.only_accuracy:
        figures["latency"] = {
            "image_size": given.image_size,
            "threads": 1,
            "rounds": given.rounds,
            "activations": latency(ACTIVATIONS, given),
        }
    write_result(given.name, figures, before)


if __name__ == "__main__":
    main()
