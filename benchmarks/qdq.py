"""The TensorRT artifact without a GPU: lint against NNCF's default export, ONNX Runtime latency.

    python benchmarks/qdq.py [--rounds 7] [--image-size 224] [--threads 1]

The lint compares two QDQ ONNX files of the same net (RepViT-M0.9, embedded checkpoint, EuroSAT):
ours, and what `nncf.quantize` with default settings and `torch.onnx.export` give. The latency is
that of the QDQ graph and of the float32 graph of one net in the C++ harness under ONNX Runtime on
this CPU, in turn: a host proxy, and no TensorRT figure.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from common import machine, write_result
from latency import make_program, write_images

FLOAT32 = {"io": "float32", "compute_precision": "float32"}


def counts(model: Path) -> dict[str, Any]:
    """Findings of the strict lint, by level and by rule."""
    from edgevit.targets.tensorrt.lint import lint

    findings = lint(model, strict=True)
    levels = Counter(finding.level for finding in findings)
    return {
        "errors": levels["error"],
        "warnings": levels["warning"],
        "by_rule": dict(sorted(Counter(finding.rule for finding in findings).items())),
    }


def nncf_default(work: Path) -> Path:
    """What NNCF and torch write for the same net when nothing is asked for."""
    import nncf
    import torch

    from edgevit.data.images import ImageSet, Preprocessing
    from edgevit.models.checkpoint import load
    from edgevit.project import EMBEDDED

    net = load(EMBEDDED / "repvit_m0_9_eurosat64.safetensors").model.fuse().eval()
    source = ImageSet.open(EMBEDDED / "train.tar")
    images = [x for x, _ in source.batches(Preprocessing(64), 16, range(0, 1600, 50))]
    logging.getLogger("nncf").setLevel(logging.ERROR)
    quantized = nncf.quantize(net, nncf.Dataset(images), subset_size=len(images))
    plain = nncf.strip(quantized, strip_format=nncf.StripFormat.NATIVE, example_input=images[0][:1])
    path = work / "nncf.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain, (images[0][:1],), str(path), opset_version=20, dynamo=False,
            input_names=["input"], output_names=["logits"],
        )  # fmt: skip
    return path


def lint_figures(work: Path, program: Any) -> dict[str, Any]:
    from edgevit.targets import load_target

    load_target("tensorrt").compile(program, work / "ours")
    return {
        "edgevit": counts(work / "ours" / "model.onnx"),
        "nncf_default": counts(nncf_default(work)),
    }


def latency_figures(work: Path, given: argparse.Namespace) -> dict[str, Any]:
    from edgevit.measure.harness import run_harness
    from edgevit.measure.request import HarnessRequest
    from edgevit.targets import load_target

    program = make_program(given.image_size)
    kinds = {"int8": FLOAT32, "float32": {**FLOAT32, "precision": "float16"}}
    for kind, options in kinds.items():
        load_target("tensorrt").compile(program, work / kind, **options)
    images = write_images(work, given.image_size)
    p50: dict[str, list[float]] = {kind: [] for kind in kinds}
    facts: dict[str, Any] = {}
    for _ in range(given.rounds):
        for kind in kinds:
            facts[kind] = run_harness(
                HarnessRequest(work / kind, images, backend="onnxruntime", threads=given.threads)
            )
            p50[kind].append(facts[kind]["latency_us"]["invoke"]["p50"])
    ratios = [f / i for f, i in zip(p50["float32"], p50["int8"], strict=True)]
    return {
        "image_size": given.image_size,
        "threads": given.threads,
        "rounds": given.rounds,
        "invoke_p50_us": {k: round(statistics.median(v), 1) for k, v in p50.items()},
        "speed_up": {
            "median": round(statistics.median(ratios), 3),
            "min": round(min(ratios), 3),
            "max": round(max(ratios), 3),
        },
        "size_bytes": {k: (work / k / "model.onnx").stat().st_size for k in kinds},
        "runtime": facts["int8"]["runtime"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "lint").mkdir()
        lint = lint_figures(work / "lint", make_program(64))
        print(json.dumps(lint), flush=True)
        figures = {"lint": lint, "onnxruntime_cpu": latency_figures(work, given)}
    print(json.dumps(figures["onnxruntime_cpu"]["speed_up"]))
    write_result("qdq", figures, before)


if __name__ == "__main__":
    main()
