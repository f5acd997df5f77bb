"""Accuracy on the full EuroSAT val split: float, PTQ, QAT and the artifact, for both profiles.

    python benchmarks/accuracy.py --train eurosat-train.tar --val eurosat-val.tar \\
        --checkpoint repvit_m0_9_eurosat64.pth [--work build/accuracy]

Runs the very commands a user runs: `edgevit quantize`, `compile`, `validate`. The val split is used
for the report only; the state to keep is selected on a tenth of the training images. About half
an hour a profile on one core; goes on from where it was when interrupted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from common import machine, write_result

EDGEVIT = [sys.executable, "-m", "edgevit"]
# One thread, so that the two profiles can be run side by side on two cores (--profiles); a run is
# repeated bit for bit only with the same number of threads.
RECIPE = [
    "--image-size", "64", "--augment", "dihedral", "--epochs", "6", "--snapped-share", "0.2",
    "--threads", "1",
]  # fmt: skip


def run(*arguments: str) -> float:
    """Run an edgevit command; seconds it took. A failed gate does not stop the benchmark."""
    start = time.monotonic()
    done = subprocess.run([*EDGEVIT, *arguments])
    if done.returncode not in (0, 3):
        sys.exit(done.returncode)
    return time.monotonic() - start


def one_run(work: Path, options: list[str], given: argparse.Namespace) -> dict[str, object]:
    """Quantize with the recipe and these options, compile, validate; all of it into `work`."""
    program, artifact = work / "model.evq", work / "tflite"
    work.mkdir(parents=True, exist_ok=True)
    quantize = [
        "quantize", str(given.checkpoint), "--data", str(given.train), "--eval-data",
        str(given.val), *RECIPE, *options, "-o", str(program),
    ]  # fmt: skip
    if not program.exists():
        run(*quantize)
    if not program.exists():
        sys.exit(f"the gate failed for {' '.join(options)}: no program was written")
    compile_s = run("compile", str(program), "--target", "tflite", "-o", str(work), "--force")
    run("validate", str(artifact), "--data", str(given.val), "--force")
    validation = json.loads((artifact / "validation.json").read_text())
    result = validation["result"]
    from edgevit.program import Program

    info = Program.load(program).info
    return {
        "command": "edgevit " + " ".join(Path(a).name if "/" in a else a for a in quantize),
        "compile_with_start_up_s": compile_s,
        "stages": {m.name: 100 * m.value for m in info.metrics},
        "images": result["accuracy"]["count"],
        "artifact_top1": result["accuracy"]["top1_percent"],
        "artifact_program_agreement": result["agreement"]["top1_percent"],
        "artifact_float_agreement": result["agreement_float"]["top1_percent"],
        "accuracy_gate": validation["accuracy_gate"],
        "artifact_bytes": (artifact / "model.tflite").stat().st_size,
        "selection": info.provenance["selection"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "val", "checkpoint"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"))
    parser.add_argument("--profiles", nargs="+", default=["portable", "asymmetric"])
    given = parser.parse_args()
    before = machine()
    figures = {
        profile: one_run(given.work / profile, ["--profile", profile], given)
        for profile in given.profiles
    }
    write_result("accuracy", {"profiles": figures}, before)


if __name__ == "__main__":
    main()
