"""Activations as tables: float operators that XNNPACK folds, and the int8 values stay the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema

from edgevit.errors import EdgevitError
from edgevit.graph import Graph
from edgevit.graph.execute import Executor
from edgevit.ops import INT8_MAX, INT8_MIN, Gelu, HardSwish, Node, Quantizer
from edgevit.program import Program
from edgevit.targets.tflite import TARGET
from edgevit.targets.tflite.emit_table import rounds_surely
from edgevit.targets.tflite.options import IO_TYPES, IoType
from tests.programs import make_program, seeded_images, with_graph
from tests.targets.tflite_files import (
    Change,
    Model,
    int8_input,
    operator_names,
    read_model,
    rewired,
    tflite_bytes,
)

PAIRS = 60
VALUES = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int8)
NEAR_AN_EDGE = Quantizer(0.09375, 0), Quantizer(0.0625, 0)
"""GELU is x where x is large, and 3 / 2 of an odd number of steps is a tie."""


def alone(kind: type[Node], source: Quantizer, result: Quantizer) -> Program:
    """A program of one activation over the 256 values of int8, three times."""
    node = kind(name="act", inputs=("input",))
    graph = Graph((1, 3, 16, 16), (node,), ("act",), {"input": source, "act": result})
    return with_graph(make_program(16), graph)


def random_pair(random: np.random.Generator) -> tuple[Quantizer, Quantizer]:
    """Scales that fp16 holds, as a program has them, of inputs of up to 2 to 24."""
    scale, share = random.uniform(2, 24) / 128, random.uniform(0.3, 1.5)
    source, result = (float(np.float16(each)) for each in (scale, scale * share))
    zero_points = random.integers(-128, 100, 2) * random.integers(0, 2)
    return Quantizer(source, int(zero_points[0])), Quantizer(result, int(zero_points[1]))


def pairs(kind: type[Node]) -> list[tuple[Quantizer, Quantizer]]:
    random = np.random.default_rng(0)
    found = [random_pair(random) for _ in range(PAIRS)]
    return [pair for pair in found if rounds_surely(kind, *pair)]


def values_of(program: Program, builtin: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """What the file and what the program make of every int8 value."""
    image = np.repeat(VALUES.reshape(1, 16, 16, 1), 3, axis=3)
    held = torch.tensor(image).permute(0, 3, 1, 2)
    graph = program.graph()
    wanted = Executor(graph).step(graph.node("act"), [held]).permute(0, 2, 3, 1).numpy()
    return Model(tflite_bytes(program), builtin)(image)[0], wanted[0]


def partitions(data: bytes) -> int:
    """How many parts of the graph XNNPACK has taken, each of which is one node then."""
    nodes = Model(data).interpreter._get_ops_details()
    return sum(node["op_name"] == "DELEGATE" for node in nodes)


@pytest.mark.parametrize("builtin", [False, True], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("kind", [Gelu, HardSwish])
def test_a_table_has_the_programs_256_values(kind: type[Node], builtin: bool) -> None:
    tried = pairs(kind)
    assert len(tried) > PAIRS / 2
    for pair in tried:
        program = alone(kind, *pair)
        assert "DEQUANTIZE" in operator_names(read_model(tflite_bytes(program)))
        found, wanted = values_of(program, builtin)
        assert np.array_equal(found, wanted), pair


def test_near_a_rounding_edge_a_gelu_stays_int8() -> None:
    program = alone(Gelu, *NEAR_AN_EDGE)
    assert not rounds_surely(Gelu, *NEAR_AN_EDGE)
    assert operator_names(read_model(tflite_bytes(program))) == ["GELU"]
    TARGET.audit(tflite_bytes(program), program)


def test_near_a_rounding_edge_a_hard_swish_is_a_table_still() -> None:
    """TFLite's own int8 HARD_SWISH is no nearer."""
    source = Quantizer(0.09375, 0)
    pair = source, NEAR_AN_EDGE[1]
    assert not rounds_surely(HardSwish, *pair)
    program = alone(HardSwish, *pair)
    names = operator_names(read_model(tflite_bytes(program)))
    assert names == ["DEQUANTIZE", "HARD_SWISH", "QUANTIZE"]
    found, wanted = values_of(program)
    assert np.abs(found.astype(int) - wanted).max() <= TARGET.tolerance_steps[HardSwish]


def test_the_margin_is_what_float32_kernels_need() -> None:
    """A pair is refused only for an entry that is within the error of an edge."""
    random, refused = np.random.default_rng(1), 0
    for _ in range(300):
        source, result = random_pair(random)
        x = (VALUES.astype(int) - source.zero_point) * source.scale
        steps = Gelu.curve(x) / result.scale
        distance = np.abs(steps - np.floor(steps) - 0.5) * result.scale / np.maximum(np.abs(x), 1)
        if not rounds_surely(Gelu, source, result):
            assert distance.min() < 1e-6
            refused += 1
    assert 0 < refused < 30


