"""The same artifacts on ARM64 (qemu, Cortex-A76) and on this machine: predictions, steps, inputs.

    make test-arm64      # builds the cross-compiled harness
    python benchmarks/arm64.py --data eurosat-val.tar build/accuracy/portable/tflite ...

An artifact's folder is named by its parent's name. No time is measured: qemu's says nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from common import ROOT, machine, write_result

sys.path.insert(0, str(ROOT))
from tests.arm64.check import Comparison, compare

LISTED = 50


def summary(found: Comparison) -> dict[str, Any]:
    """Counts, and the images whose predictions differ, by name."""
    steps = Counter(each.steps for each in found.differences)
    other = [vars(each) for each in found.differences if each.x86 != each.arm64]
    return {
        "images": found.images,
        "inputs_equal": found.inputs_equal,
        "predictions_that_differ": found.predictions_that_differ,
        "images_by_largest_logit_difference_in_steps": {
            "0": found.images - len(found.differences),
            **{str(size): steps[size] for size in sorted(steps)},
        },
        "first_images_with_another_prediction": other[:LISTED],
        "top1_percent": found.top1_percent,
        "program_agreement_percent": found.program_agreement_percent,
        "arm64": {"cpu": found.machine["cpu"], "ops": found.ops},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    before, figures = machine(), {}
    for artifact in given.artifacts:
        with tempfile.TemporaryDirectory() as work:
            name = artifact.resolve().parent.name
            figures[name] = summary(compare(artifact, given.data, Path(work), given.limit))
            print(name, figures[name])
    write_result("arm64", figures, before)


if __name__ == "__main__":
    main()
