"""Every operation in the ONNX target's file: written, read back, and run by ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgevit.graph import Graph, float_graph, quantize_graph
from edgevit.graph.execute import Executor
from edgevit.graph.passes import fuse_activations
from edgevit.ops import BY_KIND, Quantizer
from edgevit.program import Program
from edgevit.targets.onnx import TARGET
from edgevit.targets.onnx.options import OnnxOptions
from edgevit.targets.onnx.read import read_onnx
from edgevit.targets.onnx.session import settings_of
from edgevit.targets.qdq.runner import open_session, with_outputs
from tests.operation_programs import LABELS, any_program, operation_graph
from tests.programs import make_program, seeded_images, with_graph
from tests.random_graphs import random_program

PROFILES = ("portable", "asymmetric")
OPTIONS = (
    OnnxOptions(),
    OnnxOptions(activation_type="uint8", io="int8", opset="21"),
    OnnxOptions(io="uint8", opset="22"),
    OnnxOptions(activation_type="uint8", io="uint8"),
    OnnxOptions(precision="float32"),
)
EXACT = tuple(OnnxOptions(activation_type=kind) for kind in ("int8", "uint8"))


def traced_program(label: str, seed: int, profile: str) -> Program:
    """The program of a form, its ReLUs fused as `trace` fuses them."""
    return any_program(fuse_activations(operation_graph(label, seed)), seed, profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("label", LABELS)
def test_what_is_written_is_read(label: str, profile: str) -> None:
    program = traced_program(label, 0, profile)
    for options in OPTIONS:
        TARGET.audit(TARGET.write(program, options), program)


@pytest.mark.parametrize("seed", range(12))
def test_random_nets_are_read_as_they_were_written(seed: int) -> None:
    program = random_program(seed, softmax=seed % 4 == 0)
    for options in OPTIONS:
        TARGET.audit(TARGET.write(program, options), program)


def steps_off(
    program: Program, options: OnnxOptions, images: torch.Tensor
) -> dict[str, np.ndarray]:
    """Differences of each operation of the file from the program's, in steps of its output.

    Each is given the inputs that the file itself computed.
    """
    graph = program.graph()
    data = TARGET.write(program, options)
    held = read_onnx(data).tensors
    names = ["input", *(node.name for node in graph.nodes)]
    session = open_session(with_outputs(data, [held[n] for n in names]), "", settings_of(options))
    rows = [session.run(None, {"input": image[None].numpy()}) for image in images]
    values = {}
    for place, name in enumerate(names):
        found = np.concatenate([row[place] for row in rows])
        shift = 128 if found.dtype == np.uint8 else 0
        values[name] = torch.from_numpy((found.astype(np.int16) - shift).astype(np.int8))
    executor, off = Executor(graph), {}
    for node in graph.nodes:
        expected = executor.step(node, [values[name] for name in node.inputs]).int()
        off[f"{node.kind} {node.name}"] = (expected - values[node.name].int()).abs().numpy()
    return off


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("label", LABELS)
def test_onnx_runtime_computes_what_the_program_does(label: str, profile: str) -> None:
    """Every value of every operation, exactly."""
    program = traced_program(label, 1, profile)
    for options in EXACT:
        for name, off in steps_off(program, options, seeded_images(4, 16, 1)).items():
            assert off.max() == 0, (label, options, name, off.max(), (off > 0).mean())


@pytest.mark.parametrize("label", LABELS)
def test_on_scales_with_ties_the_tolerance_holds(label: str) -> None:
    """Scales of one and two bits, which no quantizing chooses, but a program may hold."""
    program = traced_program(label, 2, "portable")
    graph = program.graph()

    def coarse(name: str, quantizer: Quantizer) -> Quantizer:
        if graph.fixed(name) is not None:
            return quantizer
        unit = 2.0 ** round(np.log2(quantizer.scale))
        return replace(quantizer, scale=unit * (1.5 if len(name) % 2 else 1.0))

    scales = {name: coarse(name, q) for name, q in graph.activations().items()}
    weights = {node.module: node.weight_scale for node in graph.weighted()}
    tied = with_graph(
        make_program(16), quantize_graph(float_graph(graph), scales, weights, "portable")
    )
    for options in EXACT:
        for name, off in steps_off(tied, options, seeded_images(4, 16, 2)).items():
            allowed = TARGET.tolerance_steps.get(BY_KIND[name.split()[0]], 0)
            assert off.max() <= allowed, (label, options, name, off.max(), (off > 0).mean())


@pytest.mark.parametrize("seed", range(6))
def test_random_nets_are_computed_as_their_programs(seed: int) -> None:
    program = random_program(seed, softmax=seed % 4 == 0)
    for options in EXACT:
        for name, off in steps_off(program, options, seeded_images(2, 32, seed)).items():
            assert off.max() == 0, (seed, options, name, off.max(), (off > 0).mean())


def test_several_outputs_of_any_rank_have_names_and_types_of_their_own() -> None:
    graph = operation_graph("kept quantizers", 3)
    chosen = (graph.nodes[0].name, graph.nodes[3].name, graph.outputs[0])
    program = any_program(Graph(graph.input_shape, graph.nodes, chosen), profile="asymmetric")
    for io in ("int8", "uint8", "float32"):
        for kind in ("int8", "uint8"):
            options = OnnxOptions(io=io, activation_type=kind)
            data = TARGET.write(program, options)
            reading, _ = TARGET.audit(data, program)
            assert reading.outputs == tuple(f"{name}.output" for name in chosen)
            session = open_session(data, "several", settings_of(options))
            types = {"int8": "tensor(int8)", "uint8": "tensor(uint8)", "float32": "tensor(float)"}
            assert {each.type for each in session.get_outputs()} == {types[io]}


@pytest.mark.parametrize("label", ["conv dilated", "max_pool2d 3/2", "resize bilinear", "pad",
                                   "slice rows", "conv_transpose 4/2"])  # fmt: skip
def test_every_operation_of_a_graph_has_its_pair(label: str) -> None:
    import onnx

    program = traced_program(label, 0, "portable")
    model = onnx.load_model_from_string(TARGET.write(program, OnnxOptions()))
    kinds = [node.op_type for node in model.graph.node]
    pairs = len(program.graph().nodes) + 1
    weighted = len(program.graph().weighted())
    assert kinds.count("QuantizeLinear") == pairs
    assert kinds.count("DequantizeLinear") == pairs + 2 * weighted
