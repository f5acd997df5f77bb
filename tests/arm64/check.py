"""An artifact's answers on ARM64 beside this machine's: the harness cross-compiled, under qemu.

`make test-arm64` builds what this needs. qemu computes what an ARM core computes; how long that
takes there says nothing of a board.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from edgevit.errors import ToolMissing
from edgevit.measure.harness import run_harness
from edgevit.measure.request import HarnessRequest

ROOT = Path(__file__).resolve().parents[2]
BUILD, SYSROOT = ROOT / "build" / "arm64", ROOT / "build" / "arm64-sysroot"


@dataclass(frozen=True)
class Difference:
    """One image whose logits are not the same on both.

    steps   the largest difference of a logit, in quantization steps of the output
    x86     predicted class here, `arm64` there
    """

    image: str
    steps: int
    x86: int
    arm64: int


@dataclass(frozen=True)
class Comparison:
    """What is given by machine has the keys x86 and arm64.

    inputs_equal                every byte that the runtime was given, after preprocessing
    program_agreement_percent   None for images whose logits the program did not record
    machine, ops                of the ARM64 run, as the harness says
    """

    images: int
    inputs_equal: bool
    top1_percent: dict[str, float]
    program_agreement_percent: dict[str, float | None]
    differences: tuple[Difference, ...]
    machine: dict[str, Any]
    ops: dict[str, Any]

    @property
    def predictions_that_differ(self) -> int:
        return sum(each.x86 != each.arm64 for each in self.differences)


def emulated_harness() -> tuple[Path, Path]:
    """Program and LiteRT of `make test-arm64`. Raises ToolMissing where they were not built."""
    program = BUILD / "targets" / "harness" / "edgevit-harness-emulated"
    runtime = SYSROOT / "libLiteRt.so"
    if not (program.exists() and runtime.exists()):
        raise ToolMissing(f"{program} is not there: `make test-arm64` builds it")
    return program, runtime


def compare(artifact: Path, data: Path, work: Path, limit: int | None = None) -> Comparison:
    """Runs the artifact on the images twice; `work` takes logits and inputs of both."""
    program, runtime = emulated_harness()
    there = _run(artifact, data, work / "arm64", limit, harness=program, runtime=runtime)
    here = _run(artifact, data, work / "x86", limit)
    both = {"x86": here, "arm64": there}
    scale = json.loads((artifact / "manifest.json").read_text())["outputs"][0]["scale"]
    a, b = here["logits"], there["logits"]
    if a["paths"].tobytes() != b["paths"].tobytes():
        raise AssertionError("the two runs had other images")
    steps = np.rint(np.abs(a["logits"] - b["logits"]).max(axis=1) / scale).astype(int)
    names = a["paths"].tobytes().decode().split("\n")
    differences = tuple(
        Difference(names[i], int(steps[i]), int(a["predictions"][i]), int(b["predictions"][i]))
        for i in np.nonzero(steps)[0]
    )
    return Comparison(
        images=len(steps),
        inputs_equal=np.array_equal(here["inputs"]["inputs"], there["inputs"]["inputs"]),
        top1_percent={name: _top1_percent(run, "accuracy") for name, run in both.items()},
        program_agreement_percent={
            name: _top1_percent(run, "agreement") for name, run in both.items()
        },
        differences=differences,
        machine=there["facts"]["machine"],
        ops=there["facts"]["ops"],
    )


def _top1_percent(run: dict[str, Any], what: str) -> float | None:
    return (run["facts"][what] or {}).get("top1_percent")


def _run(
    artifact: Path, data: Path, work: Path, limit: int | None, harness: Path | None = None,
    runtime: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    work.mkdir(parents=True)
    logits, inputs = work / "logits.safetensors", work / "inputs.safetensors"
    request = HarnessRequest(
        artifact, data, logits=logits, dump_inputs=inputs, runtime=runtime, warmup=1, limit=limit
    )
    facts = run_harness(request, harness)
    return {"facts": facts, "logits": load_file(logits), "inputs": load_file(inputs)}
