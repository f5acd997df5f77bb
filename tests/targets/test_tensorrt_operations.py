"""Every operation in the TensorRT target's ONNX: written, read back, and run by ONNX Runtime.

ONNX Runtime stands in for TensorRT, which no machine here has: it says whether the file means what
the program means, not how TensorRT rounds.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevit.errors import EdgevitError, InputError
from edgevit.graph import Graph
from edgevit.graph.execute import Executor
from edgevit.graph.passes import fuse_activations
from edgevit.ops import BY_KIND, OPERATIONS, Fixed, Sigmoid
from edgevit.program import Program
from edgevit.targets.qdq.emit import EMITTERS
from edgevit.targets.qdq.runner import open_session, with_outputs
from edgevit.targets.qdq.write import output_names
from edgevit.targets.tensorrt import TARGET
from edgevit.targets.tensorrt.lint import lint
from edgevit.targets.tensorrt.options import TensorrtOptions
from edgevit.targets.tensorrt.place import dropped
from edgevit.targets.tensorrt.read import read_onnx
from edgevit.targets.tensorrt.write import Form, write_onnx
from tests.operation_programs import LABELS, any_program, operation_graph
from tests.programs import seeded_images
from tests.random_graphs import random_program

OPTIONS = (
    TensorrtOptions(),
    TensorrtOptions(io="float32", compute_precision="float32"),
    TensorrtOptions(precision="float16"),
)


def traced_program(label: str, seed: int) -> Program:
    """The program of a form, its ReLUs fused as `trace` fuses them."""
    return any_program(fuse_activations(operation_graph(label, seed)), seed)


def test_every_operation_has_an_emitter() -> None:
    assert set(EMITTERS) == set(OPERATIONS)


@pytest.mark.parametrize("label", LABELS)
def test_what_is_written_is_read_and_linted(label: str) -> None:
    program = traced_program(label, 0)
    for options in OPTIONS:
        data = TARGET.write(program, options)
        TARGET.audit(data, program)
        TARGET.check(data, program, options)


@pytest.mark.parametrize("seed", range(12))
def test_random_nets_are_read_as_they_were_written(seed: int) -> None:
    program = random_program(seed, softmax=seed % 4 == 0)
    if refused := _kept_gate(program.graph()):
        with pytest.raises(InputError, match=f"{refused}: zero-point -128"):
            TARGET.write(program, OPTIONS[0])
        return
    for options in OPTIONS:
        data = TARGET.write(program, options)
        TARGET.audit(data, program)
        assert options.precision == "float16" or lint(data, strict=True) == []


def _kept_gate(graph: Graph) -> str | None:
    """The first tensor in 0…1 whose pair cannot be left out."""
    found = dropped(graph)
    gates = [
        node.name
        for node in graph.nodes
        if isinstance(node.rule, Fixed)
        and node.rule.quantizer.zero_point
        and node.name not in found
    ]
    return gates[0] if gates else None


def steps_off(program: Program, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Differences of each operation of the ONNX with every pair, in steps of the program's output.

    Each is given the inputs that the ONNX itself computed.
    """
    graph = program.graph()
    # A symmetric INT8 has no zero-point: pairs of what lies in 0…1 cannot be written.
    reasons = {n.name: "0…1" for n in graph.nodes if isinstance(n.rule, Fixed)}
    kind = np.dtype(np.float32)
    form = Form(inner=kind, outer=kind, outputs=output_names(graph), dropped=reasons)
    data = write_onnx(graph, form, "all pairs", {})
    held = read_onnx(data).tensors
    names = [name for name in held if name != "input" or held[name].endswith(".q")]
    session = open_session(with_outputs(data, [held[name] for name in names]), "all pairs")
    rows = [session.run(None, {"input": image[None].numpy()}) for image in images]
    values = {
        name: torch.from_numpy(np.concatenate([row[place] for row in rows]))
        for place, name in enumerate(names)
    }
    executor, found = Executor(graph), {}
    for node in graph.nodes:
        if any(name not in values for name in (*node.inputs, node.name)):
            continue
        if {*node.inputs, node.name} & set(reasons):
            continue
        given, made = ([_int8(values[name], graph, name) for name in names_]
                       for names_ in (node.inputs, (node.name,)))  # fmt: skip
        off = executor.step(node, given).int() - made[0].int()
        found[f"{node.kind} {node.name}"] = off.abs().numpy()
    return found