@pytest.mark.parametrize("io", IO_TYPES)
def test_floats_are_inside_tables_alone(io: IoType) -> None:
    program = make_program()
    gelus = {n.name for n in program.graph().nodes if isinstance(n, Gelu)}
    data = tflite_bytes(program, io)
    model = read_model(data)
    names = [tensor.name.decode() for tensor in model.subgraphs[0].tensors]
    floats = {
        names[i]
        for i, tensor in enumerate(model.subgraphs[0].tensors)
        if tensor.type == schema.TensorType.FLOAT32
    }
    edges = {names[i] for i in (*model.subgraphs[0].inputs, *model.subgraphs[0].outputs)}
    inside = {f"{name}.{part}" for name in gelus for part in ("input", "result")}
    assert floats - edges == inside and len(floats & edges) == (2 if io == "float32" else 0)
    count = Counter(operator_names(model))
    at_edges = {"int8": (0, 0), "uint8": (2, 0), "float32": (1, 1)}[io]
    assert count["GELU"] == len(gelus)
    assert (count["QUANTIZE"], count["DEQUANTIZE"]) == tuple(len(gelus) + n for n in at_edges)


@pytest.mark.parametrize("activation", ["gelu", "hard-swish"])
def test_a_net_of_tables_is_one_partition(activation: str) -> None:
    program = make_program(activation=activation)
    cuts = sum(isinstance(n, Gelu | HardSwish) for n in program.graph().nodes)
    assert partitions(tflite_bytes(program)) == 1
    assert partitions(tflite_bytes(program, activations="operator")) == cuts + 1


@pytest.mark.parametrize("builtin", [False, True], ids=["xnnpack", "builtin"])
def test_both_forms_give_the_same_logits(builtin: bool) -> None:
    program = make_program()
    images = int8_input(program, seeded_images(4, 64))
    table, operator = (
        Model(tflite_bytes(program, activations=form), builtin)(images)
        for form in ("table", "operator")
    )
    assert np.array_equal(table, operator) and len(np.unique(table, axis=0)) > 1


@pytest.mark.parametrize("activation", ["gelu", "hard-swish"])
def test_both_forms_are_read_as_the_program(activation: str) -> None:
    program = make_program(activation=activation)
    for form in ("table", "operator"):
        reading, compared = TARGET.audit(tflite_bytes(program, activations=form), program)
        assert compared.activations == len(program.graph().owners())
        assert not [name for name in reading.tensors if name.endswith((".input", ".result"))]


ACT, OTHER = "stem.act1", "stages.0.blocks.0.channel_mixer.act"


def _scaled(o: dict[str, Any], t: dict[str, int]) -> None:
    """The float result gets a scale, which only an int8 tensor may have."""
    o[""].tensors[t[f"{ACT}.result"]].quantization = o[""].tensors[t[ACT]].quantization


def _approximate(o: dict[str, Any], t: dict[str, int]) -> None:
    o[f"{ACT}.result"].builtinOptions.approximate = True


def _read_twice(o: dict[str, Any], t: dict[str, int]) -> None:
    o[f"{OTHER}.result"].inputs = [t[f"{ACT}.input"]]


def _another_result(o: dict[str, Any], t: dict[str, int]) -> None:
    o[ACT].inputs = [t[f"{OTHER}.result"]]


def _another_source(o: dict[str, Any], t: dict[str, int]) -> None:
    o[f"{ACT}.input"].inputs = [t["input"]]


def _no_activation(o: dict[str, Any], t: dict[str, int]) -> None:
    o[ACT].inputs = [t[f"{ACT}.input"]]


def _another_shape(o: dict[str, Any], t: dict[str, int]) -> None:
    o[""].tensors[t[f"{ACT}.result"]].shape = [1, 32, 16, 8]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (f"{ACT}.result", _approximate),
        (f"{ACT}.result", _scaled),
        (f"{ACT}.result", _another_shape),
        (f"{ACT}.input", _read_twice),
        (f"{ACT}.input", _another_source),
        (f"{OTHER}.input", _another_result),
        (ACT, _no_activation),
    ],
)
def test_the_audit_sees_how_a_table_is_wired(name: str, change: Change) -> None:
    program = make_program()
    with pytest.raises(EdgevitError, match="scale audit: ") as error:
        TARGET.audit(rewired(change, program), program)
    assert name in str(error.value)
    TARGET.audit(rewired(lambda o, t: None, program), program)
