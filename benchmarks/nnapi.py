"""How NNAPI would divide RepViT-M0.9 at 224 px, by activation, Android's API and delegate limit.

NNAPI is for Android 14 and older; Android 15 deprecated it.

    python benchmarks/nnapi.py [--image-size 224]

TFLite's real delegate over a driver of our own that takes every operation of its feature level
(tests/nnapi/check.py): no phone is involved, and no time is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import ROOT, machine, write_result
from latency import make_program

sys.path.insert(0, str(ROOT))
from tests.nnapi.check import DEFAULT_LIMIT, LAST_OPERATION, NO_LIMIT, NnapiCheck


def checks(folder: Path) -> dict[str, NnapiCheck]:
    """One for each of Android's APIs, by a name such as "android_api_31"."""
    found = {}
    for api in LAST_OPERATION:
        (folder / str(api)).mkdir()
        found[f"android_api_{api}"] = NnapiCheck(folder / str(api), api)
    return found


def partitions(model: Path, by_api: dict[str, NnapiCheck]) -> dict[str, Any]:
    """By API: without a limit, and with the delegate's own, which keeps the largest partitions."""
    return {
        name: {
            "unlimited": asdict(check(model, NO_LIMIT)),
            "default_limit": asdict(check(model, DEFAULT_LIMIT)),
        }
        for name, check in by_api.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=224)
    given = parser.parse_args()
    from edgevit.choices import ACTIVATIONS
    from edgevit.targets.tflite import TARGET
    from edgevit.targets.tflite.options import TfliteOptions

    before = machine()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        by_api, figures = checks(work), {}
        for activation in ACTIVATIONS:
            program = make_program(given.image_size, activation)
            model = work / f"{activation}.tflite"
            model.write_bytes(TARGET.write(program, TfliteOptions(activations="operator")))
            figures[activation] = partitions(model, by_api)
            for api, found in figures[activation].items():
                whole, limited = found["unlimited"], found["default_limit"]
                print(
                    f"{activation:10} {api}: {whole['partitions']} partitions, "
                    f"{whole['delegated']} of {whole['nodes']} operators, left out "
                    f"{whole['left_out']}; with the delegate's limit {limited['delegated']}"
                )
    write_result("nnapi", {"image_size": given.image_size, "activations": figures}, before)


if __name__ == "__main__":
    main()
