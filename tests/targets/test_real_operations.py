"""Each operation alone with a real output, in every target's artifact; nothing reads the output, or
a ReLU does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevit.graph import Graph
from edgevit.graph.passes import fuse_activations
from edgevit.ops import Fixed, Mul, Relu
from edgevit.quantize.subject import with_output_types
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from tests.npu import OWN_FORMAT
from tests.operation_programs import IMAGE_SIZE, LABELS, any_program, operation_graph
from tests.programs import seeded_pixels

EXACT = ("tflite", "onnx")
"""Here their float32 differs from the program's by the order of sums only."""
SLOW = ("coreml",)
"""Converted in seconds: every sixth operation there, the others in the contract suite."""
CASES = [
    (target, label)
    for target in OWN_FORMAT
    for label in (LABELS[::6] if target in SLOW else LABELS)
]


def real_graph(label: str, read: bool) -> Graph:
    graph = fuse_activations(operation_graph(label, 0))  # as every traced net's are
    if read:
        source = graph.output_name
        # TensorRT leaves out the pair of a gate, which has a zero-point, where a product reads it.
        gate = isinstance(graph.node(source).rule, Fixed)
        more = (
            Mul(name="reader", inputs=(source, source))
            if gate
            else Relu(name="reader", inputs=(source,))
        )
        graph = graph.with_nodes([*graph.nodes, more], [graph.output_name, more.name])
    return with_output_types(graph, {"all": "float32"})


def test_what_moves_int8_values_has_no_real_form() -> None:
    assert all(real_graph(label, read=False).real_outputs for label in LABELS)
    kept = {label for label in LABELS if len(real_graph(label, read=True).real_outputs) < 2}
    assert kept == {
        "max_pool2d", "max_pool2d 3/2", "max_pool2d 5/1", "slice channels", "slice rows",
        "slice columns", "pad", "concat", "vectors",
    }  # fmt: skip


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize(("target", "label"), CASES)
def test_a_real_output_is_what_the_program_gives(
    target: str, label: str, read: bool, tmp_path: Path
) -> None:
    graph = real_graph(label, read)
    program, chosen = any_program(graph), load_target(target)
    info = program.info
    model = replace(info.model, classes=0)
    program = program.with_info(replace(info, model=model, labels=(), task="features"))
    chosen.compile(program, tmp_path / "out")  # audits what was written
    if target not in EXACT or not graph.real_outputs:
        return
    maps_last = chosen.maps_last
    pixels = seeded_pixels(2, IMAGE_SIZE)
    found = chosen.open_runner(load_artifact(tmp_path / "out")).outputs(pixels)
    expected = program.outputs(program.info.preprocessing.normalise(pixels))
    for (name, wanted), values in zip(expected.items(), found.values(), strict=True):
        if name in graph.real_outputs:
            moved = values.transpose(0, 3, 1, 2) if maps_last and wanted.ndim == 4 else values
            read_off = sum(  # by an operation that this runtime rounds otherwise
                chosen.tolerance_steps.get(type(graph.node(each)), 0)
                * program.graph().quantizer(each).scale
                for each in graph.node(name).inputs
                if each in graph.outputs
            )
            np.testing.assert_allclose(moved, wanted, rtol=1e-5, atol=2e-5 + read_off)
