"""How often the HTP's result of an operation is not the program's: by its x86 emulator.

    python benchmarks/htp.py [--program M.evq --images 8] [--arch 68 --arch 75]

Each operation is given the int8 values that the emulator had in front of it, so that a difference
is its own: of seeded programs of a few operations (tests/operation_programs.py), and of the trained
program where one is given, on embedded validation images spread evenly. "reference" counts the
values in which edgevit.targets.qnn.reference is not the emulator; none are to be. Of the trained
program the logits of `--images` images are compared too, by a session without inner outputs.
Nothing here has run on a device.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, machine, write_result

sys.path.insert(0, str(ROOT))

from edgevit.errors import InputError
from edgevit.graph.execute import Executor
from edgevit.graph.passes import fuse_activations
from edgevit.ops import Node, Weighted
from edgevit.program import Program
from edgevit.targets.qnn.emulator import ARCHS, HtpArch, HtpSettings, versions
from edgevit.targets.qnn.reference import HtpReference, missing_rule
from tests.operation_programs import LABELS, any_program, operation_graph
from tests.programs import real_images, seeded_images
from tests.targets.qnn_emulated import emulated, int8_input

PROFILES = ("portable", "asymmetric")


def kind_of(node: Node) -> str:
    """Its name in the table."""
    words = [node.kind]
    if getattr(node, "depthwise", False):
        words.append("depthwise")
    if max(getattr(node, "stride", (1,))) > 1:
        words.append("strided")
    if isinstance(node, Weighted) and node.activation is not None:
        words.append(f"and {node.activation.kind}")
    return " ".join(words)


class Table:
    """Counts by operation."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def add(self, program: Program, values: np.ndarray, settings: HtpSettings) -> None:
        import torch

        graph, executor = program.graph(), Executor(program.graph())
        found = emulated(program, values, settings)
        steps: dict[str, Any] = {}
        with contextlib.suppress(InputError):  # of a form without a rule: its row says so
            steps = {node.name: step for node, step in HtpReference(graph, settings.arch).steps}
        for node in graph.nodes:
            inputs = [found[name] for name in node.inputs]
            result = found[node.name].astype(np.int64)
            expected = executor.step(node, [torch.from_numpy(x) for x in inputs]).numpy()
            row = self.rows.setdefault(kind_of(node), _empty())
            off = np.abs(result - expected)
            row["values"] += off.size
            row["differ_from_program"] += int((off > 0).sum())
            row["max_steps"] = max(row["max_steps"], int(off.max()))
            quantizers = [graph.quantizer(name) for name in node.inputs]
            if missing_rule(node, quantizers, graph.quantizer(node.name)):
                row["rule"] = False
            elif node.name in steps:
                row["compared_with_reference"] += off.size
                row["differ_from_reference"] += int((result != steps[node.name](*inputs)).sum())

    def done(self) -> dict[str, dict[str, Any]]:
        for row in self.rows.values():
            share = 100 * row["differ_from_program"] / row["values"]
            row["differ_percent"] = round(share, 4)
        return dict(sorted(self.rows.items()))


def _empty() -> dict[str, Any]:
    return {
        "values": 0, "differ_from_program": 0, "max_steps": 0, "compared_with_reference": 0,
        "differ_from_reference": 0, "rule": True,
    }  # fmt: skip


def operations(arch: HtpArch) -> dict[str, Any]:
    """Of seeded programs; what the HTP refuses is named."""
    table, refused = Table(), []
    for label in LABELS:
        for profile in PROFILES:
            program = any_program(fuse_activations(operation_graph(label, 1)), 1, profile)
            try:
                table.add(program, int8_input(program, seeded_images(2, 16, 1)), HtpSettings(arch))
            except InputError as error:
                refused.append(f"{label}, {profile}: {error}")
    return {"operations": table.done(), "refused": refused}


def trained(path: Path, count: int, archs: Iterable[HtpArch]) -> dict[str, Any]:
    """Of a trained program: its operations, and its logits."""
    from edgevit.project import EMBEDDED

    program = Program.load(path)
    graph = program.graph()
    side = program.info.model.image_size
    if not isinstance(side, int):
        raise InputError(f"{path}: the embedded images are squares")
    images = real_images(EMBEDDED / "val.tar", count, side)
    values, result = int8_input(program, images), {}
    (name,) = graph.outputs
    expected = program.run(images).numpy()
    for arch in archs:
        table = Table()
        table.add(program, values[: max(1, count // 4)], HtpSettings(arch))
        logits = emulated(program, values, HtpSettings(arch), all_tensors=False)[name]
        own = HtpReference(graph, arch)(values)[name]
        result[arch] = {
            "operations": table.done(),
            "images": count,
            "agreement_with_program_percent": _agreement(logits, expected),
            "logits": int(logits.size),
            "logits_not_as_the_reference": int((logits != own).sum()),
        }
        print(arch, {k: v for k, v in result[arch].items() if k != "operations"}, flush=True)
    return result


def _agreement(found: np.ndarray, expected: np.ndarray) -> float:
    return 100 * float((found.argmax(1) == expected.argmax(1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, help="a trained program of the embedded set's size")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--arch", choices=ARCHS, action="append", help="default: 68 and 75")
    given = parser.parse_args()
    before, start = machine(), time.perf_counter()
    archs: list[HtpArch] = given.arch or ["68", "75"]
    figures: dict[str, Any] = {"emulator": versions(), "seeded": {}}
    for arch in archs:
        figures["seeded"][arch] = found = operations(arch)
        for name, row in found["operations"].items():
            print(f"v{arch} {name}: {row}", flush=True)
    if given.program is not None:
        figures["trained"] = trained(given.program, given.images, archs)
    figures["seconds"] = round(time.perf_counter() - start, 1)
    write_result("htp", figures, before)


if __name__ == "__main__":
    main()
