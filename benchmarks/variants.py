"""RepViT's published variants in one table: size, compile time and latency for every target.

    python benchmarks/variants.py [--rounds 3] [--inferences 10] [--threads 1] [--image-size 224]
        [--program NAME=FILE.evq ...] [--data DIR] [--plot SVG] [--only NAME ...]

M0.6 to M2.3 with seeded random weights for TFLite and ONNX, int8 and float32. Core ML and TensorRT
have no runtime here: int8 artifacts of theirs give size and compile time. A --program is one more
row with real weights, at its own image size: its accuracy and agreement with float are those on
record in it, or, with --data, the ones that its artifacts are measured to have.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import machine, write_result

VARIANTS = (
    "repvit_m0_6", "repvit_m0_9", "repvit_m1_0", "repvit_m1_1", "repvit_m1_5", "repvit_m2_3",
)  # fmt: skip
RUN_HERE, SIZES_ONLY = ("tflite", "onnx"), ("coreml", "tensorrt")


def programs(words: list[str]) -> dict[str, Path]:
    found = {}
    for word in words:
        name, sign, path = word.partition("=")
        if not (name and sign and path) or name in found:
            sys.exit(f"--program {word}: give NAME=FILE.evq, each name once")
        found[name] = Path(path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inferences", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--program", action="append", default=[], metavar="NAME=FILE.evq")
    parser.add_argument("--data", type=Path, help="labelled images of the programs")
    parser.add_argument("--limit", type=int, help="of them")
    parser.add_argument("--plot", type=Path, help="an SVG to draw")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="variants")
    given = parser.parse_args()
    import edgevit
    from edgevit.console import print_table, say
    from edgevit.measure.benchmark_rows import HEADINGS, cells, notes
    from edgevit.progress import to_standard_error

    to_standard_error()
    before, real = machine(), programs(given.program)
    nets: dict[str, Any] = {name: name for name in given.only} | real
    options = {
        "rounds": given.rounds,
        "inferences": given.inferences,
        "threads": given.threads,
        "image_size": given.image_size,
    }
    accuracy = {"data": given.data, "limit": given.limit} if given.data else {}
    targets, precisions = (*RUN_HERE, *SIZES_ONLY), ("int8", "float32")
    found = edgevit.benchmark(nets, targets, precisions, **options, **accuracy)
    # A float artifact of the others is float16, and has no time here that it could be compared by.
    rows = [row for row in found.rows if row.target in RUN_HERE or row.precision == "int8"]
    found = replace(found, rows=tuple(rows))
    shown = [cells(row) for row in rows]
    print_table("RepViT's variants", shown, HEADINGS, right=range(3, len(HEADINGS)), min_width=190)
    for line in notes([row for row in rows if row.target in RUN_HERE]):
        say(line)
    if given.plot:
        found.plot(given.plot, force=True)
    name = "variants" + ("-some" if given.only != list(VARIANTS) else "")
    write_result(name, {"measured": found.to_json()}, before)


if __name__ == "__main__":
    main()
