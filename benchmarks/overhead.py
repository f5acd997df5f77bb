"""What libedgevit adds to the bare call of the runtime, at 224 px with LiteRT on the CPU.

    python benchmarks/overhead.py [--pairs 400] [--image-size 224] [--build DIR]

The INT8 RepViT-M0.9 of benchmarks/latency.py (1000 classes, one thread). overhead.cpp times the
bare call and set_input + invoke + top-5 through the C API in pairs; the figure is the median of the
pairs' ratios. The time outside the runtime's call is measured by itself too, because on a shared
machine two inferences differ by more than what is looked for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from common import ROOT, machine, write_result
from latency import make_program

PROGRAM = "edgevit-overhead"


def build(folder: Path) -> Path:
    """The C++ program, compiled in release mode."""
    configure = ["cmake", "-S", ROOT, "-B", folder, "-DBUILD_TESTING=OFF"]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    compile_ = ["cmake", "--build", folder, "--target", PROGRAM]
    subprocess.run(compile_, check=True, stdout=subprocess.DEVNULL)
    return folder / "benchmarks" / PROGRAM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "harness")
    given = parser.parse_args()
    from edgevit.measure.harness import find_runtime
    from edgevit.program import Program
    from edgevit.targets import load_target

    runtime = find_runtime("tflite")
    if runtime is None:
        parser.error("the LiteRT wheel is not installed, or EDGEVIT_LITERT_LIB is set: unset it")
    before = machine()
    program = build(given.build)
    with tempfile.TemporaryDirectory() as name:
        evq, artifact = Path(name) / "m.evq", Path(name) / "tflite"
        make_program(given.image_size).save(evq)
        load_target("tflite").compile(Program.load(evq), artifact)
        command = [program, artifact, runtime, str(given.pairs)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout)
    bare_us = figures["bare_invoke_us"]["median"]
    figures["outside_invoke_percent_of_bare"] = (
        100 * figures["outside_invoke_us"]["median"] / bare_us
    )
    print(json.dumps(figures, indent=2))
    write_result(f"overhead-{given.image_size}px", {"threads": 1, **figures}, before)


if __name__ == "__main__":
    main()