def _int8(values: torch.Tensor, graph: Graph, name: str) -> torch.Tensor:
    if values.dtype == torch.int8:
        return values
    quantizer = graph.quantizer(name)
    return ((values / quantizer.scale).round() + quantizer.zero_point).to(torch.int8)


@pytest.mark.parametrize("label", LABELS)
def test_onnx_runtime_computes_what_the_program_does(label: str) -> None:
    """Exactly, but for what the target declares: how ONNX Runtime's own kernels round."""
    for seed in range(2):
        program = traced_program(label, seed)
        for name, off in steps_off(program, seeded_images(4, 16, seed)).items():
            allowed = TARGET.tolerance_steps.get(BY_KIND[name.split()[0]], 0)
            assert off.max() <= allowed, (label, seed, name, off.max(), (off > 0).mean())


def test_several_outputs_of_any_rank_have_names_of_their_own() -> None:
    graph = operation_graph("kept quantizers", 3)
    several = Graph(graph.input_shape, graph.nodes, (graph.nodes[0].name, graph.nodes[3].name,
                                                     graph.outputs[0]))  # fmt: skip
    program = any_program(several)
    for options in OPTIONS:
        data = TARGET.write(program, options)
        reading, _ = TARGET.audit(data, program)
        assert reading.outputs == tuple(f"{name}.output" for name in several.outputs)
        session = open_session(data, "several")
        assert [tuple(o.shape) for o in session.get_outputs()] == [
            several.shape(name) for name in several.outputs
        ]


def test_a_sigmoid_that_a_convolution_reads_is_refused_by_name() -> None:
    graph = operation_graph("sigmoid", 0)
    conv = operation_graph("conv", 0).nodes[1]
    from dataclasses import replace

    last = replace(conv, name="after", module="after", inputs=(graph.outputs[0],))
    program = any_program(Graph(graph.input_shape, (*graph.nodes, last), ("after",)))
    (gate,) = [node.name for node in graph.nodes if isinstance(node, Sigmoid)]
    with pytest.raises(InputError, match=f"{gate}: zero-point -128; TensorRT's INT8 is symmetric"):
        TARGET.write(program, TensorrtOptions())


@pytest.mark.parametrize("label", ["conv dilated", "max_pool2d 3/2", "resize bilinear", "pad",
                                   "slice rows", "conv_transpose 4/2"])  # fmt: skip
def test_a_changed_attribute_or_input_is_found_and_named(label: str) -> None:
    import onnx

    program = traced_program(label, 0)
    data = TARGET.write(program, TensorrtOptions())
    name = program.graph().nodes[-1].name
    changed = 0
    for node in onnx.load_model_from_string(data).graph.node:
        if not node.name.startswith(name) or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for attribute in node.attribute:
            if attribute.name in ("kernel_shape", "mode", "nearest_mode", "axis"):
                continue
            model = onnx.load_model_from_string(data)
            (found,) = [n for n in model.graph.node if n.name == node.name]
            (edited,) = [a for a in found.attribute if a.name == attribute.name]
            if edited.ints:
                edited.ints[0] += 1
            elif edited.type == onnx.AttributeProto.INT:
                edited.i += 1
            else:
                continue
            changed += 1
            with pytest.raises(EdgevitError, match=name.replace(".", r"\.")):
                TARGET.audit(model.SerializeToString(), program)
        for place, source in enumerate(node.input):
            model = onnx.load_model_from_string(data)
            constants = {c.name: c for c in model.graph.initializer}
            if source not in constants or constants[source].data_type != onnx.TensorProto.INT64:
                continue
            values = onnx.numpy_helper.to_array(constants[source]).copy()
            values.flat[-1] += 1
            constants[source].CopyFrom(onnx.numpy_helper.from_array(values, source))
            changed += 1
            with pytest.raises(EdgevitError):
                TARGET.audit(model.SerializeToString(), program)
            assert place
    assert changed
